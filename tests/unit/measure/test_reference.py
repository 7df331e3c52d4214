from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sevkit.errors import FormatError
from sevkit.measure.reference import (
    MAX_REFERENCES,
    REFERENCE_LIMIT,
    Reference,
    ReferenceSet,
    encode_reference_set,
    join_reference_sets,
    parse_reference_set,
)
from sevkit.measure.reference_parameters import PARAMETERS
from sevkit.measure.terms import Mode

#: A value of each parameter as ``measure`` writes it.
VALUES: dict[str, str | int] = {
    "vcpus": 512,
    "cpu": "EPYC-Milan",
    "vcpu_signature": "0xa00f11",
    "era": "init2",
    "guest_features": "0x0",
    "vmm": "qemu",
    "firmware_file": "OVMF.amdsev.fd",
    "firmware_sha256": "ab" * 32,
    "firmware_hash": "cd" * 48,
    "kernel_sha256": "01" * 32,
    "initrd_sha256": "02" * 32,
    "cmdline_sha256": "03" * 32,
    "guest_policy": "0x30000",
    "kubevirt": "v1.9.0",
}
SET = ReferenceSet(
    (
        Reference(bytes(48), Mode.SNP, "1 vCPU", covers_kernel=False, parameters={"vcpus": 1}),
        Reference(b"\1" * 32, Mode.SEV, "any vCPUs", covers_kernel=True, parameters={}),
    )
)


def changed(path: str, value: Any) -> bytes:  # noqa: ANN401  # any JSON
    """Set one value of the first entry, or of the document if ``path`` starts with a slash."""
    document = json.loads(encode_reference_set(SET))
    place = document if path.startswith("/") else document["digests"][0]
    *parents, last = path.removeprefix("/").split(".")
    for parent in parents:
        place = place[parent]
    place[last] = value
    return json.dumps(document).encode()


def test_a_set_survives_a_round_trip() -> None:
    found = parse_reference_set(encode_reference_set(SET).encode())
    assert found == SET
    assert found.matching(b"\1" * 32) == SET.entries[1:]
    assert found.matching(bytes(32)) == ()


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        ("/schema", "sevkit.io/reference/v2", "schema is not"),
        ("/digests", [], "list of 1 to"),
        ("/digests", {}, "list of 1 to"),
        ("/digests", [1], "not a mapping"),
        ("/digests", [{}] * (MAX_REFERENCES + 1), "list of 1 to"),
        ("/extra", 1, "unknown key extra"),
        ("extra", 1, "unknown key extra"),
        ("digest", "00" * 32, "not 48 bytes in hex"),
        ("digest", "0x" + "00" * 47, "not 48 bytes in hex"),
        ("digest", " " * 96, "not 48 bytes in hex"),
        ("digest", 0, "not 48 bytes in hex"),
        ("mode", "sevsnp", "mode is not"),
        ("mode", None, "mode is not"),
        ("label", 1, "label is not"),
        ("label", "x" * 1025, "label is not"),
        ("covers", None, "not a mapping"),
        ("covers.kernel", "yes", "not true or false"),
        ("covers.firmware", False, "does not say"),
        ("covers.vcpu_state", False, "does not say"),
        ("parameters", [], "not a mapping"),
        ("parameters.vcpus", True, "neither text nor a number"),
        ("parameters.vcpus", None, "neither text nor a number"),
        ("parameters.vcpus", "2", "is not a number from 1 to 512"),
        ("parameters.vcpus", 0, "is not a number from 1 to 512"),
        ("parameters.vcpus", 513, "is not a number from 1 to 512"),
        ("parameters.cpu", "", "is not a text"),
        ("parameters.cpu", "x" * 1025, "is not a text"),
        ("parameters.cpu", 1, "is not a text"),
        ("parameters.vcpu_signature", "a00f11", "at most 32 bits"),
        ("parameters.vcpu_signature", "0xA00F11", "at most 32 bits"),
        ("parameters.vcpu_signature", "0x0a", "at most 32 bits"),
        ("parameters.vcpu_signature", "0x100000000", "at most 32 bits"),
        ("parameters.guest_features", "0x" + "f" * 17, "at most 64 bits"),
        ("parameters.guest_features", 1, "at most 64 bits"),
        ("parameters.vmm", "xen", "is not one of qemu, ec2, gce"),
        ("parameters.vmm", 1, "is not one of qemu, ec2, gce"),
        ("parameters.era", "init", "no parameter of a snp digest"),
        ("parameters.firmware_sha256", "AB" * 32, "is not 32 bytes"),
        ("parameters.firmware_sha256", "ab" * 31, "is not 32 bytes"),
        ("parameters.firmware_hash", "ab" * 32, "is not 48 bytes"),
        ("parameters.kernel_sha256", "ab" * 32, "names a kernel"),
        ("parameters.guest_policy", 0x30000, "is not 0x and a hex number"),
        ("parameters.guest_policy", "0x5", "policy bit 17 must be one"),
        ("parameters.guest_policy", "0x8000000000030000", "must be zero"),
        ("parameters.kubevirt", "1.9", "is not a release"),
        ("parameters.kubevirt", "v1.9.0-rc.1", "is not a release"),
        ("parameters.guestPolicy", "0x30000", "unknown key guestPolicy"),
        ("parameters." + "x" * 4096, 1, "unknown key x{40}$"),
    ],
)
def test_a_set_that_is_not_exactly_one_is_refused(path: str, value: object, match: str) -> None:
    with pytest.raises(FormatError, match=match):
        parse_reference_set(changed(path, value))


