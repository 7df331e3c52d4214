from __future__ import annotations

import contextlib

import pytest

from sevkit.attest.expectations import ExpectedMeasurement
from sevkit.attest.reference_choice import (
    check_firmware,
    choose_launch_references,
    choose_snp_measurements,
)
from sevkit.errors import UsageError
from sevkit.measure.reference import Reference, ReferenceSet
from sevkit.measure.terms import Mode


def entry(mode: Mode, label: str, policy: str = "") -> Reference:
    parameters: dict[str, str | int] = {"guest_policy": policy} if policy else {}
    size = 48 if mode is Mode.SNP else 32
    digest = label.encode().ljust(size, b"\0")
    return Reference(digest, mode, label, covers_kernel=True, parameters=parameters)


SNP = entry(Mode.SNP, "snp", "0x30000")
SEV = entry(Mode.SEV, "sev", "0x1")
ES = entry(Mode.SEV_ES, "es", "0x5")
ES_NO_SEND = entry(Mode.SEV_ES, "es, no send", "0xd")
ES_ANY = entry(Mode.SEV_ES, "es, any policy")
ALL = ReferenceSet((SNP, ES_ANY, SEV, ES_NO_SEND, ES))


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (0x1, (SEV, ES_ANY, ES_NO_SEND, ES)),
        (0x5, (ES_ANY, ES, SEV)),
        (0xD, (ES_ANY, ES_NO_SEND, SEV)),
        (0x7, (ES_ANY, SEV)),
    ],
)
def test_a_launch_is_held_against_the_entries_of_its_mode_and_policy(
    policy: int, chosen: tuple[Reference, ...]
) -> None:
    assert choose_launch_references(ALL, policy) == chosen


@pytest.mark.parametrize(
    ("entries", "policy", "hint"),
    [
        ((SNP,), 0x5, "it has digests for snp"),
        ((SNP, SEV), 0x5, "it has digests for sev and snp"),
        ((ES, ES_NO_SEND), 0x7, "its digests for sev-es are for guest policy 0x5 or 0xd"),
        ((ES_ANY,), 0x1, "it has digests for sev-es"),
        ((SEV,), 0x3, "its digests for sev are for guest policy 0x1"),
    ],
)
def test_a_set_without_an_entry_for_the_launch_is_refused(
    entries: tuple[Reference, ...], policy: int, hint: str
) -> None:
    with pytest.raises(UsageError, match=f"guest policy {policy:#x}") as refusal:
        choose_launch_references(ReferenceSet(entries), policy)
    assert refusal.value.hint == hint


def made_from(sha256: str) -> Reference:
    parameters: dict[str, str | int] = {"firmware_sha256": sha256} if sha256 else {}
    return Reference(bytes(32), Mode.SEV, "sev", covers_kernel=False, parameters=parameters)


@pytest.mark.parametrize(
    ("named", "fits"),
    [
        (["aa"], True),
        (["bb"], False),
        (["bb", "aa"], True),
        ([""], True),
        (["", "bb"], False),
    ],
)
def test_a_firmware_is_one_that_the_entries_were_made_from(named: list[str], fits: bool) -> None:
    entries = tuple(made_from(sha256 * 32) for sha256 in named)
    with contextlib.nullcontext() if fits else pytest.raises(UsageError, match="was made from"):
        check_firmware(entries, "aa" * 32)


def test_a_report_is_held_against_the_entries_for_snp() -> None:
    assert choose_snp_measurements(ALL) == (
        ExpectedMeasurement(SNP.digest, "snp", True, 0x30000, SNP.parameters),
    )
    with pytest.raises(UsageError, match="no launch digest for SNP") as refusal:
        choose_snp_measurements(ReferenceSet((SEV, ES)))
    assert refusal.value.hint == "it has digests for sev and sev-es"
