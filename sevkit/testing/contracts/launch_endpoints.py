"""The contract of KubeVirt's launch endpoints: what a guest owner may rely on, whoever answers.

    class TestOurs(LaunchEndpointsContract):
        @pytest.fixture
        def endpoints(self) -> LaunchEndpoints: ...

        @pytest.fixture
        def owner(self) -> OwnerSide: ...

Collect it with pytest. Every test makes VMIs of its own, of plain SEV and of SEV-ES, and leads them
through the launch as ``sevkit.attest`` does. Nothing in it knows who implements the endpoints: a
cluster with KubeVirt and SEV hardware, or the simulation of both.
"""
# ruff: noqa: D102, S101  # tests: their names say the behaviour, and assert is pytest's language

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import pytest

from sevkit.attest.sev_session import new_packet
from sevkit.kubevirt.subresources import encode_secret_options, encode_session_options
from sevkit.measure.terms import Mode
from sevkit.testing.kubevirt.owner_side import TABLE, VCPUS, make_vmi

if TYPE_CHECKING:
    from collections.abc import Callable

    from sevkit.attest.sev_session import LaunchSession
    from sevkit.testing.kubevirt.owner_side import OwnerSide

SECONDS: Final = 30.0
_POLICIES: Final = {Mode.SEV: 1, Mode.SEV_ES: 5}


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    content_type: str
    body: bytes

    def json(self) -> Any:  # noqa: ANN401  # any JSON value
        """Return the body's value."""
        return json.loads(self.body)


class LaunchEndpoints(Protocol):
    """An implementation under test, with a namespace of its own."""

    def create(self, vmi: dict[str, Any]) -> None:
        """Create a VMI, without a namespace in it."""

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a VMI as the API shows it, or None."""

    def request(
        self, method: str, name: str, subresource: str, body: bytes = b"", **headers: str
    ) -> Reply:
        """Send a request for a subresource of a VMI; an ``_`` in a header's name is a ``-``."""


