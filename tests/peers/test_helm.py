"""What helm renders is read: comments, ``# Source:`` lines, empty parts, and Go's way with numbers.

Helm reads the values of a chart as kubectl reads manifests, and renders text; what that text means
is decided by whoever reads it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.documents import parse_documents
from sevkit.errors import UsageError
from sevkit.kubevirt.manifests import parse_manifest
from sevkit.measure.terms import Mode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Ask = Callable[..., CompletedProcess[bytes]]
    Template = Callable[..., bytes]

CHART: Final = """
apiVersion: v2
name: guests
version: 0.1.0
"""
VALUES: Final = """
guests:
- {name: one, cores: 4, security: {snp: {}}}
- {name: two, cores: 010, security: {sev: {policy: {encryptedState: yes}}}}
serial: 1000000
"""
GUESTS: Final = """
# Guests of a release.
{{- range .Values.guests }}
---
# {{ .name }}
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: {{ $.Release.Name }}-{{ .name }} # of this release
  labels:
    app.kubernetes.io/managed-by: {{ $.Release.Service }}
    serial: {{ $.Values.serial | quote }}
spec:
  domain:
    cpu: {cores: {{ .cores }}, model: EPYC-Milan}
    devices: {}
    {{- /* no mode, no guest */}}
    {{- with .security }}
    launchSecurity: {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
"""
ECHO: Final = """
apiVersion: v1
kind: Echo
json: {{ toJson .Values.scalars }}
yaml: {{ toYaml .Values.scalars | nindent 2 }}
"""
#: Values of a chart that are what sevkit, as kubectl, reads out of them.
_SCALARS: Final = """
true yes Y On off No 'yes' "on" ~ null Null '' yEs
0 -12 +12 010 0o10 0x1F 0b101 1_000 08 1000000 123456789 9007199254740992 -1234567
1.5 1.50 -.5 1e3 1e-3 1e21 . 1e999 100m 1Gi 1:30 2026-11-23 2026-11-23T10:00:00Z a#b '010'
"""
SCALARS: Final = _SCALARS.split()
FILES: Final = {
    "Chart.yaml": CHART,
    "values.yaml": VALUES,
    "templates/guests.yaml": GUESTS,
    "templates/nothing.yaml": "{{- if false }}\nkind: Nothing\n{{- end }}\n",
    "templates/NOTES.txt": "These notes are no manifest.\n",
}


@pytest.fixture
def template(
    ask: Ask,
    find_program: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Template:
    """Renders the chart as the release ``prod``, with options of helm's and other files."""
    program = find_program("helm", "helm")
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"HELM_{name}_HOME", str(tmp_path / name.lower()))

    def run(*options: str, **files: str) -> bytes:
        for name, text in (FILES | files).items():
            path = tmp_path / "guests" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = ask(program, "template", "prod", tmp_path / "guests", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def read(data: bytes) -> tuple[Any, ...]:
    return parse_documents(data, "test")


def told(values: list[Any]) -> list[str]:
    """Return them so that true and 1 are not equal; helm holds every number as a float."""
    return [json.dumps(float(value) if type(value) is int else value) for value in values]


def test_the_guests_of_a_chart_are_read(template: Template) -> None:
    rendered = template()
    assert rendered.count(b"# Source: guests/templates/guests.yaml") == 3
    one, two = read(rendered)
    assert [guest["metadata"]["labels"]["serial"] for guest in (one, two)] == ["1e+06"] * 2
    first, second = parse_manifest((one,)), parse_manifest((two,))
    assert (first.name, first.mode, first.vcpus) == ("prod-one", Mode.SNP, 4)
    assert (second.name, second.mode, second.vcpus) == ("prod-two", Mode.SEV_ES, 8)
    assert first.cpu_model == second.cpu_model == "EPYC-Milan"


def test_a_manifest_with_both_is_not_one_guest(template: Template) -> None:
    with pytest.raises(UsageError, match="holds 2 VMs and VMIs"):
        parse_manifest(read(template()))


def test_a_release_of_one_guest_is_a_manifest(template: Template) -> None:
    guests = [{"name": "only", "cores": 2, "security": {"sev": {}}}]
    rendered = template("--set-json", f"guests={json.dumps(guests)}")
    found = parse_manifest(read(rendered))
    assert (found.name, found.mode, found.vcpus) == ("prod-only", Mode.SEV, 2)


def test_a_guest_without_a_mode_is_refused(template: Template) -> None:
    rendered = template("--set-json", 'guests=[{"name": "plain", "cores": 2}]')
    with pytest.raises(UsageError, match="asks for no SEV guest"):
        parse_manifest(read(rendered))


def test_the_values_of_a_chart_are_read_as_helm_reads_them(template: Template) -> None:
    values = "scalars:\n" + "".join(f"- {text}\n" for text in SCALARS)
    (mine,) = read(values.encode())
    (theirs,) = read(template(**{"values.yaml": values, "templates/guests.yaml": ECHO}))
    for form in ("json", "yaml"):
        assert dict(zip(SCALARS, told(theirs[form]), strict=True)) == dict(
            zip(SCALARS, told(mine["scalars"]), strict=True)
        )


@pytest.mark.parametrize(("text", "value"), [("'yes'", True), ("'010'", 8), ("1000000", 1_000_000)])
def test_text_that_a_template_does_not_quote_is_read_again(
    template: Template, text: str, value: object
) -> None:
    echo = "apiVersion: v1\nkind: Echo\nvalue: {{ .Values.value }}\n"
    (found,) = read(template(**{"values.yaml": f"value: {text}\n", "templates/guests.yaml": echo}))
    assert found["value"] == value
    assert isinstance(found["value"], type(value))
