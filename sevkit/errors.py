"""The one error tree: every failure that sevkit raises, and the exit code that it means.

``exit_code`` is part of the command's contract. 0, 1 and 3 are verdicts; every other failure
has a code of its own, so that "could not find out" is never read as "no".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Iterator


#: Most errors behind one error that are looked at.
_CAUSES: Final = 16


class SevkitError(Exception):
    """Something went wrong in a way that sevkit knows.

    ``message`` is one line, lower case, without a full stop; ``hint`` says what to do next.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SevkitError):
    """The request itself is ill-formed."""

    exit_code: ClassVar[int] = 2


class FormatError(SevkitError):
    """Bytes do not have the shape that the ABI gives them.

    ``structure`` names the layout in AMD's terms; ``offset`` is in bytes from its start, or None
    where no single place is to blame.
    """

    exit_code: ClassVar[int] = 65

    def __init__(
        self, structure: str, message: str, *, offset: int | None = None, hint: str = ""
    ) -> None:
        where = structure if offset is None else f"{structure} at offset {offset:#x}"
        super().__init__(f"{where}: {message}", hint=hint)
        self.structure = structure
        self.offset = offset


class UndecidedError(SevkitError):
    """The answer could not be found out; it is neither yes nor no."""

    exit_code: ClassVar[int] = 4


class KeyServiceError(UndecidedError):
    """The key service, or the cache that stands for it, did not give what was asked.

    ``retry_after`` is in seconds, or None where the service did not say.
    """

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class HostReadError(UndecidedError):
    """A file or device of this host could not be read."""


class FirmwareError(UndecidedError):
    """The secure processor answered with an error or not at all."""


class HypervisorError(UndecidedError):
    """The hypervisor refused, failed, or could not be asked."""


class ClusterError(UndecidedError):
    """The API server could not be asked."""


class VerificationError(SevkitError):
    """The evidence is not authentic. ``check`` is the dotted name of the check that failed."""

    exit_code: ClassVar[int] = 1
    default_check: ClassVar[str] = "chain"

    def __init__(self, message: str, *, check: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.check = check or self.default_check


class SignatureMismatch(VerificationError):
    """A signature or MAC does not verify."""


class ChainBroken(VerificationError):
    """Certificates do not form the chain that AMD's root demands."""


class CertificateExpired(VerificationError):
    """A certificate, or a revocation list, is not valid at the time of verification."""


class CertificateRevoked(VerificationError):
    """A certificate is on its issuer's revocation list."""


class MeasurementMismatch(VerificationError):
    """A launch digest or launch measurement is not the expected one."""


class ExpectationError(SevkitError):
    """The evidence is authentic, but not acceptable under the expectations."""

    exit_code: ClassVar[int] = 3


class InsecureUsage(SevkitError):
    """Refused unless the caller accepts the risk by name."""

    exit_code: ClassVar[int] = 5


class InternalError(SevkitError):
    """A bug in sevkit; never a verdict."""

    exit_code: ClassVar[int] = 70


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and what is behind it, the nearest first, each once, at most sixteen.

    Packages keep the cause in different places: as Python's own, or among the arguments, as urllib3
    does.
    """
    found = [error]
    # By identity: errors may compare as they like. The list grows while it is walked.
    seen = {id(error)}
    for one in found:
        yield one
        for item in (one.__cause__, one.__context__, *one.args):
            if len(found) < _CAUSES and isinstance(item, BaseException) and id(item) not in seen:
                seen.add(id(item))
                found.append(item)
