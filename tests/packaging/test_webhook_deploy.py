"""What must hold of the webhook's manifests, read of every document that would be applied.

The base is read as it stands, because nothing in it is patched; with components it is what
kustomize builds of it. Each rule is shown to find what it is for.
"""

from __future__ import annotations

import copy
import functools
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from hack import deploy_manifests
from hack.deploy_manifests import (
    NAMESPACE,
    bindings_of,
    broken,
    build_overlay,
    container,
    containers,
    documents_of,
    environments,
    images,
    kustomize,
    of_kind,
    pod_of,
    privileges,
    read,
    shared_with_the_host,
    write_overlay,
)
from sevkit.kubevirt.policy import DEFAULT, parse_policy
from sevkit.kubevirt.preflight.entries import misled, parse_entries
from sevkit.kubevirt.preflight.net import POLICIES
from sevkit.kubevirt.tiers import LABEL, VALUES
from sevkit.kubevirt.webhook_paths import PATHS
from webhooks.limits import Limits
from webhooks.settings import HEALTH_PORT, PORT, TLS_FOLDER, parse_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hack.deploy_manifests import Document, Documents

FOLDER: Final = deploy_manifests.FOLDER / "webhook"
AGENT: Final = deploy_manifests.FOLDER / "node-agent" / "base"
NAME: Final = "sevkit-webhook"
TLS: Final = "sevkit-webhook-tls"
CHOICES: Final = "sevkit-webhook-policy"
#: What API servers ask for, and what a client in the cluster might.
DNS_NAMES: Final = [f"{NAME}.{NAMESPACE}.svc", f"{NAME}.{NAMESPACE}.svc.cluster.local"]
#: By name: which components are put together.
VARIANTS: Final[dict[str, tuple[str, ...]]] = {
    "base": (),
    "cert-manager": ("namespace", "cert-manager"),
    "self-managed": ("namespace", "self-managed"),
}
BASE_KINDS: Final = [
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "Deployment",
    "MutatingWebhookConfiguration",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
]
#: What a variant adds to that.
ADDED_KINDS: Final = {
    "base": [],
    "cert-manager": ["Certificate", "Certificate", "Issuer", "Issuer", "Namespace"],
    "self-managed": [
        "ClusterRole",
        "ClusterRoleBinding",
        "Namespace",
        "Role",
        "RoleBinding",
        "Secret",
    ],
}
#: All rights that there are, by kind and name.
RULES: Final[dict[tuple[str, str], list[Document]]] = {
    ("ClusterRole", NAME): [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]},
        {"apiGroups": ["kubevirt.io"], "resources": ["kubevirts"], "verbs": ["list", "watch"]},
    ],
    ("Role", NAME): [
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}
    ],
    ("Role", f"{NAME}-certificates"): [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": [TLS],
            "verbs": ["get", "update"],
        }
    ],
    ("ClusterRole", f"{NAME}-certificates"): [
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
            "resourceNames": [NAME],
            "verbs": ["patch"],
        }
    ],
}
#: What every entry has, by the configuration's kind.
SAID: Final[dict[str, Document]] = {
    "MutatingWebhookConfiguration": {
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [
            {
                "apiGroups": ["kubevirt.io"],
                "apiVersions": ["v1", "v1alpha3"],
                "resources": ["virtualmachineinstances"],
                "operations": ["CREATE"],
                "scope": "Namespaced",
            }
        ],
    },
    "ValidatingWebhookConfiguration": {
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [
            {
                "apiGroups": ["kubevirt.io"],
                "apiVersions": ["v1", "v1alpha3"],
                "resources": ["virtualmachines"],
                "operations": ["CREATE", "UPDATE"],
                "scope": "Namespaced",
            }
        ],
    },
}


def one_of(documents: Documents, kind: str) -> Document:
    (found,) = of_kind(documents, kind)
    return found


