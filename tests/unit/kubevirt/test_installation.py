from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.kubevirt.installation import (
    ENCRYPTION_GATE,
    REBOOT_GATE,
    UNKNOWN,
    Installation,
    Release,
    decide_gate,
    parse_installation,
    parse_release,
)

if TYPE_CHECKING:
    from sevkit.documents import Json

ENABLED: Final = "featureGates"
DISABLED: Final = "disabledFeatureGates"


def resource(
    version: str = "v1.9.0", status: dict[str, Json] | None = None, **configuration: Json
) -> dict[str, Any]:
    said = {"observedKubeVirtVersion": version, "defaultArchitecture": "amd64"}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "spec": {"configuration": configuration},
        "status": said if status is None else status,
    }


def with_gates(version: str, **lists: Json) -> dict[str, Any]:
    return resource(version, developerConfiguration=lists)


def test_a_stock_installation_is_known_in_every_point() -> None:
    assert parse_installation(resource()) == Installation(
        (1, 9, 0),
        encryption=True,
        reboot_policy=True,
        eviction_strategy="None",
        architecture="amd64",
    )


def test_what_is_configured_goes_before_defaults() -> None:
    found = parse_installation(
        resource(
            evictionStrategy="LiveMigrate",
            developerConfiguration={DISABLED: [ENCRYPTION_GATE]},
        )
    )
    assert (found.encryption, found.reboot_policy) == (False, True)
    assert found.eviction_strategy == "LiveMigrate"


@pytest.mark.parametrize(
    ("version", "enabled", "disabled", "encryption", "reboot"),
    [
        # In both lists is on, also where the gate is on by default.
        ("v1.9.0", True, True, True, True),
        ("v1.8.4", True, True, True, True),
        ("v1.9.1", False, True, False, False),
        ("v1.9.1", False, False, True, True),
        ("v1.9.0-rc.1", True, False, True, True),
        # Of a version just before the one that changes it, it is not known.
        ("v1.9.0-beta.0", False, False, None, None),
        ("v1.9.0-beta.0", False, True, False, False),
        ("v1.9.0-24-gd923fdb", False, False, True, True),
        ("v1.10.0-alpha.0", False, False, True, True),
        ("v1.8.0", False, False, False, False),
        ("v1.8.0", False, True, False, False),
        # Before 1.8 there is no RebootPolicy, whatever the lists say.
        ("v1.7.0", True, False, True, False),
        ("v1.7.0", False, False, False, False),
        ("v0.48.0", True, False, False, False),
        # Without a version the lists decide, and the default is not known.
        ("devel", True, False, True, True),
        ("devel", False, True, False, False),
        ("devel", False, False, None, None),
    ],
)
def test_gates_are_decided_by_list_and_version_as_kubevirt_does(
    version: str, enabled: bool, disabled: bool, encryption: bool | None, reboot: bool | None
) -> None:
    gates: Json = ["Root", ENCRYPTION_GATE, REBOOT_GATE]
    lists = {name: gates for name, there in ((ENABLED, enabled), (DISABLED, disabled)) if there}
    document = with_gates(version, **lists)
    found = parse_installation(document)
    assert (found.encryption, found.reboot_policy) == (encryption, reboot)
    assert decide_gate(document, ENCRYPTION_GATE).enabled is encryption


def test_what_decides_is_named() -> None:
    def because(document: dict[str, Any], gate: str = ENCRYPTION_GATE) -> str:
        return decide_gate(document, gate).because

    assert because(with_gates("v1.9.0", featureGates=[ENCRYPTION_GATE])) == "it is in featureGates"
    disabled = with_gates("v1.9.0", disabledFeatureGates=[ENCRYPTION_GATE])
    assert because(disabled) == "it is in disabledFeatureGates"
    assert because(resource("v1.9.0")).endswith("and on by default in this version")
    assert because(resource("v1.8.0")).endswith("and off by default in this version")
    assert because(resource("v1.7.0"), REBOOT_GATE) == "KubeVirt has it since 1.8"
    assert because(resource("nightly")).endswith("KubeVirt's version is not known")
    assert because(with_gates("v1.9.0", featureGates={})) == "featureGates is no list of names"


@pytest.mark.parametrize(
    ("status", "release"),
    [
        ({"observedKubeVirtVersion": "v1.8.2", "targetKubeVirtVersion": "v1.9.0"}, ((1, 8, 2),)),
        ({"observedKubeVirtVersion": "", "targetKubeVirtVersion": "v1.9.0"}, ((1, 9, 0),)),
        ({"observedKubeVirtVersion": "sha256:ab", "operatorVersion": "1.7.3"}, ((1, 7, 3),)),
        ({"observedKubeVirtVersion": "v1.9.0-rc.2"}, ((1, 9, 0), True)),
        ({"observedKubeVirtVersion": "v1.9.0-rc.2-12-gabcdef0"}, ((1, 9, 0), True)),
        ({"observedKubeVirtVersion": "v1.9.0-12-gabcdef0"}, ((1, 9, 0),)),
        ({"observedKubeVirtVersion": "v1.9.0+build.5"}, ((1, 9, 0),)),
    ],
)
def test_the_version_is_the_one_that_runs(
    status: dict[str, Json], release: tuple[Any, ...]
) -> None:
    assert parse_release(resource(status=status)) == Release(*release)


@pytest.mark.parametrize(
    "version", ["", "v1.9", "1", "v1.9.0.1", "v٣.0.0", "v1.99999.0", " v1.9.0"]
)
def test_what_is_no_version_is_not_known(version: str) -> None:
    assert parse_release(resource(version)) is None


@pytest.mark.parametrize("ill", ["text", 7, True, [], [7], {"a": 1}])
def test_what_is_ill_formed_says_nothing_of_what_depends_on_it(ill: Json) -> None:
    found = parse_installation({"spec": {"configuration": ill}, "status": ill})
    if ill == {"a": 1}:
        assert found == Installation(None, None, None, "None", None)
    else:
        assert found == UNKNOWN
    gates = parse_installation(with_gates("v1.9.0", featureGates=ill))
    assert gates.encryption is (True if ill == [] else None)
    found = parse_installation(resource(evictionStrategy=ill))
    assert found.eviction_strategy == (ill if ill == "text" else None)


def test_null_is_as_good_as_missing() -> None:
    empty: dict[str, Json] = {"spec": None, "status": None}
    assert parse_installation(empty) == parse_installation({})
    assert parse_installation({}).eviction_strategy == "None"
