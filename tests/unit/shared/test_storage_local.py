"""The directory store's own side; what all stores promise is in integration/test_s3_store.py."""

from __future__ import annotations

import base64
import errno
import hmac
import io
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.errors import Forbidden, NotFound, PressrunError, StorageFull, StorageUnavailable
from shared.settings import Settings
from shared.storage import local
from shared.storage.downloads import Download
from shared.storage.local import LocalStore
from shared.storage.open import open_store

ROOT = Path(__file__).resolve().parents[3]
SECRET = "0123456789abcdef"
MEDIA = "application/jsonl"
MARCH = 1_900_000_000.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "a store"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root, SECRET)


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if not path.is_dir()]


# --- files --------------------------------------------------------------------------------------


def test_only_the_owner_may_read(store: LocalStore, root: Path) -> None:
    old = os.umask(0)
    try:
        store.put_bytes("t/1/a", b"x", media_type=MEDIA)
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [root, *root.rglob("*")]}
    assert modes.pop("a") == 0o600
    assert set(modes) == {"a store", ".partial", "t", "1"}
    assert set(modes.values()) == {0o700}


def test_readers_see_the_old_object_or_the_new_one(store: LocalStore) -> None:
    old, new = b"o" * 3_000_000, b"n" * 3_000_000
    store.put_bytes("t/1", old, media_type=MEDIA)
    reading = store.read("t/1")
    first = next(reading)
    with store.writer("t/1", media_type=MEDIA) as writer:
        writer.write(new)
        assert b"".join(store.read("t/1")) == old
        writer.finish()
    assert b"".join(store.read("t/1")) == new
    assert first + b"".join(reading) == old


