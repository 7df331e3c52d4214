from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sevkit.abi.idblock import compute_key_digest, parse_id_auth, parse_id_block
from sevkit.attest.idblock import verify_id_auth
from sevkit.cli.main import main

DIGEST = "ab" * 48


def key_file(
    path: Path,
    curve: ec.EllipticCurve | None = None,
    encoding: serialization.Encoding = serialization.Encoding.PEM,
    password: bytes | None = None,
) -> str:
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        protection = serialization.BestAvailableEncryption(password)
    key = ec.generate_private_key(curve or ec.SECP384R1())
    path.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, protection))
    path.chmod(0o600)
    return str(path)


def arguments(folder: Path, *more: str) -> list[str]:
    return [
        *("idblock", "new", "--measurement", DIGEST),
        *("--out-block", str(folder / "block"), "--out-auth", str(folder / "auth"), *more),
    ]


@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER])
def test_both_blocks_are_written_and_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], encoding: serialization.Encoding
) -> None:
    id_key = key_file(tmp_path / "id", encoding=encoding)
    author = key_file(tmp_path / "author", encoding=encoding)
    ids = ("--family-id", "01" * 16, "--image-id", "02" * 16, "--guest-svn", "3")
    options = ("--id-key", id_key, "--author-key", author, *ids, "--output", "json")
    assert main(arguments(tmp_path, *options)) == 0
    block = parse_id_block((tmp_path / "block").read_bytes())
    auth = parse_id_auth((tmp_path / "auth").read_bytes())
    verify_id_auth(block, auth)
    assert (block.launch_digest.hex(), block.guest_svn) == (DIGEST, 3)
    said = json.loads(capsys.readouterr().out)
    assert said["id_key_digest"] == compute_key_digest(auth.id_key).hex()
    assert auth.author_key is not None
    assert said["author_key_digest"] == compute_key_digest(auth.author_key).hex()


@pytest.mark.parametrize(
    ("why", "options", "code"),
    [
        ("digest too short", ("--measurement", "ab" * 47), 2),
        ("digest not hex", ("--measurement", "zz" * 48), 2),
        ("family ID too long", ("--family-id", "00" * 17), 2),
        ("policy of zero", ("--guest-policy", "0"), 2),
        ("policy that is no number", ("--guest-policy", "strict"), 2),
        ("guest SVN too large", ("--guest-svn", str(2**32)), 2),
        ("negative guest SVN", ("--guest-svn", "-1"), 2),
        ("one output for both", ("--out-auth", "block"), 2),
    ],
)
def test_bad_options_are_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str, options: tuple[str, ...], code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    key = key_file(tmp_path / "id")
    words = arguments(Path(), "--id-key", key, *options)
    assert main(words) == code, why
    assert not (tmp_path / "block").exists()
    assert not (tmp_path / "auth").exists()


def test_existing_files_are_kept(tmp_path: Path) -> None:
    (tmp_path / "auth").write_bytes(b"mine")
    assert main(arguments(tmp_path, "--id-key", key_file(tmp_path / "id"))) == 2
    assert (tmp_path / "auth").read_bytes() == b"mine"
    assert not (tmp_path / "block").exists()


@pytest.mark.parametrize("defect", ["junk", "empty", "P-256", "password", "public"])
def test_a_key_that_cannot_sign_is_malformed_and_not_quoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], defect: str
) -> None:
    path = tmp_path / "id"
    if defect == "P-256":
        key_file(path, ec.SECP256R1())
    elif defect == "password":
        key_file(path, password=b"hunter2")
    elif defect == "public":
        public = ec.generate_private_key(ec.SECP384R1()).public_key()
        path.write_bytes(
            public.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
    else:
        path.write_bytes(b"-----BEGIN EC secret-of-mine" if defect == "junk" else b"")
    path.chmod(0o600)
    assert main(arguments(tmp_path, "--id-key", str(path), "--verbose")) == 65
    assert "secret-of-mine" not in capsys.readouterr().err


def test_an_exposed_key_file_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = key_file(tmp_path / "id")
    Path(key).chmod(0o644)
    assert main(arguments(tmp_path, "--id-key", key)) == 0
    assert "readable by others" in capsys.readouterr().err
