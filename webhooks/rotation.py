"""Certificates that the webhook makes for itself: what to do next, from what there is. Pure.

Theory of operation. All that is kept lies in one Secret: the leaf that every replica serves, the
CAs that are to be trusted (the newest first, which also signs), and the newest one's key. The
``caBundle`` of our configurations is nothing but a copy of those CAs. A pass reads the bundles
first and the Secret second, so that the Secret is never the older of the two, and takes one step:

    nothing that is usable            -> a CA and a leaf
    the CA ends before long, or has
    no key any more                   -> a new CA before the old one; the leaf stays
    the new CA stands everywhere      -> a leaf signed by it
    no old leaf is served any more    -> the old CA goes

A step is a write of the whole Secret at the version that was read, so of two replicas that take
it at once one is refused, and sees in its next pass that it is done. Bundles are copied after
that, in the same pass. Who takes the step has seen the CA in every bundle for ``Terms.spread``
before a leaf is signed by it, so that API servers have had the time to see it there; and a CA goes
when every replica has had ``Terms.settle`` to take up the leaf that does without it.

The exception: a leaf that is of no use to anybody (expired, signed by no CA of ours, for other
names) is replaced at once, whatever the bundles say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from sevkit.errors import FormatError, UsageError, VerificationError
from sevkit.pki import SKEW, CertificateAuthority, create_authority, parse_authority
from sevkit.secret import Secret
from webhooks.tls import Pair, load_pair

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAME: Final = "sevkit-webhook"
_CA, _CA_KEY, _CERTIFICATE, _KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"
#: More CAs than this are no rotation: whatever wrote them, the oldest go.
_AUTHORITIES: Final = 4
_SHORTEST: Final = timedelta(seconds=1)


@final
@dataclass(frozen=True, slots=True)
class Terms:
    """How long CA and leaf last, and for how long a new CA is spread before it signs.

    The rest follows: a CA is replaced while it outlives two leaves, a leaf when a third of it is
    left, and an old CA goes when every replica has had a few times ``spread`` to let go of its
    leaf. Raises ``UsageError`` where that is not one after the other.
    """

    authority: timedelta = timedelta(days=365)
    leaf: timedelta = timedelta(days=30)
    spread: timedelta = timedelta(minutes=10)

    def __post_init__(self) -> None:
        if self.spread < _SHORTEST:
            raise UsageError(f"a new CA is spread for {_SHORTEST.total_seconds():g} s at least")
        if self.leaf_early <= self.settle:
            raise UsageError(
                "certificates would end before those by another CA are in place",
                hint=f"let them last more than {3 * self.settle.total_seconds():g} s",
            )
        if self.authority - self.authority_early <= self.leaf:
            raise UsageError(
                "a CA would be replaced before what it signed",
                hint=f"let it last more than {3 * self.leaf.total_seconds():g} s",
            )

    @property
    def authority_early(self) -> timedelta:
        """How long before its end a CA is replaced."""
        return 2 * self.leaf

    @property
    def leaf_early(self) -> timedelta:
        """How long before its end a leaf is replaced."""
        return self.leaf / 3

    @property
    def settle(self) -> timedelta:
        """How old a leaf is when no replica serves the one before it any more."""
        return 6 * self.spread

    @property
    def rest(self) -> timedelta:
        """How long to rest between two passes: none of the others is missed by much."""
        return max(self.spread / 10, _SHORTEST)


@final
@dataclass(frozen=True, slots=True)
class Custody:
    """What the Secret holds, as far as it is usable; ``trusted`` is the newest CA first."""

    trusted: tuple[x509.Certificate, ...] = ()
    authority: CertificateAuthority | None = None
    leaf: x509.Certificate | None = None
    pair: Pair | None = None

    @property
    def bundle(self) -> bytes:
        """The CAs in PEM, as ``caBundle`` has them."""
        return b"".join(one.public_bytes(Encoding.PEM) for one in self.trusted)


def parse_custody(data: Mapping[str, bytes], names: Sequence[str], now: datetime) -> Custody:
    """Return what of the Secret's data is usable at ``now`` for a server with ``names``."""
    trusted = tuple(
        one
        for one in parse_bundle(data.get(_CA, b""))[:_AUTHORITIES]
        if one.not_valid_before_utc <= now < one.not_valid_after_utc
    )
    authority = None
    if trusted:
        try:
            pem = trusted[0].public_bytes(Encoding.PEM)
            authority = parse_authority(pem, Secret(data.get(_CA_KEY, b"")))
        except FormatError:
            pass  # its certificates are trusted, and sign no more
    pair = Pair(data.get(_CERTIFICATE, b""), Secret(data.get(_KEY, b"")))
    leaf = _usable_leaf(pair, names, trusted, now)
    return Custody(trusted, authority, leaf, pair if leaf else None)


