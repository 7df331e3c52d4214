"""How much a simulated SEV launch costs beside the cryptography in it.

The launch is a whole one: session opened, firmware and no kernel measured, a secret injected,
finished, closed. Its floor is the same ECDH, key derivation, MACs, AES-CTR and SHA-256 called
directly. What the owner does, and what is drawn, is made once and outside of both.
"""

from __future__ import annotations

import hashlib
import hmac
import statistics
import struct
import sys
import time
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sevkit.abi.product import Product
from sevkit.abi.secret_packet import (
    DISK_GUID,
    SecretEntry,
    SecretPacket,
    encode_secret_table,
    seal_packet,
)
from sevkit.abi.session import (
    SessionBlob,
    TransportKeys,
    compute_shared_secret,
    encode_godh,
    godh_key,
    seal_session,
)
from sevkit.abi.sevcert import parse_sev_certificate
from sevkit.secret import Secret
from sevkit.testing.firmware import FirmwareImage, encode_firmware
from sevkit.testing.secure_processor.identity import ChipIdentity
from sevkit.testing.secure_processor.processor import SecureProcessor
from sevkit.testing.sev_chain import make_roots
from sevkit.testing.virtual_machine import Machine, SimulatedKvm

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES: Final = (4 << 20, 4 << 10)
BOUND: Final = 2.0
_POLICY: Final = 1
_ADDRESS: Final = 0x81_0000
_KEYS: Final = TransportKeys(Secret(b"T" * 16), Secret(b"I" * 16))
_TABLE: Final = encode_secret_table([SecretEntry(DISK_GUID, Secret(b"passphrase"))])


def launch_tasks(size: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a launch with a firmware of ``size`` bytes, and the cryptography in it."""
    firmware = encode_firmware(FirmwareImage(size=size))
    processor = SecureProcessor(ChipIdentity(Product.ROME, make_roots()), draw=bytes)
    kvm = SimulatedKvm(processor)
    machine = Machine(firmware)
    owner = ec.generate_private_key(ec.SECP384R1())
    pdh = parse_sev_certificate(processor.sev.pdh_cert_export()[0])
    shared = compute_shared_secret(owner, godh_key(pdh))
    blob = seal_session(shared, _KEYS, _POLICY, nonce=bytes(16), iv=bytes(16))
    session, godh = blob.encode(), encode_godh(owner)
    with kvm.launch_sev(machine, _POLICY, session=session, godh=godh) as guest:
        measure = guest.measurement[:32]
    packet = seal_packet(_KEYS, _TABLE, measure=measure, iv=bytes(16))

    def launch() -> None:
        with kvm.launch_sev(machine, _POLICY, session=session, godh=godh) as guest:
            guest.inject(packet.header, packet.ciphertext, guest_address=_ADDRESS)
            guest.run()

    bare = _Bare(processor.sev.pdh_key(), owner.public_key(), blob)
    if bare.measure(firmware) != measure or bare.open(packet, measure) != _TABLE.reveal():
        message = "the floor computes something else than the launch"
        raise AssertionError(message)

    def cryptography() -> None:
        bare.open(packet, bare.measure(firmware))

    return launch, cryptography


class _Bare:
    """What the firmware computes in a launch, without anything around it."""

    def __init__(
        self, pdh: ec.EllipticCurvePrivateKey, owner: ec.EllipticCurvePublicKey, blob: SessionBlob
    ) -> None:
        self._pdh = pdh
        self._point = owner.public_numbers()
        self._blob = blob

    def measure(self, firmware: bytes) -> bytes:
        numbers = ec.EllipticCurvePublicNumbers(self._point.x, self._point.y, ec.SECP384R1())
        shared = self._pdh.exchange(ec.ECDH(), numbers.public_key())
        master = _derive(shared, b"sev-master-secret", self._blob.nonce)
        kek, kik = _derive(master, b"sev-kek", b""), _derive(master, b"sev-kik", b"")
        hmac.digest(kik, self._blob.wrap_tk, "sha256")
        tik = _ctr(kek, self._blob.wrap_iv, self._blob.wrap_tk)[16:]
        hmac.digest(tik, struct.pack("<I", _POLICY), "sha256")
        head = struct.pack("<BBBBI", 4, 1, 55, 40, _POLICY)
        digest = hashlib.sha256(firmware).digest()
        return hmac.digest(tik, head + digest + bytes(16), "sha256")

    def open(self, packet: SecretPacket, measure: bytes) -> bytes:
        size = struct.pack("<I", len(packet.ciphertext))
        covered = b"\1" + packet.header[:20] + size + size + packet.ciphertext + measure
        hmac.digest(_KEYS.tik.reveal(), covered, "sha256")
        return _ctr(_KEYS.tek.reveal(), packet.header[4:20], packet.ciphertext)


def _derive(key: bytes, label: bytes, context: bytes) -> bytes:
    block = struct.pack("<I", 1) + label + b"\0" + context + struct.pack("<I", 128)
    return hmac.digest(key, block, "sha256")[:16]


def _ctr(key: bytes, iv: bytes, data: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES128(key), modes.CTR(iv)).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def measure_launches(rounds: int, size: int = SIZES[0]) -> tuple[float, float]:
    """Return the medians in seconds of a launch and of its cryptography, timed in turn."""
    tasks = launch_tasks(size)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for task, seconds in zip(tasks, times, strict=True):
            start = time.perf_counter()
            task()
            seconds.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> int:
    """Print both sizes; a ratio above the bound makes the exit code 1."""
    kept = True
    for size in SIZES:
        launch, floor = measure_launches(201, size)
        kept = kept and launch / floor <= BOUND
        print(
            f"SEV launch, {size >> 10} KiB: {launch * 1e3:.3f} ms, "
            f"cryptography {floor * 1e3:.3f} ms, {launch / floor:.2f} of {BOUND:g}"
        )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
