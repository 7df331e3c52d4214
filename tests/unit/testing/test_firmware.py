from __future__ import annotations

import pytest

from sevkit.errors import UsageError
from sevkit.measure.ovmf import parse_ovmf
from sevkit.testing.firmware import AMDSEV_SECTIONS, FirmwareImage, encode_firmware


def test_an_image_declares_what_it_is_told_to() -> None:
    image = FirmwareImage(size=3 * 4096, reset_eip=0x1234, secret_area=None, filler=0)
    found = parse_ovmf(encode_firmware(image))
    assert len(found.data) == 3 * 4096
    assert found.reset_eip == 0x1234
    assert found.hash_table == image.hash_table
    assert found.secret_area is None
    assert found.sections == AMDSEV_SECTIONS


def test_what_is_left_out_has_no_entry() -> None:
    image = FirmwareImage(reset_eip=None, hash_table=None, secret_area=None, sections=None)
    assert parse_ovmf(encode_firmware(image)).entries == ()


@pytest.mark.parametrize("size", [0, 4095, 4097])
def test_an_image_of_no_whole_pages_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="do not fit"):
        encode_firmware(FirmwareImage(size=size))