def encode_custody(custody: Custody) -> dict[str, bytes]:
    """Return the Secret's data."""
    if custody.authority is None or custody.pair is None:
        raise FormatError("certificates", "are not whole")
    return {
        _CA: custody.bundle,
        _CA_KEY: custody.authority.key.reveal(),
        _CERTIFICATE: custody.pair.certificate,
        _KEY: custody.pair.key.reveal(),
    }


def parse_bundle(bundle: bytes) -> tuple[x509.Certificate, ...]:
    """Return the certificates of a ``caBundle``; none for what is not PEM."""
    try:
        return tuple(x509.load_pem_x509_certificates(bundle))
    except ValueError:
        return ()


def next_custody(
    custody: Custody,
    bundles: Sequence[bytes],
    names: Sequence[str],
    now: datetime,
    terms: Terms,
    *,
    steady: timedelta,
) -> Custody:
    """Return what is to be in the Secret next; the same object where nothing is to be done.

    ``bundles`` are the ``caBundle``s of every entry of our configurations as they were read, and
    ``steady`` is for how long they have been read so.
    """
    authority, leaf = custody.authority, custody.leaf
    if leaf is None:
        authority = authority or _new_authority(terms, now)
        return _with_leaf(_with_authority(custody, authority), names, now, terms)
    if authority is None or authority.not_after - now < terms.authority_early:
        return _with_authority(custody, _new_authority(terms, now))
    newest = custody.trusted[0]
    is_newest_issuer = _is_issued_by(leaf, newest)
    is_old = leaf.not_valid_after_utc - now < terms.leaf_early
    if is_old or not is_newest_issuer:
        # By the old CA there is no more leaf: its key is gone.
        if _is_known(newest, bundles) and steady >= terms.spread:
            return _with_leaf(custody, names, now, terms)
    elif len(custody.trusted) > 1 and _age(leaf, now) >= terms.settle:
        return replace(custody, trusted=custody.trusted[:1])
    return custody


def _new_authority(terms: Terms, now: datetime) -> CertificateAuthority:
    return create_authority(_NAME, lifetime=terms.authority, now=now)


def _with_authority(custody: Custody, authority: CertificateAuthority) -> Custody:
    (newest,) = x509.load_pem_x509_certificates(authority.certificate)
    others = [one for one in custody.trusted if one != newest]
    # Who signed the leaf that is served stays, however many came since.
    served = [one for one in others if custody.leaf and _is_issued_by(custody.leaf, one)]
    kept = (served + [one for one in others if one not in served])[: _AUTHORITIES - 1]
    trusted = (newest, *(one for one in others if one in kept))
    return replace(custody, authority=authority, trusted=trusted)


def _with_leaf(custody: Custody, names: Sequence[str], now: datetime, terms: Terms) -> Custody:
    if custody.authority is None:
        raise FormatError("certificates", "have no authority")
    issued = custody.authority.issue(names, lifetime=terms.leaf, now=now)
    leaf = x509.load_pem_x509_certificate(issued.certificate)
    return replace(custody, leaf=leaf, pair=Pair(issued.certificate, issued.key))


def _usable_leaf(
    pair: Pair, names: Sequence[str], trusted: Sequence[x509.Certificate], now: datetime
) -> x509.Certificate | None:
    """Return the leaf of a pair that matches, is valid, for our names, and by a CA of ours."""
    try:
        load_pair(pair, now)
        leaf = x509.load_pem_x509_certificate(pair.certificate)
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FormatError, VerificationError, ValueError, x509.ExtensionNotFound):
        return None
    is_ours = any(_is_issued_by(leaf, one) for one in trusted)
    has_names = set(names) <= set(san.get_values_for_type(x509.DNSName))
    return leaf if is_ours and has_names else None


def _is_issued_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def is_trusted(leaf: x509.Certificate, bundles: Sequence[bytes]) -> bool:
    """Return whether every bundle has the CA that issued ``leaf``."""
    return all(any(_is_issued_by(leaf, one) for one in parse_bundle(bundle)) for bundle in bundles)


def _is_known(authority: x509.Certificate, bundles: Sequence[bytes]) -> bool:
    return all(authority in parse_bundle(bundle) for bundle in bundles)


def _age(certificate: x509.Certificate, now: datetime) -> timedelta:
    return now - certificate.not_valid_before_utc - SKEW
