"""A report through the first door that is open: configfs-tsm, else /dev/sev-guest."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Final

from sevkit.errors import HostReadError
from sevkit.guest import device, tsm
from sevkit.guest.door import DoorClosed, closed, open_folder
from sevkit.host.cpuinfo import PATH as CPUINFO
from sevkit.host.cpuinfo import parse_cpuinfo
from sevkit.host.files import Tree
from sevkit.host.reading import Cause, Known, convert

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sevkit.errors import SevkitError
    from sevkit.guest.patience import Patience
    from sevkit.guest.report import GuestReport, ReportRequest

_CONFIGFS: Final = "sys/kernel/config"
#: Only in an SNP guest, from Linux 6.11 on: the VMPL that the kernel runs at.
_VMPL: Final = "sys/devices/system/cpu/sev/vmpl"
_LOAD: Final = "modprobe sev-guest; mount -t configfs none /sys/kernel/config"


def fetch_report(root: str, asked: ReportRequest, patience: Patience) -> GuestReport:
    """Return a report over ``asked`` of the guest whose file system begins at ``root``.

    Raises ``HostReadError`` if nothing can be asked, and says why; else as the doors do.
    """
    doors: tuple[Callable[[str, ReportRequest, Patience], GuestReport], ...] = (_tsm, _device)
    refusals: list[DoorClosed] = []
    for door in doors:
        try:
            found = door(root, asked, patience)
        except DoorClosed as refusal:
            refusals.append(refusal)
        else:
            return dataclasses.replace(found, closed=tuple(one.message for one in refusals))
    raise _conclusion(root, refusals)


def _tsm(root: str, asked: ReportRequest, patience: Patience) -> GuestReport:
    try:
        folder = open_folder(root, tsm.PATH)
    except OSError as error:
        refusal = closed(f"/{tsm.PATH}", error)
        raise _why_no_folder(root) if refusal.cause is Cause.ABSENT else refusal from error
    try:
        return tsm.fetch_from_tsm(tsm.Configfs(folder), asked, patience)
    finally:
        os.close(folder)


def _why_no_folder(root: str) -> DoorClosed:
    """Return which half of configfs-tsm is missing; configfs without any subsystem is empty."""
    tree = Tree(root)
    try:
        names = tree.names(_CONFIGFS)
    finally:
        tree.close()
    if isinstance(names, Known) and names.value:
        return DoorClosed(Cause.ABSENT, f"no tsm/report in /{_CONFIGFS}", hint="modprobe sev-guest")
    return DoorClosed(
        Cause.ABSENT,
        f"no configfs mounted at /{_CONFIGFS}",
        hint=f"mount -t configfs none /{_CONFIGFS}",
    )


def _device(root: str, asked: ReportRequest, patience: Patience) -> GuestReport:
    try:
        folder = open_folder(root, "dev")
        try:
            descriptor = device.open_device(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise closed(device.SOURCE, error) from error
    try:
        vmpl = (_own_level(root) or 0) if asked.vmpl is None else asked.vmpl
        return device.fetch_from_device(device.DeviceFile(descriptor), asked, vmpl, patience)
    finally:
        os.close(descriptor)


def _own_level(root: str) -> int | None:
    """Return the VMPL that the kernel runs at, or None where it does not say."""
    tree = Tree(root)
    try:
        text = tree.text(_VMPL)
    finally:
        tree.close()
    word = text.value.strip() if isinstance(text, Known) else ""
    return int(word) if word in {"0", "1", "2", "3"} else None


def _conclusion(root: str, refusals: Sequence[DoorClosed]) -> SevkitError:
    """Return why there is no report: what went wrong, else what was denied, else what is absent."""
    details = "; ".join(one.message for one in refusals)
    causes = {one.cause for one in refusals}
    if Cause.FAILED in causes or Cause.MALFORMED in causes:
        return HostReadError(details, hint="the kernel's log may say more")
    if Cause.DENIED in causes:
        return HostReadError(details, hint="run as root")
    if _own_level(root) is not None:
        return HostReadError(f"this SNP guest offers no reports: {details}", hint=_LOAD)
    if _is_no_guest(root):
        return HostReadError(
            f"not an SNP guest, nor any guest: {details}", hint="run this inside the guest"
        )
    return HostReadError(
        f"not an SNP guest, or one whose driver is not loaded: {details}", hint=f"in one: {_LOAD}"
    )


def _is_no_guest(root: str) -> bool:
    """Return whether the kernel knows that no hypervisor is below it."""
    tree = Tree(root)
    try:
        facts = convert(tree.text(CPUINFO, limit=16 << 10, head=True), parse_cpuinfo)
    finally:
        tree.close()
    flags = facts.value.flags if isinstance(facts, Known) else None
    return flags is not None and "hypervisor" not in flags
