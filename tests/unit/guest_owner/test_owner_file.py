from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.abi.secret_packet import DISK_GUID, TABLE_GUID
from sevkit.errors import FormatError, UsageError
from sevkit.guest_owner.owner import Files, load_owner
from sevkit.guest_owner.owner_file import (
    _OPTIONAL,
    LIMIT,
    MAX_ENTRIES,
    OwnerFile,
    parse_owner_file,
)
from sevkit.guest_owner.selector import parse_selector
from sevkit.measure.reference import ReferenceSet, encode_reference_set
from sevkit.measure.sweep import Cpu, Request, compute_references
from sevkit.measure.terms import Mode
from sevkit.testing.firmware import FirmwareImage, encode_firmware

if TYPE_CHECKING:
    from sevkit.testing.sev_chain import SimulatedPlatform, SimulatedRoots

DOCUMENTATION: Final = Path(__file__).parents[3] / "docs" / "guest-owner.md"
FIRMWARE: Final = encode_firmware(FirmwareImage())
OTHER: Final = encode_firmware(FirmwareImage(filler=1))
DIGEST: Final = "ab" * 32
SECRET: Final = {"guid": str(DISK_GUID), "file": "disk.key"}
WHOLE: Final[dict[str, Any]] = {
    "apiVersion": "sevkit.io/v1alpha1",
    "kind": "GuestOwner",
    "spec": {
        "vmis": [{"namespace": "payments", "labelSelector": "app=ledger"}],
        "mode": ["sev", "sev-es"],
        "guestPolicy": 5,
        "firmware": {"file": "OVMF.fd", "sha256": hashlib.sha256(FIRMWARE).hexdigest()},
        "vcpus": "1-2",
        "cpu": ["EPYC-Milan", "0xa00f11"],
        "minFirmware": "1.55",
        "ca": "ca.cert",
        "roots": ["ark.cert"],
        "ceks": ["ceks.cert"],
        "chips": [DIGEST.upper()],
        "oca": [],
        "accept": ["unmeasured-boot"],
        "secrets": [SECRET],
        "onMismatch": "stop",
    },
}
PLAIN: Final[dict[str, Any]] = {"mode": "sev", "firmware": {"file": "OVMF.fd"}}


def parse(document: object) -> OwnerFile:
    return parse_owner_file(json.dumps(document).encode())


def with_spec(**changes: object) -> dict[str, Any]:
    document = copy.deepcopy(WHOLE)
    document["spec"] |= changes
    return document


def only(**spec: object) -> dict[str, Any]:
    return {**WHOLE, "spec": {**PLAIN, **spec}}


def test_every_key_is_read() -> None:
    assert parse(WHOLE) == OwnerFile(
        modes=(Mode.SEV, Mode.SEV_ES),
        firmware="OVMF.fd",
        firmware_sha256=hashlib.sha256(FIRMWARE).hexdigest(),
        guest_policy=5,
        vmis=(parse_selector("payments", "", "app=ledger"),),
        vcpus=(1, 2),
        cpus=(Cpu("EPYC-Milan", 0xA00F11), Cpu("0xa00f11", 0xA00F11)),
        min_firmware=(1, 55, 0),
        ca="ca.cert",
        roots=("ark.cert",),
        ceks=("ceks.cert",),
        chips=(DIGEST,),
        accept=("unmeasured-boot",),
        secrets=((DISK_GUID, "disk.key"),),
        stop=True,
    )
    assert parse(only()) == OwnerFile((Mode.SEV,), "OVMF.fd")


def test_the_documentation_knows_every_key_and_its_example_is_one() -> None:
    text = DOCUMENTATION.read_text()
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    parse_owner_file(example[1].encode())
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {
        "mode",
        "firmware",
        *_OPTIONAL,
    }


