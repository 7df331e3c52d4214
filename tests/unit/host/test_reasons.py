from __future__ import annotations

import re
import string

import pytest

from sevkit.host.reasons import TEXTS, Reason


def test_every_reason_has_a_text_and_a_code_in_kebab_case() -> None:
    assert set(TEXTS) == set(Reason)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", reason) for reason in Reason)


@pytest.mark.parametrize("reason", Reason)
def test_a_text_is_one_sentence_and_names_only_what_rules_fill_in(reason: Reason) -> None:
    text = TEXTS[reason]
    names = {name for _, name, _, _ in string.Formatter().parse(text.sentence) if name}
    assert names <= {"tech", "flag", "vendor", "product", "release", "firmware", "svn"}
    assert not text.sentence.endswith(".")
    assert not text.hint.endswith(".")
    assert "\n" not in text.sentence + text.hint
    assert "{" not in text.hint
    assert bool(text.hint) is (reason is not Reason.USABLE)