def test_as_many_entries_as_allowed_are_read() -> None:
    most = ReferenceSet(
        tuple(
            Reference(n.to_bytes(32), Mode.SEV, "x" * (1024 * (n == 0)), covers_kernel=False)
            for n in range(MAX_REFERENCES)
        )
    )
    assert parse_reference_set(encode_reference_set(most).encode()) == most


@pytest.mark.parametrize("mode", list(Mode))
def test_every_parameter_of_a_mode_survives_a_round_trip(mode: Mode) -> None:
    assert VALUES.keys() == PARAMETERS.keys()
    policies = {Mode.SEV: "0x1", Mode.SEV_ES: "0x5", Mode.SNP: "0x30000"}
    values = VALUES | {"guest_policy": policies[mode]}
    own = {name: value for name, value in values.items() if mode in PARAMETERS[name][0]}
    size = 48 if mode is Mode.SNP else 32
    entry = Reference(bytes(size), mode, "all", covers_kernel=True, parameters=own)
    (found,) = parse_reference_set(encode_reference_set(ReferenceSet((entry,))).encode()).entries
    assert found == entry
    assert found.guest_policy == int(policies[mode], 16)
    assert found.firmware_sha256 == "ab" * 32
    for foreign in values.keys() - own.keys():
        bad = Reference(bytes(size), mode, "", covers_kernel=True, parameters={foreign: "0x1"})
        with pytest.raises(FormatError, match=f"no parameter of a {mode} digest"):
            encode_reference_set(ReferenceSet((bad,)))


@pytest.mark.parametrize(
    ("mode", "policy", "match"),
    [
        (Mode.SEV, "0x5", "0x5 is not one of sev"),
        (Mode.SEV_ES, "0x1", "0x1 is not one of sev-es"),
        (Mode.SEV, "0x30001", ""),
        (Mode.SEV, "0x41", "reserved bits"),
        (Mode.SEV_ES, "0x100000005", "does not fit 32 bits"),
    ],
)
def test_a_guest_policy_is_one_of_its_mode(mode: Mode, policy: str, match: str) -> None:
    row = {
        "digest": "00" * 32,
        "mode": mode.value,
        "label": "",
        "covers": {"firmware": True, "vcpu_state": mode is Mode.SEV_ES, "kernel": False},
        "parameters": {"guest_policy": policy},
    }
    data = json.dumps({"schema": "sevkit.io/reference/v1", "digests": [row]}).encode()
    if not match:
        assert parse_reference_set(data).entries[0].guest_policy == int(policy, 16)
        return
    with pytest.raises(FormatError, match=match):
        parse_reference_set(data)


