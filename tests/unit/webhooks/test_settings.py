from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from sevkit.cluster.events import Subject
from sevkit.errors import UsageError
from webhooks.rotation import Terms
from webhooks.settings import SelfManaged, parse_settings


def test_in_a_pod_nothing_has_to_be_said() -> None:
    found = parse_settings([], {"POD_IP": "10.0.0.7"})
    assert (found.listen, found.health) == (("10.0.0.7", 9443), ("10.0.0.7", 9466))
    assert found.tls_folder == Path("/etc/sevkit/tls")
    assert found.policy is None
    assert found.kubeconfig is None
    assert found.self_managed is None
    assert found.pod is None


def test_its_own_pod_is_known_by_name_and_uid_or_not_at_all() -> None:
    whole = {"POD_NAME": "w-1", "POD_UID": "u-1", "POD_NAMESPACE": "sevkit-system"}
    assert parse_settings([], whole).pod == Subject("Pod", "w-1", "u-1", "sevkit-system")
    for name in whole:
        assert parse_settings([], {**whole, name: ""}).pod is None


def test_what_it_manages_itself_is_what_the_manifests_have() -> None:
    found = parse_settings(["--self-managed"], {"POD_NAMESPACE": "sevkit-system"})
    assert found.self_managed == SelfManaged(
        "sevkit-system",
        "sevkit-webhook-tls",
        "sevkit-webhook",
        ("sevkit-webhook.sevkit-system.svc", "sevkit-webhook.sevkit-system.svc.cluster.local"),
        Terms(),
    )


def test_what_it_manages_itself_can_be_named() -> None:
    words = "--self-managed --namespace n --secret s --configuration c --dns-name a --dns-name b"
    terms = "--ca-lifetime 301 --leaf-lifetime 100 --ca-spread 5"
    found = parse_settings([*words.split(), *terms.split()], {"POD_NAMESPACE": "other"})
    seconds = [timedelta(seconds=number) for number in (301, 100, 5)]
    assert found.self_managed == SelfManaged("n", "s", "c", ("a", "b"), Terms(*seconds))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--self-managed"], "namespace of the Secret is not known"),
        (["--self-managed", "--namespace", "n", "--tls-dir", "t"], "two sources"),
        (["--self-managed", "--namespace", "n", "--dns-name", "A.svc"], "no DNS name"),
        (["--self-managed", "--namespace", "n", "--dns-name", "10.0.0.7"], "no DNS name"),
        (["--self-managed", "--namespace", "n", "--dns-name", "::1"], "no DNS name"),
        (["--self-managed", "--namespace", "n", "--dns-name", f"{'a.' * 127}svc"], "no DNS name"),
        (["--self-managed", "--namespace", "a/b"], "no DNS name"),
        (["--secret", "s"], "--secret is about certificates of our own making"),
        (["--ca-spread", "60"], "--ca-spread is about"),
        (["--self-managed", "--namespace", "n", "--ca-spread", "0"], "must be 1 to"),
        (["--self-managed", "--namespace", "n", "--ca-spread", "1d"], "must be 1 to"),
        (["--self-managed", "--namespace", "n", "--ca-lifetime", "9" * 9], "must be 1 to"),
        (["--self-managed", "--namespace", "n", "--leaf-lifetime", "60"], "would end before"),
    ],
)
def test_certificates_that_could_not_be_made_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_settings(words, {})
    assert caught.value.hint


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
