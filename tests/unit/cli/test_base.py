from __future__ import annotations

import json

import click
import pytest

from sevkit.cli.base import EXTRAS, Command, LazyGroup, missing_extra
from sevkit.cli.main import main
from sevkit.errors import UsageError

TABLE = {"report": ("sevkit.cli.completion:command", "One line.")}


def group() -> LazyGroup:
    return LazyGroup("group", TABLE, "What it is for.")


def test_a_command_is_imported_when_it_is_asked_for() -> None:
    lazy = group()
    context = click.Context(lazy)
    assert lazy.list_commands(context) == ["report"]
    assert isinstance(lazy.get_command(context, "report"), click.Command)
    assert lazy.get_command(context, "nope") is None


@pytest.mark.parametrize(("package", "extra"), EXTRAS.items())
def test_a_missing_package_names_its_extra(package: str, extra: str) -> None:
    refusal = missing_extra(ModuleNotFoundError("gone", name=f"{package}.inner"))
    assert isinstance(refusal, UsageError)
    assert f"'{extra}'" in refusal.message
    assert refusal.hint == f"pip install 'sevkit[{extra}]'"


def test_a_package_that_is_there_and_does_not_load_is_named() -> None:
    refusal = missing_extra(ImportError("libvirt.so.0: no such file", name="libvirtmod"))
    assert refusal is not None
    assert "does not load: libvirt.so.0" in refusal.message


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("gone", name="sevkit.inner"), ImportError("no name at all")]
)
def test_any_other_import_error_is_a_bug_and_not_an_extra(error: ImportError) -> None:
    assert missing_extra(error) is None


def test_an_attribute_that_is_no_command_is_refused() -> None:
    lazy = LazyGroup("group", {"x": ("sevkit.cli.base:EXTRAS", "Not a command.")}, "Help.")
    with pytest.raises(TypeError, match="EXTRAS"):
        lazy.get_command(click.Context(lazy), "x")


def test_a_table_that_names_no_module_ends_as_an_internal_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["x"], {"x": ("sevkit.cli.no_such_module:command", "Absent.")}) == 70
    assert "internal error: ModuleNotFoundError" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "json", "--verbose", "inspect", "report", "absent"],
        ["inspect", "--output", "json", "report", "absent", "--verbose"],
        ["inspect", "report", "--verbose", "absent", "--output=json"],
    ],
)
def test_global_options_stand_before_and_after_the_command(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert json.loads(capsys.readouterr().out)["message"] == "absent: no such file"


@pytest.mark.parametrize(("metavar", "kind"), [("FILE", "file"), ("DIR", "dir"), ("HEX", None)])
def test_paths_are_left_to_the_shell_to_complete(metavar: str, kind: str | None) -> None:
    option = click.Option(["--x"], metavar=metavar)
    command = Command("name", params=[option])
    found = option.shell_complete(click.Context(command), "in")
    assert [(item.type, item.value) for item in found] == ([] if kind is None else [(kind, "in")])
