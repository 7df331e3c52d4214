"""Certificates that the webhook makes itself, against the real API server, and served to it."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, final

import pytest

from hack.control_plane import ADMIN_TOKEN
from hack.control_plane_client import ApiError
from hack.started import Started
from hack.webhook_scene import HOST
from sevkit.cluster.access import Access, FixedToken
from sevkit.cluster.connection import Connection
from sevkit.cluster.errors import Conflict, Forbidden
from sevkit.cluster.kinds import MUTATING, VALIDATING
from sevkit.secret import Secret
from webhooks.custody import ClusterBundles, ClusterSecret, Custodian
from webhooks.exchange import Handle, Outcome, Request, Response
from webhooks.rotation import parse_bundle
from webhooks.server import Limits, Server
from webhooks.tls import Certificates, load_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hack.control_plane import ControlPlane
    from sevkit.errors import SevkitError

SECRET: Final = "sevkit-webhook-tls"
GROUP: Final = "/apis/admissionregistration.k8s.io/v1"
HOST_NAME: Final = "sevkit-webhook.sevkit-system.svc"
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"


def access(plane: ControlPlane, token: str) -> Access:
    return Access(plane.url, ca=plane.ca, token=FixedToken(Secret(token.encode())))


def configuration(kind: str, name: str, namespace: str, url: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    """Return a configuration with two entries for ConfigMaps of one namespace."""
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": f"{number}.sevkit.io",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 5,
                "failurePolicy": "Fail",
                "clientConfig": {"url": f"{url}/mutate/snp"},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["configmaps"],
                    }
                ],
            }
            | more
            for number in ("a", "b")
        ],
    }


class Place:
    """A namespace with our two configurations, and an account with the rights of the design."""

    def __init__(
        self, plane: ControlPlane, namespace: str, url: str = "https://127.0.0.1:9"
    ) -> None:
        self.plane, self.namespace = plane, namespace
        self.name = f"sevkit-{uuid.uuid4().hex[:8]}"
        admin = plane.admin
        for plural, kind in (
            (MUTATING.plural, "MutatingWebhookConfiguration"),
            (VALIDATING.plural, "ValidatingWebhookConfiguration"),
        ):
            body = configuration(kind, self.name, namespace, url)
            admin.create(f"{GROUP}/{plural}", body)
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        admin.create(accounts, {"metadata": {"name": self.name}})
        self._bind(
            [
                {
                    "apiGroups": ["admissionregistration.k8s.io"],
                    "resources": [MUTATING.plural, VALIDATING.plural],
                    "resourceNames": [self.name],
                    "verbs": ["patch"],
                }
            ],
            "ClusterRole",
            RBAC,
        )
        self._bind(
            [
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
                {
                    "apiGroups": [""],
                    "resources": ["secrets"],
                    "resourceNames": [SECRET],
                    "verbs": ["get", "update"],
                },
            ],
            "Role",
            f"{RBAC}/namespaces/{namespace}",
        )
        request = {"spec": {"expirationSeconds": 3600}}
        answer = admin.create(f"{accounts}/{self.name}/token", request)
        self.token: str = answer["status"]["token"]

    def _bind(self, rules: list[dict[str, Any]], kind: str, path: str) -> None:
        admin = self.plane.admin
        meta = {"metadata": {"name": self.name}}
        plural = f"{kind.lower()}s"
        admin.create(f"{path}/{plural}", meta | {"rules": rules})
        subject = {"kind": "ServiceAccount", "name": self.name, "namespace": self.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": self.name}
        binding = meta | {"subjects": [subject], "roleRef": role}
        admin.create(f"{path}/{kind.lower()}bindings", binding)

    def custodian(
        self, connection: Connection, clock: Callable[[], datetime], name: str = HOST_NAME
    ) -> Custodian:
        return Custodian(
            ClusterSecret(connection, self.namespace, SECRET),
            ClusterBundles(connection, [(MUTATING, self.name), (VALIDATING, self.name)]),
            [name],
            clock=clock,
        )

    def secret(self) -> dict[str, Any]:
        found: dict[str, Any] = self.plane.admin.get(
            f"/api/v1/namespaces/{self.namespace}/secrets/{SECRET}"
        )
        return found

    def configurations(self) -> list[dict[str, Any]]:
        return [
            self.plane.admin.get(f"{GROUP}/{plural}/{self.name}")
            for plural in (MUTATING.plural, VALIDATING.plural)
        ]

    def bundles(self) -> set[str]:
        return {
            entry["clientConfig"].get("caBundle", "")
            for document in self.configurations()
            for entry in document["webhooks"]
        }

    def remove(self) -> None:
        for plural in (MUTATING.plural, VALIDATING.plural):
            self.plane.admin.delete(f"{GROUP}/{plural}/{self.name}")


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def place(control_plane: ControlPlane, namespace: str) -> Iterator[Place]:
    opened = Place(control_plane, namespace)
    yield opened
    opened.remove()


@pytest.fixture
def connection(place: Place, control_plane: ControlPlane) -> Iterator[Connection]:
    with Connection(access(control_plane, place.token)) as opened:
        yield opened


def test_the_first_pass_makes_a_secret_and_every_bundle(
    place: Place, connection: Connection
) -> None:
    custodian = place.custodian(connection, now)
    pair = custodian.read()
    secret = place.secret()
    assert secret["type"] == "kubernetes.io/tls"
    assert set(secret["data"]) == {"tls.crt", "tls.key", "ca.crt", "ca.key"}
    assert base64.b64decode(secret["data"]["tls.crt"]) == pair.certificate
    assert place.bundles() == {secret["data"]["ca.crt"]}
    load_pair(pair, now())
    versions = [one["metadata"]["resourceVersion"] for one in (secret, *place.configurations())]
    assert custodian.read() == pair
    found = [place.secret(), *place.configurations()]
    assert [one["metadata"]["resourceVersion"] for one in found] == versions  # nothing was written


def test_only_the_bundle_is_ours_in_a_configuration(place: Place, connection: Connection) -> None:
    before = place.configurations()
    place.custodian(connection, now).read()
    for old, new in zip(before, place.configurations(), strict=True):
        for entry in new["webhooks"]:
            del entry["clientConfig"]["caBundle"]
        assert new["webhooks"] == old["webhooks"]
        (ours,) = [
            one for one in new["metadata"]["managedFields"] if one["manager"] == "sevkit-webhook"
        ]
        assert {
            json.dumps(fields["f:clientConfig"])
            for key, fields in ours["fieldsV1"]["f:webhooks"].items()
            if key.startswith("k:")
        } == {'{"f:caBundle": {}}'}


def test_two_replicas_at_once_agree(
    place: Place, connection: Connection, control_plane: ControlPlane
) -> None:
    barrier = threading.Barrier(4)
    pairs, failures = [], []

    def begin() -> None:
        with Connection(access(control_plane, place.token)) as own:
            custodian = place.custodian(own, now)
            barrier.wait(30)
            try:
                pairs.append(custodian.read())
            except Conflict as error:  # the next pass is a minute later
                failures.append(error)
                pairs.append(custodian.read())

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(pairs) == 4
    assert all(pair == pairs[0] for pair in pairs)
    assert place.bundles() == {place.secret()["data"]["ca.crt"]}


def test_a_rotation_goes_through_its_steps(place: Place, connection: Connection) -> None:
    moment = [now()]
    custodian = place.custodian(connection, lambda: moment[0])
    first = custodian.read()
    seen = []
    for days, minutes in ((310, 0), (0, 1), (0, 10), (0, 61)):
        moment[0] += timedelta(days=days, minutes=minutes)
        pair = custodian.read()
        bundle = base64.b64decode(place.secret()["data"]["ca.crt"])
        assert place.bundles() == {base64.b64encode(bundle).decode()}
        seen.append((len(parse_bundle(bundle)), pair.certificate))
    # The first leaf has expired long before: it is replaced at once, and then the CA in steps.
    assert seen[0][1] != first.certificate
    assert [count for count, _ in seen] == [1, 2, 2, 1]
    assert seen[1][1] == seen[0][1] != seen[2][1] == seen[3][1]


def test_a_secret_that_somebody_labelled_keeps_its_label(
    place: Place, connection: Connection
) -> None:
    admin = place.plane.admin
    path = f"/api/v1/namespaces/{place.namespace}/secrets"
    meta = {"name": SECRET, "labels": {"team": "x"}}
    admin.create(path, {"metadata": meta, "type": "Opaque"})
    pair = place.custodian(connection, now).read()
    secret = place.secret()
    assert (secret["type"], secret["metadata"]["labels"]) == ("Opaque", {"team": "x"})
    assert base64.b64decode(secret["data"]["tls.crt"]) == pair.certificate


def test_a_stale_write_is_refused(place: Place, connection: Connection) -> None:
    secrets = ClusterSecret(connection, place.namespace, SECRET)
    place.custodian(connection, now).read()
    kept = secrets.read()
    place.plane.admin.patch(
        f"/api/v1/namespaces/{place.namespace}/secrets/{SECRET}",
        {"metadata": {"labels": {"a": "b"}}},
    )
    with pytest.raises(Conflict):
        secrets.write(kept.data, kept.version)
    with pytest.raises(Conflict):
        secrets.write(kept.data, "")
    bundles = ClusterBundles(connection, [(MUTATING, place.name)])
    bundles.read()
    place.plane.admin.patch(
        f"{GROUP}/{MUTATING.plural}/{place.name}", {"metadata": {"labels": {"a": "b"}}}
    )
    with pytest.raises(Conflict):
        bundles.write(b"other")


def test_a_configuration_that_is_not_there_yet_is_no_error(
    place: Place, control_plane: ControlPlane
) -> None:
    with Connection(access(control_plane, ADMIN_TOKEN)) as admin:
        bundles = ClusterBundles(admin, [(MUTATING, "not-there"), (MUTATING, place.name)])
        assert bundles.read() == [b"", b""]


def test_other_configurations_are_out_of_reach(
    place: Place, connection: Connection, control_plane: ControlPlane, namespace: str
) -> None:
    with pytest.raises(Forbidden):
        ClusterBundles(connection, [(MUTATING, "another")]).read()


def review(request: Request) -> Response:
    uid = json.loads(request.body)["request"]["uid"]
    document = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {"uid": uid, "allowed": True},
    }
    return Response(200, json.dumps(document).encode())


@final
class Serving(Started):
    """Our server on loopback with certificates of its own making, called by the API server."""

    def __init__(self, plane: ControlPlane, namespace: str, limits: Limits) -> None:
        super().__init__()
        self._plane, self._namespace = plane, namespace
        self.requests: list[Request] = []
        self.counts: Counter[Outcome] = Counter()
        self.handle: Handle = review
        self.server: Final = Server(
            self._noted,
            lambda: self._certificates.current,
            (HOST, 0),
            paths=["/mutate/snp"],
            limits=limits,
            count=lambda outcome: self.counts.update([outcome]),
        )

    def _noted(self, request: Request) -> Response:
        self.requests.append(request)
        return self.handle(request)

    def _start(self) -> None:
        self._stack.enter_context(self.server)
        place = Place(self._plane, self._namespace, f"https://localhost:{self.server.port}")
        self._stack.callback(place.remove)
        connection = self._stack.enter_context(Connection(access(self._plane, place.token)))
        told: list[SevkitError | None] = []
        custodian = place.custodian(connection, now, "localhost")
        self._certificates = Certificates(custodian, told=told.append)
        self._certificates.poll()
        assert told == [None]
        stop = threading.Event()
        thread = threading.Thread(target=self.server.run, args=(stop,))
        thread.start()
        self._stack.callback(thread.join, 30)
        self._stack.callback(stop.set)
        self._wait_for_the_bundle()

    def create(self, *_: object) -> None:
        """Create something that is reviewed four times: two entries of two configurations."""
        path = f"/api/v1/namespaces/{self._namespace}/configmaps"
        self._plane.admin.create(path, {"metadata": {"generateName": "c-"}})

    def _wait_for_the_bundle(self) -> None:
        end = time.monotonic() + 20
        while True:
            try:
                self.create()
            except ApiError:  # it hears of a configuration after a moment
                assert time.monotonic() < end
                time.sleep(0.1)
            else:
                return


def test_the_real_api_server_trusts_it_and_keeps_its_connections(
    control_plane: ControlPlane, namespace: str
) -> None:
    with Serving(control_plane, namespace, Limits(drain=0)) as serving:
        begun = len(serving.requests)
        for _ in range(5):
            serving.create()
        assert len(serving.requests) - begun == 4 * 5
        assert serving.server.connections <= 2
        assert serving.requests[-1].path == "/mutate/snp"


def test_the_real_api_server_comes_again_after_429_and_takes_503_for_an_answer(
    control_plane: ControlPlane, namespace: str
) -> None:
    def slow(request: Request) -> Response:
        time.sleep(0.1)
        return review(request)

    with Serving(control_plane, namespace, Limits(waiting=1, drain=0)) as serving:
        serving.handle = slow
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(serving.create, range(6)))  # none fails
        assert serving.counts[Outcome.BUSY] > 0
        begun = len(serving.requests)
        serving.handle = lambda _: Response(503, b"no")
        with pytest.raises(ApiError):
            serving.create()
        assert len(serving.requests) - begun == 1
