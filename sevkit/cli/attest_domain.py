"""``sevkit attest domain``: a libvirt domain of SEV or SEV-ES, from its measurement to its run."""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from sevkit.abi.policy import SevPolicy, parse_sev_policy
from sevkit.abi.session import TransportKeys
from sevkit.attest.release import Accept, foresee_release, parse_accepted
from sevkit.attest.sev_domain import LOCAL_HYPERVISOR, DomainExpectations
from sevkit.attest.sev_explain import explain_launch
from sevkit.attest.sev_launch import LaunchExpectations
from sevkit.cli.base import Command
from sevkit.cli.files import check_new, refuse_shared_stdin
from sevkit.cli.launch_expected import check_launch_options, expected_digests, launch_options
from sevkit.cli.launch_options import hash_boot, read_firmware
from sevkit.cli.messages import warn
from sevkit.cli.render import show_verdict
from sevkit.cli.secret_options import parse_secrets, read_secret_table, secret_area_of
from sevkit.cli.session_files import (
    SessionFiles,
    check_session_options,
    read_session_files,
    session_options,
)
from sevkit.cli.values import FirmwareVersion
from sevkit.errors import FormatError, UsageError
from sevkit.guest_owner.domain import DomainOwner, SecretOffer, attest_domain
from sevkit.hypervisor.libvirt_uri import names_another_machine

if TYPE_CHECKING:
    from uuid import UUID

    from sevkit.attest.verdict import Verdict
    from sevkit.measure.reference import Reference
    from sevkit.secret import Secret

_ACCEPT: Final = click.Choice([*(accept.value for accept in Accept), LOCAL_HYPERVISOR])


