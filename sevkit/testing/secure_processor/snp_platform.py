"""The SNP platform: initialisation, the TCB versions that it reports, and the VLEK.

Theory of operation. There are two states, UNINIT and INIT. Three TCB versions are told apart: the
current one runs, the committed one is the floor below which firmware cannot be rolled back, and the
reported one is what attestation reports show and what the VCEK that signs them is derived from. It
is the committed one unless SNP_CONFIG set a lower one; SNP_COMMIT makes the current version the
committed one and drops that setting. A VLEK, if loaded, signs in the VCEK's place.

Source: 56860 chapters 2.2 (TCB versions), 5.2 (states) and 8.1 to 8.20 (platform commands).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.platform_status import (
    PlatformState,
    SnpPlatformStatus,
    SnpStatusBits,
    SnpStatusFlags,
)
from sevkit.abi.policy import PlatformInfo
from sevkit.abi.tcb import TcbVersion, encode_tcb, parse_tcb
from sevkit.errors import FormatError, SignatureMismatch, UsageError
from sevkit.testing.secure_processor.identity import read_hashstick_tcb

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric import ec

    from sevkit.testing.secure_processor.core import Core, Firmware
    from sevkit.testing.secure_processor.sev_platform import SevPlatform


@final
class SnpPlatform:
    """The SNP platform commands of one secure processor; each raises ``CommandError``.

    ``platform_info`` is what reports show of the host, beside what the firmware itself knows.
    """

    def __init__(self, core: Core, sev: SevPlatform) -> None:
        self._core: Final = core
        self._sev: Final = sev
        self._reported: TcbVersion | None = None
        self.mask_chip_id = False
        self.mask_chip_key = False
        self.rmp_initialized = False
        self.vlek_key: ec.EllipticCurvePrivateKey | None = None
        self.platform_info = PlatformInfo.SMT_EN | PlatformInfo.ECC_EN
        self.guest_count: Callable[[], int] = lambda: 0
        self.end_guests: Callable[[], None] = lambda: None
        self._rmp_made_by: TcbVersion | None = None

    @property
    def current_tcb(self) -> TcbVersion:
        """The TCB version that runs."""
        return self._tcb(self._core.firmware)

    @property
    def committed_tcb(self) -> TcbVersion:
        """The TCB version below which nothing can be installed."""
        return self._tcb(self._core.committed)

    @property
    def reported_tcb(self) -> TcbVersion:
        """The TCB version that reports show, and that the VCEK is derived from."""
        return self._reported or self.committed_tcb

    def raw(self, tcb: TcbVersion) -> int:
        """Return a TCB version in this chip's byte order, 64 bits."""
        return encode_tcb(self._core.line, tcb)

    def enter(self, command: str, *, initialized: bool = False) -> None:
        """Pass the gate: log, faults, whether the chip has SNP, and the state if it matters."""
        self._core.enter(command)
        if not self._core.line.snp:
            raise CommandError(command, FirmwareStatus.INVALID_COMMAND, "no SNP silicon")
        if initialized and not self._core.snp_initialized:
            raise CommandError(command, FirmwareStatus.INVALID_PLATFORM_STATE)

    def init(self, *, rmp: bool = True) -> None:
        """SNP_INIT (56860 8.1), which must come before SEV's INIT; ``rmp`` makes a new RMP.

        One that another version of the firmware made cannot be taken over.
        """
        command = "SNP_INIT"
        self.enter(command)
        if self._core.snp_initialized or self._sev.state is not PlatformState.UNINIT:
            raise CommandError(command, FirmwareStatus.INVALID_PLATFORM_STATE)
        if not rmp and not (self.rmp_initialized and self._rmp_made_by == self.current_tcb):
            raise CommandError(command, FirmwareStatus.RMP_INIT_REQUIRED)
        self.rmp_initialized = True
        self._rmp_made_by = self.current_tcb
        self._core.snp_initialized = True
        self._core.soil_all()

    def shutdown(self, *, iommu: bool = False) -> None:
        """SNP_SHUTDOWN_EX (56860 8.2): SEV must be UNINIT and every ASID clean.

        ``iommu`` gives the RMP up, and with it the mask bits of SNP_CONFIG. The reported TCB
        version stays as it was set.
        """
        command = "SNP_SHUTDOWN"
        self.enter(command)
        if self._sev.state is not PlatformState.UNINIT:
            raise CommandError(command, FirmwareStatus.INVALID_PLATFORM_STATE)
        if not self._core.snp_initialized:
            return
        if not self._core.asids_clean:
            raise CommandError(command, FirmwareStatus.DFFLUSH_REQUIRED)
        self.end_guests()
        self.vlek_key = None
        self._core.snp_initialized = False
        if iommu:
            self.rmp_initialized = self.mask_chip_id = self.mask_chip_key = False

    def df_flush(self) -> None:
        """SNP_DF_FLUSH (56860 8.9): clean dirty ASIDs, if WBINVD was executed since."""
        self.enter("SNP_DF_FLUSH")
        self._core.df_flush("SNP_DF_FLUSH")

    def status(self) -> SnpPlatformStatus:
        """SNP_PLATFORM_STATUS (56860 8.3), in any state."""
        self.enter("SNP_PLATFORM_STATUS")
        firmware = self._core.firmware
        bits = SnpStatusBits(0)
        if self.rmp_initialized:
            bits |= SnpStatusBits.RMP_INITIALIZED
            bits |= SnpStatusBits.ALIAS_CHECK_COMPLETE if firmware.alias_check else 0
        flags = SnpStatusFlags(0)
        for flag, held in (
            (SnpStatusFlags.MASK_CHIP_ID, self.mask_chip_id),
            (SnpStatusFlags.MASK_CHIP_KEY, self.mask_chip_key),
            (SnpStatusFlags.VLEK_EN, self.vlek_key is not None),
            (SnpStatusFlags.FEATURE_INFO, firmware.version >= (1, 55, 0)),
            (SnpStatusFlags.CIPHERTEXT_HIDING_CAP, firmware.ciphertext_hiding_capable),
            (SnpStatusFlags.CIPHERTEXT_HIDING_EN, firmware.ciphertext_hiding),
        ):
            flags |= flag if held else SnpStatusFlags(0)
        return SnpPlatformStatus(
            firmware.version.major,
            firmware.version.minor,
            PlatformState.INIT if self._core.snp_initialized else PlatformState.UNINIT,
            bits,
            firmware.version.build,
            flags,
            self.guest_count(),
            self.raw(self.current_tcb),
            self.raw(self.reported_tcb),
        )

    def config(
        self, reported_tcb: int = 0, *, mask_chip_id: bool = False, mask_chip_key: bool = False
    ) -> None:
        """SNP_CONFIG (56860 8.6): what reports show; ``reported_tcb`` is raw, 0 the committed one.

        No component may be above the committed version's: the VCEK of a version that the chip
        cannot roll back from would be worth nothing.
        """
        command = "SNP_CONFIG"
        if not 0 <= reported_tcb < 1 << 64:
            raise UsageError("a raw TCB version has 64 bits")
        self.enter(command)
        reported = self.committed_tcb
        if reported_tcb:
            try:
                reported = parse_tcb(
                    self._core.line, reported_tcb, structure="reported TCB", offset=0
                )
            except FormatError as error:
                status = FirmwareStatus.INVALID_PARAM
                raise CommandError(command, status, error.message) from error
            if self.committed_tcb.below(reported):
                raise CommandError(command, FirmwareStatus.INVALID_PARAM, "above the committed TCB")
        self._reported = reported
        self.mask_chip_id = mask_chip_id
        self.mask_chip_key = mask_chip_key

    def commit(self) -> None:
        """SNP_COMMIT (56860 8.7): no way back from here to older firmware."""
        self.enter("SNP_COMMIT")
        self._commit()

    def _commit(self) -> None:
        self._core.committed = self._core.firmware
        self._reported = None

    def vlek_load(self, hashstick: bytes) -> None:
        """SNP_VLEK_LOAD (56860 8.20): take the VLEK that a provider wrapped for this chip."""
        command = "SNP_VLEK_LOAD"
        self.enter(command)
        try:
            wanted = read_hashstick_tcb(hashstick)
            if wanted != self.raw(self.reported_tcb):
                raise CommandError(command, FirmwareStatus.BAD_SVN, "not for the reported TCB")
            key, _ = self._core.identity.open_hashstick(hashstick)
        except FormatError as error:
            raise CommandError(command, FirmwareStatus.INVALID_PARAM, error.message) from error
        except SignatureMismatch as error:
            raise CommandError(command, FirmwareStatus.BAD_MEASUREMENT, error.message) from error
        self.vlek_key = key

    def update_firmware(self, firmware: Firmware, *, commit: bool = False) -> None:
        """DOWNLOAD_FIRMWARE_EX (56860 8.22): run another version; SNP guests go on.

        SEV must be UNINIT. Raises ``UsageError`` for one that the chip cannot run, ``CommandError``
        for one below the committed version. Without ``commit`` there is a way back.
        """
        command = "DOWNLOAD_FIRMWARE_EX"
        self.enter(command)
        if self._sev.state is not PlatformState.UNINIT:
            raise CommandError(command, FirmwareStatus.INVALID_PLATFORM_STATE, "SEV is INIT")
        self._core.load(command, firmware)
        if commit:
            self._commit()

    def _tcb(self, firmware: Firmware) -> TcbVersion:
        if firmware.tcb is None:
            raise UsageError(f"{self._core.identity.product} has no TCB version")
        return firmware.tcb
