"""Which models are loaded: by the budget, and by what the catalog says today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.db.models import Model
from worker.engines.child import EngineChild
from worker.engines.pool import LOAD_OVERHEAD, EnginePool, expected_bytes
from worker.engines.protocol import Load

WEIGHTS = 1_000


class Child:
    """As much of an engine child as the pool looks at."""

    def __init__(self, load: Load, environment: Mapping[str, str]) -> None:
        self.load = load
        self.environment = environment
        self.resident_bytes = 0
        self.capacity = 8
        self.rows_in_flight: dict[tuple[int, int], set[int]] = {}
        self.killed = False

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[Child]:
    children: list[Child] = []

    def spawn(load: Load, *, environment: Mapping[str, str], **_: Any) -> Child:
        children.append(Child(load, environment))
        return children[-1]

    monkeypatch.setattr(EngineChild, "spawn", spawn)
    return children


class Folders:
    """Notes which folders were made and emptied."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.emptied: list[str] = []

    def engine_folder(self, model_id: str, *, quarantine: bool) -> str:
        return f"/spool/{model_id}{'-alone' if quarantine else ''}"

    def open_engine_folder(self, folder: str) -> None:
        self.opened.append(folder)

    def empty(self, folder: str) -> None:
        self.emptied.append(folder)


def make_pool(
    memory_bytes: int = 10 * WEIGHTS, folders: Folders | None = None, **environment: str
) -> EnginePool:
    return EnginePool(
        memory_bytes=memory_bytes,
        environment=environment,
        threads=None,
        folders=folders or Folders(),
        public_url="https://plant.example",
    )


def model(folder: Path, name: str = "m", **settings: Any) -> Model:
    source = folder / name
    source.mkdir(exist_ok=True)
    (source / "model.safetensors").write_bytes(b"x" * WEIGHTS)
    return Model(name, "text", "text", str(source), [], settings, "us", 0)


def test_idle_threads_sleep_soon_unless_the_operator_says_otherwise(
    tmp_path: Path, spawned: list[Child]
) -> None:
    make_pool().get(model(tmp_path))
    make_pool(OMP_WAIT_POLICY="active").get(model(tmp_path))
    make_pool(GOMP_SPINCOUNT="7").get(model(tmp_path))
    assert [child.environment for child in spawned] == [
        {"GOMP_SPINCOUNT": "2000"},
        {"OMP_WAIT_POLICY": "active"},
        {"GOMP_SPINCOUNT": "7"},
    ]


def test_a_model_is_loaded_once(tmp_path: Path, spawned: list[Child]) -> None:
    pool = make_pool()
    wanted = model(tmp_path, tokens_per_second=3)
    assert pool.get(wanted) is pool.get(replace(wanted, settings={"tokens_per_second": 9}))
    assert len(spawned) == 1


def test_a_changed_entry_is_loaded_anew_once_its_rows_are_done(
    tmp_path: Path, spawned: list[Child]
) -> None:
    pool = make_pool()
    pool.get(model(tmp_path))
    spawned[0].rows_in_flight = {(1, 1): {0}}
    changed = model(tmp_path, dtype="float32")
    assert pool.get(changed) is None
    assert not spawned[0].killed
    spawned[0].rows_in_flight = {}
    assert pool.get(changed) is spawned[1]  # type: ignore[comparison-overlap]
    assert spawned[0].killed
    assert spawned[1].load.settings == {"dtype": "float32"}


def test_a_model_that_is_loading_counts_for_what_it_will_take(
    tmp_path: Path, spawned: list[Child]
) -> None:
    pool = make_pool(memory_bytes=int(WEIGHTS * LOAD_OVERHEAD))
    assert pool.get(model(tmp_path, "a")) is not None
    spawned[0].rows_in_flight = {(1, 1): {0}}
    assert pool.get(model(tmp_path, "b")) is None
    spawned[0].rows_in_flight = {}
    assert pool.get(model(tmp_path, "b")) is not None
    assert spawned[0].killed


def test_a_machine_without_processes_to_spare_is_asked_again(
    tmp_path: Path, spawned: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool()
    with monkeypatch.context() as full:

        def refuse(*_: Any, **__: Any) -> None:
            raise BlockingIOError

        full.setattr(EngineChild, "spawn", refuse)
        assert pool.get(model(tmp_path)) is None
    assert pool.get(model(tmp_path)) is not None


# --- files and pools --------------------------------------------------------------------------


def test_an_engine_is_told_where_its_files_go(tmp_path: Path, spawned: list[Child]) -> None:
    folders = Folders()
    pool = make_pool(folders=folders)
    pool.get(model(tmp_path))
    pool.get(model(tmp_path), quarantine=True)
    assert [child.load.spool for child in spawned] == ["/spool/m", "/spool/m-alone"]
    assert {child.load.public_url for child in spawned} == {"https://plant.example"}
    assert folders.opened == ["/spool/m", "/spool/m-alone"]
    pool.forget(("m", False))
    pool.forget(("m", False))
    assert folders.emptied == ["/spool/m"]
    pool.kill_all()
    assert folders.emptied == ["/spool/m", "/spool/m-alone"]


def test_capacity_is_that_of_the_pools_own_engines(tmp_path: Path, spawned: list[Child]) -> None:
    pool = make_pool()
    pool.get(model(tmp_path))
    pool.get(replace(model(tmp_path, "pictures"), pool="image"))
    spawned[1].capacity = 3
    assert (pool.capacity("text"), pool.capacity("image"), pool.capacity("speech")) == (8, 3, 0)


def test_a_model_of_another_pool_makes_room_when_it_is_idle(
    tmp_path: Path, spawned: list[Child]
) -> None:
    pool = make_pool(memory_bytes=int(2 * WEIGHTS * LOAD_OVERHEAD))
    pool.get(model(tmp_path, "a"))
    pool.get(replace(model(tmp_path, "b"), pool="image"))
    assert pool.get(replace(model(tmp_path, "c"), pool="speech")) is not None
    assert [child.killed for child in spawned] == [True, False, False]  # least recently used
    assert pool.capacity("text") == 0


def test_a_diffusers_folder_counts_each_component_once(tmp_path: Path) -> None:
    for name, size in {
        "unet/diffusion_pytorch_model.safetensors": 400,
        "unet/diffusion_pytorch_model.fp16.safetensors": 200,
        "text_encoder/model.fp16-00001-of-00002.safetensors": 50,
        "text_encoder/model.fp16-00002-of-00002.safetensors": 30,
        "vae/diffusion_pytorch_model.safetensors": 20,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert expected_bytes(str(tmp_path)) == int(500 * LOAD_OVERHEAD)
    assert expected_bytes("") == expected_bytes("org/hub-id") == 0