def kinds(documents: Documents) -> Iterator[str]:
    for document in documents:
        kind, metadata = document["kind"], document["metadata"]
        if metadata.get("namespace", NAMESPACE) != NAMESPACE:
            yield f"{kind} is in a foreign namespace"


def groups(documents: Documents) -> Iterator[str]:
    context = pod_of(documents)["securityContext"]
    for one in containers(documents):
        user = context | one.get("securityContext", {})
        if user.get("runAsNonRoot") is not True or user.get("runAsUser", 0) <= 0:
            yield f"{one['name']} is root"
    if context.get("supplementalGroups") or context.get("fsGroup", 0) <= 0:
        yield "pod has other groups"


def volumes(documents: Documents) -> Iterator[str]:
    for volume in pod_of(documents)["volumes"]:
        name = volume["name"]
        if {*volume} - {"name", "secret", "configMap", "projected"}:
            yield f"{name} is no volume of the webhook's"
        secret = volume.get("secret")
        if secret and (secret["secretName"] != TLS or secret.get("defaultMode") != 0o440):
            yield f"{name} is another Secret, or for everybody to read"
        if secret and secret.get("optional"):
            yield f"{name} lets a webhook run without a certificate"
    for one in containers(documents):
        for mount in one.get("volumeMounts", []):
            if mount.get("readOnly") is not True:
                yield f"{one['name']} may write {mount['name']}"
            if "subPath" in mount:
                yield f"{mount['name']} never changes"


def tokens(documents: Documents) -> Iterator[str]:
    for one in (pod_of(documents), *of_kind(documents, "ServiceAccount")):
        if one.get("automountServiceAccountToken") is not False:
            yield "a token is mounted that API servers extend to a year"


def resources(documents: Documents) -> Iterator[str]:
    for one in containers(documents):
        asked = one.get("resources", {})
        if asked.get("limits", {}).keys() != {"memory"}:
            yield f"{one['name']} has no limit of memory, or others"
        if asked.get("requests", {}).keys() != {"cpu", "memory"}:
            yield f"{one['name']} requests something else"


def rights(documents: Documents) -> Iterator[str]:
    for role in of_kind(documents, "Role", "ClusterRole"):
        name = role["metadata"]["name"]
        if role.get("rules") != RULES.get((role["kind"], name)) or "aggregationRule" in role:
            yield f"{role['kind']} {name} has other rules"
    yield from bindings_of(documents, NAME)


def entries(documents: Documents) -> Iterator[str]:
    for kind, said in SAID.items():
        configuration = one_of(documents, kind)
        for entry in configuration["webhooks"]:
            name, client = entry["name"], entry["clientConfig"]
            for key, value in said.items():
                if entry.get(key) != value:
                    yield f"{kind}: {name} has another {key}"
            if client.keys() != {"service"}:
                yield f"{kind}: {name} is somewhere else, or trusts whom we name"
            if not 1 <= entry["timeoutSeconds"] <= 5:
                yield f"{kind}: {name} keeps people waiting"
            service = client.get("service", {})
            if (service.get("namespace"), service.get("name")) != (NAMESPACE, NAME):
                yield f"{kind}: {name} asks another Service"
            if service.get("port") not in {row["port"] for row in ports(documents)}:
                yield f"{kind}: {name} asks at another port"
            if service.get("path") not in PATHS:
                yield f"{kind}: {name} comes to no path"


def ports(documents: Documents) -> Documents:
    found: Documents = one_of(documents, "Service")["spec"]["ports"]
    return found


def closed(documents: Documents) -> Iterator[str]:
    """What is closed where the webhook is down: namespaces and objects that carry the label."""
    mutating = parse_entries(one_of(documents, "MutatingWebhookConfiguration"))
    yield from misled(mutating)
    for entry in mutating:
        if entry.conditional:
            yield f"{entry.name} leaves some VMIs out"
        if entry.called(None, None):
            yield f"{entry.name} closes namespaces that ask for nothing"


