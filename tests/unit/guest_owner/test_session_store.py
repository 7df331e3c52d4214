from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from sevkit.abi.secret_packet import SecretPacket
from sevkit.abi.session import SESSION, TransportKeys, parse_session
from sevkit.attest.sev_session import LaunchSession
from sevkit.errors import FormatError, HostReadError, InternalError, UsageError
from sevkit.guest_owner.record import Record, encode_record, parse_record
from sevkit.guest_owner.session_store import LOCK, SessionStore
from sevkit.guest_owner.terms import Outcome, Stage
from sevkit.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEK: Final = Secret(b"TEK-of-16-bytes!")
TIK: Final = Secret(b"TIK-of-16-bytes!")
SEALED: Final = LaunchSession(
    parse_session(bytes(range(SESSION.size))),
    bytes(2084),
    TransportKeys(TEK, TIK),
    5,
    "c0ffee",
    simulated=True,
)
PACKET: Final = SecretPacket(bytes(52), bytes(48))


def record(uid: str = "one", name: str = "ledger") -> Record:
    return Record(uid, "payments", name, Stage.SESSION, SEALED, report={"findings": []})


def over(outcome: Outcome, uid: str = "one") -> Record:
    return Record.over(uid, "payments", "ledger", outcome)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(folder: Path) -> Iterator[SessionStore]:
    with SessionStore(folder) as found:
        yield found


def files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name != LOCK]


def test_a_session_is_kept_whole_and_for_its_owner_alone(store: SessionStore, folder: Path) -> None:
    store.keep_session(record())
    assert store.load("one") == record()
    assert store.load("two") is None
    (path,) = files(folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / LOCK).stat().st_mode) == 0o600


def test_a_wider_or_narrower_umask_changes_no_right(folder: Path) -> None:
    for mask in (0o000, 0o777):
        before = os.umask(mask)
        try:
            with SessionStore(folder) as store:
                store.keep_session(record(f"under {mask:o}"))
        finally:
            os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(folder)} == {0o600}


def test_keys_go_when_the_packet_is_kept_and_the_packet_when_it_is_in(
    store: SessionStore, folder: Path
) -> None:
    store.keep_session(record())
    packed = store.keep_packet("one", PACKET, {"findings": []})
    assert (packed.session, packed.packet) == (None, PACKET)
    assert store.load("one") == packed
    text = files(folder)[0].read_text()
    assert "tek" not in text
    assert "tik" not in text
    assert store.keep_injected("one", {}).packet is None
    store.end(over(Outcome.ATTESTED))
    found = store.load("one")
    assert found is not None
    assert (found.stage, found.outcome) == (Stage.ENDED, Outcome.ATTESTED)
    store.forget("one")
    store.forget("one")
    assert files(folder) == []


def test_a_launch_has_one_session_and_never_goes_back(store: SessionStore) -> None:
    store.keep_session(record())
    with pytest.raises(InternalError):
        store.keep_session(record())
    store.keep_packet("one", PACKET, {})
    with pytest.raises(InternalError):
        store.keep_packet("one", replace(PACKET, header=bytes(51) + b"\1"), {})
    store.end(over(Outcome.REFUSED))
    for again in (
        lambda: store.keep_session(record()),
        lambda: store.keep_injected("one", {}),
        lambda: store.keep_packet("two", PACKET, {}),
    ):
        with pytest.raises(InternalError):
            again()


def test_namesakes_are_forgotten_and_no_others(store: SessionStore) -> None:
    for uid, name in (("one", "ledger"), ("two", "ledger"), ("three", "other")):
        store.keep_session(record(uid, name))
    store.forget_namesakes("two", "payments", "ledger")
    assert {found.uid for found in store.records()} == {"two", "three"}


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o770, 0o701])
def test_a_folder_that_others_can_open_is_refused(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(UsageError, match="others can open it"), SessionStore(folder):
        pass


def test_a_record_that_others_can_read_is_refused(store: SessionStore, folder: Path) -> None:
    store.keep_session(record())
    files(folder)[0].chmod(0o640)
    with pytest.raises(UsageError, match="others can open it"):
        store.load("one")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, -1)
    with pytest.raises(UsageError, match="belongs to another user"), SessionStore(folder):
        pass


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    with SessionStore(tmp_path / "real") as store:
        store.keep_session(record())
        path = files(tmp_path / "real")[0]
        path.rename(tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
        with pytest.raises(HostReadError):
            store.load("one")
    folder.symlink_to(tmp_path / "real")
    with pytest.raises(HostReadError), SessionStore(folder):
        pass


def test_what_is_no_folder_or_has_no_parent_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="parent"), SessionStore(folder / "deeper"):
        pass
    folder.write_bytes(b"")
    with pytest.raises(HostReadError), SessionStore(folder):
        pass


