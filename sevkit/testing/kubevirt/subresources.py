"""virt-api's subresources of a VMI: the four of SEV's launch, pause and unpause.

Every refusal is in virt-api's order and words: a GET that fails says so as plain text with 500,
whatever the reason; a PUT with a Status object. Session and secret are not looked at: that they are
there is all that KubeVirt checks. A ``setupsession`` is a patch that tests what was read, so of two
at once one has the session, and the other an error.

Source: KubeVirt 1.9 ``pkg/virt-api/rest/sev.go`` and ``subresource.go``,
``pkg/virt-handler/rest/lifecycle.go``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

from sevkit.documents import Json, parse_documents
from sevkit.errors import ClusterError, FormatError
from sevkit.testing.kubevirt import answers
from sevkit.testing.kubevirt.answers import Answer, Refusal
from sevkit.testing.kubevirt.lifecycle import PAUSED, Phase
from sevkit.testing.kubevirt.qemu_words import LauncherError
from sevkit.testing.kubevirt.vmi_status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.testing.kubevirt.instances import Instances, Key
    from sevkit.testing.kubevirt.launch_wish import Document
    from sevkit.testing.kubevirt.launcher import Launcher

SEV_GATE: Final = "WorkloadEncryptionSEV"
_NO_ATTESTATION: Final = "Attestation not requested for VMI"
_NOT_RUNNING: Final = "VMI is not running"
_NOT_PAUSED: Final = "VMI is not paused"
_SEV: Final = "/spec/domain/launchSecurity/sev"
_PROBES: Final = "Pausing VMIs with a non-GuestAgentPing LivenessProbe is not supported"


class Launchers(Protocol):
    """Where the launchers are."""

    def launcher(self, key: Key) -> Launcher | None:
        """Return the launcher of a VMI."""

    def look_at(self, key: Key) -> None:
        """Have a VMI looked at: its domain changed."""


@final
class Subresources:
    """Answers requests for the subresources of the VMIs in ``instances``.

    ``gate`` is the feature gate. ``get_status`` lets a GET that fails answer with a Status object
    in place of a text, as virt-api does since it is an aggregated API server of its own.
    """

    def __init__(
        self, instances: Instances, launchers: Launchers, *, gate: bool, get_status: bool
    ) -> None:
        self._instances: Final = instances
        self._launchers: Final = launchers
        self._gate: Final = gate
        self._get_status: Final = get_status
        self._rows: Final[Mapping[tuple[str, str], Callable[[Key, bytes], Answer]]] = {
            ("GET", "sev/fetchcertchain"): self._fetch,
            ("GET", "sev/querylaunchmeasurement"): self._query,
            ("PUT", "sev/setupsession"): self._setup,
            ("PUT", "sev/injectlaunchsecret"): self._inject,
            ("PUT", "pause"): self._pause,
            ("PUT", "unpause"): self._unpause,
        }

    def methods(self, subresource: str) -> tuple[str, ...]:
        """Return the HTTP methods of a subresource; none if there is no such."""
        return tuple(method for method, name in self._rows if name == subresource)

    def answer(self, method: str, key: Key, subresource: str, body: bytes) -> Answer:
        """Return the answer to a request for one of ``methods``."""
        try:
            if subresource.startswith("sev/") and not self._gate:
                raise answers.bad_request(f"'{SEV_GATE}' feature gate is not enabled")
            return self._rows[method, subresource](key, body)
        except Refusal as refusal:
            return refusal.answer()
        except ClusterError as error:
            return answers.internal(error.message).answer()

    def _fetch(self, key: Key, _: bytes) -> Answer:
        try:
            self._checked(key, _on_a_node, _attested)
            return answers.entity(dict(self._connect(key).platform_info()))
        except (Refusal, LauncherError) as error:
            return self._get_failed(error)

    def _query(self, key: Key, _: bytes) -> Answer:
        try:
            self._checked(key, _running, _attested, _paused)
            return answers.entity(dict(self._connect(key).measurement_info()))
        except (Refusal, LauncherError) as error:
            return self._get_failed(error)

    def _get_failed(self, error: Refusal | LauncherError) -> Answer:
        said = error.message if isinstance(error, Refusal) else _from_handler(error.message)
        return answers.internal(said).answer() if self._get_status else answers.text(500, said)

    def _setup(self, key: Key, body: bytes) -> Answer:
        options = _decode(body, "SEVSessionOptions", "session", "dhCert")
        for field, name in (("session", "Session blob"), ("dhCert", "DH cert")):
            if not options[field]:
                raise answers.bad_request(f"{name} is required")
        found = self._checked(key, _scheduled, _attested, _without_session)
        before = found["spec"]["domain"]["launchSecurity"]["sev"]
        patch: list[Document] = [
            {"op": "test", "path": _SEV, "value": before},
            {"op": "replace", "path": _SEV, "value": before | options},
        ]
        self._instances.patch(*key, patch)
        return Answer(202)

    def _inject(self, key: Key, body: bytes) -> Answer:
        self._checked(key, _running, _attested, _paused)
        try:
            options = _decode(body, "SEVSecretOptions", "header", "secret")
        except Refusal as refusal:  # virt-handler's own 400, which virt-api passes on as 500
            reason = refusal.message.partition("error: ")[2]
            said = f"unexpected return code 400 (400 Bad Request), message: {reason}"
            raise answers.internal(said) from refusal
        self._command(key, lambda launcher: launcher.inject(options["header"], options["secret"]))
        return Answer(200)

    def _pause(self, key: Key, body: bytes) -> Answer:
        dry = _is_dry(body)
        found = self._find(key)
        if read_status(found).phase is not Phase.RUNNING:
            raise answers.conflict(key[1], "VM is not running")
        probe = found["spec"].get("livenessProbe")
        if probe is not None and "guestAgentPing" not in probe:
            raise answers.forbidden(key[1], _PROBES)
        if read_status(found).condition(PAUSED.kind) is not None:
            raise answers.conflict(key[1], "VMI is already paused")
        if not dry:
            self._command(key, lambda launcher: launcher.pause())
        return Answer(200)

    def _unpause(self, key: Key, body: bytes) -> Answer:
        dry = _is_dry(body)
        self._checked(key, _running, _paused)
        if not dry:
            self._command(key, lambda launcher: launcher.unpause())
        return Answer(200)

    def _command(self, key: Key, what: Callable[[Launcher], None]) -> None:
        try:
            what(self._connect(key))
        except LauncherError as error:
            raise answers.internal(_from_handler(error.message)) from error
        self._launchers.look_at(key)

    def _connect(self, key: Key) -> Launcher:
        found = self._launchers.launcher(key)
        if found is None:
            said = f"VMI {key[0]}/{key[1]} does not exist"
            raise answers.internal(f"unexpected return code 404 (404 Not Found), message: {said}")
        return found

    def _find(self, key: Key) -> Document:
        found = self._instances.get(*key)
        if found is None:
            raise answers.not_found(key[1])
        return found

    def _checked(self, key: Key, *checks: Callable[[Document], str]) -> Document:
        found = self._find(key)
        why = next(filter(None, (check(found) for check in checks)), "")
        if why:
            raise answers.conflict(key[1], why)
        return found


def _from_handler(message: str) -> str:
    return f"unexpected return code 500 (500 Internal Server Error), message: {message}"


def _on_a_node(found: Document) -> str:
    there = read_status(found).phase in {Phase.SCHEDULED, Phase.RUNNING}
    return "" if there else "VMI is not assigned to a node yet"


def _scheduled(found: Document) -> str:
    there = read_status(found).phase is Phase.SCHEDULED
    return "" if there else "VMI is not in Scheduled phase"


def _running(found: Document) -> str:
    return "" if read_status(found).phase is Phase.RUNNING else _NOT_RUNNING


def _attested(found: Document) -> str:
    security = found["spec"]["domain"].get("launchSecurity") or {}
    sev = security.get("sev") or {}
    return "" if sev.get("attestation") is not None else _NO_ATTESTATION


def _paused(found: Document) -> str:
    # KubeVirt asks whether there is such a condition, not whether it is True.
    return _NOT_PAUSED if read_status(found).condition(PAUSED.kind) is None else ""


def _without_session(found: Document) -> str:
    sev = found["spec"]["domain"]["launchSecurity"]["sev"]
    return "Session already defined" if sev.get("session") or sev.get("dhCert") else ""


def _decode(body: bytes, kind: str, *fields: str) -> dict[str, str]:
    """Return text fields of a JSON or YAML body of any content type; absent ones are empty."""
    document = _parse(body, kind)
    found = {}
    for field in fields:
        value = document.get(field)
        if value is not None and not isinstance(value, str):
            what = f"Go struct field {kind}.{field} of type string"
            raise _undecodable(f"json: cannot unmarshal {_go_name(value)} into {what}")
        found[field] = value or ""
    return found


def _is_dry(body: bytes) -> bool:
    return _parse(body, "PauseOptions").get("dryRun") == ["All"]


def _parse(body: bytes, kind: str) -> dict[str, Json]:
    try:
        documents = parse_documents(body, "body")
    except FormatError as error:
        raise _undecodable(error.message) from error
    if not documents:
        return {}
    if not isinstance(documents[0], dict):
        what = f"Go value of type v1.{kind}"
        raise _undecodable(f"json: cannot unmarshal {_go_name(documents[0])} into {what}")
    return documents[0]


def _undecodable(why: str) -> Refusal:
    return answers.bad_request(f"Can not unmarshal Request body to struct, error: {why}")


def _go_name(value: Json) -> str:
    if isinstance(value, bool):
        return "bool"
    for kind, name in ((dict, "object"), (list, "array"), (str, "string")):
        if isinstance(value, kind):
            return name
    return "number"