@click.command(cls=Command, short_help="Attest a plain libvirt domain, and release its secret.")
@click.argument("name", metavar="NAME")
@click.option(
    "--connect", "uri", required=True, metavar="URI", help="The libvirt, e.g. qemu+ssh://h/system."
)
@session_options
@launch_options()
@click.option("--min-firmware", type=FirmwareVersion(), help="Oldest SEV firmware to accept.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="GUID=FILE",
    help="A secret to inject, and the GUID by which the guest finds it. May be repeated.",
)
@click.option(
    "--accept",
    "accepted",
    type=_ACCEPT,
    multiple=True,
    help="A risk that you take, as your firmware or your site deals with it. May be repeated.",
)
@click.option("--no-inject", is_flag=True, help="Decide as always, but inject no secret.")
@click.option("--no-unpause", "--no-resume", is_flag=True, help="Leave the domain paused.")
@click.option(
    "--explain/--no-explain",
    default=True,
    show_default=True,
    help="On a mismatch, search for parameters that fit; takes a second.",
)
@click.option("--html", metavar="FILE", help="Also write the verdict as a page for people.")
def command(name: str, uri: str, html: str | None, **given: Any) -> int:  # noqa: ANN401  # twenty options, read by name
    """Take a paused SEV or SEV-ES domain of libvirt through attestation, end to end.

    Reads the domain's XML and launch measurement, and judges both against your own firmware,
    session and expectations, as 'attest launch' does. Only if all of it is accepted, the secrets
    are injected and the domain is resumed; else it stays paused. Nothing is expected because the
    host says so.

    \b
    Refused with exit code 5 until --accept names the risk:
      unmeasured-variables  secrets, as the host keeps UEFI variables; a domain with <nvram>,
                            <varstore>, or a flash loader that is not stateless
      unmeasured-boot       secrets without --kernel; a direct boot without kernelHashes='yes'
      local-hypervisor      a hypervisor on this very machine, where your keys are the host's

    \b
    Example:
      sevkit attest domain ledger --connect qemu+ssh://host/system --session launch-1 \\
        --firmware OVMF.amdsev.fd --vcpus 4 --vcpu-type EPYC-Milan \\
        --kernel vmlinuz --initrd initrd.img --cmdline 'console=ttyS0' \\
        --accept unmeasured-variables --secret 736869e5-84f0-4973-92ec-06879ce3da0b=disk.key
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    named = _check_options(given, uri, html)
    session = read_session_files(given)
    given["policy"] = session.policy
    check_launch_options(given)
    firmware = read_firmware(given["firmware"])
    hashes = hash_boot(given["kernel"], given["initrd"], given["cmdline"])
    references = expected_digests(given, firmware, hashes)
    accepted = frozenset(given["accepted"])
    owner = DomainOwner(
        session.tik,
        references,
        _expectations(given, session, firmware),
        accepted,
        _offer(named, session, firmware, references, accepted),
        explain_launch(firmware, hashes, vcpus=given["vcpus"]) if given["explain"] else None,
    )
    if session.evidence.get("simulated") == "yes":
        warn("the session is for a simulated processor, whose guests are not confidential")
    verdict = _attest(uri, name, owner, inject=not given["no_inject"], given=given)
    whole = replace(verdict, evidence={**session.evidence, **verdict.evidence})
    return show_verdict(whole, html)


def _check_options(given: dict[str, Any], uri: str, html: str | None) -> list[tuple[UUID, str]]:
    named = parse_secrets(given["secrets"])
    if not uri:
        raise UsageError("--connect is empty", hint="libvirt would choose a hypervisor by itself")
    if not named and not given["no_inject"]:
        raise UsageError(
            "there is no secret to inject", hint="name one with --secret, or say --no-inject"
        )
    check_session_options(given, needs_tek=bool(named))
    files = [given[name] for name in ("tik", "tek", "firmware", "kernel", "initrd")]
    refuse_shared_stdin(*files, *given["vmsas"], *(path for _, path in named))
    if html is not None:  # before anything is done that a second try could not do again
        check_new(html)
    return named


def _expectations(
    given: dict[str, Any], session: SessionFiles, firmware: bytes
) -> DomainExpectations:
    es = SevPolicy.ES in parse_sev_policy(session.policy)
    return DomainExpectations(
        session.policy,
        # An empty command line is measured as none.
        frozenset(name for name in ("kernel", "initrd", "cmdline") if given[name]),
        (given["vcpus"] or len(given["vmsas"]) or None) if es else None,
        "" if session.document is None else session.document.session_sha256,
        "" if session.document is None else session.document.godh_sha256,
        LaunchExpectations(
            min_firmware=given["min_firmware"],
            firmware_sha256=hashlib.sha256(firmware).hexdigest(),
        ),
    )


def _offer(
    named: list[tuple[UUID, str]],
    session: SessionFiles,
    firmware: bytes,
    references: tuple[Reference, ...],
    accepted: frozenset[str],
) -> SecretOffer | None:
    """Return what would be released, or refuse it here, before the hypervisor is asked anything."""
    if not named:
        return None
    if session.tek is None:
        raise UsageError("secrets need the session's TEK")
    table = read_secret_table(named)
    area = secret_area_of(firmware)
    words = parse_accepted(accepted - {LOCAL_HYPERVISOR})
    foresee_release(references, words, area=area, table=table)
    return SecretOffer(table, _transport_keys(session.tik, session.tek), area)


def _transport_keys(tik: Secret, tek: Secret) -> TransportKeys:
    if tik == tek:
        raise FormatError("TEK", "is the same key as the TIK")
    return TransportKeys(tek=tek, tik=tik)


def _attest(
    uri: str, name: str, owner: DomainOwner, *, inject: bool, given: dict[str, Any]
) -> Verdict:
    from sevkit.hypervisor.libvirt_connection import LibvirtHypervisor  # noqa: PLC0415  # an extra

    with LibvirtHypervisor(uri) as hypervisor:
        return attest_domain(
            hypervisor,
            name,
            owner,
            own_names={socket.gethostname(), socket.getfqdn(), "localhost"},
            elsewhere=names_another_machine(uri),
            at=datetime.now(UTC),
            inject=inject,
            resume=not given["no_unpause"],
        )
