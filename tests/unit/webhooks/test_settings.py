from __future__ import annotations

from pathlib import Path

import pytest

from sevkit.errors import UsageError
from webhooks.settings import parse_settings


def test_in_a_pod_nothing_has_to_be_said() -> None:
    found = parse_settings([], {"POD_IP": "10.0.0.7"})
    assert (found.listen, found.health) == (("10.0.0.7", 9443), ("10.0.0.7", 9466))
    assert found.tls_folder == Path("/etc/sevkit/tls")
    assert found.policy is None
    assert found.kubeconfig is None


def test_outside_of_a_pod_it_listens_to_this_machine_alone() -> None:
    found = parse_settings([], {})
    assert (found.listen, found.health) == (("127.0.0.1", 9443), None)


def test_every_option_is_taken() -> None:
    words = "--listen [::1]:1 --health 127.0.0.1:2 --tls-dir t --policy p --kubeconfig k"
    found = parse_settings([*words.split(), "--context", "c", "--log-level", "debug"], {})
    assert (found.listen, found.health) == (("::1", 1), ("127.0.0.1", 2))
    assert (found.tls_folder, found.policy, found.kubeconfig) == (Path("t"), Path("p"), Path("k"))
    assert (found.context, found.log_level) == ("c", "debug")


@pytest.mark.parametrize(
    "words",
    [["--listen", "9443"], ["--listen", ":9443"], ["--health", "a:b"], ["--unknown"], ["word"]],
)
def test_what_is_wrong_is_one_line_with_a_hint(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(words, {})
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_end_it(word: str) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_settings([word], {})
    assert caught.value.code == 0
