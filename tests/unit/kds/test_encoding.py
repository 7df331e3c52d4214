from __future__ import annotations

import pytest

from sevkit.errors import FormatError
from sevkit.kds.encoding import (
    check_der_sequence,
    encode_pem_certificate,
    parse_pem_certificates,
)

DER = b"\x30\x82\x01\x00" + bytes(range(256))
PEM = encode_pem_certificate(DER)
BEGIN = b"-----BEGIN CERTIFICATE-----"
END = b"-----END CERTIFICATE-----"


def read(data: bytes, count: int = 1) -> tuple[bytes, ...]:
    return parse_pem_certificates("chain", data, count=count)


def test_one_certificate_is_read_back() -> None:
    assert read(PEM) == (DER,)


def test_two_certificates_keep_their_order_and_may_be_apart() -> None:
    other = encode_pem_certificate(b"\x30\x01\x00")
    assert read(PEM + b"\n" + other + b"\n", 2) == (DER, b"\x30\x01\x00")


def test_crlf_is_accepted_as_the_key_service_serves_turin_with_it() -> None:
    assert read(PEM.replace(b"\n", b"\r\n")) == (DER,)


def test_the_final_newline_may_be_missing() -> None:
    assert read(PEM.rstrip()) == (DER,)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected 1 PEM certificates, got 0"),
        (DER, "text outside"),
        (b"# a comment\n" + PEM, "text outside"),
        (PEM + b"junk", "text outside"),
        (b" " + PEM, "text outside"),
        (b"\xef\xbb\xbf" + PEM, "text outside"),
        (PEM.replace(b"CERTIFICATE", b"PRIVATE KEY"), "text outside"),
        (PEM + PEM, "got 2"),
        (PEM.replace(END, b""), "1 to 64 characters"),
        (PEM[:100], "not base64|no end"),
        (BEGIN + b"\nMAEA", "no end"),
        (BEGIN + b"\n" + END, "truncated DER element"),
        (BEGIN + b"\nMAEA\n\n" + END, "1 to 64 characters"),
        (BEGIN + b"\nProc-Type: 4,ENCRYPTED\nMAEA\n" + END, "not base64"),
        (BEGIN + b"\nMAE*\n" + END, "not base64"),
        (BEGIN + b"\nMAEA=\n" + END, "base64"),
        (BEGIN + b"\nMAEAAA==MAEA\n" + END, "base64"),
        (BEGIN + b"\nMAAB\n" + END, "bytes after the DER SEQUENCE"),
        (BEGIN + b"\n" + PEM, "not base64"),
        (BEGIN + b"\n" + b"A" * 68 + b"\n" + END, "1 to 64"),
        (b"<html>" + PEM, "text outside"),
    ],
)
def test_junk_around_or_in_a_certificate_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read(data)


def test_base64_with_loose_low_bits_is_refused() -> None:
    read(BEGIN + b"\nMAA=\n" + END)
    with pytest.raises(FormatError, match="canonical"):
        read(BEGIN + b"\nMAB=\n" + END)


@pytest.mark.parametrize("data", [DER[:-1], DER + b"\x00", b"<html>", b"", b"\x31\x00"])
def test_bytes_that_are_not_one_sequence_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        check_der_sequence("certificate", data)
