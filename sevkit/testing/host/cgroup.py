"""The misc controller's files, which count ASIDs, for the root and for each guest's pod.

A resource without capacity has no line at all, in any file. ``misc.capacity`` is in the root
cgroup only, ``misc.max`` everywhere else only; ``misc.current`` came to the root in 6.5. Guests of
SEV-ES and of SEV-SNP are both charged as ``sev_es``, to the cgroup of the pod that started them.
Source: Linux, kernel/cgroup/misc.c; kubelet's systemd cgroup names.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING, Final

from sevkit.testing.host import linux

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sevkit.testing.host.spec import HostSpec
    from sevkit.testing.host.state import HostState

RESOURCES: Final = ("sev", "sev_es")
V2_ROOT: Final = "sys/fs/cgroup"
V1_ROOT: Final = "sys/fs/cgroup/misc"
_PODS: Final = "kubepods.slice/kubepods-burstable.slice"
#: The cgroups above every pod.
SLICES: Final = ("kubepods.slice", _PODS)
_CONTROLLERS: Final = "cpuset cpu io memory hugetlb pids rdma"
#: Simulated pods are named after this, so that the same host always has the same pods.
_NAMESPACE: Final = uuid.UUID("6f4b7c1e-5d0a-4e39-9a55-7a5e1b7c0de5")


def render_cgroup(spec: HostSpec, state: HostState) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of every file of the cgroup hierarchy that matters here."""
    controllers = _CONTROLLERS if state.misc_capacity is None else f"{_CONTROLLERS} misc"
    root = V2_ROOT
    if spec.kernel.cgroup == 1:
        root = V1_ROOT
        yield f"{V2_ROOT}/memory/cgroup.procs", "1\n"
    else:
        yield f"{root}/cgroup.controllers", f"{controllers}\n"
        yield f"{root}/cgroup.subtree_control", f"{controllers}\n"
    if state.misc_capacity is None:
        return
    capacity = state.misc_capacity
    yield f"{root}/misc.capacity", _lines(capacity)
    if spec.kernel.version >= linux.MISC_CURRENT_ON_ROOT or spec.kernel.cgroup == 1:
        yield f"{root}/misc.current", _usage(capacity, state.misc_current)
    if spec.kernel.version >= linux.MISC_PEAK:
        yield f"{root}/misc.peak", _usage(capacity, state.misc_current)
    slices = {f"{root}/{path}": dict(state.misc_current) for path in SLICES}
    for resource, path in _guest_cgroups(spec):
        pod, _, _ = path.rpartition("/")
        slices[f"{root}/{pod}"] = slices[f"{root}/{path}"] = {resource: 1}
    for path, used in slices.items():
        yield f"{path}/misc.current", _usage(capacity, used)
        yield f"{path}/misc.max", "".join(f"{name} max\n" for name in capacity)
        yield f"{path}/misc.events", "".join(f"{name}.max 0\n" for name in capacity)


def _guest_cgroups(spec: HostSpec) -> Iterator[tuple[str, str]]:
    """Yield the resource that each guest uses, and the cgroup of its container."""
    kinds = (
        ("sev", "sev", spec.guests.sev),
        ("sev_es", "sev-es", spec.guests.sev_es),
        ("sev_es", "sev-snp", spec.guests.sev_snp),
    )
    for resource, kind, count in kinds:
        for number in range(count):
            name = f"{spec.name}/{kind}/{number}"
            pod = str(uuid.uuid5(_NAMESPACE, name)).replace("-", "_")
            container = hashlib.sha256(name.encode()).hexdigest()
            yield (
                resource,
                f"{_PODS}/kubepods-burstable-pod{pod}.slice/cri-containerd-{container}.scope",
            )


def _lines(values: Mapping[str, int]) -> str:
    return "".join(f"{name} {values[name]}\n" for name in RESOURCES if name in values)


def _usage(capacity: Mapping[str, int], used: Mapping[str, int]) -> str:
    """Return a line for what has capacity or is in use, as the kernel does."""
    shown = {name: used.get(name, 0) for name in RESOURCES if name in capacity or used.get(name)}
    return _lines(shown)
