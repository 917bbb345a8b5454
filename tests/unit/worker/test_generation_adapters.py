"""Tuned models in a worker: which engine their rows go to, and when their files must come first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.db.models import Model, ModelFile
from shared.lifecycle.working import ReleaseReason
from tests.unit.worker.claims import CHAT, make_claim, make_rows
from tests.unit.worker.generation_bench import Bench, error_codes
from worker.crashes import CRASHED
from worker.execution import ShardRun
from worker.serving import Unservable
from worker.spool import Spool

FILES = (ModelFile("adapter_model.safetensors", "k", 3, "0" * 64),)
ADAPTERS = ("ft:m:t:one", "ft:m:t:two")


def adapter(name: str, base: str = "m") -> Model:
    return Model(name, "text", "text", "", [CHAT], {}, "ten_a", 0, base, True, FILES)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    spool = Spool(tmp_path)
    made = Bench(monkeypatch, spool)
    made.known = {name: adapter(name) for name in ADAPTERS}
    made.known["m"] = Model("m", "text", "text", "hub/m", [CHAT], {}, "us", 0)
    made.local = {name: Path("/models") / name for name in ADAPTERS}
    yield made
    spool.close()


@pytest.fixture
def wanted(bench: Bench) -> list[Model]:
    """The models whose files were asked for."""
    asked: list[Model] = []
    bench.generation.placement.on_absent = asked.append
    return asked


def mixed(bench: Bench, shard: int = 1) -> ShardRun:
    """Two rows of the base, one of each adapter."""
    names = ["m", ADAPTERS[0], "m", ADAPTERS[1]]
    rows = [make_rows(4, model=name)[index] for index, name in enumerate(names)]
    run = ShardRun(make_claim(shard, kind="batch", row_count=4), "w1", rows)
    bench.generation.begin(run)
    return run


def test_rows_of_adapters_and_their_base_share_an_engine(bench: Bench) -> None:
    mixed(bench)
    (child,) = bench.pool.spawned
    assert child.load.model == "m"
    found = dict(zip(child.submitted, child.adapters, strict=True))
    assert found[1, 0] == found[1, 2] == ("", "")
    assert found[1, 1] == (f"/models/{ADAPTERS[0]}", ADAPTERS[0])
    assert found[1, 3] == (f"/models/{ADAPTERS[1]}", ADAPTERS[1])
    assert set(bench.pool.sources) == {"hub/m"}


def test_a_full_tuned_model_is_loaded_from_its_folder(bench: Bench) -> None:
    bench.known["ft"] = Model("ft", "text", "text", "", [CHAT], {}, "t", 0, "m", False, FILES)
    bench.local["ft"] = Path("/models/ft")
    bench.batch(rows=1, model="ft")
    assert bench.pool.sources == ["/models/ft"]
    assert bench.pool.child("ft").adapters == [("", "")]


def test_rows_wait_until_the_files_are_here(bench: Bench, wanted: list[Model]) -> None:
    folder = bench.local.pop(ADAPTERS[0])
    run = bench.batch(rows=2, model=ADAPTERS[0])
    bench.batch(2, rows=1, model=ADAPTERS[0])
    bench.generation.tend()
    assert [model.id for model in wanted] == [ADAPTERS[0]]  # once, however many wait
    assert not bench.pool.spawned
    bench.now += 1000.0
    assert not bench.generation.placement.starving  # it is not memory that they wait for
    bench.local[ADAPTERS[0]] = folder
    bench.generation.placement.fetched(wanted[0], None)
    assert bench.child.submitted == [(1, 0), (1, 1), (2, 0)]
    bench.child.finish(run, 0, 1)
    bench.generation.receive()
    assert bench.ends() == [("slice", 1, None)]


def test_files_that_were_removed_again_are_fetched_again(bench: Bench, wanted: list[Model]) -> None:
    bench.batch(rows=1, model=ADAPTERS[0])
    del bench.local[ADAPTERS[0]]
    bench.batch(2, rows=1, model=ADAPTERS[0])
    bench.generation.placement.fetched(wanted[0], None)
    assert len(wanted) == 2


def test_an_outage_of_the_store_gives_the_shard_back(bench: Bench, wanted: list[Model]) -> None:
    del bench.local[ADAPTERS[0]]
    mixed(bench)
    other = bench.batch(2, rows=1)
    why = Unservable("storage_unavailable", "away", passing=True)
    bench.generation.placement.fetched(wanted[0], why)
    assert bench.ends() == [("release", 1, ReleaseReason.ERROR)]
    assert bench.commits.ends[0][3] == "storage_unavailable"
    assert not other.ending
    bench.generation.tend()
    assert len(bench.ends()) == 1


def test_a_damaged_model_fails_its_own_rows(bench: Bench, wanted: list[Model]) -> None:
    del bench.local[ADAPTERS[0]]
    run = mixed(bench)
    bench.generation.placement.fetched(wanted[0], Unservable("model_damaged", "it is damaged"))
    bench.child.finish(run, 0, 2, 3)
    bench.generation.receive()
    assert bench.ends() == [("slice", 1, None)]
    assert error_codes(run) == {"row-1": "model_damaged"}
    # The next to want it tries again.
    bench.batch(2, rows=1, model=ADAPTERS[0])
    assert len(wanted) == 2


def test_an_adapter_without_its_base_says_so(bench: Bench) -> None:
    bench.known["lost"] = adapter("lost", base="gone")
    bench.known["chain"] = adapter("chain", base=ADAPTERS[0])
    assert error_codes(bench.batch(1, rows=1, model="lost")) == {"row-0": "base_model_not_found"}
    assert error_codes(bench.batch(2, rows=1, model="chain")) == {"row-0": "adapter_unsupported"}


# --- crashes ----------------------------------------------------------------------------------


def test_suspects_of_one_engine_are_alone_in_it_whatever_their_adapters(bench: Bench) -> None:
    run = mixed(bench)
    bench.crash()
    bench.crash()
    alone = bench.suspect_child
    assert alone.submitted == [(1, 0)]
    tested = [alone.adapters[-1][1]]
    for index in (0, 1, 2):
        bench.suspect_child.finish(run, run_order(bench)[-1])
        bench.generation.receive()
        tested.append(bench.suspect_child.adapters[-1][1])
        assert len(bench.suspect_child.submitted) == index + 2
    assert sorted(tested) == ["", "", *ADAPTERS]


def run_order(bench: Bench) -> list[int]:
    return [index for _, index in bench.suspect_child.submitted]


def test_the_culprit_among_adapters_is_found_and_the_others_acquitted(bench: Bench) -> None:
    run = mixed(bench)
    bench.crash()
    bench.crash()
    while run_order(bench)[-1] != 1:
        bench.suspect_child.finish(run, run_order(bench)[-1])
        bench.generation.receive()
    culprit = bench.suspect_child
    bench.crash(quarantine=True)
    while bench.suspect_child is culprit or run_order(bench)[-1] != 1:
        bench.suspect_child.finish(run, run_order(bench)[-1])
        bench.generation.receive()
    bench.crash(quarantine=True)
    for child in list(bench.pool.spawned):
        for shard, indexes in list(child.rows_in_flight.items()):
            assert shard == (1, 1)
            if child.state != "dead":
                child.finish(run, *indexes)
    bench.generation.receive()
    assert error_codes(run) == {"row-1": CRASHED.code}
    assert bench.ends() == [("slice", 1, None)]


def test_a_suspect_of_an_earlier_worker_waits_for_its_files(
    bench: Bench, wanted: list[Model]
) -> None:
    folder = bench.local.pop(ADAPTERS[0])
    bench.single(model=ADAPTERS[0], suspect=True)
    assert not bench.pool.spawned
    bench.local[ADAPTERS[0]] = folder
    bench.generation.placement.fetched(wanted[0], None)
    assert bench.suspect_child.adapters == [(str(folder), ADAPTERS[0])]
