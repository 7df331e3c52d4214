"""A simulated key service: AMD's addresses over HTTPS on loopback, with faults on demand.

    with SimulatedKeyService(provider) as service:
        KeyService(service.base_url, ca=service.ca).fetch(resource)

``provider`` is asked for each ``Resource`` and returns its bytes, or None for 404. Each connection
has a thread of its own; leaving the context ends them all, also those that a fault holds.

``processor_provider`` knows what the key service knows of simulated secure processors, and
``chip_provider`` of chips that only sign reports.
"""

from __future__ import annotations

import re
import ssl
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

from sevkit.abi.product import ProductLine
from sevkit.abi.tcb import TcbVersion
from sevkit.abi.vek import VekKind
from sevkit.errors import SevkitError, UsageError
from sevkit.kds import urls
from sevkit.kds.content import CRLS
from sevkit.kds.encoding import encode_pem_certificate
from sevkit.kds.urls import Kind
from sevkit.pki import create_authority
from sevkit.testing.key_service_faults import Fault, content, too_many_requests
from sevkit.testing.key_service_rate import RateLimiter
from sevkit.testing.key_service_server import KeyServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from sevkit.kds.urls import Resource
    from sevkit.testing.key_service_rate import RateLimit
    from sevkit.testing.secure_processor.processor import SecureProcessor
    from sevkit.testing.snp_chain import SimulatedRoots
    from sevkit.testing.snp_report import SimulatedChip

    Provider = Callable[[Resource], bytes | None]

_LINE_TARGET: Final = re.compile(r"/(vcek|vlek)/v1/(Milan|Genoa|Turin)/(cert_chain|crl)")
_VCEK_TARGET: Final = re.compile(r"/vcek/v1/(Milan|Genoa|Turin)/([0-9a-fA-F]{16,128})")
_CEK_TARGET: Final = re.compile(r"/cek/id/([0-9a-fA-F]{128})")
_LIFETIME: Final = timedelta(days=30)


def parse_target(target: str) -> Resource | None:
    """Return what a request's path and query ask for, or None: what AMD answers with 404.

    Numbers may have one to three digits, parameters any order, as with AMD's service.
    """
    path, _, query = target.partition("?")
    try:
        if found := _LINE_TARGET.fullmatch(path):
            make = urls.chain if found[3] == "cert_chain" else urls.crl
            return None if query else make(ProductLine(found[2]), vlek=found[1] == "vlek")
        if found := _CEK_TARGET.fullmatch(path):
            return None if query else urls.cek(bytes.fromhex(found[1]))
        if found := _VCEK_TARGET.fullmatch(path):
            tcb = _parse_tcb_query(query)
            return tcb and urls.vcek(ProductLine(found[1]), bytes.fromhex(found[2]), tcb)
    except (SevkitError, ValueError):
        return None
    return None


def _parse_tcb_query(query: str) -> TcbVersion | None:
    names = {spl: name for name, spl in urls.SPL_NAMES.items()}
    found: dict[str, int] = {}
    for word in query.split("&"):
        spl, _, number = word.partition("=")
        name = names.get(spl)
        if name is None or name in found or not re.fullmatch(r"[0-9]{1,3}", number):
            return None
        found[name] = int(number)
    if not found.keys() >= {"bootloader", "tee", "snp", "microcode"}:
        return None
    return TcbVersion(**found)


def chip_provider(*chips: SimulatedChip) -> Provider:
    """Return a provider of the VCEKs of simulated chips, and of their lines' chains and lists.

    A line's chain and list are those of the roots of its first chip.
    """
    veks = {
        urls.vcek(chip.line, chip.hardware_id, chip.tcb): chip
        for chip in chips
        if chip.kind is VekKind.VCEK
    }
    roots = {chip.line: chip.roots for chip in reversed(chips)}

    def provide(resource: Resource) -> bytes | None:
        chip = veks.get(resource)
        if chip is not None:
            return chip.vek()
        return None if resource.line is None else _of_line(roots.get(resource.line), resource.kind)

    return provide


def processor_provider(*processors: SecureProcessor) -> Provider:
    """Return a provider of what AMD's key service has of these processors, and of their lines.

    A VCEK is computed for every TCB version of which no component is above what the processor runs
    now, so also for what it ran before and, from an update of its firmware on, for the new one;
    others do not exist. CEKs come signed by the ASK, by the chip ID that GET_ID gives. A line's
    chains and lists are those of the roots of its first processor.
    """
    by_chip = {one.identity.chip_id: one for one in processors}
    by_vcek = {(one.identity.line, one.identity.hardware_id): one for one in processors}
    roots = {one.identity.line: one.identity.snp_roots for one in reversed(processors)}

    def provide(resource: Resource) -> bytes | None:
        if resource.kind is Kind.CEK:
            found = by_chip.get(resource.hwid)
        elif resource.line is None:
            return None
        elif resource.kind is not Kind.VCEK:
            return _of_line(roots.get(resource.line), resource.kind)
        else:
            found = by_vcek.get((resource.line, resource.hwid))
        if found is None:
            return None
        # The mailbox is held: a certificate is made once, and under firmware that does not change.
        with found.lock:
            if resource.tcb is None:
                return found.identity.signed_cek
            above = found.snp.current_tcb.below(resource.tcb)
            return None if above else found.identity.vcek(resource.tcb)

    return provide