def test_data_then_names_reach_the_disk(
    store: LocalStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file before its rename, and each folder after it took in a new name."""
    done: list[str] = []
    sync, rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        done.append(os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), root))
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    store.put_bytes("t/1/a", b"x", media_type=MEDIA)
    assert done[0].startswith(".partial/")
    assert done[1] == "rename"
    assert sorted(done[2:]) == [".", "t", "t/1"]


def test_empty_folders_go_with_their_last_object(store: LocalStore, root: Path) -> None:
    for key in ("t/1/a/b", "t/1/c", "t/2"):
        store.put_bytes(key, b"x", media_type=MEDIA)
    assert store.delete_prefix("t/1") == 2
    assert sorted(path.name for path in root.iterdir()) == [".partial", "t"]
    assert [path.name for path in (root / "t").iterdir()] == ["2"]
    store.delete("t/2")
    assert [path.name for path in root.iterdir()] == [".partial"]


def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(store: LocalStore) -> None:
    errors: list[PressrunError] = []
    ended = threading.Event()

    def delete() -> None:
        while not ended.is_set():
            try:
                store.delete_prefix("t")
            except PressrunError as error:
                errors.append(error)

    deleter = threading.Thread(target=delete)
    deleter.start()
    try:
        for number in range(100):
            store.put_bytes(f"t/{number % 3}/a", b"x", media_type=MEDIA)
    finally:
        ended.set()
        deleter.join()
    assert not errors
    store.put_bytes("t/1/a", b"x", media_type=MEDIA)
    assert store.size("t/1/a") == 1


def test_a_folder_is_no_object(store: LocalStore) -> None:
    store.put_bytes("t/1/a", b"x", media_type=MEDIA)
    for call in (store.size, store.read):
        with pytest.raises(NotFound):
            call("t/1")
        with pytest.raises(NotFound):
            call("t/1/a/b")
    store.delete("t/1")
    assert store.size("t/1/a") == 1
    with pytest.raises(StorageUnavailable):
        store.put_bytes("t/1", b"x", media_type=MEDIA)


def test_a_link_is_not_followed(store: LocalStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(NotFound):
        store.read("link")


def test_a_directory_that_is_gone_is_unavailable_not_empty(store: LocalStore, root: Path) -> None:
    (root / ".partial").rmdir()
    root.rmdir()
    for call in (store.size, store.read):
        with pytest.raises(StorageUnavailable):
            call("t/1")
    with pytest.raises(StorageUnavailable):
        store.put_bytes("t/1", b"x", media_type=MEDIA)


def test_a_directory_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable):
        LocalStore(tmp_path / "file" / "store", SECRET)


def test_a_file_that_becomes_shorter_is_not_read_as_if_whole(store: LocalStore, root: Path) -> None:
    store.put_bytes("t/1", bytes(3 * local.CHUNK_BYTES), media_type=MEDIA)
    reading = store.read("t/1")
    next(reading)
    os.truncate(root / "t/1", local.CHUNK_BYTES + 1)
    with pytest.raises(StorageUnavailable):
        list(reading)


TROUBLE = {
    errno.ENOSPC: StorageFull,
    errno.EDQUOT: StorageFull,
    errno.EIO: StorageUnavailable,
    errno.EROFS: StorageUnavailable,
}


@pytest.mark.parametrize("number", TROUBLE)
@pytest.mark.parametrize("step", ["write", "fsync", "rename", "mkdir"])
def test_a_disk_in_trouble_leaves_nothing_behind(
    store: LocalStore,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    number: int,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    if step == "write":
        monkeypatch.setattr(os, "fdopen", _broken_file(fail))
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(TROUBLE[number]):
        store.put_bytes("t/1", bytes(2 * local.CHUNK_BYTES), media_type=MEDIA)
    monkeypatch.undo()
    assert files_below(root) == []
    store.put_bytes("t/1", b"x", media_type=MEDIA)


def _broken_file(fail: Callable[..., None]) -> Callable[..., Any]:
    class Broken(io.FileIO):
        def write(self, data: Any) -> int:
            fail()
            raise AssertionError

    return lambda descriptor, *_, **__: io.BufferedWriter(Broken(descriptor, "w"), 4_096)


FILL = """\
import sys
from pathlib import Path
from shared.errors import StorageFull
from shared.storage.local import LocalStore
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
store = LocalStore(Path(sys.argv[1]), "0123456789abcdef")
try:
    store.put_bytes("t/1", bytes(2_000_000), media_type="a/b")
except StorageFull:
    store.put_bytes("t/2", bytes(500_000), media_type="a/b")
    print("full")
"""


def test_the_kernel_s_own_refusal_is_full(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(root)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "full"
    assert [path.name for path in files_below(root)] == ["2"]


def test_partial_files_of_dead_processes_are_dropped_and_others_kept(
    store: LocalStore, root: Path
) -> None:
    writer = store.writer("t/1", media_type=MEDIA)
    writer.write(b"x")
    old = root / ".partial" / "old"
    old.write_bytes(b"x")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    LocalStore(root, SECRET)
    assert not old.exists()
    assert writer.finish().bytes == 1


# --- downloads ----------------------------------------------------------------------------------


@pytest.fixture
def token(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """Made at ``MARCH``, good for a minute."""
    monkeypatch.setattr(time, "time", lambda: MARCH)
    url = store.download_url("t/1/a", filename="réd.jsonl", media_type=MEDIA, seconds=60)
    prefix, _, token = url.rpartition("/")
    assert prefix == "/v1/downloads"
    return token


def test_a_token_says_what_may_be_fetched(store: LocalStore, token: str) -> None:
    allowed = Download("t/1/a", "réd.jsonl", MEDIA)
    assert store.verify_download(token, MARCH) == allowed
    assert store.verify_download(token, MARCH + 59.9) == allowed
    assert token.isascii()
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


@pytest.mark.parametrize(
    ("media_type", "shown"),
    [("image/webp", True), ("audio/wav", True), ("video/webm", True), ("text/html", False),
     ("image/svg+xml", False), ("application/pdf", False)],
)  # fmt: skip
def test_a_browser_is_shown_pictures_sounds_and_videos_alone(
    store: LocalStore, media_type: str, shown: bool
) -> None:
    for inline in (True, False):
        url = store.download_url(
            "t/1/a", filename="a", media_type=media_type, seconds=60, inline=inline
        )
        allowed = store.verify_download(url.rpartition("/")[2], time.time())
        assert allowed == Download("t/1/a", "a", media_type, shown and inline)


@pytest.mark.parametrize("late", [60, 61, 1e9])
def test_an_expired_token_is_forbidden(store: LocalStore, token: str, late: float) -> None:
    with pytest.raises(Forbidden):
        store.verify_download(token, MARCH + late)


def test_a_token_of_another_secret_is_not_found(root: Path, token: str) -> None:
    with pytest.raises(NotFound):
        LocalStore(root, "another secret!!").verify_download(token, MARCH)


def test_no_character_of_a_token_can_be_changed(store: LocalStore, token: str) -> None:
    for place, character in enumerate(token):
        for other in "A.b_":
            if other != character:
                forged = token[:place] + other + token[place + 1 :]
                with pytest.raises(NotFound):
                    store.verify_download(forged, MARCH)


def test_what_a_token_says_cannot_be_changed(store: LocalStore, token: str) -> None:
    said, _, signature = token.partition(".")
    text = base64.urlsafe_b64decode(said + "==")
    for old, new in ((b"t/1/a", b"t/2/a"), (b"jsonl", b"htmll"), (b"1900000060", b"1999999999")):
        assert old in text
        forged = base64.urlsafe_b64encode(text.replace(old, new)).decode().rstrip("=")
        with pytest.raises(NotFound):
            store.verify_download(f"{forged}.{signature}", MARCH)


@pytest.mark.parametrize(
    "rubbish", ["", ".", "a", "a.b", "..", "é.é", "\0", "a" * 100_000, "=.=", "%2e.%2e"]
)
def test_rubbish_is_not_found(store: LocalStore, rubbish: str) -> None:
    with pytest.raises(NotFound):
        store.verify_download(rubbish, MARCH)


@pytest.mark.parametrize("more", ["=", "==", ".", "\n", " "])
def test_a_token_has_one_spelling(store: LocalStore, token: str, more: str) -> None:
    for spelling in (token + more, more + token):
        with pytest.raises(NotFound):
            store.verify_download(spelling, MARCH)


def test_signatures_are_compared_in_constant_time(
    store: LocalStore, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def compare(ours: str, theirs: str) -> bool:
        compared.append(ours)
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    with pytest.raises(NotFound):
        store.verify_download(token, MARCH)
    assert compared == [token.partition(".")[2]]


# --- the choice ---------------------------------------------------------------------------------

OPEN_DIRECTORY = """\
import sys
from pathlib import Path
from shared.settings import Settings
from shared.storage.open import open_store
store = open_store(Settings(
    database_url="postgresql+psycopg://x", signing_key="0" * 16, storage_dir=Path(sys.argv[1]),
    s3_bucket=None,
))
print(type(store).__name__, "boto3" in sys.modules)
"""


def test_a_directory_is_opened_without_boto3(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OPEN_DIRECTORY, str(root)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["LocalStore", "False"]


def test_a_bucket_is_opened_as_the_settings_say() -> None:
    settings = Settings(
        database_url="postgresql+psycopg://x",
        signing_key=SECRET,  # type: ignore[arg-type]
        storage_dir=None,
        s3_bucket="bucket",
        s3_endpoint="http://inside:9000",
        s3_public_endpoint="https://files.example.org",
        s3_access_key="AKEY",
        s3_secret_key="secret",  # type: ignore[arg-type]
    )
    url = open_store(settings).download_url("t/1", filename="f", media_type=MEDIA, seconds=60)
    assert url.startswith("https://files.example.org/bucket/t/1?")
    assert "AKEY" in url
    assert "secret" not in url
