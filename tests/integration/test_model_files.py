"""Models of the store on a worker's disk: whole or not at all, and within their bound."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shared.db.models import Model, ModelFile
from shared.errors import NotFound, StorageUnavailable
from shared.storage.local import LocalStore
from worker import model_files
from worker.inputs import Leaving
from worker.model_files import LOCK, PART, ModelFiles, digest_of
from worker.model_paths import ModelDamaged

SIGNING_KEY = "a signing key for tests"
CONTENTS = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"weights " * 5_000,
    "unet/diffusion_pytorch_model.safetensors": b"more weights " * 100,
}


class Store:
    """A local store that counts reads and can be told to fail."""

    def __init__(self, root: Path) -> None:
        self.real = LocalStore(root, SIGNING_KEY)
        self.reads: list[tuple[str, int]] = []
        self.fail_after: int | None = None
        """Bytes of the next reads, before the store goes away."""
        self.damage: list[str] = []
        """Keys whose next read has a wrong byte in it, once for each time they are listed."""

    def put(self, key: str, data: bytes) -> None:
        self.real.put_bytes(key, data, media_type="application/octet-stream")

    def read(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        self.reads.append((key, start))
        return self._pieces(key, start, end)

    def _pieces(self, key: str, start: int, end: int | None) -> Iterator[bytes]:
        data = b"".join(self.real.read(key, start, end))
        if key in self.damage:
            self.damage.remove(key)
            data = b"?" + data[1:]
        for place in range(0, len(data), 1000):
            if self.fail_after is not None:
                if self.fail_after <= 0:
                    raise StorageUnavailable("away")
                self.fail_after -= 1000
            yield data[place : place + 1000]


class Plant:
    """A store with models, and this machine's folder of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "scratch of a worker" / "models"
        self.store = Store(folder / "store")
        self.files = self.make()

    def make(self, most_bytes: int = 10**9) -> ModelFiles:
        store: object = self.store
        return ModelFiles(store, self.folder, most_bytes)  # type: ignore[arg-type]

    def model(self, name: str, contents: dict[str, bytes] | None = None) -> Model:
        files = []
        for path, data in (contents or CONTENTS).items():
            key = f"tenants/a/models/{name}/{path}"
            self.store.put(key, data)
            files.append(ModelFile(path, key, len(data), hashlib.sha256(data).hexdigest()))
        return Model(name, "text", "text", "", [], {}, "a", 0, "base", True, tuple(files))

    def weights(self, name: str, size: int) -> Model:
        return self.model(name, {"model.safetensors": name.encode()[:1] * size})


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path)


