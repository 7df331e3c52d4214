"""Whatever the bytes, a parser answers or raises a ``SevkitError``."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given
from hypothesis import strategies as st

from sevkit.abi.vmsa import encode_vmsa, parse_vmsa
from sevkit.documents import Json, parse_documents, parse_json
from sevkit.errors import SevkitError
from sevkit.kubevirt.manifests import parse_manifest
from sevkit.measure.kernel_hashes import compute_cmdline_hash, compute_kernel_hashes
from sevkit.measure.launch_digest import (
    compute_sev_digest,
    compute_sev_es_digest,
    compute_snp_digest,
)
from sevkit.measure.launch_measurement import (
    parse_launch_measurement,
    parse_launch_measurement_base64,
)
from sevkit.measure.ovmf import parse_ovmf
from sevkit.measure.reference import (
    Reference,
    ReferenceSet,
    encode_reference_set,
    join_reference_sets,
    parse_reference_set,
)
from sevkit.measure.reference_parameters import PARAMETERS as TABLE
from sevkit.measure.terms import Mode
from sevkit.measure.vcpu import Registers
from sevkit.testing.firmware import FirmwareImage, encode_firmware

SOUND = encode_firmware(FirmwareImage())
#: The last bytes of an image, where all its tables are.
TABLES = 300
HASHES = compute_kernel_hashes(b"kernel")

NESTED: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@st.composite
def damaged_images(draw: st.DrawFn) -> bytes:
    """A sound image with a few bytes of its tables changed."""
    data = bytearray(SOUND)
    for _ in range(draw(st.integers(1, 6))):
        at = len(data) - TABLES + draw(st.integers(0, TABLES - 1))
        data[at] = draw(st.sampled_from([0, 1, 17, 18, 0x7F, 0xFF]) | st.integers(0, 255))
    return bytes(data)


@given(damaged_images() | st.binary(max_size=100) | st.binary(min_size=4096, max_size=4096))
def test_firmware(data: bytes) -> None:
    with contextlib.suppress(SevkitError):
        found = parse_ovmf(data)
        for read in ("reset_eip", "hash_table", "secret_area", "sections"):
            with contextlib.suppress(SevkitError):
                getattr(found, read)
    for hashes in (None, HASHES):
        with contextlib.suppress(SevkitError):
            assert len(compute_sev_digest(data, hashes)) == 32
        with contextlib.suppress(SevkitError):
            assert len(compute_sev_es_digest(data, Registers(0, 0), 2, hashes)) == 32
        with contextlib.suppress(SevkitError):
            assert len(compute_snp_digest(data, Registers(0, 1), 2, hashes)) == 48


@given(st.binary(max_size=64) | st.binary(min_size=4096, max_size=4096))
def test_vmsa(data: bytes) -> None:
    with contextlib.suppress(SevkitError):
        assert encode_vmsa(parse_vmsa(data).values) == data


@given(st.integers(0, 0x66F), st.integers(0, 255))
def test_a_vmsa_with_one_byte_set_survives_or_is_refused(offset: int, value: int) -> None:
    data = bytes(offset) + bytes([value]) + bytes(4095 - offset)
    with contextlib.suppress(SevkitError):
        assert encode_vmsa(parse_vmsa(data).values) == data


@given(st.binary(max_size=100))
def test_launch_measurement(data: bytes) -> None:
    with contextlib.suppress(SevkitError):
        found = parse_launch_measurement(data)
        assert found.measure + found.mnonce == data


@given(st.text(max_size=100) | st.text("ABCDabcd0129+/=-_ \n", min_size=60, max_size=68))
def test_launch_measurement_in_base64(text: str) -> None:
    with contextlib.suppress(SevkitError):
        assert len(parse_launch_measurement_base64(text).measure) == 32


@given(st.text())
def test_command_line(text: str) -> None:
    with contextlib.suppress(SevkitError):
        assert len(compute_cmdline_hash(text)) == 32


@given(NESTED)
def test_json_that_others_wrote_comes_back(value: Json) -> None:
    data = json.dumps(value).encode()
    assert parse_json(data, "test") == json.loads(data)


@given(
    st.binary(max_size=200) | st.text('{}[]",:0123456789.eE+-tfn\\u ', max_size=60).map(str.encode)
)
def test_json(data: bytes) -> None:
    with contextlib.suppress(SevkitError):
        parse_json(data, "test")


YAML_TEXT = st.text("ab:-?[]{}&*!|>'\"%@`#,<~= \n\t0123456789._x\x00\x85\u2028", max_size=60)


@given(
    st.binary(max_size=100)
    | YAML_TEXT.map(str.encode)
    | st.text(max_size=60).map(lambda text: text.encode(errors="replace"))
)
def test_documents(data: bytes) -> None:
    with contextlib.suppress(SevkitError):
        parse_documents(data, "test")


@given(NESTED)
def test_a_json_document_is_also_a_yaml_document(value: Json) -> None:
    data = json.dumps({"a": value}).encode()
    assert parse_documents(data, "test") == (json.loads(data),)


@given(
    st.recursive(
        NESTED,
        lambda inner: st.dictionaries(
            st.sampled_from(
                [
                    "apiVersion",
                    "kind",
                    "metadata",
                    "spec",
                    "template",
                    "domain",
                    "launchSecurity",
                    "sev",
                    "snp",
                    "policy",
                    "encryptedState",
                    "cpu",
                    "cores",
                    "sockets",
                    "threads",
                    "maxSockets",
                    "model",
                    "resources",
                    "limits",
                    "requests",
                    "firmware",
                    "kernelBoot",
                    "instancetype",
                ]
            ),
            inner,
        ),
        max_leaves=10,
    )
)
def test_manifest(spec: Json) -> None:
    whole: Json = {"domain": {"launchSecurity": {"snp": {}}, "cpu": spec}}
    inside: Json = {"domain": spec}
    for kind in ("VirtualMachine", "VirtualMachineInstance"):
        for domain in (spec, inside, whole):
            document: dict[str, Json] = {
                "apiVersion": "kubevirt.io/v1",
                "kind": kind,
                "spec": domain,
            }
            with contextlib.suppress(SevkitError):
                assert parse_manifest((document,)).mode in set(Mode)


def hex_of(size: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=size, max_size=size).map(bytes.hex)


PARAMETERS: dict[str, st.SearchStrategy[str | int]] = {
    "vcpus": st.integers(1, 512),
    "cpu": st.text(min_size=1, max_size=40),
    "vcpu_signature": st.integers(0, 2**32 - 1).map(hex),
    "era": st.sampled_from(["init", "init2"]),
    "guest_features": st.integers(0, 2**64 - 1).map(hex),
    "vmm": st.sampled_from(["qemu", "ec2", "gce"]),
    "firmware_file": st.text(min_size=1, max_size=40),
    "firmware_sha256": hex_of(32),
    "firmware_hash": hex_of(48),
    "kernel_sha256": hex_of(32),
    "kubevirt": st.tuples(*[st.integers(0, 9999)] * 3).map("v{0[0]}.{0[1]}.{0[2]}".format),
}
POLICIES = {Mode.SEV: ["0x0", "0x1", "0x33"], Mode.SEV_ES: ["0x4", "0x5"], Mode.SNP: ["0x30000"]}


@st.composite
def references(draw: st.DrawFn) -> Reference:
    mode = draw(st.sampled_from(Mode))
    size = 48 if mode is Mode.SNP else 32
    kinds = PARAMETERS | {"guest_policy": st.sampled_from(POLICIES[mode])}
    own = {name: kind for name, kind in kinds.items() if mode in TABLE[name][0]}
    parameters = draw(st.fixed_dictionaries({}, optional=own))
    return Reference(
        draw(st.binary(min_size=size, max_size=size)),
        mode,
        draw(st.text(max_size=40)),
        "kernel_sha256" in parameters or draw(st.booleans()),
        parameters,
    )


@given(st.lists(references(), min_size=1, max_size=3, unique_by=lambda entry: entry.digest))
def test_a_reference_set_survives_a_round_trip(entries: list[Reference]) -> None:
    whole = ReferenceSet(tuple(entries))
    text = encode_reference_set(whole)
    assert parse_reference_set(text.encode()) == whole
    assert sum((whole.of_mode(mode) for mode in whole.modes), ()) == tuple(
        sorted(entries, key=lambda entry: list(Mode).index(entry.mode))
    )
    assert join_reference_sets((whole, whole)) == whole


@given(references(), st.data())
def test_a_reference_set_with_a_changed_byte_is_refused_or_sound(
    entry: Reference, data: st.DataObject
) -> None:
    document = bytearray(encode_reference_set(ReferenceSet((entry,))).encode())
    place = data.draw(st.integers(0, len(document) - 1))
    document[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(SevkitError):
        found = parse_reference_set(bytes(document))
        assert parse_reference_set(encode_reference_set(found).encode()) == found
        (row,) = found.entries
        assert len(row.digest) == (48 if row.mode is Mode.SNP else 32)


@given(NESTED, st.sampled_from(["digests", "schema", "x"]))
def test_reference_set(value: Json, key: str) -> None:
    document = {"schema": "sevkit.io/reference/v1", "digests": [value], key: value}
    for data in (json.dumps(document), json.dumps(value)):
        with contextlib.suppress(SevkitError):
            parse_reference_set(data.encode())
