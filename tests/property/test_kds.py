from __future__ import annotations

import contextlib
import urllib.parse

from hypothesis import given
from hypothesis import strategies as st

from sevkit.abi.product import SNP_LINES, ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.errors import FormatError, SevkitError, UsageError
from sevkit.kds import urls
from sevkit.kds.client import check_proxy
from sevkit.kds.content import check_content, crl_next_update
from sevkit.kds.encoding import encode_pem_certificate, parse_pem_certificates
from sevkit.testing.key_service import parse_target

OCTETS = st.integers(0, 255)


@st.composite
def vceks(draw: st.DrawFn) -> urls.Resource:
    line = draw(st.sampled_from(SNP_LINES))
    size = line.hwid_size
    hwid = draw(st.binary(min_size=size, max_size=size).filter(any))
    fmc = draw(OCTETS) if line is ProductLine.TURIN else None
    tcb = TcbVersion(draw(OCTETS), draw(OCTETS), draw(OCTETS), draw(OCTETS), fmc)
    return urls.vcek(line, hwid, tcb)


@st.composite
def lines(draw: st.DrawFn) -> urls.Resource:
    make = draw(st.sampled_from([urls.chain, urls.crl]))
    return make(draw(st.sampled_from(SNP_LINES)), vlek=draw(st.booleans()))


ceks = st.builds(urls.cek, st.binary(min_size=64, max_size=64).filter(any))
resources = st.one_of(vceks(), lines(), ceks)


@given(resources)
def test_an_address_says_what_was_asked_and_nothing_else(resource: urls.Resource) -> None:
    assert parse_target(resource.target) == resource
    parts = urllib.parse.urlsplit(resource.url())
    assert (parts.scheme, parts.netloc, parts.fragment) == ("https", "kdsintf.amd.com", "")
    assert set(parts.path) <= set("abcdefghijklmnopqrstuvwxyzMGT0123456789/_")


@given(vceks(), vceks())
def test_two_vceks_have_one_address_only_if_they_are_one(
    first: urls.Resource, second: urls.Resource
) -> None:
    assert (first.url() == second.url()) == (first == second)


@given(vceks())
def test_every_number_in_an_address_has_two_digits_or_three_without_leading_zero(
    resource: urls.Resource,
) -> None:
    for word in resource.target.partition("?")[2].split("&"):
        number = word.partition("=")[2]
        assert len(number) == 2 or (len(number) == 3 and number[0] != "0")


@given(st.text())
def test_any_target_is_understood_or_nothing(target: str) -> None:
    resource = parse_target(target)
    assert resource is None or parse_target(resource.target) == resource


@given(st.text())
def test_any_address_is_accepted_as_https_or_refused_as_usage(text: str) -> None:
    for url in (text, f"https://{text}"):
        try:
            base = urls.check_base_url(url)
        except UsageError:
            continue
        parts = urllib.parse.urlsplit(base + "/x?y=1")
        assert parts.scheme == "https"
        assert parts.hostname
        assert (parts.query, parts.path.endswith("/x")) == ("y=1", True)


@given(st.text())
def test_any_proxy_is_accepted_or_refused_as_usage(text: str) -> None:
    for proxy in (text, f"http://{text}"):
        with contextlib.suppress(UsageError):
            assert check_proxy(proxy) == proxy


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_certificates_survive_pem(contents: list[bytes]) -> None:
    ders = [b"\x30\x82" + (0x100 + len(c)).to_bytes(2, "big") + bytes(0x100) + c for c in contents]
    pem = b"".join(map(encode_pem_certificate, ders))
    assert parse_pem_certificates("chain", pem, count=len(ders)) == tuple(ders)
    assert parse_pem_certificates("chain", pem.replace(b"\n", b"\r\n"), count=len(ders)) == tuple(
        ders
    )


@given(st.data())
def test_one_changed_byte_of_a_pem_is_refused_or_another_certificate(data: st.DataObject) -> None:
    der = b"\x30\x10" + bytes(range(16))
    pem = bytearray(encode_pem_certificate(der))
    position = data.draw(st.integers(0, len(pem) - 2))
    pem[position] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(FormatError):
        assert parse_pem_certificates("chain", bytes(pem), count=1) != (der,)


@given(resources, st.binary(max_size=200))
def test_any_bytes_are_in_shape_or_malformed(resource: urls.Resource, data: bytes) -> None:
    for text in (data, b"\x30" + bytes((len(data) & 0x7F,)) + data[:127]):
        with contextlib.suppress(SevkitError):
            check_content(resource, text)
        with contextlib.suppress(SevkitError):
            crl_next_update(text)
