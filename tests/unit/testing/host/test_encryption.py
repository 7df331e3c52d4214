from __future__ import annotations

from sevkit.testing.host.encryption import Encryption, Features, parse_encryption
from sevkit.testing.host.presets import PRESETS

SEV_ES = Features.SME | Features.SEV | Features.SEV_ES


def test_naples_claims_sev_es_as_real_ones_do() -> None:
    assert parse_encryption(PRESETS["naples"]) == Encryption(SEV_ES, 47, 5, 15, 1)


def test_milan_has_snp_and_its_c_bit_where_real_ones_have_it() -> None:
    found = parse_encryption(PRESETS["milan"])
    assert found == Encryption(SEV_ES | Features.SEV_SNP | Features.DEBUG_SWAP, 51, 5, 509, 128)


def test_only_turin_reads_its_rmp_table_by_instruction() -> None:
    has = {name for name, s in PRESETS.items() if Features.RMPREAD in parse_encryption(s).features}
    assert has == {"turin", "turin-dense"}


def test_other_makers_have_nothing() -> None:
    for name in ("intel", "arm64", "virtual-machine"):
        assert parse_encryption(PRESETS[name]) == Encryption(Features(0), 0, 0, 0, 0)
