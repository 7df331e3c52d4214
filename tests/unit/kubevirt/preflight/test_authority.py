from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from hack.preflight_documents import authority
from sevkit.kubevirt.preflight.authority import judge_authority

NOW: Final = datetime(2026, 11, 25, 12, tzinfo=UTC)


def bundle(*lifetimes: timedelta, start: datetime = NOW - timedelta(days=100)) -> str:
    made = (authority(one, now=start) for one in lifetimes)
    return base64.b64encode(b"".join(map(base64.b64decode, made))).decode()


@pytest.mark.parametrize(
    ("days", "verdict", "words"),
    [
        ((400,), "pass", "until 2027-09-21 12:00 UTC"),
        ((106,), "warn", "until 2026-12-01 12:00 UTC"),
        ((99,), "fail", "caBundle expired on 2026-11-24 12:00 UTC"),
        # The old one of an overlap may have ended.
        ((99, 400), "pass", "until 2027-09-21 12:00 UTC"),
        ((400, 101), "pass", "until 2027-09-21 12:00 UTC"),
    ],
)
def test_the_authority_that_lasts_longest_counts(
    days: tuple[int, ...], verdict: str, words: str
) -> None:
    assert judge_authority(bundle(*(timedelta(days=one) for one in days)), NOW) == (verdict, words)


def test_one_that_is_not_valid_yet_is_of_no_use() -> None:
    later = bundle(timedelta(days=9), start=NOW + timedelta(days=1))
    assert judge_authority(later, NOW)[0] == "fail"


@pytest.mark.parametrize("ill", ["", "!", "AAAA", base64.b64encode(b"-----BEGIN X-----").decode()])
def test_what_holds_no_certificate_is_a_no(ill: str) -> None:
    assert judge_authority(ill, NOW)[0] == "fail"
