"""What must never creep into the manifests, read of every document that would be applied.

The base is read as it stands, because nothing in it is patched; with components it is what
kustomize builds of it. Each rule is shown to find what it is for.
"""

from __future__ import annotations

import copy
import os
import re
from typing import TYPE_CHECKING, Final

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
from node_agent.nfd_sink import encode_features
from sevkit.kubevirt.labels import CAPABILITIES, LABELS, RESOURCES, NodeWord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hack.deploy_manifests import Documents

FOLDER: Final = deploy_manifests.FOLDER / "node-agent"
NAME: Final = "sevkit-node-agent"
KVM: Final = "devices.kubevirt.io/kvm"
SEV: Final = "devices.kubevirt.io/sev"
FEATURES: Final = "/etc/kubernetes/node-feature-discovery/features.d"
TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
COMPONENTS: Final = ("kvm", "firmware-reader", "nfd")
#: By name: which components are put together.
VARIANTS: Final = {
    "base": (),
    **{name: (name,) for name in COMPONENTS},
    "kvm and firmware-reader": COMPONENTS[:2],
    "all": COMPONENTS,
    "all, the other way round": COMPONENTS[::-1],
}
#: What of the host is mounted, and whether it may be written.
HOST_PATHS: Final = {"/sys": False, "/var/lib/kubelet/device-plugins": False, FEATURES: True}
#: Containers that are root, without any capability.
ROOTS: Final = {"firmware-reader", "open-features"}
RULES: Final = {
    "ClusterRole": [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    ],
    "Role": [
        {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}
    ],
}
KINDS: Final = {
    "Namespace",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "DaemonSet",
    "NodeFeatureRule",
}


def foreign_kinds(documents: Documents) -> Iterator[str]:
    for document in documents:
        if document["kind"] not in KINDS:
            yield f"{document['kind']} is no kind of the agent's"
        if document["metadata"].get("namespace", NAMESPACE) not in {NAMESPACE, "default"}:
            yield f"{document['kind']} is in a foreign namespace"


def users(documents: Documents) -> Iterator[str]:
    pod = pod_of(documents)["securityContext"]
    for one in containers(documents):
        context = pod | one.get("securityContext", {})
        is_user = context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0
        if not is_user and one["name"] not in ROOTS:
            yield f"{one['name']} is root"
    if pod.get("supplementalGroups") != [0] or "fsGroup" in pod:
        yield "pod has other groups"


def host_paths(documents: Documents) -> Iterator[str]:
    sources = {}
    for volume in pod_of(documents)["volumes"]:
        if "hostPath" in volume:
            path = sources[volume["name"]] = volume["hostPath"]["path"]
            if path not in HOST_PATHS:
                yield f"{path} of the host is mounted"
        elif "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"{volume['name']} has no limit"
    for one in containers(documents):
        for mount in one.get("volumeMounts", []):
            path = sources.get(mount["name"])
            if path and mount.get("readOnly") is not True and not HOST_PATHS.get(path):
                yield f"{one['name']} may write {path}"
            if mount.get("mountPropagation", "None") != "None":
                yield f"{one['name']} propagates mounts"
        if one.get("volumeDevices"):
            yield f"{one['name']} has block devices"