WRONG: Final[dict[str, list[object]]] = {
    "vmis": [
        "ledger", [{}], [{"namespace": "a"}], [{"namespace": "A!", "name": "b"}], ["payments"],
        [{"namespace": "a", "labelSelector": ""}], [{"namespace": "a", "labelSelector": 7}],
        [{"namespace": "a", "labelSelector": "a in (b)"}], [{"namespace": "a", "name": "B"}],
        [{"namespace": "a", "name": ""}], [{"namespace": "", "name": "b"}],
        [{"namespace": "a", "name": "b", "more": 1}],
        [{"namespace": "a", "name": "b"}, {"namespace": "a", "name": "b"}],
        [{"namespace": "a", "labelSelector": ",".join(["a=b"] * 40)}],
    ],
    "mode": [None, "", "snp", [], ["sev", "sev"], ["sev", "snp"], [7], {"sev": 1}, True],
    "guestPolicy": [0, 1 << 33, -1, "5", 5.0, True, None, [5], 3, 4, 0x30000],
    "firmware": [
        None, "OVMF.fd", {}, {"file": ""}, {"file": 7}, {"file": "-"}, {"file": "a\0b"},
        {"file": "a" * 5000}, {"file": "OVMF.fd", "sha256": "ab"}, {"file": "OVMF.fd", "sha": "a"},
        {"file": "OVMF.fd", "sha256": 7}, {"file": "OVMF.fd", "sha256": None},
    ],
    "vcpus": [0, -1, 513, "0", "4-2", "1-513", "four", 2.0, True, None, [2], "1-", "\uff11"],
    "cpu": ["", "EPYC-Mars", 7, None, True, ["EPYC", "EPYC"], [None], "0x", "0x1ffffffff", {}],
    "reference": ["", 7, None, "-", ["a"], "ref.json"],  # the last contradicts vcpus and cpu
    "minFirmware": [1.55, 1, "1", "1.256", "1.2.3.4", "1.-1", "", None, "one.two", "1.55 "],
    "ca": ["", None, 7, "-", []],
    "roots": ["ark.cert", [""], [7], ["-"], ["a", "a"], None, {}, ["a"] * (MAX_ENTRIES + 1)],
    "ceks": ["cek.cert", [None], ["a", "a"]],
    "chips": [DIGEST, [DIGEST[:-1]], [7], [DIGEST, DIGEST.upper()], [None], ["0x" + DIGEST]],
    "oca": [DIGEST, ["zz" * 32], [[]]],
    "accept": ["unmeasured-boot", ["everything"], [True], ["unmeasured-boot"] * 2, [None]],
    "secrets": [
        "disk.key", [{}], [{"guid": str(DISK_GUID)}], [{"file": "a"}], [SECRET | {"more": 1}],
        [SECRET, SECRET], [SECRET | {"guid": "nil"}], [SECRET | {"guid": str(TABLE_GUID)}],
        [SECRET | {"guid": "00000000-0000-0000-0000-000000000000"}], [SECRET | {"guid": 7}],
        [SECRET, SECRET | {"file": "other.key"}], [SECRET | {"file": ""}],
        [SECRET | {"guid": f"{{{DISK_GUID}}}"}],
    ],
    "onMismatch": ["", "delete", None, True, ["stop"]],
    "unknown": [1],
    "minfirmware": ["1.55"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in WRONG.items() for value in values], ids=repr
)
def test_every_wrong_value_is_refused_with_its_key_and_what_to_write(
    key: str, value: object
) -> None:
    with pytest.raises(FormatError) as caught:
        parse(with_spec(**{key: value}))
    assert key in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("key", ["mode", "firmware"])
def test_what_must_be_there_is_named(key: str) -> None:
    document = with_spec()
    del document["spec"][key]
    with pytest.raises(FormatError, match=f"has no {key}"):
        parse(document)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"mode": "sev-es"}, "vcpus: is missing"),
        ({"mode": "sev-es", "vcpus": 2}, "cpu: is missing"),
        ({"mode": "sev-es", "cpu": "EPYC"}, "vcpus: is missing"),
        ({"mode": "sev", "guestPolicy": 5}, "policy of none of the modes"),
        ({"mode": "sev-es", "reference": "a", "guestPolicy": 1}, "policy of none of the modes"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError, match=said):
        parse(only(**spec))


@pytest.mark.parametrize(
    "document",
    [
        [],
        7,
        {},
        {"apiVersion": "sevkit.io/v1", "kind": "GuestOwner", "spec": PLAIN},
        {"apiVersion": "sevkit.io/v1alpha1", "kind": "Owner", "spec": PLAIN},
        {"apiVersion": "sevkit.io/v1alpha1", "kind": "GuestOwner", "spec": []},
        {"apiVersion": "sevkit.io/v1alpha1", "kind": "GuestOwner"},
        {**WHOLE, "metadata": {"name": "mine"}},
    ],
)
def test_other_documents_are_refused(document: object) -> None:
    with pytest.raises(FormatError):
        parse(document)


@pytest.mark.parametrize("data", [b"", b"---\na: 1\n---\nb: 2\n", b"\xff", b" " * (LIMIT + 1)])
def test_what_is_not_one_document_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_owner_file(data)