def policies(documents: Documents) -> Iterator[str]:
    names = set()
    for document in of_kind(documents, "ValidatingAdmissionPolicy"):
        name, spec = document["metadata"]["name"], document["spec"]
        names.add(name)
        if spec.get("failurePolicy") != "Fail":
            yield f"{name} fails open"
        if "matchConditions" in spec or "paramKind" in spec:
            yield f"{name} leaves some objects out"
        if spec["matchConstraints"].keys() - {"matchPolicy", "resourceRules"}:
            yield f"{name} leaves some objects out"
        for validation in spec["validations"]:
            if not validation.get("message") or "reason" not in validation:
                yield f"{name} does not say why"
    if not POLICIES.keys() <= names:
        yield "a policy is missing"


def bindings(documents: Documents) -> Iterator[str]:
    named = {row["metadata"]["name"] for row in of_kind(documents, "ValidatingAdmissionPolicy")}
    bound = set()
    for document in of_kind(documents, "ValidatingAdmissionPolicyBinding"):
        spec = document["spec"]
        bound.add(spec["policyName"])
        if spec.keys() != {"policyName", "validationActions"} or "Deny" not in str(spec):
            yield f"{spec['policyName']} is not enforced everywhere"
    if bound != named:
        yield "policies and bindings do not go together"


