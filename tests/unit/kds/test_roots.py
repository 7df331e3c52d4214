from __future__ import annotations

import hashlib

import pytest

from sevkit.abi.product import SNP_LINES, ProductLine
from sevkit.errors import FormatError, InternalError
from sevkit.kds import roots

# 57230 and the public chains, as SHA-256 of the DER; written out again so that a slip of the
# keyboard in the product shows.
ARKS = {
    "Milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    "Genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    "Turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
}
SEV_ARK_KEY_IDS = {
    "Naples": "1bb987c359494606b174945601c9ea5b",
    "Rome": "e6002122fb58419399d15fee7b131351",
    "Milan": "94c38e41",
    "Genoa": "9f9d4a8f",
    "Turin": "d05c3a8b",
}


@pytest.mark.parametrize("vlek", [False, True])
@pytest.mark.parametrize("line", SNP_LINES)
def test_the_bundled_snp_chain_is_the_pinned_one(line: ProductLine, vlek: bool) -> None:
    signer, ark = roots.snp_chain(line, vlek=vlek)
    pins = roots.SNP_ASVK_SHA256 if vlek else roots.SNP_ASK_SHA256
    assert hashlib.sha256(ark).hexdigest() == ARKS[line] == roots.SNP_ARK_SHA256[line]
    assert hashlib.sha256(signer).hexdigest() == pins[line]


def test_every_snp_line_has_all_three_pins_and_no_two_lines_share_one() -> None:
    tables = (roots.SNP_ARK_SHA256, roots.SNP_ASK_SHA256, roots.SNP_ASVK_SHA256)
    for table in tables:
        assert tuple(table) == SNP_LINES
    pins = [pin for table in tables for pin in table.values()]
    pins += [*roots.SEV_ARK_SHA256.values(), *roots.SEV_ASK_SHA256.values()]
    assert len(set(pins)) == len(pins)
    assert {len(pin) for pin in pins} == {64}


@pytest.mark.parametrize("line", list(ProductLine))
def test_the_bundled_sev_ca_names_the_key_ids_of_its_line(line: ProductLine) -> None:
    ask, ark = roots.sev_ca(line)
    size = 832 if line is ProductLine.NAPLES else 1600
    assert (len(ask), len(ark)) == (size, size)
    key_id, signer = ark[4:20], ark[20:36]
    assert key_id.hex().startswith(SEV_ARK_KEY_IDS[line])
    assert signer == key_id
    assert ask[20:36] == key_id


def test_the_naples_ask_is_the_published_one() -> None:
    ask, _ = roots.sev_ca(ProductLine.NAPLES)
    assert ask[4:20].hex() == "e139970cfc464377ae61b289e2f9e96e"


def test_a_line_without_snp_has_no_x509_roots() -> None:
    with pytest.raises(FormatError, match="Rome has no SEV-SNP"):
        roots.snp_chain(ProductLine.ROME, vlek=False)


def test_data_that_does_not_match_its_pin_is_never_returned() -> None:
    with pytest.raises(InternalError, match="does not match its pin"):
        roots._pinned_pem(ProductLine.MILAN, "ark", roots.SNP_ARK_SHA256[ProductLine.GENOA])
    with pytest.raises(InternalError, match="does not match its pin"):
        roots._check_pin("Milan SEV ARK", b"", roots.SEV_ARK_SHA256[ProductLine.MILAN])


def test_data_that_is_missing_or_malformed_is_a_damaged_installation() -> None:
    with pytest.raises(InternalError) as caught:
        roots._pinned_pem(ProductLine.MILAN, "absent", "")
    assert "install sevkit again" in caught.value.hint
    with pytest.raises(InternalError, match="text outside"):
        roots._decode("bundled Milan ARK", b"not PEM", "")
