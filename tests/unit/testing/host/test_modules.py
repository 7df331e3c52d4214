from __future__ import annotations

import pytest

from sevkit.testing.host.booting import boot
from sevkit.testing.host.defects import with_defects
from sevkit.testing.host.modules import loaded_modules, render_modules
from sevkit.testing.host.presets import PRESETS


def test_kvm_and_what_it_uses_are_in_the_list() -> None:
    assert render_modules(boot(PRESETS["genoa"]).modules) == (
        "kvm_amd 217088 0 - Live 0x0000000000000000\n"
        "ccp 163840 1 kvm_amd, Live 0x0000000000000000\n"
        "kvm 1409024 1 kvm_amd, Live 0x0000000000000000\n"
        "irqbypass 12288 1 kvm, Live 0x0000000000000000\n"
    )


@pytest.mark.parametrize(
    ("preset", "defects", "loaded"),
    [
        ("genoa", [], {"kvm_amd", "ccp", "kvm", "irqbypass"}),
        ("genoa", ["no-psp"], {"kvm_amd", "ccp", "kvm", "irqbypass"}),
        ("genoa", ["kvm-amd-not-loaded"], {"ccp"}),
        ("genoa", ["svm-off"], {"ccp"}),
        ("genoa", ["svm-off", "no-psp"], set()),
        ("intel", [], {"kvm_intel", "kvm", "irqbypass"}),
        ("arm64", [], set()),
    ],
)
def test_a_module_is_loaded_where_it_has_work(
    preset: str, defects: list[str], loaded: set[str]
) -> None:
    assert loaded_modules(with_defects(preset, defects)).keys() == loaded


def test_parameters_say_what_was_asked_of_them() -> None:
    healthy = loaded_modules(PRESETS["genoa"])
    assert healthy["kvm"]["mmio_caching"] == "Y"
    assert healthy["ccp"]["psp_init_on_probe"] == "Y"
    assert healthy["ccp"]["init_ex_path"] == "(null)"
    assert loaded_modules(with_defects("genoa", ["mmio-caching-off"]))["kvm"]["mmio_caching"] == "N"
    deferred = loaded_modules(with_defects("genoa", ["psp-init-deferred"]))
    assert deferred["ccp"]["psp_init_on_probe"] == "N"


def test_mmio_caching_is_no_parameter_before_6_0() -> None:
    assert "mmio_caching" not in loaded_modules(PRESETS["naples"])["kvm"]