def documents() -> list[tuple[str, dict[str, Any]]]:
    whole = json.loads(encode_record(record()).reveal())
    changes: list[tuple[str, Any]] = [
        ("schema", "sevkit.io/launch-record/v2"),
        ("uid", 7),
        ("uid", ""),
        ("stage", "packet"),
        ("stage", "nothing"),
        ("stage", "begun"),
        ("more", 1),
        ("report", []),
        ("session", []),
        ("session", whole["session"] | {"tek": "QUJD"}),
        ("session", whole["session"] | {"tik": "not base64"}),
        ("session", whole["session"] | {"policy": True}),
        ("session", whole["session"] | {"policy": 1 << 40}),
        ("session", whole["session"] | {"simulated": 1}),
        ("session", whole["session"] | {"blob": "QUJD"}),
    ]
    return [(f"{n}-{key}", whole | {key: value}) for n, (key, value) in enumerate(changes)]


@pytest.mark.parametrize(("name", "document"), documents(), ids=lambda value: str(value)[:12])
def test_a_record_of_another_shape_is_one_clear_error(
    store: SessionStore, folder: Path, name: str, document: dict[str, Any]
) -> None:
    store.keep_session(record())
    files(folder)[0].write_text(json.dumps(document))
    with pytest.raises(FormatError) as caught:
        store.load("one")
    assert str(folder) in caught.value.message or "policy" in caught.value.message


def test_a_record_that_is_cut_anywhere_is_refused_and_not_quoted() -> None:
    data = encode_record(record()).reveal()
    for end in range(0, len(data), 7):
        with pytest.raises(FormatError) as caught:
            parse_record(Secret(data[:end]))
        assert caught.value.__cause__ is None
        assert "VEVL" not in str(caught.value)


def test_a_record_under_another_records_name_is_refused(store: SessionStore, folder: Path) -> None:
    store.keep_session(record("one"))
    (one,) = files(folder)
    store.keep_session(record("two"))
    (two,) = set(files(folder)) - {one}
    two.write_bytes(one.read_bytes())
    with pytest.raises(FormatError, match="another VMI"):
        store.load("two")


def test_what_was_being_written_at_a_crash_is_removed(folder: Path) -> None:
    with SessionStore(folder) as store:
        store.keep_session(record())
    (folder / ".new-0123456789abcdef").write_bytes(b"half a key")
    with SessionStore(folder) as store:
        assert store.load("one") == record()
    assert len(files(folder)) == 1


def test_nothing_of_a_write_that_fails_is_left(store: SessionStore, folder: Path) -> None:
    store.keep_session(record())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(HostReadError, match="cannot write"):
            store.keep_packet("one", PACKET, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(files(folder)) == 1
    assert store.load("one") == record()


SECOND: Final = """
import sys
from pathlib import Path
from sevkit.errors import HostReadError
from sevkit.guest_owner.session_store import SessionStore
try:
    with SessionStore(Path(sys.argv[1])):
        print("in")
except HostReadError as error:
    print(error.message)
"""


def second(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SECOND, str(folder)], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_second_process_is_kept_out_until_the_first_leaves(folder: Path) -> None:
    with SessionStore(folder):
        assert "in use by another process" in second(folder)
        with pytest.raises(HostReadError), SessionStore(folder):
            pass
    assert second(folder) == "in\n"


WRITER: Final = """
import sys
from pathlib import Path
from sevkit.guest_owner.session_store import SessionStore
from sevkit.guest_owner.terms import Outcome
sys.path.insert(0, sys.argv[2])
import test_session_store as t
with SessionStore(Path(sys.argv[1])) as store:
    print("ready", flush=True)
    for number in range(100_000):
        uid = f"vmi-{number}"
        store.keep_session(t.record(uid))
        store.keep_packet(uid, t.PACKET, {})
        store.keep_injected(uid, {})
        store.end(t.over(Outcome.ATTESTED, uid))
"""


def test_a_process_that_is_killed_leaves_whole_records_and_no_lock(folder: Path) -> None:
    here = os.path.dirname(__file__)  # noqa: PTH120  # for argv
    for pause in (0.01, 0.035, 0.07):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder), here], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(pause)
            writer.send_signal(signal.SIGKILL)
        with SessionStore(folder) as store:
            for found in list(store.records()):
                assert found.stage is not Stage.NOTHING
                store.forget(found.uid)
        assert files(folder) == []