def test_a_key_twice_is_refused() -> None:
    with pytest.raises(FormatError, match="twice"):
        parse_owner_file(b"kind: GuestOwner\nkind: GuestOwner\n")


def read_from(files: dict[str, bytes]) -> Files:
    return Files(lambda name, _: files[name], lambda name, _: files[name])


@pytest.fixture
def files(sev_roots: SimulatedRoots, sev_platform: SimulatedPlatform) -> dict[str, bytes]:
    return {
        "OVMF.fd": FIRMWARE,
        "disk.key": b"secret",
        "ca.cert": sev_roots.ca.ask.data + sev_roots.ca.ark.data,
        "ark.cert": sev_roots.root,
        "ceks.cert": sev_platform.chain.cek.data * 1,
    }


def test_an_owner_has_what_his_files_say(files: dict[str, bytes]) -> None:
    owner = load_owner(parse(WHOLE), read_from(files))
    assert dict(owner.policies) == {Mode.SEV_ES: 5}
    assert len(owner.references[Mode.SEV_ES]) == 8  # two CPUs, two counts, two eras
    assert owner.platform.chips == (DIGEST,)
    assert owner.roots == (files["ark.cert"],)
    assert len(owner.ceks) == 1
    assert owner.unaccepted(owner.references[Mode.SEV_ES]) == ("unmeasured-variables",)
    assert "secret" not in repr(owner)
    plain = load_owner(parse(only()), read_from(files))
    assert (dict(plain.policies), plain.table) == ({Mode.SEV: 1}, None)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("OVMF.fd", OTHER),
        ("OVMF.fd", b"short"),
        ("ca.cert", b"none"),
        ("ark.cert", b"none"),
        ("ceks.cert", b""),
        ("ceks.cert", bytes(2084)),
        ("ceks.cert", b"1" * 2083),
        ("disk.key", b""),
    ],
)
def test_files_that_are_not_what_they_should_be_are_refused(
    files: dict[str, bytes], name: str, data: bytes
) -> None:
    with pytest.raises(FormatError):
        load_owner(parse(WHOLE), read_from(files | {name: data}))


def test_an_ask_is_no_root_and_a_pek_no_cek(
    files: dict[str, bytes], sev_roots: SimulatedRoots, sev_platform: SimulatedPlatform
) -> None:
    with pytest.raises(FormatError, match="ASK"):
        load_owner(parse(WHOLE), read_from(files | {"ark.cert": sev_roots.ca.ask.data}))
    with pytest.raises(FormatError, match="no CEK"):
        load_owner(parse(WHOLE), read_from(files | {"ceks.cert": sev_platform.chain.pek.data}))


def test_a_reference_set_is_taken_if_it_is_of_this_firmware_and_has_the_mode(
    files: dict[str, bytes],
) -> None:
    cpu = (Cpu("EPYC-Milan", 0xA00F11),)
    for firmware, mode, message in (
        (FIRMWARE, Mode.SEV_ES, ""),
        (OTHER, Mode.SEV_ES, "another firmware"),
        (FIRMWARE, Mode.SEV, "no digest for sev-es"),
    ):
        made = compute_references(Request(mode, firmware, 2, 2, cpu))
        files["ref.json"] = encode_reference_set(ReferenceSet(made.entries)).encode()
        file = parse(only(mode="sev-es", reference="ref.json"))
        if not message:
            owner = load_owner(file, read_from(files))
            assert owner.references[Mode.SEV_ES] == made.entries
            continue
        with pytest.raises(FormatError, match=message):
            load_owner(file, read_from(files))


@pytest.mark.parametrize(
    ("labels", "selected"),
    [
        ("app=ledger", True),
        ("app == ledger , tier!=test", True),
        ("app", True),
        ("!app", False),
        ("!gone", True),
        ("app!=ledger", False),
        ("gone=x", False),
        ("gone!=x", True),
        ("kubevirt.io/size=small", True),
        ("", True),
    ],
)
def test_selectors_select_as_kubernetes_does(labels: str, *, selected: bool) -> None:
    found = {"app": "ledger", "kubevirt.io/size": "small"}
    selector = parse_selector("payments", "", labels)
    assert selector.selects("payments", "any", found) is selected
    assert not selector.selects("other", "any", found)
    assert not parse_selector("payments", "one", labels).selects("payments", "two", found)


@pytest.mark.parametrize("labels", ["a in (b)", "=b", "a=b=c", "!a=b", "a=b,", "a b", "-a=b"])
def test_other_selectors_are_refused(labels: str) -> None:
    with pytest.raises(UsageError):
        parse_selector("payments", "", labels)
