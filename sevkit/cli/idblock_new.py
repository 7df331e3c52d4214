"""``sevkit idblock new``: what the guest owner signs before an SNP launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sevkit.abi.idblock import (
    IdAuth,
    IdBlock,
    compute_key_digest,
    encode_id_auth,
    encode_id_block,
)
from sevkit.abi.policy import SNP_POLICY_DEFAULT, parse_snp_policy
from sevkit.attest.expectation_words import parse_hex
from sevkit.cli.base import Command, settings
from sevkit.cli.file_set import write_together
from sevkit.cli.files import check_new, read_file, refuse_shared_stdin, warn_if_exposed
from sevkit.cli.values import GuestPolicy, WholeNumber
from sevkit.errors import FormatError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

SCHEMA = "sevkit.io/id-block/v1"


def _fixed(text: str | None, name: str, size: int) -> bytes:
    if text is None:
        return bytes(size)
    value = parse_hex(text, name)
    if len(value) != size:
        raise UsageError(f"--{name}: expected {size} bytes, got {len(value)}")
    return value


def load_signing_key(path: str) -> EllipticCurvePrivateKey:
    """Return a P-384 private key from PEM or DER, not encrypted. Raises ``FormatError``."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # not for --help
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # not for --help
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415  # not for --help

    warn_if_exposed(path)
    data = read_file(path, limit=64 << 10)
    load = (
        serialization.load_pem_private_key
        if data.lstrip().startswith(b"-----")
        else serialization.load_der_private_key
    )
    try:
        key = load(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # the library's words may quote the key: they are left out
        raise FormatError(path, "no private key in PEM or DER without a password") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise FormatError(path, "the key is not on P-384, which ID blocks need")
    return key


@click.command(cls=Command, short_help="Make an ID block and its authentication.")
@click.option("--measurement", metavar="HEX", required=True, help="Launch digest, 48 bytes.")
@click.option("--id-key", metavar="FILE", required=True, help="P-384 private key that signs it.")
@click.option("--author-key", metavar="FILE", help="P-384 private key that signs the ID key.")
@click.option("--family-id", metavar="HEX", help="16 bytes.  [default: zero]")
@click.option("--image-id", metavar="HEX", help="16 bytes.  [default: zero]")
@click.option(
    "--guest-svn",
    type=WholeNumber(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Security version of the guest image; reports show it.",
)
@click.option(
    "--guest-policy",
    type=GuestPolicy(parse_snp_policy),
    default=hex(SNP_POLICY_DEFAULT),
    show_default=True,
    help="SNP guest policy, decimal or 0x hex; the launch must use the same.",
)
@click.option("--out-block", metavar="FILE", required=True, help="ID block, 96 bytes.")
@click.option("--out-auth", metavar="FILE", required=True, help="ID authentication, 4096 bytes.")
def command(
    *,
    measurement: str,
    id_key: str,
    author_key: str | None,
    family_id: str | None,
    image_id: str | None,
    guest_svn: int,
    guest_policy: int,
    out_block: str,
    out_auth: str,
) -> None:
    """Make the ID block of a launch digest, and the block that authenticates it.

    The firmware refuses a launch whose digest or policy is another, and reports show the digests
    of both keys, which are printed here for 'sevkit attest report --id-key-digest'.

    \b
    Example:
      sevkit idblock new --measurement "$(sevkit measure --mode snp …)" \\
        --id-key id.pem --author-key author.pem --out-block id.bin --out-auth auth.bin
    """  # noqa: D301  # \b is click's mark for lines kept as they are
    block = IdBlock(
        _fixed(measurement, "measurement", 48),
        _fixed(family_id, "family-id", 16),
        _fixed(image_id, "image-id", 16),
        guest_svn,
        guest_policy,
    )
    refuse_shared_stdin(id_key, author_key)
    if out_block == out_auth:
        raise UsageError("--out-block and --out-auth are one file")
    check_new(out_block)
    check_new(out_auth)
    signing, author = load_signing_key(id_key), None
    if author_key is not None:
        author = load_signing_key(author_key)
    auth = _authenticate(block, signing, author)
    files = {out_block: encode_id_block(block), out_auth: encode_id_auth(auth)}
    write_together(files, private=False)
    _show(auth)


def _authenticate(
    block: IdBlock, signing: EllipticCurvePrivateKey, author: EllipticCurvePrivateKey | None
) -> IdAuth:
    from sevkit.attest.idblock import sign_id_block  # noqa: PLC0415  # not for --help

    return sign_id_block(block, signing, author)


def _show(auth: IdAuth) -> None:
    digests = {"id_key_digest": compute_key_digest(auth.id_key).hex()}
    if auth.author_key is not None:
        digests["author_key_digest"] = compute_key_digest(auth.author_key).hex()
    if settings().json:
        from sevkit.cli.render import show_json  # noqa: PLC0415  # not for --help

        show_json({"schema": SCHEMA, **digests})
        return
    for name, digest in digests.items():
        click.echo(f"{name}\t{digest}")
