"""The SEV platform: the commands that manage its state, its owner and its certificates.

Theory of operation. PSTATE is UNINIT until INIT, INIT while there is no guest, WORKING while there
is one; SHUTDOWN leads back to UNINIT from anywhere and ends every SEV guest. The CEK is the chip's
for ever. OCA, PEK and PDH are stored and survive SHUTDOWN: INIT makes only what is not there. A
self-owned platform signs its PEK with an OCA of its own; PEK_CERT_IMPORT replaces that OCA by an
external owner's, and PEK_GEN or a factory reset make the platform self-owned again.

``_STATES`` is the table of PSTATEs in which each command is legal; every other is answered with
INVALID_PLATFORM_STATE before anything else is looked at.

Source: 55766 chapters 3 (platform states) and 5 (platform management), appendix C (certificates).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.firmware_status import CommandError, FirmwareStatus
from sevkit.abi.platform_status import PlatformState, PlatformStatus, StatusFlags
from sevkit.abi.sevcert import SIZE, Algorithm, Usage
from sevkit.testing.secure_processor.certificates import (
    check_import,
    copy_signature,
    strip_signatures,
)
from sevkit.testing.sev_chain import certify, sign_ecdsa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sevkit.testing.secure_processor.core import Core, Firmware

_UNINIT: Final = frozenset({PlatformState.UNINIT})
_INIT: Final = frozenset({PlatformState.INIT})
_UP: Final = frozenset({PlatformState.INIT, PlatformState.WORKING})
_ANY: Final = frozenset(PlatformState)

#: In which PSTATEs each command is legal (55766 chapter 5).
_STATES: Final[Mapping[str, frozenset[PlatformState]]] = {
    "INIT": _UNINIT,
    "SHUTDOWN": _ANY,
    "FACTORY_RESET": _UNINIT,
    "PLATFORM_STATUS": _ANY,
    "PEK_GEN": _INIT,
    "PEK_CSR": _UP,
    "PEK_CERT_IMPORT": _INIT,
    "PDH_CERT_EXPORT": _UP,
    "PDH_GEN": _UP,
    "DF_FLUSH": _ANY,
    "GET_ID": _ANY,
    "DOWNLOAD_FIRMWARE": _UNINIT,
}
#: By whether an external owner has the platform, and whether SEV-ES is on: a table, because
#: putting flags together costs more than all else that an ioctl for the status does.
_FLAGS: Final = {
    (owned, es): StatusFlags(StatusFlags.OWNED * owned | StatusFlags.CONFIG_ES * es)
    for owned in (False, True)
    for es in (False, True)
}
_SIGN: Final = Algorithm.ECDSA_SHA256


@final
class SevPlatform:
    """The platform commands of one processor; each raises ``CommandError`` or ``NoAnswer``."""

    def __init__(self, core: Core) -> None:
        self._core: Final = core
        self.state = PlatformState.UNINIT
        self.es = False
        self.externally_owned = False
        self.guest_count: Callable[[], int] = lambda: 0
        self.end_guests: Callable[[], None] = lambda: None
        self._keys: Final[dict[Usage, ec.EllipticCurvePrivateKey]] = {}
        self._certificates: Final[dict[Usage, bytes]] = {}
        self._spoilt = False

    def enter(self, command: str, states: frozenset[PlatformState] | None = None) -> None:
        """Pass the gate: log, faults, PSTATE."""
        self._core.enter(command)
        if self.state not in (_STATES[command] if states is None else states):
            raise CommandError(command, FirmwareStatus.INVALID_PLATFORM_STATE, self.state.name)

    def init(self, *, es: bool = False) -> None:
        """INIT (55766 5.1): make what is not stored, turn SEV-ES on if asked, go to INIT.

        What is stored and damaged is SECURE_DATA_INVALID, once: it is erased.
        """
        self.enter("INIT")
        if self._spoilt:
            self._erase()
            raise CommandError("INIT", FirmwareStatus.SECURE_DATA_INVALID)
        self._store_missing()
        self.es = es
        self.state = PlatformState.INIT
        self._core.soil_all()

    def shutdown(self) -> None:
        """SHUTDOWN (55766 5.2): every SEV guest ends; what is stored stays."""
        self.enter("SHUTDOWN")
        self.end_guests()
        self.es = False
        self.state = PlatformState.UNINIT

    def factory_reset(self) -> None:
        """PLATFORM_RESET (55766 5.3): forget OCA, PEK, PDH and the owner; the CEK is the chip's."""
        self.enter("FACTORY_RESET")
        self._erase()

    def spoil_store(self) -> None:
        """Damage what is stored, as flash does when it ages: the next INIT finds it."""
        self._spoilt = True

    def status(self) -> PlatformStatus:
        """PLATFORM_STATUS (55766 5.5). Before INIT owner, ES and guests read as 0."""
        self.enter("PLATFORM_STATUS")
        version = self._core.firmware.version
        up = self.state is not PlatformState.UNINIT
        return PlatformStatus(
            version.major,
            version.minor,
            self.state,
            _FLAGS[up and self.externally_owned, up and self.es],
            version.build,
            self.guest_count(),
        )

    def pek_gen(self) -> None:
        """PEK_GEN (55766 5.6): a new OCA, PEK and PDH; the platform is self-owned after it."""
        self.enter("PEK_GEN")
        self._erase()
        self._store_missing()

    def pek_csr(self) -> bytes:
        """PEK_CSR (55766 5.7): the PEK's certificate without signatures, 2084 bytes."""
        self.enter("PEK_CSR")
        return strip_signatures(self._certificates[Usage.PEK])

    def pek_cert_import(self, pek: bytes, oca: bytes) -> None:
        """PEK_CERT_IMPORT (55766 5.8): an external owner takes the platform.

        ``pek`` is the answer to PEK_CSR with the owner's signature, ``oca`` his own certificate.
        """
        command = "PEK_CERT_IMPORT"
        self.enter(command)
        if self.externally_owned:
            raise CommandError(command, FirmwareStatus.ALREADY_OWNED)
        for data in (pek, oca):
            if len(data) != SIZE:
                raise CommandError(command, FirmwareStatus.INVALID_LEN)
        before = self._certificates[Usage.PEK]
        slot = check_import(command, pek, oca, before)
        self._certificates[Usage.PEK] = copy_signature(before, Usage.CEK, pek, slot)
        self._certificates[Usage.OCA] = oca
        # The OCA's private key is the owner's: the firmware cannot sign a PEK until PEK_GEN.
        self._keys.pop(Usage.OCA, None)
        self.externally_owned = True
        self._make_pdh()

    def pdh_cert_export(self) -> tuple[bytes, bytes]:
        """PDH_CERT_EXPORT (55766 5.10): the PDH's certificate, and pek ‖ oca ‖ cek."""
        self.enter("PDH_CERT_EXPORT")
        found = self._certificates
        chain = found[Usage.PEK] + found[Usage.OCA] + self._core.identity.cek
        return found[Usage.PDH], chain

    def pdh_gen(self) -> None:
        """PDH_GEN (55766 5.9): a new PDH under the same PEK. Sessions that are open stay so."""
        self.enter("PDH_GEN")
        self._make_pdh()

    def df_flush(self) -> None:
        """DF_FLUSH (55766 5.11): clean dirty ASIDs, if WBINVD was executed since."""
        self.enter("DF_FLUSH")
        self._core.df_flush("DF_FLUSH")

    def get_id(self) -> bytes:
        """GET_ID (55766 5.12): the chip's ID, 64 bytes for the one socket there is."""
        self.enter("GET_ID")
        return self._core.identity.chip_id

    def download_firmware(self, firmware: Firmware) -> None:
        """DOWNLOAD_FIRMWARE (55766 5.13): run another version, committed at once.

        SEV and SNP must be UNINIT. Raises ``UsageError`` for one that the chip cannot run.
        """
        command = "DOWNLOAD_FIRMWARE"
        self.enter(command)
        if self._core.snp_initialized:
            raise CommandError(command, FirmwareStatus.INVALID_PLATFORM_STATE, "SNP is INIT")
        self._core.load(command, firmware)
        self._core.committed = self._core.firmware

    def pdh_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the platform's Diffie-Hellman key, for LAUNCH_START."""
        return self._keys[Usage.PDH]

    def sign_with_pek(self, body: bytes) -> bytes:
        """Return the PEK's signature of ``body`` in AMD's 512-byte format."""
        return sign_ecdsa(self._keys[Usage.PEK], body)

    @property
    def _api(self) -> tuple[int, int]:
        return self._core.firmware.version[:2]

    def _erase(self) -> None:
        self._keys.clear()
        self._certificates.clear()
        self.externally_owned = False
        self._spoilt = False

    def _store_missing(self) -> None:
        if Usage.OCA not in self._certificates:
            self._make(Usage.OCA, {Usage.OCA: None})
        if Usage.PEK not in self._certificates:
            self._make(Usage.PEK, {Usage.OCA: None, Usage.CEK: self._core.identity.cek_key})
        if Usage.PDH not in self._certificates:
            self._make_pdh()

    def _make_pdh(self) -> None:
        self._make(Usage.PDH, {Usage.PEK: None}, Algorithm.ECDH_SHA256)

    def _make(
        self,
        usage: Usage,
        signers: Mapping[Usage, ec.EllipticCurvePrivateKey | None],
        algorithm: Algorithm = _SIGN,
    ) -> None:
        """Make a key and its certificate, signed by the stored keys of the usages that are None."""
        self._keys[usage] = ec.generate_private_key(ec.SECP384R1())
        keys = {who: self._keys[who] if key is None else key for who, key in signers.items()}
        self._certificates[usage] = certify(
            usage, algorithm, self._keys[usage], keys, api=self._api
        )
