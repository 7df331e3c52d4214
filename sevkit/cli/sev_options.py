"""Options of the SEV and SEV-ES commands, and how their values and files are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from sevkit.abi.policy import parse_sev_policy
from sevkit.abi.sevca import CaChain, parse_ca_certificate, parse_ca_chain
from sevkit.abi.sevcert import Usage, parse_sev_certificate
from sevkit.abi.sevchain import PlatformChain, parse_chain_export
from sevkit.attest.sev_platform import PlatformExpectations
from sevkit.cli.files import read_file, refuse_shared_stdin, warn_if_exposed
from sevkit.cli.values import GuestPolicy, Sha256Hex
from sevkit.errors import FormatError, UsageError
from sevkit.kubevirt.subresources import parse_platform_info
from sevkit.secret import Secret

_Command = TypeVar("_Command", bound=Callable[..., object])

KEY_SIZE: Final = 16


policy_option: Final = click.option(
    "--guest-policy",
    "policy",
    type=GuestPolicy(parse_sev_policy),
    required=True,
    help="SEV guest policy, decimal or 0x hex: 1 for KubeVirt's SEV, 5 for SEV-ES.",
)


def platform_options(command: _Command) -> _Command:
    """Add the options that say which platform chain to verify, and against what."""
    for option in reversed(
        (
            click.option(
                "--chain",
                metavar="FILE",
                help="sevctl's export, or KubeVirt's SEVPlatformInfo JSON; '-' is standard input.",
            ),
            click.option("--pdh", metavar="FILE", help="Platform's Diffie-Hellman certificate."),
            click.option("--pek", metavar="FILE", help="Platform's endorsement certificate."),
            click.option("--oca", metavar="FILE", help="Platform owner's certificate."),
            click.option(
                "--cek",
                metavar="FILE",
                help="Chip's certificate signed by AMD; with --chain, in place of the chain's own.",
            ),
            click.option(
                "--ca",
                metavar="FILE",
                help="ASK and ARK in one file; else the chain's own, else the bundled ones.",
            ),
            click.option(
                "--root",
                "roots",
                metavar="FILE",
                multiple=True,
                help="Trust this ARK too (simulated hardware). May be repeated.",
            ),
            click.option(
                "--chip",
                "chips",
                type=Sha256Hex(),
                multiple=True,
                help="Accept this chip: SHA-256 of the CEK's 1028-byte key field. Repeatable.",
            ),
            click.option(
                "--owner",
                "owners",
                type=Sha256Hex(),
                multiple=True,
                help="Accept this platform owner: the same of the OCA. Repeatable.",
            ),
        )
    ):
        command = option(command)
    return command


def check_platform_options(given: dict[str, Any]) -> None:
    """Refuse a request that names no chain, half of one, or two. Opens no file."""
    parts = [name for name in ("pdh", "pek", "oca", "cek") if given[name] is not None]
    if given["chain"] is not None:
        if set(parts) - {"cek"}:
            raise UsageError(
                f"--{parts[0]} with --chain", hint="only --cek may replace a part of a chain"
            )
    elif len(parts) != 4:
        raise UsageError(
            "no whole chain is named", hint="give --chain, or all of --pdh --pek --oca --cek"
        )
    files = [given[name] for name in ("chain", "ca", *parts) if given[name] is not None]
    refuse_shared_stdin(*files, *given["roots"])


def read_platform(given: dict[str, Any]) -> tuple[PlatformChain, CaChain | None, tuple[bytes, ...]]:
    """Return the chain, the ASK and ARK to use if named or in the chain's file, and extra roots."""
    ca: CaChain | None = None
    if given["chain"] is None:
        parts = {
            name: parse_sev_certificate(read_file(given[name]), name=name.upper())
            for name in ("pdh", "pek", "oca", "cek")
        }
        chain = PlatformChain(parts["pdh"], parts["pek"], parts["oca"], parts["cek"])
    else:
        data = read_file(given["chain"])
        if data.lstrip()[:1] == b"{":
            chain = parse_platform_info(data)
        else:
            chain, ca = parse_chain_export(data)
        if given["cek"] is not None:
            chain = chain.with_cek(parse_sev_certificate(read_file(given["cek"]), name="CEK"))
    if given["ca"] is not None:
        ca = parse_ca_chain(read_file(given["ca"]))
    return chain, ca, tuple(_read_root(path) for path in given["roots"])


def platform_expectations(given: dict[str, Any]) -> PlatformExpectations:
    """Return the owner's lists."""
    return PlatformExpectations(tuple(given["chips"]), tuple(given["owners"]))


def _read_root(path: str) -> bytes:
    root = parse_ca_certificate(read_file(path), name="ARK")
    if root.usage is not Usage.ARK:
        raise FormatError("ARK", "the certificate is for an ASK", offset=0x24)
    return root.data


def read_key(path: str, name: str) -> Secret:
    """Return the 16-byte key in a file; ``name`` is TIK or TEK. Warns if others can read it.

    Raises ``FormatError`` for any other size: a key is never cut or padded to fit.
    """
    warn_if_exposed(path)
    data = read_file(path)
    if len(data) != KEY_SIZE:
        hint = "this may be TEK and TIK in one file, in that order" if len(data) == 32 else ""
        raise FormatError(name, f"expected {KEY_SIZE} bytes, got {len(data)}", hint=hint)
    return Secret(data)
