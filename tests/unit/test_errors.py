from __future__ import annotations

import itertools

import pytest

from sevkit import errors

#: The contract's table: the class, and the exit code that it means.
CODES: dict[type[errors.SevkitError], int] = {
    errors.SevkitError: 70,
    errors.UsageError: 2,
    errors.FormatError: 65,
    errors.UndecidedError: 4,
    errors.KeyServiceError: 4,
    errors.HostReadError: 4,
    errors.FirmwareError: 4,
    errors.HypervisorError: 4,
    errors.ClusterError: 4,
    errors.VerificationError: 1,
    errors.SignatureMismatch: 1,
    errors.ChainBroken: 1,
    errors.CertificateExpired: 1,
    errors.CertificateRevoked: 1,
    errors.MeasurementMismatch: 1,
    errors.ExpectationError: 3,
    errors.InsecureUsage: 5,
    errors.InternalError: 70,
}


@pytest.mark.parametrize(("kind", "code"), CODES.items())
def test_every_error_has_the_exit_code_of_the_contract(
    kind: type[errors.SevkitError], code: int
) -> None:
    assert kind.exit_code == code
    assert issubclass(kind, errors.SevkitError)


def test_no_error_is_left_out_of_the_table() -> None:
    classes = {found for found in vars(errors).values() if isinstance(found, type)}
    assert {found for found in classes if issubclass(found, errors.SevkitError)} == set(CODES)


def test_only_verification_and_expectation_errors_are_verdicts() -> None:
    verdicts = {kind for kind, code in CODES.items() if code in {0, 1, 3}}
    assert verdicts == {
        kind
        for kind in CODES
        if issubclass(kind, (errors.VerificationError, errors.ExpectationError))
    }


def test_a_format_error_names_structure_and_offset_in_hex() -> None:
    error = errors.FormatError("VMSA", "reserved byte is 0x01, not 0", offset=0xCC, hint="look")
    assert str(error) == error.message == "VMSA at offset 0xcc: reserved byte is 0x01, not 0"
    assert (error.structure, error.offset, error.hint) == ("VMSA", 0xCC, "look")


def test_a_format_error_without_a_place_names_the_structure_alone() -> None:
    error = errors.FormatError("TCB version", "too many components")
    assert error.message == "TCB version: too many components"
    assert error.offset is None


def test_a_verification_error_always_names_a_check() -> None:
    assert errors.ChainBroken("x", check="chain.names").check == "chain.names"
    assert errors.ChainBroken("x").check


def test_a_key_service_error_carries_the_time_to_wait() -> None:
    assert errors.KeyServiceError("x", retry_after=10.0).retry_after == 10.0
    assert errors.KeyServiceError("x").retry_after is None


def test_what_is_behind_an_error_is_found_wherever_it_was_kept() -> None:
    deep, kept, given = OSError("deep"), ValueError("kept"), KeyError("given")
    kept.__cause__ = deep
    outer = RuntimeError("outer", given)
    outer.__context__ = kept
    assert list(errors.causes_of(outer)) == [outer, kept, given, deep]


def test_errors_that_stand_behind_each_other_end() -> None:
    one, other = OSError("one"), OSError("other")
    one.__cause__, other.__cause__ = other, one
    assert list(errors.causes_of(one)) == [one, other]


def test_an_error_that_was_kept_in_several_places_is_there_once() -> None:
    """``raise … from error`` within ``except`` keeps it as the cause and as the context."""
    made = [OSError(f"{number}") for number in range(12)]
    for outer, inner in itertools.pairwise(made):
        outer.__cause__ = outer.__context__ = inner
        outer.args = (*outer.args, inner)
    assert list(errors.causes_of(made[0])) == made


def test_no_more_than_sixteen_errors_are_looked_at() -> None:
    error = RuntimeError(*(OSError(f"{number}") for number in range(100)))
    assert len(list(errors.causes_of(error))) == 16