def selectors(documents: Documents) -> Iterator[str]:
    deployment = one_of(documents, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    chosen = {
        "Deployment": deployment["selector"]["matchLabels"],
        "Service": one_of(documents, "Service")["spec"]["selector"],
        "NetworkPolicy": one_of(documents, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        "PodDisruptionBudget": one_of(documents, "PodDisruptionBudget")["spec"]["selector"][
            "matchLabels"
        ],
        **{
            row["topologyKey"]: row["labelSelector"]["matchLabels"]
            for row in pod_of(documents)["topologySpreadConstraints"]
        },
    }
    for name, selector in chosen.items():
        if not selector or not selector.items() <= labels.items():
            yield f"{name} does not choose the pods"


CHECKS: Final[tuple[Callable[[Documents], Iterator[str]], ...]] = (
    kinds,
    shared_with_the_host,
    privileges,
    groups,
    volumes,
    tokens,
    environments,
    lambda documents: images(documents, NAME),
    resources,
    rights,
    entries,
    closed,
    policies,
    bindings,
    selectors,
)


def faults(documents: Documents) -> list[str]:
    return [fault for check in CHECKS for fault in check(documents)]


@functools.cache
def _base() -> Documents:
    return documents_of(FOLDER / "base")


def base() -> Documents:
    return copy.deepcopy(_base())


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Documents]:
    """Returns the documents of a variant."""
    program = kustomize()
    made: dict[str, Documents] = {"base": base()}

    def run(variant: str) -> Documents:
        if variant not in made:
            if program is None:
                pytest.skip("no kustomize: hack/peers installs it")
            folder = tmp_path_factory.mktemp("overlay")
            parts = [FOLDER / "components" / name for name in VARIANTS[variant]]
            write_overlay(folder, [FOLDER / "base"], parts)
            made[variant] = build_overlay(program, folder)
        return copy.deepcopy(made[variant])

    return run


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_has_crept_in(build: Callable[[str], Documents], variant: str) -> None:
    documents = build(variant)
    assert faults(documents) == []
    found = sorted(document["kind"] for document in documents)
    assert found == sorted([*BASE_KINDS, *ADDED_KINDS[variant]])


def test_every_path_is_registered_and_no_other() -> None:
    documents = base()
    asked = [
        entry["clientConfig"]["service"]["path"]
        for kind in SAID
        for entry in one_of(documents, kind)["webhooks"]
    ]
    assert sorted(asked) == sorted(PATHS)


def test_the_api_server_asks_before_kubevirt_does() -> None:
    assert one_of(base(), "MutatingWebhookConfiguration")["metadata"]["name"] < "virt-api-mutator"


def test_it_warns_in_namespaces_with_each_value_and_of_templates_that_ask() -> None:
    entries = one_of(base(), "ValidatingWebhookConfiguration")["webhooks"]
    for entry, value in zip(entries, VALUES, strict=False):
        assert entry["namespaceSelector"] == {"matchLabels": {LABEL: value}}
        assert entry["clientConfig"]["service"]["path"] == f"/warn/{value}"
    (selector,) = entries[-1]["namespaceSelector"]["matchExpressions"]
    assert selector == {"key": LABEL, "operator": "DoesNotExist"}
    assert "template" in entries[-1]["matchConditions"][0]["expression"]


def test_it_is_started_with_words_that_it_knows() -> None:
    pod, one = pod_of(base()), container(base(), "webhook")
    settings = parse_settings(one["args"], {"POD_IP": "10.0.0.7"})
    assert settings.listen == ("10.0.0.7", PORT)
    assert settings.health == ("10.0.0.7", HEALTH_PORT)
    mounts = {row["name"]: row["mountPath"] for row in one["volumeMounts"]}
    assert mounts["tls"] == TLS_FOLDER == str(settings.tls_folder)
    (choices,) = of_kind(base(), "ConfigMap")
    assert settings.policy is not None
    assert str(settings.policy) == f"{mounts['policy']}/{settings.policy.name}"
    assert settings.policy.name in choices["data"]
    (volume,) = (row for row in pod["volumes"] if row["name"] == "policy")
    assert volume["configMap"] == {"name": choices["metadata"]["name"]} == {"name": CHOICES}


def test_its_environment_is_what_it_reads() -> None:
    fields = {
        row["name"]: row["valueFrom"]["fieldRef"]["fieldPath"]
        for row in container(base(), "webhook")["env"]
    }
    assert fields == {
        "POD_IP": "status.podIP",
        "POD_NAME": "metadata.name",
        "POD_UID": "metadata.uid",
        "POD_NAMESPACE": "metadata.namespace",
    }
    settings = parse_settings([], {name: f"a-{name}" for name in fields})
    assert settings.pod is not None
    assert settings.pod.namespace == "a-POD_NAMESPACE"


def test_ports_lead_from_the_api_server_to_the_socket() -> None:
    documents = base()
    own = {row["name"]: row["containerPort"] for row in container(documents, "webhook")["ports"]}
    assert own == {"https": PORT, "metrics": HEALTH_PORT}
    (port,) = ports(documents)
    assert (port["port"], port["targetPort"]) == (443, "https")
    policy = one_of(documents, "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    assert rule.keys() == {"ports"}
    assert {row["port"] for row in rule["ports"]} == own.keys()
    annotations = one_of(documents, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(HEALTH_PORT)
    probes = [container(documents, "webhook")[f"{kind}Probe"] for kind in ("liveness", "readiness")]
    assert [probe["httpGet"] for probe in probes] == [
        {"path": "/healthz", "port": "metrics"},
        {"path": "/readyz", "port": "metrics"},
    ]


def test_one_always_answers_while_nodes_are_drained_and_versions_change() -> None:
    documents = base()
    deployment = one_of(documents, "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert one_of(documents, "PodDisruptionBudget")["spec"]["minAvailable"] == 1
    keys = [row["topologyKey"] for row in pod_of(documents)["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert pod_of(documents)["priorityClassName"] == "system-cluster-critical"


def test_it_is_given_the_time_that_it_takes_to_end() -> None:
    pod, limits = pod_of(base()), Limits()
    asked = container(base(), "webhook")["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert asked >= 5
    assert asked + limits.drain + limits.grace < pod["terminationGracePeriodSeconds"]


def test_its_memory_is_enough_for_all_that_it_ever_holds() -> None:
    """A connection costs up to half a megabyte while it sends."""
    limits = Limits()
    memory = container(base(), "webhook")["resources"]["limits"]["memory"]
    assert memory.endswith("Mi")
    held = (limits.held >> 20) + limits.connections // 2
    assert int(memory.removesuffix("Mi")) >= 128 + held


def test_its_choices_are_the_defaults_and_say_what_there_is_to_choose() -> None:
    text = one_of(base(), "ConfigMap")["data"]["policy.yaml"]
    assert parse_policy(text.encode()) == DEFAULT
    shown = re.findall(r"(?m)^#(\w+: .+)$", text)
    assert parse_policy("\n".join(shown).encode()) == DEFAULT
    guide = (FOLDER.parents[1] / "docs" / "webhook.md").read_text()
    known = re.findall(r"(?m)^(\w+): ", guide.partition("## The operator's policy")[2])
    assert [line.partition(":")[0] for line in shown] == known


def test_with_cert_manager_it_may_write_nothing_but_events(
    build: Callable[[str], Documents],
) -> None:
    documents = build("cert-manager")
    verbs = {
        verb
        for role in of_kind(documents, "Role", "ClusterRole")
        for rule in role["rules"]
        for verb in rule["verbs"]
        if rule["resources"] != ["events"]
    }
    assert verbs == {"list", "watch"}
    assert pod_of(documents) == pod_of(build("base"))


def test_cert_manager_makes_what_is_mounted_and_trusted(build: Callable[[str], Documents]) -> None:
    documents = build("cert-manager")
    found = {row["metadata"]["name"]: row["spec"] for row in of_kind(documents, "Certificate")}
    issuers = {row["metadata"]["name"]: row["spec"] for row in of_kind(documents, "Issuer")}
    leaf, authority = found[NAME], found[f"{NAME}-ca"]
    assert leaf["secretName"] == TLS
    assert leaf["dnsNames"] == DNS_NAMES
    assert "isCA" not in leaf
    assert issuers[leaf["issuerRef"]["name"]] == {"ca": {"secretName": authority["secretName"]}}
    assert issuers[authority["issuerRef"]["name"]] == {"selfSigned": {}}
    # With another key nobody would know the leaf until every pod has one by the new CA.
    assert authority["privateKey"]["rotationPolicy"] == "Never"
    assert leaf["privateKey"]["rotationPolicy"] == "Always"
    for kind in SAID:
        annotations = one_of(documents, kind)["metadata"]["annotations"]
        assert annotations == {"cert-manager.io/inject-ca-from": f"{NAMESPACE}/{NAME}"}


def test_the_self_managed_one_has_its_secret_by_name_and_mounts_none(
    build: Callable[[str], Documents],
) -> None:
    documents = build("self-managed")
    secret = one_of(documents, "Secret")
    assert secret["metadata"]["name"] == TLS
    # With data here, applying it again would take the certificate away.
    assert secret.keys() == {"apiVersion", "kind", "metadata", "type"}
    assert secret["type"] == "Opaque"
    names = [volume["name"] for volume in pod_of(documents)["volumes"]]
    assert names == ["policy", "token"]
    one = container(documents, "webhook")
    assert {row["name"] for row in one["volumeMounts"]} == {"policy", "token"}
    assert one["args"] == [*container(base(), "webhook")["args"], "--self-managed"]
    found = parse_settings(one["args"], {"POD_NAMESPACE": NAMESPACE}).self_managed
    assert found is not None
    assert (found.namespace, found.secret, list(found.names)) == (NAMESPACE, TLS, DNS_NAMES)
    configurations = of_kind(documents, *SAID)
    assert {row["metadata"]["name"] for row in configurations} == {found.configuration}


def test_it_goes_beside_the_node_agent_which_brings_the_namespace(tmp_path: Path) -> None:
    program = kustomize()
    if program is None:
        pytest.skip("no kustomize: hack/peers installs it")
    write_overlay(tmp_path, [AGENT, FOLDER / "base"], [FOLDER / "components" / "cert-manager"])
    documents = build_overlay(program, tmp_path)
    assert [row["metadata"]["name"] for row in of_kind(documents, "Namespace")] == [NAMESPACE]
    assert len(documents) == len(documents_of(AGENT)) + len(base()) + 4


def test_the_namespace_is_closed_to_whatever_the_webhook_does_not_need() -> None:
    (namespace,) = read((FOLDER / "components" / "namespace" / "namespace.yaml").read_bytes())
    assert namespace["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert LABEL not in str(namespace)


DEPLOYMENT: Final = "Deployment"
MUTATING: Final = "MutatingWebhookConfiguration"
VALIDATING: Final = "ValidatingWebhookConfiguration"
POLICY: Final = "ValidatingAdmissionPolicy"
VMI_POLICY: Final = "sevkit-confidential-vmi"
POD: Final = "spec/template/spec"
ONE: Final = f"{POD}/containers/0"
CONTEXT: Final = f"{ONE}/securityContext"
READ_SECRETS: Final = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
ANYBODY: Final = {"kind": "Group", "name": "system:authenticated"}


@pytest.mark.parametrize(
    ("fault", "kind", "path", "value"),
    [
        ("foreign namespace", DEPLOYMENT, "metadata/namespace", "kube-system"),
        ("pod has hostNetwork", DEPLOYMENT, f"{POD}/hostNetwork", True),
        ("webhook has a hostPort", DEPLOYMENT, f"{ONE}/ports/0/hostPort", 9443),
        ("webhook is privileged", DEPLOYMENT, f"{CONTEXT}/privileged", True),
        ("webhook may escalate", DEPLOYMENT, f"{CONTEXT}/allowPrivilegeEscalation", True),
        ("webhook may write its root", DEPLOYMENT, f"{CONTEXT}/readOnlyRootFilesystem", False),
        ("webhook has capabilities", DEPLOYMENT, f"{CONTEXT}/capabilities/add", ["NET_ADMIN"]),
        ("seccomp", DEPLOYMENT, f"{POD}/securityContext/seccompProfile/type", "Unconfined"),
        ("webhook is root", DEPLOYMENT, f"{POD}/securityContext/runAsUser", 0),
        ("webhook is root", DEPLOYMENT, f"{CONTEXT}/runAsNonRoot", False),
        ("other groups", DEPLOYMENT, f"{POD}/securityContext/supplementalGroups", [0]),
        ("other groups", DEPLOYMENT, f"{POD}/securityContext/fsGroup", 0),
        ("no volume", DEPLOYMENT, f"{POD}/volumes/3", {"name": "x", "hostPath": {"path": "/"}}),
        ("no volume", DEPLOYMENT, f"{POD}/volumes/3", {"name": "x", "emptyDir": {}}),
        ("another Secret", DEPLOYMENT, f"{POD}/volumes/0/secret/secretName", "other"),
        ("everybody to read", DEPLOYMENT, f"{POD}/volumes/0/secret/defaultMode", 0o644),
        ("without a certificate", DEPLOYMENT, f"{POD}/volumes/0/secret/optional", True),
        ("may write tls", DEPLOYMENT, f"{ONE}/volumeMounts/0/readOnly", False),
        ("never changes", DEPLOYMENT, f"{ONE}/volumeMounts/1/subPath", "policy.yaml"),
        ("extend to a year", DEPLOYMENT, f"{POD}/automountServiceAccountToken", True),
        ("extend to a year", "ServiceAccount", "automountServiceAccountToken", True),
        ("whole environment", DEPLOYMENT, f"{ONE}/envFrom", [{"secretRef": {"name": "s"}}]),
        ("somebody's registry", DEPLOYMENT, f"{POD}/imagePullSecrets", [{"name": "s"}]),
        ("without a version", DEPLOYMENT, f"{ONE}/image", f"{NAME}:latest"),
        ("somebody else's image", DEPLOYMENT, f"{ONE}/image", "example.org/webhook:1"),
        ("again and again", DEPLOYMENT, f"{ONE}/imagePullPolicy", "Always"),
        ("no limit of memory", DEPLOYMENT, f"{ONE}/resources/limits", {}),
        ("no limit of memory, or others", DEPLOYMENT, f"{ONE}/resources/limits/cpu", "1"),
        ("requests something else", DEPLOYMENT, f"{ONE}/resources/requests", {}),
        ("other rules", "ClusterRole", "rules/2", READ_SECRETS),
        ("other rules", "ClusterRole", "rules/0/verbs", ["*"]),
        ("other rules", "ClusterRole", "aggregationRule", {}),
        ("somebody else", "ClusterRoleBinding", "subjects/1", ANYBODY),
        ("another role", "ClusterRoleBinding", "roleRef/name", "cluster-admin"),
        ("another failurePolicy", MUTATING, "webhooks/2/failurePolicy", "Ignore"),
        ("another matchPolicy", MUTATING, "webhooks/2/matchPolicy", "Exact"),
        ("another reinvocationPolicy", MUTATING, "webhooks/5/reinvocationPolicy", "Never"),
        ("another sideEffects", MUTATING, "webhooks/0/sideEffects", "Some"),
        ("another rules", MUTATING, "webhooks/0/rules/0/operations", ["CREATE", "UPDATE"]),
        ("another failurePolicy", VALIDATING, "webhooks/0/failurePolicy", "Fail"),
        ("keeps people waiting", VALIDATING, "webhooks/0/timeoutSeconds", 30),
        ("trusts whom we name", MUTATING, "webhooks/0/clientConfig/caBundle", "QQ=="),
        ("asks another Service", MUTATING, "webhooks/0/clientConfig/service/name", "other"),
        ("asks at another port", MUTATING, "webhooks/0/clientConfig/service/port", 9443),
        ("comes to no path", MUTATING, "webhooks/0/clientConfig/service/path", "/mutate"),
        ("not /mutate/snp", MUTATING, "webhooks/2/clientConfig/service/path", "/mutate/sev"),
        ("comes to nothing", MUTATING, "webhooks/3/objectSelector", {"matchLabels": {"a": "b"}}),
        ("leaves some VMIs out", MUTATING, "webhooks/0/matchConditions", [{"name": "x"}]),
        ("that ask for nothing", MUTATING, "webhooks/5/objectSelector", {}),
        ("does not choose", "Service", "spec/selector", {"app": "other"}),
        ("does not choose", "NetworkPolicy", "spec/podSelector/matchLabels", {"app": "other"}),
        ("does not choose", "PodDisruptionBudget", "spec/selector/matchLabels", {}),
    ],
)
def test_a_broken_copy_is_caught(fault: str, kind: str, path: str, value: object) -> None:
    found = faults(broken(base(), kind, path, value, name=NAME))
    assert any(fault in one for one in found), found


@pytest.mark.parametrize(
    ("fault", "path", "value"),
    [
        ("fails open", "spec/failurePolicy", "Ignore"),
        ("leaves some objects out", "spec/matchConstraints/excludeResourceRules", []),
        ("leaves some objects out", "spec/matchConstraints/namespaceSelector", {}),
        ("leaves some objects out", "spec/matchConditions", []),
        ("does not say why", "spec/validations/0", {"expression": "true"}),
        ("a policy is missing", "metadata/name", "other"),
        ("do not go together", "metadata/name", "other"),
    ],
)
def test_a_net_with_a_hole_is_caught(fault: str, path: str, value: Any) -> None:  # noqa: ANN401  # JSON
    found = faults(broken(base(), POLICY, path, value, name=VMI_POLICY))
    assert any(fault in one for one in found), found
    bound = broken(base(), f"{POLICY}Binding", "spec/validationActions", ["Warn"], name=VMI_POLICY)
    assert faults(bound) == [f"{VMI_POLICY} is not enforced everywhere"]