def _of_line(roots: SimulatedRoots | None, kind: Kind) -> bytes | None:
    """Return the chain or the revocation list that a line's roots give."""
    if roots is None or kind not in {Kind.VCEK_CHAIN, Kind.VLEK_CHAIN, *CRLS}:
        return None
    if kind in CRLS:
        return roots.make_crl()
    issuer = roots.ask if kind is Kind.VCEK_CHAIN else roots.asvk
    return encode_pem_certificate(issuer) + encode_pem_certificate(roots.ark)


@dataclass(slots=True)
class _Rule:
    pattern: re.Pattern[str]
    fault: Fault
    left: int | None


@final
class SimulatedKeyService:
    """A key service on loopback, on a port of its own choice. Use it as a context manager.

    ``ca`` is PEM of the authority behind its TLS certificate. Faults are added while it runs.
    ``rate_limit`` makes it refuse what comes too often, by the clock ``monotonic`` (seconds).
    """

    def __init__(
        self,
        provider: Provider,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rate_limit: RateLimit | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider: Final = provider
        self._limiter: Final = rate_limit and RateLimiter(rate_limit, monotonic)
        self._lock: Final = threading.Lock()
        self._rules: Final[list[_Rule]] = []
        self._targets: Final[list[str]] = []
        self._stopping: Final = threading.Event()
        now = datetime.now(UTC)
        authority = create_authority("sevkit simulated key service", lifetime=_LIFETIME, now=now)
        self.ca: Final = authority.certificate
        leaf = authority.issue([host], lifetime=_LIFETIME, now=now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory(prefix="sevkit-key-service-") as folder:
            # ssl reads keys from files only; the folder is 0700 and gone when the key is loaded.
            pair = Path(folder, "pair.pem")
            pair.write_bytes(leaf.key.reveal() + leaf.certificate)
            context.load_cert_chain(pair)
        self._server: Final = KeyServer((host, port), context, self)
        self._thread: Final = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def base_url(self) -> str:
        """The address to give as ``--kds-url``."""
        host, port = self._server.server_address[:2]
        return f"https://{host!s}:{port}"

    @property
    def targets(self) -> tuple[str, ...]:
        """The path and query of every request so far, in order."""
        with self._lock:
            return tuple(self._targets)

    def count(self, pattern: str = "") -> int:
        """Return how many requests so far match the regular expression ``pattern``."""
        return sum(bool(re.search(pattern, target)) for target in self.targets)

    def fail(self, fault: Fault, *, pattern: str = "", times: int | None = None) -> None:
        """Answer with ``fault`` where the target matches ``pattern``, ``times`` times or always.

        The oldest fault that fits and is not used up is taken. What comes instead of TLS comes
        before there is a target: raises ``UsageError`` for one with a pattern.
        """
        if fault.early and pattern:
            raise UsageError("a fault instead of TLS cannot know the target")
        with self._lock:
            self._rules.append(_Rule(re.compile(pattern), fault, times))

    def answer_with(
        self, resource: Resource, *, pattern: str = "", times: int | None = None
    ) -> None:
        """Answer as for ``resource``, whatever is asked for where ``pattern`` matches.

        Another chip's VCEK, the VLEKs' chain in place of the VCEKs', a list in place of a
        certificate: good in itself, and not what was asked for. Raises ``UsageError`` for what the
        provider does not have.
        """
        data = self._provider(resource)
        if data is None:
            raise UsageError(f"the simulated key service has no {resource}")
        self.fail(content(data), pattern=pattern, times=times)

    def heal(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._rules.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    @property
    def stopping(self) -> threading.Event:
        """Set when the service is being left; a fault that holds a connection waits on it."""
        return self._stopping

    def take_early_fault(self) -> Fault | None:
        """Return what a new connection is to meet instead of TLS, if anything."""
        with self._lock:
            return self._take(lambda rule: rule.fault.early)

    def take_fault(self, target: str) -> Fault | None:
        """Count a request and return what it is to meet instead of an answer, if anything."""
        with self._lock:
            self._targets.append(target)
            fault = self._take(
                lambda rule: not rule.fault.early and rule.pattern.search(target) is not None
            )
        if fault is not None or self._limiter is None:
            return fault
        wait = self._limiter.admit(target)
        if not wait:
            return None
        return too_many_requests(str(wait) if self._limiter.limit.retry_after else None)

    def _take(self, fits: Callable[[_Rule], bool]) -> Fault | None:
        for rule in self._rules:
            if rule.left != 0 and fits(rule):
                rule.left = None if rule.left is None else rule.left - 1
                return rule.fault
        return None

    def answer(self, target: str) -> bytes | None:
        """Return what the provider has for ``target``."""
        resource = parse_target(target)
        return None if resource is None else self._provider(resource)