class LaunchEndpointsContract:
    """Derive from it, override the two fixtures, and let pytest collect the class."""

    @pytest.fixture
    def endpoints(self) -> LaunchEndpoints:
        """Return the implementation under test."""
        raise NotImplementedError

    @pytest.fixture
    def owner(self) -> OwnerSide:
        """Return what its guest owner knows."""
        raise NotImplementedError

    @pytest.mark.parametrize("name", ["fetchcertchain", "querylaunchmeasurement"])
    def test_a_get_for_no_vmi_is_500(self, endpoints: LaunchEndpoints, name: str) -> None:
        reply = endpoints.request("GET", "nobody", f"sev/{name}")
        assert reply.status == 500
        assert b'"nobody" not found' in reply.body.replace(b"\\", b"")

    @pytest.mark.parametrize("name", ["sev/setupsession", "sev/injectlaunchsecret", "unpause"])
    def test_a_put_for_no_vmi_is_404(self, endpoints: LaunchEndpoints, name: str) -> None:
        reply = endpoints.request("PUT", "nobody", name, _json({"session": "a", "dhCert": "b"}))
        assert (reply.status, reply.json()["reason"]) == (404, "NotFound")

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"dhCert":"b"}', b'{"session":"a"}', b"[1]"])
    def test_half_a_session_is_400(self, endpoints: LaunchEndpoints, body: bytes) -> None:
        name = self._scheduled(endpoints, Mode.SEV)
        reply = endpoints.request("PUT", name, "sev/setupsession", body)
        assert (reply.status, reply.json()["reason"]) == (400, "BadRequest")

    def test_before_the_session_there_is_a_chain_and_nothing_else(
        self, endpoints: LaunchEndpoints, owner: OwnerSide
    ) -> None:
        name = self._scheduled(endpoints, Mode.SEV_ES)
        info = endpoints.request("GET", name, "sev/fetchcertchain")
        assert info.status == 200
        assert owner.new_session(info.body, 5).policy == 5
        refused = endpoints.request("GET", name, "sev/querylaunchmeasurement")
        assert refused.status == 500
        assert b"VMI is not running" in refused.body
        for subresource in ("sev/injectlaunchsecret", "unpause"):
            reply = endpoints.request("PUT", name, subresource, b"{}")
            assert reply.status == 409
            assert "VMI is not running" in reply.json()["message"]

    @pytest.mark.parametrize("mode", [Mode.SEV, Mode.SEV_ES])
    def test_the_secret_is_taken_by_the_launch_that_was_verified(
        self, endpoints: LaunchEndpoints, owner: OwnerSide, mode: Mode
    ) -> None:
        name, session = self._launched(endpoints, owner, mode)
        info = endpoints.request("GET", name, "sev/querylaunchmeasurement")
        assert info.status == 200
        launch = owner.judge(info.body, session, owner.reference(mode))
        assert launch is not None
        assert launch.policy == _POLICIES[mode]
        packet = new_packet(launch, session.keys, TABLE)
        options = _json(encode_secret_options(packet.header, packet.ciphertext))
        reply = endpoints.request("PUT", name, "sev/injectlaunchsecret", options)
        assert (reply.status, reply.body) == (200, b"")
        self.check_injected(endpoints, name)
        assert endpoints.request("PUT", name, "unpause", b"{}").status in {200, 202}
        _wait(endpoints, name, "Running", paused=False)
        late = endpoints.request("PUT", name, "sev/injectlaunchsecret", options)
        assert late.status == 409
        assert "VMI is not paused" in late.json()["message"]
        assert endpoints.request("GET", name, "sev/querylaunchmeasurement").status == 500

    def check_injected(self, endpoints: LaunchEndpoints, name: str) -> None:
        """Look into the guest, where that can be done: it has ``TABLE`` now."""

    def test_another_digest_than_the_owners_does_not_verify(
        self, endpoints: LaunchEndpoints, owner: OwnerSide
    ) -> None:
        name, session = self._launched(endpoints, owner, Mode.SEV_ES)
        info = endpoints.request("GET", name, "sev/querylaunchmeasurement").body
        assert owner.judge(info, session, owner.reference(Mode.SEV_ES, VCPUS + 1)) is None
        assert owner.judge(info, session, owner.reference(Mode.SEV_ES)) is not None

    def test_a_second_session_is_409(self, endpoints: LaunchEndpoints, owner: OwnerSide) -> None:
        name, session = self._launched(endpoints, owner, Mode.SEV)
        reply = endpoints.request("PUT", name, "sev/setupsession", _session(session))
        assert (reply.status, reply.json()["reason"]) == (409, "Conflict")

    def test_of_many_sessions_at_once_one_is_taken(
        self, endpoints: LaunchEndpoints, owner: OwnerSide
    ) -> None:
        name = self._scheduled(endpoints, Mode.SEV)
        info = endpoints.request("GET", name, "sev/fetchcertchain").body
        sessions = [owner.new_session(info, 1) for _ in range(6)]
        replies: list[tuple[LaunchSession, int]] = []

        def put(session: LaunchSession) -> None:
            reply = endpoints.request("PUT", name, "sev/setupsession", _session(session))
            replies.append((session, reply.status))

        threads = [threading.Thread(target=put, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = [session for session, status in replies if status == 202]
        assert len(taken) == 1
        assert {status for _, status in replies} <= {202, 409, 500}
        _wait(endpoints, name, "Running", paused=True)
        measured = endpoints.request("GET", name, "sev/querylaunchmeasurement").body
        assert owner.judge(measured, taken[0], owner.reference(Mode.SEV)) is not None

    @pytest.mark.parametrize("options", [{"session": "!!", "dhCert": "<x>"}, None])
    def test_a_session_that_nobody_can_open_is_taken_and_starts_nothing(
        self, endpoints: LaunchEndpoints, owner: OwnerSide, options: dict[str, str] | None
    ) -> None:
        name = self._scheduled(endpoints, Mode.SEV)
        if options is None:  # made under another policy than KubeVirt uses
            info = endpoints.request("GET", name, "sev/fetchcertchain").body
            body = _session(owner.new_session(info, 5))
        else:
            body = _json(options)
        assert endpoints.request("PUT", name, "sev/setupsession", body).status == 202
        found = _until(endpoints, name, lambda vmi: _condition(vmi, "Synchronized") is not None)
        assert found["status"]["phase"] == "Scheduled"
        condition = _condition(found, "Synchronized") or {}
        assert condition["status"] == "False"
        assert "LAUNCH_START" in condition["message"]
        again = endpoints.request("PUT", name, "sev/setupsession", body)
        assert "Session already defined" in again.json()["message"]

    def test_a_packet_for_another_launch_is_500(
        self, endpoints: LaunchEndpoints, owner: OwnerSide
    ) -> None:
        name, session = self._launched(endpoints, owner, Mode.SEV)
        other, other_session = self._launched(endpoints, owner, Mode.SEV)
        info = endpoints.request("GET", other, "sev/querylaunchmeasurement").body
        launch = owner.judge(info, other_session, owner.reference(Mode.SEV))
        assert launch is not None
        packet = new_packet(launch, session.keys, TABLE)
        options = _json(encode_secret_options(packet.header, packet.ciphertext))
        reply = endpoints.request("PUT", name, "sev/injectlaunchsecret", options)
        assert (reply.status, reply.json()["reason"]) == (500, "InternalError")
        assert "Bad measurement" in reply.json()["message"]

    @pytest.mark.parametrize(
        ("body", "said"),
        [(b"", "Header is required"), (b'{"header":"AAAA"}', "Secret is required")],
    )
    def test_an_empty_secret_reaches_the_host(
        self, endpoints: LaunchEndpoints, owner: OwnerSide, body: bytes, said: str
    ) -> None:
        name, _ = self._launched(endpoints, owner, Mode.SEV)
        reply = endpoints.request("PUT", name, "sev/injectlaunchsecret", body)
        assert reply.status == 500
        assert said in reply.json()["message"]

    @pytest.mark.parametrize("mode", [Mode.SEV, Mode.SNP])
    def test_without_attestation_there_is_none(
        self, endpoints: LaunchEndpoints, mode: Mode
    ) -> None:
        vmi = make_vmi(mode, attestation=False)
        endpoints.create(vmi)
        name = vmi["metadata"]["name"]
        _wait(endpoints, name, "Running", paused=False)
        reply = endpoints.request("GET", name, "sev/fetchcertchain")
        assert reply.status == 500
        assert b"Attestation not requested for VMI" in reply.body
        body = _json({"session": "a", "dhCert": "b"})
        assert endpoints.request("PUT", name, "sev/setupsession", body).status == 409

    def test_other_methods_and_types_are_refused(self, endpoints: LaunchEndpoints) -> None:
        name = self._scheduled(endpoints, Mode.SEV)
        chain = "sev/fetchcertchain"
        assert endpoints.request("POST", name, chain, b"{}").status == 405
        assert endpoints.request("GET", name, chain, Accept="application/yaml").status == 406
        assert endpoints.request("GET", name, chain, Content_Type="text/plain").status == 415
        assert endpoints.request("GET", name, chain, Accept="*/*").status == 200

    def _scheduled(self, endpoints: LaunchEndpoints, mode: Mode) -> str:
        vmi = make_vmi(mode)
        endpoints.create(vmi)
        name: str = vmi["metadata"]["name"]
        _wait(endpoints, name, "Scheduled", paused=False)
        return name

    def _launched(
        self, endpoints: LaunchEndpoints, owner: OwnerSide, mode: Mode
    ) -> tuple[str, LaunchSession]:
        name = self._scheduled(endpoints, mode)
        info = endpoints.request("GET", name, "sev/fetchcertchain")
        session = owner.new_session(info.body, _POLICIES[mode])
        reply = endpoints.request("PUT", name, "sev/setupsession", _session(session))
        assert (reply.status, reply.body) == (202, b"")
        _wait(endpoints, name, "Running", paused=True)
        return name, session


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _session(session: LaunchSession) -> bytes:
    return _json(encode_session_options(session.blob.encode(), session.godh))


def _condition(vmi: dict[str, Any], kind: str) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = (vmi.get("status") or {}).get("conditions") or []
    return next((row for row in rows if row["type"] == kind), None)


def _wait(endpoints: LaunchEndpoints, name: str, phase: str, *, paused: bool) -> dict[str, Any]:
    def there(vmi: dict[str, Any]) -> bool:
        is_paused = _condition(vmi, "Paused") is not None
        return bool((vmi.get("status") or {}).get("phase") == phase and is_paused is paused)

    return _until(endpoints, name, there)


def _until(
    endpoints: LaunchEndpoints, name: str, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    deadline = time.monotonic() + SECONDS
    while True:
        found = endpoints.read(name)
        if found is not None and holds(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
