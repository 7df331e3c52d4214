"""The rotation in simulated time: step by step, interrupted, and by two replicas at once."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sevkit.cluster.errors import Conflict, Forbidden
from sevkit.errors import ClusterError, UsageError
from sevkit.pki import create_authority
from webhooks.custody import Custodian, Kept
from webhooks.rotation import (
    Custody,
    Terms,
    encode_custody,
    is_trusted,
    next_custody,
    parse_bundle,
    parse_custody,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from webhooks.tls import Pair

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
NAMES: Final = (
    "sevkit-webhook.sevkit-system.svc",
    "sevkit-webhook.sevkit-system.svc.cluster.local",
)
TERMS: Final = Terms()
MINUTE: Final = timedelta(minutes=1)


class Store:
    """A Secret and three bundles, versioned as an API server does it."""

    def __init__(self) -> None:
        self.data: Mapping[str, bytes] = {}
        self.version = 0
        self.bundles = [b"", b"", b""]
        self.writes: list[str] = []
        self.refuses: ClusterError | None = None


class Secrets:
    def __init__(self, store: Store) -> None:
        self.store = store

    def read(self) -> Kept:
        return Kept(self.store.data, str(self.store.version) if self.store.version else "")

    def write(self, data: Mapping[str, bytes], version: str) -> None:
        if version != (str(self.store.version) if self.store.version else ""):
            raise Conflict(409)
        self.store.data, self.store.version = dict(data), self.store.version + 1
        self.store.writes.append("secret")


class Bundles:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.seen: list[bytes] = []

    def read(self) -> Sequence[bytes]:
        self.seen = list(self.store.bundles)
        return self.seen

    def write(self, bundle: bytes) -> None:
        if self.store.refuses:
            raise self.store.refuses
        if self.seen != self.store.bundles:
            raise Conflict(409)
        self.store.bundles = [bundle] * len(self.store.bundles)
        self.store.writes.append("bundles")


class Replica:
    def __init__(self, store: Store, clock: list[datetime]) -> None:
        self.custodian = Custodian(
            Secrets(store), Bundles(store), NAMES, terms=TERMS, clock=lambda: clock[0]
        )
        self.served: Pair | None = None

    def poll(self) -> None:
        self.served = self.custodian.read()


def leaf_of(pair: Pair | None) -> x509.Certificate:
    assert pair is not None
    return x509.load_pem_x509_certificate(pair.certificate)


def following(
    custody: Custody,
    bundles: Sequence[bytes],
    now: datetime,
    *,
    names: Sequence[str] = NAMES,
    steady: timedelta = TERMS.spread,
) -> Custody:
    return next_custody(custody, bundles, names, now, TERMS, steady=steady)


def fresh(now: datetime = NOW) -> Custody:
    return following(Custody(), [], now)


def again(custody: Custody, now: datetime) -> Custody:
    return parse_custody(encode_custody(custody), NAMES, now)


def test_from_nothing_come_a_ca_and_a_leaf_for_our_names() -> None:
    custody = fresh()
    assert len(custody.trusted) == 1
    leaf = leaf_of(custody.pair)
    assert is_trusted(leaf, [custody.bundle])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == list(NAMES)
    assert leaf.not_valid_after_utc == NOW + TERMS.leaf


def test_what_is_written_is_read_back_and_nothing_is_to_be_done() -> None:
    custody = again(fresh(), NOW)
    assert custody.pair == again(custody, NOW).pair
    assert following(custody, [custody.bundle] * 3, NOW + MINUTE) is custody


def test_a_leaf_is_renewed_in_time_by_the_same_ca() -> None:
    now = NOW + TERMS.leaf - TERMS.leaf_early
    custody = again(fresh(), now)
    assert following(custody, [custody.bundle], now) is custody
    now += MINUTE
    renewed = following(custody, [custody.bundle], now)
    assert renewed.trusted == custody.trusted
    assert leaf_of(renewed.pair).not_valid_after_utc == now + TERMS.leaf


def test_a_leaf_never_outlives_its_ca() -> None:
    assert TERMS.authority_early > TERMS.leaf > TERMS.leaf_early > TERMS.settle > TERMS.spread


def test_a_ca_is_renewed_in_steps() -> None:
    now = NOW + TERMS.authority - TERMS.authority_early - timedelta(days=5)
    first = parse_custody(encode_custody(fresh()), NAMES, NOW)
    old = following(replace(first, leaf=None, pair=None), [], now)
    now += timedelta(days=6)
    both = following(old, [old.bundle], now)
    assert [one in both.trusted for one in old.trusted] == [True]
    assert len(both.trusted) == 2
    assert both.pair == old.pair
    now += TERMS.spread
    assert following(both, [old.bundle, both.bundle], now) is both  # not everywhere
    short = TERMS.spread - MINUTE
    assert following(both, [both.bundle], now, steady=short) is both  # not long enough
    new = following(both, [both.bundle] * 2, now)
    assert is_trusted(leaf_of(new.pair), [both.trusted[0].public_bytes(Encoding.PEM)])
    assert new.trusted == both.trusted
    assert following(new, [new.bundle], now + TERMS.settle - MINUTE) is new
    alone = following(new, [new.bundle], now + TERMS.settle)
    assert alone.trusted == both.trusted[:1]
    assert alone.pair == new.pair


@pytest.mark.parametrize("key", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
@pytest.mark.parametrize("harm", ["gone", "nonsense", "cut", "another's"])
def test_whatever_is_broken_is_made_anew_in_one_step(key: str, harm: str) -> None:
    data = encode_custody(fresh())
    data[key] = {
        "gone": b"",
        "nonsense": b"\x00\xff nonsense",
        "cut": data[key][: len(data[key]) // 2],
        "another's": encode_custody(fresh())[key],
    }[harm]
    found = parse_custody(data, NAMES, NOW)
    made = following(found, [b""], NOW)
    assert made is not found
    assert is_trusted(leaf_of(made.pair), [made.bundle])
    whole = again(made, NOW)
    assert whole.pair == made.pair
    assert whole.authority is not None


def test_without_the_cas_key_the_leaf_goes_on_until_another_ca_is_known() -> None:
    """No API server trusts the new CA yet: a leaf by it would close every labelled namespace."""
    first = fresh()
    data = encode_custody(first) | {"ca.key": b""}
    found = parse_custody(data, NAMES, NOW)
    assert found.authority is None
    both = following(found, [first.bundle], NOW)
    assert both.pair == first.pair
    assert both.trusted[1:] == first.trusted
    assert is_trusted(leaf_of(both.pair), [first.bundle])
    both = again(both, NOW)
    assert both.authority is not None
    assert following(both, [first.bundle], NOW) is both
    new = following(both, [both.bundle], NOW)
    assert new.pair != first.pair
    assert is_trusted(leaf_of(new.pair), [both.bundle])


def test_however_often_the_cas_key_is_lost_the_leafs_ca_is_kept() -> None:
    found = first = fresh()
    for _ in range(9):
        found = parse_custody(encode_custody(found) | {"ca.key": b""}, NAMES, NOW)
        found = following(found, [first.bundle], NOW)
        assert found.pair == first.pair
        assert found.trusted[-1:] == first.trusted
    assert len(found.trusted) == 4


def test_a_ca_signs_only_after_it_was_seen_everywhere_for_long_enough() -> None:
    """However old it is: the bundles may have been written a moment ago."""
    store, clock = Store(), [NOW]
    replica = Replica(store, clock)
    replica.poll()
    first = replica.served
    store.data = {**store.data, "ca.key": b""}
    store.refuses = Forbidden(403)
    replica.poll()
    clock[0] += timedelta(days=1)
    store.refuses = None
    for _ in range(2):
        replica.poll()
        assert replica.served == first
    clock[0] += TERMS.spread - MINUTE
    store.bundles[1] += b"\n"
    for minutes in (0, 1):
        clock[0] += minutes * MINUTE
        replica.poll()
        assert replica.served == first
    clock[0] += TERMS.spread
    replica.poll()
    assert replica.served != first
    assert is_trusted(leaf_of(replica.served), store.bundles)


def test_the_terms_follow_from_three_of_them() -> None:
    assert (TERMS.authority_early, TERMS.leaf_early) == (timedelta(days=60), timedelta(days=10))
    assert (TERMS.settle, TERMS.rest) == (timedelta(hours=1), timedelta(minutes=1))
    assert Terms(spread=timedelta(seconds=1)).rest == timedelta(seconds=1)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"leaf": timedelta(hours=3)}, "before those by another CA"),
        ({"authority": timedelta(days=90)}, "replaced before what it signed"),
        ({"spread": timedelta(0)}, "1 s at least"),
        ({"spread": timedelta(days=2)}, "before those by another CA"),
    ],
)
def test_terms_that_do_not_follow_on_each_other_are_refused(
    terms: dict[str, timedelta], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        Terms(**terms)


def test_other_names_need_another_leaf_at_once() -> None:
    found = parse_custody(encode_custody(fresh()), ["other.svc"], NOW)
    assert found.leaf is None
    made = following(found, [b"whatever"], NOW, names=["other.svc"])
    assert made.trusted == found.trusted
    assert made.leaf is not None


def test_an_expired_secret_is_no_use_and_leaves_nothing() -> None:
    late = NOW + TERMS.authority + MINUTE
    assert parse_custody(encode_custody(fresh()), NAMES, late) == Custody()


def test_a_bundle_of_a_thousand_cas_is_cut() -> None:
    data = encode_custody(fresh())
    data["ca.crt"] += b"".join(
        create_authority("x", lifetime=timedelta(days=9), now=NOW).certificate for _ in range(20)
    )
    assert len(parse_custody(data, NAMES, NOW).trusted) == 4


def test_two_replicas_that_begin_at_once_end_with_the_same_pair() -> None:
    store, clock = Store(), [NOW]
    first, second = Replica(store, clock), Replica(store, clock)

    class Between(Secrets):
        def write(self, data: Mapping[str, bytes], version: str) -> None:
            if not store.version:
                second.poll()
            super().write(data, version)

    first.custodian = Custodian(Between(store), Bundles(store), NAMES, clock=lambda: clock[0])
    first.poll()
    assert first.served == second.served
    assert store.writes == ["secret", "bundles"]


def test_the_secret_is_written_before_the_bundles() -> None:
    store = Store()
    Replica(store, [NOW]).poll()
    assert store.writes == ["secret", "bundles"]
    assert set(store.bundles) == {store.data["ca.crt"]}


def test_a_bundle_that_somebody_emptied_is_filled_again() -> None:
    store, clock = Store(), [NOW]
    replica = Replica(store, clock)
    replica.poll()
    store.bundles[1] = b""
    replica.poll()
    assert set(store.bundles) == {store.data["ca.crt"]}
    assert store.writes == ["secret", "bundles", "bundles"]


def test_without_the_right_to_write_bundles_a_trusted_pair_is_served_all_the_same() -> None:
    store, clock = Store(), [NOW]
    replica = Replica(store, clock)
    store.refuses = Forbidden(403)
    with pytest.raises(Forbidden):
        replica.poll()
    store.refuses = None
    replica.poll()
    store.refuses = Forbidden(403)
    store.bundles[0] += b"\n"
    replica.poll()
    assert isinstance(replica.custodian.trouble, Forbidden)
    store.refuses = None
    replica.poll()
    assert replica.custodian.trouble is None


def test_a_bundle_that_others_write_all_the_time_keeps_no_trusted_pair_from_being_served() -> None:
    store, clock = Store(), [NOW]
    Replica(store, clock).poll()
    store.refuses = Conflict(409)
    store.bundles[0] += b"\n"
    late = Replica(store, clock)
    late.poll()
    assert late.served is not None
    assert isinstance(late.custodian.trouble, Conflict)


def test_in_a_year_of_two_replicas_what_is_served_is_always_trusted() -> None:
    """Whatever the order, and with passes that fail between any two writes."""
    random_ = random.Random(20300101)  # noqa: S311  # a schedule, and always the same
    store, clock = Store(), [NOW]
    replicas = [Replica(store, clock), Replica(store, clock)]
    seen: set[bytes] = set()
    for replica in replicas:
        replica.poll()
    end = NOW + timedelta(days=340)
    while clock[0] < end:
        hurried = len(parse_bundle(store.data["ca.crt"])) > 1
        clock[0] += random_.choice(
            [MINUTE, 10 * MINUTE, 20 * MINUTE] if hurried else [12 * 60 * MINUTE]
        )
        store.refuses = ClusterError("gone") if random_.random() < 0.2 else None
        for replica in random_.sample(replicas, k=random_.choice([0, 1, 2])):
            with contextlib.suppress(ClusterError):
                replica.poll()
        for replica in replicas:
            leaf = leaf_of(replica.served)
            assert leaf.not_valid_after_utc > clock[0]
            assert is_trusted(leaf, store.bundles), clock[0]
        seen.add(store.data["ca.crt"])
    assert len({leaf for bundle in seen for leaf in parse_bundle(bundle)}) == 2
    assert len(parse_bundle(store.data["ca.crt"])) == 1