def tokens(documents: Documents) -> Iterator[str]:
    pod = pod_of(documents)
    accounts = of_kind(documents, "ServiceAccount")
    for one in (pod, *accounts):
        if one.get("automountServiceAccountToken") is not False:
            yield "a token is mounted into every container"
    holders = {
        volume["name"]
        for volume in pod["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }
    for one in containers(documents):
        if one["name"] != "agent" and holders & {m["name"] for m in one.get("volumeMounts", [])}:
            yield f"{one['name']} has a token"


def secrets(documents: Documents) -> Iterator[str]:
    for volume in pod_of(documents)["volumes"]:
        sources = volume.get("projected", {}).get("sources", [])
        if "secret" in volume or any("secret" in source for source in sources):
            yield f"{volume['name']} is a secret"
    yield from environments(documents)


def resources(documents: Documents) -> Iterator[str]:
    for one in containers(documents):
        asked = one.get("resources", {})
        if "memory" not in asked.get("limits", {}):
            yield f"{one['name']} has no limit of memory"
        if not {"cpu", "memory"} <= asked.get("requests", {}).keys():
            yield f"{one['name']} requests nothing"
        for device in asked.get("limits", {}).keys() - {"memory"}:
            if (one["name"], device) not in {("agent", KVM), ("firmware-reader", SEV)}:
                yield f"{one['name']} asks for {device}"


def rights(documents: Documents) -> Iterator[str]:
    for role in of_kind(documents, *RULES):
        for rule in role.get("rules", []):
            if "*" in str(rule):
                yield f"{role['kind']} has a wildcard"
            if "secrets" in rule.get("resources", []):
                yield f"{role['kind']} reads secrets"
        if role.get("rules") != RULES[role["kind"]] or "aggregationRule" in role:
            yield f"{role['kind']} has other rules"
    yield from bindings_of(documents, NAME)


def policies(documents: Documents) -> Iterator[str]:
    for document in of_kind(documents, "ValidatingAdmissionPolicy"):
        name, spec = document["metadata"]["name"], document["spec"]
        if spec.get("failurePolicy") != "Fail":
            yield f"{name} fails open"
        constraints = spec["matchConstraints"]
        if constraints.keys() != {"matchPolicy", "resourceRules"}:
            yield f"{name} leaves some objects out"
        if any(rule["operations"] != ["*"] for rule in constraints["resourceRules"]):
            yield f"{name} leaves some operations out"
        for condition in spec["matchConditions"]:
            if NAMESPACE in condition["expression"] or NAME not in condition["expression"]:
                yield f"{name} is not for the agent of any namespace"
        for validation in spec["validations"]:
            if validation.get("reason") != "Forbidden" or not validation.get("message"):
                yield f"{name} does not say why, or not with 403"


def bindings(documents: Documents) -> Iterator[str]:
    named = {
        document["metadata"]["name"] for document in of_kind(documents, "ValidatingAdmissionPolicy")
    }
    bound = set()
    for document in of_kind(documents, "ValidatingAdmissionPolicyBinding"):
        name, spec = document["metadata"]["name"], document["spec"]
        bound.add(spec["policyName"])
        if "Deny" not in spec["validationActions"]:
            yield f"{name} denies nothing"
        if spec.keys() - {"policyName", "validationActions"}:
            yield f"{name} is bound to some objects only"
    wanted = {NAME, f"{NAME}-events"} if of_kind(documents, *RULES) else set()
    if not named == bound == wanted:
        yield "rights and fences do not go together"


def rules_of_features(documents: Documents) -> Iterator[str]:
    for document in of_kind(documents, "NodeFeatureRule"):
        for rule in document["spec"]["rules"]:
            if rule.keys() - {"name", "matchFeatures", "extendedResources"}:
                yield "a rule makes more than resources"
            if not set(rule["extendedResources"]) <= set(RESOURCES):
                yield "a rule makes a foreign resource"


CHECKS: Final[tuple[Callable[[Documents], Iterator[str]], ...]] = (
    foreign_kinds,
    shared_with_the_host,
    privileges,
    users,
    host_paths,
    tokens,
    secrets,
    lambda documents: images(documents, NAME),
    resources,
    rights,
    policies,
    bindings,
    rules_of_features,
)


def faults(documents: Documents) -> list[str]:
    return [fault for check in CHECKS for fault in check(documents)]


def base() -> Documents:
    return documents_of(FOLDER / "base")


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
    assert faults(build(variant)) == []


@pytest.mark.parametrize(
    ("variant", "names"),
    [
        ("base", ["agent"]),
        ("kvm", ["agent"]),
        ("firmware-reader", ["agent", "firmware-reader"]),
        ("nfd", ["open-features", "agent"]),
        ("all", ["open-features", "agent", "firmware-reader"]),
        ("all, the other way round", ["open-features", "agent", "firmware-reader"]),
    ],
)
def test_each_variant_has_its_containers(
    build: Callable[[str], Documents], variant: str, names: list[str]
) -> None:
    assert [one["name"] for one in containers(build(variant))] == names


def test_the_base_asks_for_no_device(build: Callable[[str], Documents]) -> None:
    assert "devices." not in str(container(build("base"), "agent")["resources"])


def test_kvm_adds_a_device_and_nothing_else(build: Callable[[str], Documents]) -> None:
    found = pod_of(build("kvm"))
    for key in ("limits", "requests"):
        assert found["containers"][0]["resources"][key].pop(KVM) == "1"
    assert found == pod_of(build("base"))


def test_the_firmware_reader_alone_has_the_secure_processor_and_little_else(
    build: Callable[[str], Documents],
) -> None:
    documents = build("firmware-reader")
    reader = container(documents, "firmware-reader")
    assert reader["resources"]["limits"][SEV] == "1"
    assert [mount["name"] for mount in reader["volumeMounts"]] == ["firmware"]
    assert "env" not in reader
    assert SEV not in str(container(documents, "agent"))
    volumes = {volume["name"]: volume for volume in pod_of(documents)["volumes"]}
    assert volumes["firmware"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "1Mi"}


def test_agent_and_firmware_reader_mean_the_same_file(build: Callable[[str], Documents]) -> None:
    documents = build("firmware-reader")
    agent, reader = (container(documents, name) for name in ("agent", "firmware-reader"))
    (out,) = (word.removeprefix("--out=") for word in reader["args"])
    assert f"--firmware-facts={out}" in agent["args"]
    (mount,) = (mount for mount in agent["volumeMounts"] if mount["name"] == "firmware")
    assert mount == {"name": "firmware", "mountPath": os.path.dirname(out), "readOnly": True}  # noqa: PTH120  # an image's path


@pytest.mark.parametrize("variant", ["nfd", "all", "all, the other way round"])
def test_with_nfd_the_agent_has_no_rights_and_no_token(
    build: Callable[[str], Documents], variant: str
) -> None:
    documents = build(variant)
    kinds = sorted(document["kind"] for document in documents)
    assert kinds == ["DaemonSet", "Namespace", "NodeFeatureRule", "ServiceAccount"]
    agent = container(documents, "agent")
    assert agent["args"][0] == "--sink=nfd"
    assert TOKEN not in str(agent["volumeMounts"])
    assert "serviceAccountToken" not in str(pod_of(documents)["volumes"])
    # Its default is a file in the folder that is mounted there.
    assert "--nfd-file" not in str(agent["args"])
    assert FEATURES in {mount["mountPath"] for mount in agent["volumeMounts"]}


def nfd_reads(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return features and labels, as node-feature-discovery reads a file (``source/local``).

    A directive is for the next feature alone.
    """
    features: dict[str, str] = {}
    labels: dict[str, str] = {}
    is_label = True
    for line in filter(None, map(str.strip, text.split("\n"))):
        if line.startswith("#"):
            is_label = is_label and line != "# +no-label"
            continue
        key, is_there, value = line.partition("=")
        features[key] = value if is_there else "true"
        if is_label:
            labels[key] = features[key]
        is_label = True
    return features, labels


def guests(documents: Documents, features: dict[str, str]) -> dict[str, str]:
    """Return the extended resources that the rules make, as nfd-master evaluates them."""
    (document,) = of_kind(documents, "NodeFeatureRule")
    made = {}
    for rule in document["spec"]["rules"]:
        (matcher,) = rule["matchFeatures"]
        assert matcher["feature"] == "local.feature"
        assert list(matcher["matchExpressions"].values()) == [{"op": "Exists"}]
        if matcher["matchExpressions"].keys() <= features.keys():
            for name, value in rule["extendedResources"].items():
                domain, feature, element = value.removeprefix("@").split(".", 2)
                assert (domain, feature) == ("local", "feature")
                made[name] = features[element]
    return made


WORD: Final = NodeWord(
    {"sevkit.io/sev": "true", "sevkit.io/sev-snp": "false", "sevkit.io/product": "genoa"},
    {},
    {"sevkit.io/sev": "99", "sevkit.io/sev-es": "0", "sevkit.io/sev-snp": "7"},
)


def test_nfd_makes_of_the_agents_file_the_resources_that_the_agent_means() -> None:
    rules = read((FOLDER / "components" / "nfd" / "node-feature-rule.yaml").read_bytes())
    features, labels = nfd_reads(encode_features(WORD))
    assert guests(rules, features) == WORD.capacity
    assert labels == WORD.labels


def test_nfd_makes_no_resource_of_what_was_never_known() -> None:
    rules = read((FOLDER / "components" / "nfd" / "node-feature-rule.yaml").read_bytes())
    assert guests(rules, {"sevkit.io/capacity.sev": "3"}) == {"sevkit.io/sev": "3"}


def test_the_agent_listens_where_it_is_asked() -> None:
    agent = container(base(), "agent")
    (daemon_set,) = of_kind(base(), "DaemonSet")
    (port,) = agent["ports"]
    assert port == {"name": "metrics", "containerPort": 9465}
    annotations = daemon_set["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "9465"
    paths = [agent[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")]
    assert paths == ["/healthz", "/readyz"]
    assert {row["name"] for row in agent["env"]} == {"NODE_NAME", "POD_NAME", "POD_IP"}


def test_the_agent_is_on_every_node_that_could_have_sev_and_away_in_no_time() -> None:
    (daemon_set,) = of_kind(base(), "DaemonSet")
    pod = pod_of(base())
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["terminationGracePeriodSeconds"] <= 10
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}}
    assert daemon_set["spec"]["updateStrategy"] == rolling
    assert "priorityClassName" not in pod


def test_its_token_is_none_that_api_servers_extend_to_a_year() -> None:
    (volume,) = (row for row in pod_of(base())["volumes"] if row["name"] == "token")
    (token,) = (
        source["serviceAccountToken"]
        for source in volume["projected"]["sources"]
        if "serviceAccountToken" in source
    )
    assert token == {"path": "token", "expirationSeconds": 3600}


def test_what_is_left_of_the_agent_is_taken_back_as_the_guide_says() -> None:
    guide = (FOLDER.parents[1] / "docs" / "node-agent-deploy.md").read_text()
    commands = guide.partition("## Uninstall")[2].replace("\\\n", "")
    assert set(re.findall(r"(sevkit\.io/[a-z-]+)-(?=\s)", commands)) == {*LABELS, CAPABILITIES}
    assert set(re.findall(r'"(sevkit\.io/[a-z-]+)": null', commands)) == set(RESOURCES)


POD: Final = "spec/template/spec"
AGENT: Final = f"{POD}/containers/0"
CONTEXT: Final = f"{AGENT}/securityContext"
SECRET_ENV: Final = {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
MIGHT: Final = {"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}
READ_SECRETS: Final = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}
ANYBODY: Final = {"kind": "Group", "name": "system:authenticated"}


@pytest.mark.parametrize(
    ("fault", "kind", "path", "value"),
    [
        ("foreign namespace", "DaemonSet", "metadata/namespace", "kube-system"),
        ("pod has hostNetwork", "DaemonSet", f"{POD}/hostNetwork", True),
        ("pod has hostPID", "DaemonSet", f"{POD}/hostPID", True),
        ("pod has hostIPC", "DaemonSet", f"{POD}/hostIPC", True),
        ("pod has share", "DaemonSet", f"{POD}/shareProcessNamespace", True),
        ("agent has a hostPort", "DaemonSet", f"{AGENT}/ports/0/hostPort", 9465),
        ("agent is privileged", "DaemonSet", f"{CONTEXT}/privileged", True),
        ("agent may escalate", "DaemonSet", f"{CONTEXT}/allowPrivilegeEscalation", True),
        ("agent may write its root", "DaemonSet", f"{CONTEXT}/readOnlyRootFilesystem", False),
        ("agent has capabilities", "DaemonSet", f"{CONTEXT}/capabilities", {}),
        ("agent has capabilities", "DaemonSet", f"{CONTEXT}/capabilities/add", ["SYS_RAWIO"]),
        ("agent has a profile", "DaemonSet", f"{CONTEXT}/seccompProfile", {"type": "Unconfined"}),
        ("agent has a profile", "DaemonSet", f"{CONTEXT}/procMount", "Unmasked"),
        ("seccomp", "DaemonSet", f"{POD}/securityContext/seccompProfile/type", "Unconfined"),
        ("agent is root", "DaemonSet", f"{POD}/securityContext/runAsUser", 0),
        ("agent is root", "DaemonSet", f"{POD}/securityContext/runAsNonRoot", False),
        ("agent is root", "DaemonSet", f"{CONTEXT}/runAsUser", 0),
        ("other groups", "DaemonSet", f"{POD}/securityContext/fsGroup", 0),
        ("other groups", "DaemonSet", f"{POD}/securityContext/supplementalGroups", [0, 6]),
        ("/dev of the host", "DaemonSet", f"{POD}/volumes/0/hostPath/path", "/dev"),
        ("agent may write /sys", "DaemonSet", f"{AGENT}/volumeMounts/0/readOnly", False),
        ("agent may write /var", "DaemonSet", f"{AGENT}/volumeMounts/1/readOnly", False),
        ("propagates", "DaemonSet", f"{AGENT}/volumeMounts/0/mountPropagation", "Bidirectional"),
        ("block devices", "DaemonSet", f"{AGENT}/volumeDevices", [{"name": "sys"}]),
        ("has no limit", "DaemonSet", f"{POD}/volumes/3", {"name": "x", "emptyDir": {}}),
        ("every container", "DaemonSet", f"{POD}/automountServiceAccountToken", True),
        ("every container", "ServiceAccount", "automountServiceAccountToken", True),
        ("is a secret", "DaemonSet", f"{POD}/volumes/3", {"name": "s", "secret": {}}),
        ("is a secret", "DaemonSet", f"{POD}/volumes/2/projected/sources/2", {"secret": {}}),
        ("secret in its env", "DaemonSet", f"{AGENT}/env/3", SECRET_ENV),
        ("whole environment", "DaemonSet", f"{AGENT}/envFrom", [{"secretRef": {"name": "s"}}]),
        ("somebody's registry", "DaemonSet", f"{POD}/imagePullSecrets", [{"name": "s"}]),
        ("without a version", "DaemonSet", f"{AGENT}/image", NAME),
        ("without a version", "DaemonSet", f"{AGENT}/image", f"{NAME}:latest"),
        ("somebody else's image", "DaemonSet", f"{AGENT}/image", "example.org/agent:1"),
        ("again and again", "DaemonSet", f"{AGENT}/imagePullPolicy", "Always"),
        ("no limit of memory", "DaemonSet", f"{AGENT}/resources/limits", {}),
        ("requests nothing", "DaemonSet", f"{AGENT}/resources/requests", {}),
        (f"asks for {SEV}", "DaemonSet", f"{AGENT}/resources/limits/{SEV.replace('/', '%')}", "1"),
        ("has a wildcard", "ClusterRole", "rules/2", MIGHT),
        ("has a wildcard", "ClusterRole", "rules/0/verbs", ["*"]),
        ("has a wildcard", "Role", "rules/0/apiGroups", ["*"]),
        ("reads secrets", "ClusterRole", "rules/2", READ_SECRETS),
        ("has other rules", "ClusterRole", "rules/0/verbs", ["get", "patch"]),
        ("has other rules", "ClusterRole", "aggregationRule", {}),
        ("somebody else", "ClusterRoleBinding", "subjects/1", ANYBODY),
        ("another role", "ClusterRoleBinding", "roleRef/name", "cluster-admin"),
        ("another role", "RoleBinding", "roleRef/kind", "ClusterRole"),
        ("fails open", "ValidatingAdmissionPolicy", "spec/failurePolicy", "Ignore"),
        (
            "some objects out",
            "ValidatingAdmissionPolicy",
            "spec/matchConstraints/excludeResourceRules",
            [],
        ),
        (
            "some operations out",
            "ValidatingAdmissionPolicy",
            "spec/matchConstraints/resourceRules/0/operations",
            ["UPDATE"],
        ),
        (
            "agent of any namespace",
            "ValidatingAdmissionPolicy",
            "spec/matchConditions/0/expression",
            f"request.userInfo.username == 'system:serviceaccount:{NAMESPACE}:{NAME}'",
        ),
        (
            "does not say why",
            "ValidatingAdmissionPolicy",
            "spec/validations/0",
            {"expression": "true"},
        ),
        ("denies nothing", "ValidatingAdmissionPolicyBinding", "spec/validationActions", ["Warn"]),
        ("some objects only", "ValidatingAdmissionPolicyBinding", "spec/matchResources", {}),
        ("do not go together", "ValidatingAdmissionPolicyBinding", "spec/policyName", "other"),
    ],
)
def test_a_broken_copy_is_caught(fault: str, kind: str, path: str, value: object) -> None:
    found = faults(broken(base(), kind, path, value, name=NAME))
    assert any(fault in one for one in found), found


@pytest.mark.parametrize("kind", ["Secret", "Pod", "Deployment", "Ingress", "NetworkPolicy"])
def test_a_foreign_object_is_caught(kind: str) -> None:
    documents = [*base(), {"kind": kind, "metadata": {"name": "x", "namespace": NAMESPACE}}]
    assert faults(documents) == [f"{kind} is no kind of the agent's"]


@pytest.mark.parametrize("kind", ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"])
def test_rights_without_a_fence_are_caught(kind: str) -> None:
    documents = [document for document in base() if document["kind"] != kind]
    assert faults(documents) == ["rights and fences do not go together"]


def test_a_token_in_the_firmware_reader_is_caught(build: Callable[[str], Documents]) -> None:
    documents = build("firmware-reader")
    mount = {"name": "token", "mountPath": TOKEN}
    container(documents, "firmware-reader")["volumeMounts"].append(mount)
    assert faults(documents) == ["firmware-reader has a token"]


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("taints", [], "a rule makes more than resources"),
        ("extendedResources", {"cpu": "1"}, "a rule makes a foreign resource"),
    ],
)
def test_a_rule_that_makes_more_is_caught(
    build: Callable[[str], Documents], key: str, value: object, fault: str
) -> None:
    documents = build("nfd")
    (document,) = of_kind(documents, "NodeFeatureRule")
    document["spec"]["rules"][0][key] = value
    assert faults(documents) == [fault]
