from __future__ import annotations

import pytest

from sevkit.abi.policy import (
    SevPolicy,
    SigningKey,
    SnpPolicy,
    parse_key_info,
    parse_sev_policy,
    parse_snp_policy,
    sev_policy_api,
)
from sevkit.errors import FormatError


def test_sev_policies_of_kubevirt() -> None:
    assert parse_sev_policy(1) == SevPolicy.NODBG
    assert parse_sev_policy(5) == SevPolicy.NODBG | SevPolicy.ES


def test_a_sev_policy_may_demand_an_api_version() -> None:
    assert sev_policy_api(0x37010001) == (1, 0x37)
    assert parse_sev_policy(0x37010001) == SevPolicy.NODBG


@pytest.mark.parametrize("value", [-1, 1 << 32, 0x40, 0x8000])
def test_reserved_bits_of_a_sev_policy_are_refused(value: int) -> None:
    with pytest.raises(FormatError):
        parse_sev_policy(value)


def test_an_snp_policy_is_read_without_its_abi_version() -> None:
    assert parse_snp_policy(0x3001F) == SnpPolicy.SMT | SnpPolicy.RESERVED_MUST_BE_ONE


@pytest.mark.parametrize("value", [-1, 1 << 64, 0, 0x10000, 0x30000 | 1 << 26, 0x30000 | 1 << 63])
def test_an_snp_policy_that_the_firmware_would_refuse_is_refused(value: int) -> None:
    with pytest.raises(FormatError):
        parse_snp_policy(value)


def test_key_info_names_the_signing_key() -> None:
    assert parse_key_info(0, structure="x", offset=0).signing_key is SigningKey.VCEK
    info = parse_key_info(0b00111, structure="x", offset=0)
    assert (info.author_key_en, info.mask_chip_key, info.signing_key) == (
        True,
        True,
        SigningKey.VLEK,
    )


@pytest.mark.parametrize("value", [1 << 5, 1 << 31, 2 << 2, 6 << 2])
def test_reserved_key_info_is_refused_with_its_offset(value: int) -> None:
    with pytest.raises(FormatError) as caught:
        parse_key_info(value, structure="x", offset=0x48)
    assert caught.value.offset == 0x48