def test_a_doubled_key_is_refused() -> None:
    text = encode_reference_set(SET)
    for key in ('"schema"', '"mode"', '"kernel"', '"vcpus"'):
        value = text[text.index(key) :].split(":")[1].split(",")[0].split("}")[0]
        doubled = text.replace(key, f"{key}:{value}, {key}", 1)
        with pytest.raises(FormatError, match="occurs twice"):
            parse_reference_set(doubled.encode())


def test_an_entry_is_there_once_and_a_digest_covers_one_thing() -> None:
    document = json.loads(encode_reference_set(SET))
    document["digests"].append(document["digests"][0])
    with pytest.raises(FormatError, match=r"digests\[2\] is there twice"):
        parse_reference_set(json.dumps(document).encode())
    document["digests"][2] = {**document["digests"][0], "label": "the same by another name"}
    assert len(parse_reference_set(json.dumps(document).encode()).entries) == 3
    document["digests"][2]["covers"] = {**document["digests"][0]["covers"], "kernel": True}
    with pytest.raises(FormatError, match="covers other things"):
        parse_reference_set(json.dumps(document).encode())


def test_entries_are_found_by_mode() -> None:
    assert SET.of_mode(Mode.SNP) == SET.entries[:1]
    assert SET.of_mode(Mode.SEV_ES) == ()
    assert SET.modes == (Mode.SEV, Mode.SNP)


def test_joined_sets_have_every_entry_once() -> None:
    other = Reference(b"\2" * 32, Mode.SEV, "other", covers_kernel=False)
    joined = join_reference_sets((SET, ReferenceSet((other,)), SET))
    assert joined.entries == (*SET.entries, other)
    contradicting = Reference(bytes(48), Mode.SNP, "", covers_kernel=True)
    with pytest.raises(FormatError, match="covers other things"):
        join_reference_sets((SET, ReferenceSet((contradicting,))))
    # Also where nothing but what it covers is another.
    contradicting = replace(SET.entries[0], covers_kernel=not SET.entries[0].covers_kernel)
    with pytest.raises(FormatError, match="covers other things"):
        join_reference_sets((SET, ReferenceSet((contradicting,))))
    many = ReferenceSet(
        tuple(
            Reference(n.to_bytes(32), Mode.SEV, "", covers_kernel=False)
            for n in range(MAX_REFERENCES)
        )
    )
    with pytest.raises(FormatError, match="more than 65536"):
        join_reference_sets((many, SET))


def test_a_set_that_nobody_could_read_is_not_written() -> None:
    rows = tuple(
        Reference(n.to_bytes(32), Mode.SEV, "x" * 1000, covers_kernel=False) for n in range(33_000)
    )
    with pytest.raises(FormatError, match="larger than a reader takes"):
        encode_reference_set(ReferenceSet(rows))
    unknown = Reference(bytes(32), Mode.SEV, "", covers_kernel=False, parameters={"x": 1})
    with pytest.raises(FormatError, match="unknown key x"):
        encode_reference_set(ReferenceSet((unknown,)))


def test_a_missing_key_is_refused() -> None:
    document = json.loads(encode_reference_set(SET))
    del document["digests"][1]["covers"]["kernel"]
    with pytest.raises(FormatError, match=r"digests\[1\].covers has no kernel"):
        parse_reference_set(json.dumps(document).encode())


def test_a_document_that_is_too_large_is_refused() -> None:
    with pytest.raises(FormatError, match="larger than"):
        parse_reference_set(b" " * (REFERENCE_LIMIT + 1))


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", b'{"schema": 1}', b"\xff"])
def test_what_is_no_set_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_reference_set(data)