def held(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_model_is_fetched_once_and_whole(plant: Plant) -> None:
    model = plant.model("one")
    assert plant.files.path(model) is None
    folder = plant.files.local(model)
    assert held(folder) == CONTENTS
    assert plant.files.path(model) == folder
    assert plant.files.local(model) == folder
    assert plant.make().local(replace(model, id="same files")) == folder
    assert len(plant.store.reads) == len(CONTENTS)
    assert (plant.folder.stat().st_mode & 0o077, folder.stat().st_mode & 0o077) == (0, 0)


def test_what_another_worker_fetched_is_found_after_asking(plant: Plant) -> None:
    model = plant.model("one")
    other = plant.make()
    folder = other.local(model)
    assert plant.files.path(model) is None  # nobody has said yet that it is in use here
    assert plant.files.local(model) == folder
    assert len(plant.store.reads) == len(CONTENTS)


def test_a_fetch_that_was_cut_short_goes_on_where_it_was(plant: Plant) -> None:
    model = plant.model("one")
    plant.store.fail_after = 25_000
    with pytest.raises(StorageUnavailable):
        plant.files.local(model)
    assert plant.files.path(model) is None
    assert list(plant.folder.glob("*" + PART)), "nothing is left to go on with"
    plant.store.fail_after = None
    reads = len(plant.store.reads)
    assert held(plant.make().local(model)) == CONTENTS
    resumed = plant.store.reads[reads:]
    assert resumed[0] == (model.files[1].key, 24_000)
    assert len(resumed) == 2
    assert not list(plant.folder.glob("*" + PART))


def test_a_byte_that_fell_over_is_fetched_again(plant: Plant) -> None:
    model = plant.model("one")
    plant.store.damage = [model.files[0].key, model.files[0].key]
    assert held(plant.files.local(model)) == CONTENTS
    assert [key for key, _ in plant.store.reads].count(model.files[0].key) == 3


def test_a_model_whose_files_are_not_what_was_stored_is_damaged(plant: Plant) -> None:
    model = plant.model("one")
    plant.store.damage = [model.files[1].key] * model_files.TRIES
    with pytest.raises(ModelDamaged, match=r"model\.safetensors"):
        plant.files.local(model)
    assert plant.files.path(model) is None
    plant.store.put(model.files[1].key, b"shorter")
    with pytest.raises(StorageUnavailable):
        plant.files.local(model)


def test_files_that_are_gone_are_not_found(plant: Plant) -> None:
    model = plant.model("one")
    plant.store.real.delete(model.files[2].key)
    with pytest.raises(NotFound):
        plant.files.local(model)


def test_half_a_file_of_another_size_is_begun_anew(plant: Plant) -> None:
    model = plant.model("one")
    part = plant.folder / (digest_of(model.files) + PART)
    part.mkdir(parents=True)
    (part / ("config.json" + PART)).write_bytes(b"longer than the file itself " * 10)
    (part / ("model.safetensors" + PART)).write_bytes(b"something else")
    assert held(plant.files.local(model)) == CONTENTS


@pytest.mark.parametrize(
    "path",
    [
        "../outside.json", "/etc/passwd.json", "a/../../b.json", "a//b.json", ".hidden.json", "",
        "a/./b.json", "run.py", "model.bin", "model.pt", "model.pkl", "lib.so", "a\\b.json",
        "a\x00.json", "a b.json", "a/b/c/d/e/f.json", "x" * 300 + ".json", "config.json.part",
    ],
)  # fmt: skip
def test_hostile_names_are_refused_before_anything_is_fetched(plant: Plant, path: str) -> None:
    model = plant.model("one")
    bad = replace(model, files=(*model.files, ModelFile(path, "k", 1, "0" * 64)))
    with pytest.raises(ModelDamaged):
        plant.files.local(bad)
    assert plant.store.reads == []
    assert not plant.folder.exists()


def test_files_must_be_told_apart(plant: Plant) -> None:
    model = plant.model("one")
    first = model.files[0]
    for bad in (
        (*model.files, first),
        (*model.files, replace(first, path="config.json/a.json")),
        (replace(first, sha256="../x"),),
        (replace(first, bytes=-1),),
        (),
    ):
        with pytest.raises(ModelDamaged):
            plant.files.local(replace(model, files=bad))


# --- the bound --------------------------------------------------------------------------------


def test_the_least_recently_used_model_makes_room(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = plant.make(most_bytes=2_500)
    a, b, c = (plant.weights(name, 1_000) for name in "abc")
    now = 1_000_000.0
    for model in (a, b, a):
        os.utime(files.local(model), (now := now + 10, now))
    monkeypatch.setattr(model_files, "KEPT_SECONDS", -1.0)
    files.local(c)
    assert (files.path(a), files.path(b)) == (None, None)  # let go of, and a is still there
    names = {path.name for path in plant.folder.iterdir()}
    assert digest_of(b.files) not in names
    assert digest_of(b.files) + LOCK not in names
    reads = len(plant.store.reads)
    assert files.local(a).is_dir()
    assert len(plant.store.reads) == reads
    assert held(files.local(b)) == {"model.safetensors": b"b" * 1_000}


def test_a_model_in_use_stays_here_and_elsewhere(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker's use is a lock, this one's a matter of time."""
    elsewhere, files = plant.make(), plant.make(most_bytes=2_500)
    a, b, c = (plant.weights(name, 1_000) for name in "abc")
    there, here = elsewhere.local(a), files.local(b)
    files.local(c)
    assert there.is_dir()
    assert here.is_dir()
    elsewhere.close()
    monkeypatch.setattr(model_files, "KEPT_SECONDS", -1.0)
    files.local(plant.weights("d", 1_000))
    assert not there.is_dir()


def test_what_was_left_half_fetched_counts_and_goes(plant: Plant) -> None:
    a, b = plant.weights("a", 2_000), plant.weights("b", 2_000)
    files = plant.make(most_bytes=2_500)
    plant.store.fail_after = 1_000
    with pytest.raises(StorageUnavailable):
        files.local(a)
    plant.store.fail_after = None
    files.local(b)
    assert not list(plant.folder.glob("*" + PART))


def test_a_model_larger_than_the_bound_is_served_alone(plant: Plant) -> None:
    assert plant.make(most_bytes=10).local(plant.weights("a", 1_000)).is_dir()


def test_a_folder_that_somebody_emptied_is_fetched_again(plant: Plant) -> None:
    model = plant.model("one")
    folder = plant.files.local(model)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    assert plant.files.path(model) is None
    assert held(plant.files.local(model)) == CONTENTS


# --- company ----------------------------------------------------------------------------------


def test_threads_that_want_the_same_model_fetch_it_once(plant: Plant) -> None:
    model = plant.model("one")
    found: list[Path] = []
    folders = [plant.files, plant.files, plant.make(), plant.make()]
    threads = [
        threading.Thread(target=lambda files=files: found.append(files.local(model)))
        for files in folders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 4
    assert len(plant.store.reads) == len(CONTENTS)


def test_waiting_ends_when_the_worker_leaves(plant: Plant) -> None:
    model = plant.model("one")
    other = plant.make()
    digest = digest_of(model.files)
    lock = other._try_lock(digest, fcntl.LOCK_EX)
    assert lock is not None
    with pytest.raises(Leaving):
        plant.files.local(model, lambda: True)
    os.close(lock)
    with pytest.raises(Leaving):
        plant.files.local(model, lambda: True)
    assert held(plant.files.local(model)) == CONTENTS


def test_a_fetch_that_was_killed_is_finished_by_another_process(plant: Plant) -> None:
    """Its lock goes with it, and what it had fetched is used."""
    model = plant.weights("a", 200_000)
    digest = digest_of(model.files)
    code = f"""
import os, signal, sys
from pathlib import Path
from shared.db.models import Model, ModelFile
from worker.model_files import ModelFiles
class Store:
    def read(self, key, start=0, end=None):
        yield b"a" * 100_000
        os.kill(os.getpid(), signal.SIGKILL)
file = ModelFile("model.safetensors", "k", 200_000, {model.files[0].sha256!r})
model = Model("a", "text", "text", "", [], {{}}, "a", 0, files=(file,))
ModelFiles(Store(), Path(sys.argv[1]), 10**9).local(model)
"""
    ended = subprocess.run([sys.executable, "-c", code, str(plant.folder)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (plant.folder / (digest + PART)).is_dir()
    assert held(plant.files.local(model)) == {"model.safetensors": b"a" * 200_000}
