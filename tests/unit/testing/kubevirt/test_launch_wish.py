from __future__ import annotations

from typing import Any

import pytest

from sevkit.abi.product import Product
from sevkit.errors import FormatError, UsageError
from sevkit.measure.terms import Era, Mode
from sevkit.testing.kubevirt.launch_wish import decode_leniently, parse_wish
from sevkit.testing.kubevirt.owner_side import make_vmi


def with_cpu(mode: Mode, **cpu: object) -> dict[str, Any]:
    vmi = make_vmi(mode)
    vmi["spec"]["domain"]["cpu"] = cpu
    return vmi


@pytest.mark.parametrize(("mode", "policy"), [(Mode.SEV, 1), (Mode.SEV_ES, 5), (Mode.SNP, 0x30000)])
def test_each_mode_has_kubevirts_policy(mode: Mode, policy: int) -> None:
    wish = parse_wish(make_vmi(mode, attestation=False))
    assert (wish.mode, wish.policy, wish.attestation, wish.paused) == (mode, policy, False, False)


#: What KubeVirt's own converter makes of a topology: hot-pluggable vCPUs are not measured.
@pytest.mark.parametrize(
    ("cpu", "es", "snp"),
    [
        ({"sockets": 2, "maxSockets": 2}, 1, 2),
        ({"sockets": 2, "cores": 2, "threads": 2, "maxSockets": 2}, 4, 8),
        ({"sockets": 2, "maxSockets": 8}, 1, 2),
        ({"sockets": 2}, 2, 2),
        ({"sockets": 1, "cores": 4, "maxSockets": 1}, 4, 4),
        ({"cores": 4}, 4, 4),
        ({}, 1, 1),
    ],
)
def test_the_vcpus_that_are_measured_follow_the_domain(
    cpu: dict[str, int], es: int, snp: int
) -> None:
    assert parse_wish(with_cpu(Mode.SEV_ES, **cpu)).vcpus == es
    assert parse_wish(with_cpu(Mode.SNP, **cpu)).vcpus == snp


def test_a_session_counts_only_with_its_certificate() -> None:
    vmi = make_vmi(Mode.SEV)
    sev = vmi["spec"]["domain"]["launchSecurity"]["sev"]
    assert not parse_wish(vmi).has_session
    sev["session"] = "AAAA"
    assert not parse_wish(vmi).has_session
    sev["dhCert"] = "BBBB"
    wish = parse_wish(vmi)
    assert (wish.has_session, wish.session, wish.dh_cert) == (True, "AAAA", "BBBB")


def test_attestation_without_a_paused_start_is_refused_in_kubevirts_words() -> None:
    vmi = make_vmi(Mode.SEV)
    del vmi["spec"]["startStrategy"]
    with pytest.raises(UsageError, match="SEV attestation requires VMI StartStrategy 'Paused'"):
        parse_wish(vmi)


def test_a_vmi_that_is_not_confidential_is_one_all_the_same() -> None:
    vmi = make_vmi(Mode.SEV)
    del vmi["spec"]["domain"]["launchSecurity"]
    wish = parse_wish(vmi)
    assert (wish.mode, wish.paused) == (None, True)


@pytest.mark.parametrize("spec", [None, {}, {"domain": []}, "text"])
def test_what_is_no_vmi_is_refused_or_plain(spec: object) -> None:
    if spec in (None, {}):
        assert parse_wish({"spec": spec}).mode is None
    else:
        with pytest.raises(FormatError):
            parse_wish({"spec": spec})


@pytest.mark.parametrize(
    ("model", "product", "signature"),
    [
        ("EPYC-Milan", Product.GENOA, 0xA00F11),
        ("EPYC-v4", Product.MILAN, 0x800F12),
        ("", Product.MILAN, 0xA00F11),
        ("host-model", Product.GENOA, 0xA10F10),
        ("host-passthrough", Product.MILAN, 0xA00F11),
        ("host-passthrough", Product.TURIN, 0xB00F21),
    ],
)
def test_the_cpu_model_decides_the_signature(model: str, product: Product, signature: int) -> None:
    wish = parse_wish(with_cpu(Mode.SEV_ES, model=model))
    assert wish.registers(product).signature == signature


def test_another_makers_cpu_is_refused() -> None:
    with pytest.raises(UsageError, match="Skylake-Server"):
        parse_wish(with_cpu(Mode.SNP, model="Skylake-Server")).registers(Product.MILAN)


def test_registers_are_those_of_kubevirts_qemu() -> None:
    es = parse_wish(make_vmi(Mode.SEV_ES)).registers(Product.MILAN)
    snp = parse_wish(make_vmi(Mode.SNP)).registers(Product.MILAN)
    assert (es.era, es.sev_features) == (Era.INIT, 0)
    assert (snp.era, snp.sev_features) == (Era.INIT2, 1)


@pytest.mark.parametrize(
    ("text", "data"), [("aGk=", b"hi"), ("a!G<k>=", b"hi"), ("!!", b""), ("<x>", b""), ("ä", b"")]
)
def test_base64_is_read_as_leniently_as_qemu_reads_it(text: str, data: bytes) -> None:
    assert decode_leniently(text) == data
