"""Aliases change hands: by hand, back, by gates; one at a time, and never to what is gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.db.aliases import held_aliases, model_named
from shared.db.models import lock_own_model, needed_by
from shared.errors import Conflict, InvalidRequest, ModelNotFound, NotFound
from shared.lifecycle import aliases as alias_verbs
from shared.lifecycle.aliases import Expected
from tests.integration.alias_case import FIRST, NAME, SECOND, THIRD, AliasPlant
from tests.integration.protocol import OTHER, TENANT

PATIENCE_SECONDS = 30


@pytest.fixture
def plant(database_url: str) -> Iterator[AliasPlant]:
    plant = AliasPlant(database_url)
    yield plant
    plant.close()


# --- by hand --------------------------------------------------------------------------------------


def test_every_move_is_a_row_of_the_history(plant: AliasPlant) -> None:
    plant.create(FIRST)
    assert plant.move(SECOND)
    assert not plant.move(SECOND)  # holds it already
    assert plant.move(FIRST)
    assert [(one.version, one.from_model, one.to_model, one.cause) for one in plant.history()] == [
        (1, None, FIRST, "hand"),
        (2, FIRST, SECOND, "hand"),
        (3, SECOND, FIRST, "hand"),
    ]
    assert {one.outcome for one in plant.history()} == {"moved"}
    assert plant.holder() == FIRST


def test_of_two_moves_from_the_same_holder_one_comes_too_late(plant: AliasPlant) -> None:
    plant.create(FIRST)
    begin = threading.Barrier(2)

    def move(model: str) -> str:
        begin.wait(PATIENCE_SECONDS)
        try:
            plant.move(model, expected=Expected(FIRST))
        except Conflict as error:
            return str(error.param)
        return model

    with ThreadPoolExecutor(2) as threads:
        ended = list(threads.map(move, [SECOND, THIRD]))
    assert ended.count("expected_model") == 1
    assert plant.holder() in ended
    assert [one.version for one in plant.history()] == [1, 2]


def test_moves_of_many_hands_take_turns(plant: AliasPlant) -> None:
    plant.create(FIRST)
    with ThreadPoolExecutor(6) as threads:
        moved = list(threads.map(plant.move, [SECOND, THIRD, FIRST] * 6))
    history = plant.history()
    assert len(history) == 1 + sum(moved)
    assert [one.version for one in history] == [*range(1, len(history) + 1)]
    ways = [(one.from_model, one.to_model) for one in history]
    assert [way[0] for way in ways] == [None, *(way[1] for way in ways[:-1])]
    assert plant.holder() == ways[-1][1]


def test_it_can_be_expected_that_nobody_holds_an_alias(plant: AliasPlant) -> None:
    plant.create()
    with pytest.raises(Conflict):
        plant.move(FIRST, expected=Expected(SECOND))
    assert plant.move(FIRST, expected=Expected(None))
    with pytest.raises(Conflict):
        plant.move(SECOND, expected=Expected(None))


def test_names_are_a_tenants_own_and_shadow_no_model(plant: AliasPlant) -> None:
    plant.create(FIRST)
    with pytest.raises(Conflict, match="an alias of that name"):
        plant.create(SECOND)
    plant.model("theirs", OTHER)
    plant.create("theirs", tenant=OTHER)
    assert plant.holder() == FIRST
    plant.model("shown@once", tenant=None)
    with pytest.raises(Conflict, match="a model of that name"):
        plant.create(FIRST, name="shown@once")
    plant.model("a-stranger@s", OTHER)
    plant.create(FIRST, name="a-stranger@s")
    with pytest.raises(ModelNotFound):
        plant.move("theirs")
    with pytest.raises(ModelNotFound):
        plant.move(NAME)  # no alias of an alias
    with pytest.raises(NotFound):
        plant.move(FIRST, name="nothing@all")


def test_a_model_that_comes_later_goes_before_the_alias_of_its_name(plant: AliasPlant) -> None:
    plant.create(FIRST)
    with plant.connection() as connection:
        found = model_named(connection, TENANT, NAME)
    assert found is not None
    assert found.id == FIRST
    plant.model(NAME, tenant=None)
    with plant.connection() as connection:
        found = model_named(connection, TENANT, NAME)
    assert found is not None
    assert found.id == NAME


def test_a_tenant_has_so_many_aliases(plant: AliasPlant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alias_verbs, "MOST_ALIASES", 2)
    plant.create(FIRST, name="one@a")
    plant.create(FIRST, name="two@a")
    with pytest.raises(Conflict, match="at most 2"):
        plant.create(FIRST, name="three@a")
    with plant.connection() as connection:
        assert held_aliases(connection, TENANT) == {"one@a": FIRST, "two@a": FIRST}
        assert held_aliases(connection, OTHER) == {}


# --- back -----------------------------------------------------------------------------------------


def test_rolling_back_goes_further_back_each_time(plant: AliasPlant) -> None:
    plant.create(FIRST)
    plant.move(SECOND)
    plant.move(THIRD)
    assert plant.roll_back() == SECOND
    assert plant.roll_back() == FIRST
    with pytest.raises(Conflict):
        plant.roll_back()
    last = plant.history()[-1]
    assert (last.version, last.from_model, last.to_model, last.cause) == (
        5,
        SECOND,
        FIRST,
        "rollback",
    )


def test_what_was_rolled_back_from_is_not_returned_to(plant: AliasPlant) -> None:
    plant.create(FIRST)
    plant.move(SECOND)
    plant.roll_back()
    plant.move(THIRD)
    assert plant.roll_back() == FIRST
    with pytest.raises(Conflict):
        plant.roll_back()


def test_models_that_are_gone_are_passed_over(plant: AliasPlant) -> None:
    plant.create(FIRST)
    for model in (SECOND, FIRST, THIRD):
        plant.move(model)
    plant.delete_model(FIRST)
    assert plant.roll_back() == SECOND
    with pytest.raises(Conflict):
        plant.roll_back()
    plant.move(THIRD)
    plant.delete_model(SECOND)
    with pytest.raises(Conflict):
        plant.roll_back()
    assert plant.holder() == THIRD


def test_a_rollback_may_expect_a_holder_too(plant: AliasPlant) -> None:
    plant.create(FIRST)
    plant.move(SECOND)
    with pytest.raises(Conflict):
        plant.roll_back(expected=Expected(FIRST))
    assert plant.roll_back(expected=Expected(SECOND)) == FIRST


# --- what is held stays ---------------------------------------------------------------------------


def test_a_model_is_needed_for_as_long_as_it_holds_an_alias(plant: AliasPlant) -> None:
    plant.create(FIRST)
    with plant.connection() as connection:
        assert needed_by(connection, TENANT, FIRST) == NAME
        assert needed_by(connection, TENANT, SECOND) is None
        assert needed_by(connection, OTHER, FIRST) is None
    plant.move(SECOND)
    with plant.connection() as connection:
        assert needed_by(connection, TENANT, FIRST) is None


def test_who_moves_to_a_model_that_is_being_deleted_finds_it_gone(plant: AliasPlant) -> None:
    plant.create(FIRST)
    with ThreadPoolExecutor(1) as threads, plant.engine.begin() as deleting:
        assert lock_own_model(deleting, TENANT, SECOND)
        moving = threads.submit(plant.move, SECOND)
        until_blocked(plant)
        assert needed_by(deleting, TENANT, SECOND) is None
        deleting.exec_driver_sql(f"UPDATE models SET deleted_at = now() WHERE id = '{SECOND}'")
        deleting.commit()
        with pytest.raises(ModelNotFound):
            moving.result(PATIENCE_SECONDS)
    assert plant.holder() == FIRST


def test_who_deletes_a_model_that_an_alias_moves_to_finds_it_needed(plant: AliasPlant) -> None:
    plant.create(FIRST)

    def delete() -> str | None:
        with plant.engine.begin() as connection:
            assert lock_own_model(connection, TENANT, SECOND)
            return needed_by(connection, TENANT, SECOND)

    with ThreadPoolExecutor(1) as threads, plant.engine.begin() as moving:
        alias_verbs.move_alias(moving, tenant_id=TENANT, name=NAME, model=SECOND)
        deleting = threads.submit(delete)
        until_blocked(plant)
        moving.commit()
        assert deleting.result(PATIENCE_SECONDS) == NAME


def until_blocked(plant: AliasPlant) -> None:
    """Returns once a transaction waits for a row that another one holds."""
    with plant.connection() as connection:
        for _ in range(PATIENCE_SECONDS * 100):
            waiting = connection.exec_driver_sql(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                " AND datname = current_database()"
            )
            if waiting.scalar():
                return
            connection.exec_driver_sql("SELECT pg_sleep(0.01)")
    raise AssertionError("nobody waits")


def test_a_checkpoint_that_holds_an_alias_is_kept(plant: AliasPlant) -> None:
    job_id, claim = plant.training()
    plant.checkpoint(claim, 1)
    [first] = plant.sql("SELECT model_id FROM checkpoints WHERE job_id = :job", job=job_id)
    plant.create(first.model_id)
    for step in (2, 3, 4):
        plant.checkpoint(claim, step)
    assert plant.kept_steps(job_id) == [1, 3, 4]
    plant.move(SECOND)
    plant.checkpoint(claim, 5)
    assert plant.kept_steps(job_id) == [4, 5]


# --- gates ----------------------------------------------------------------------------------------


def test_a_better_candidate_takes_the_alias(plant: AliasPlant) -> None:
    plant.create(FIRST)
    job_id, gate = plant.gate(SECOND)
    assert gate.models == [SECOND, FIRST]
    assert plant.measure(0.5, 0.75) == job_id
    assert plant.holder() == SECOND
    moved = plant.history()[-1]
    assert (moved.version, moved.cause, moved.outcome, moved.job_id) == (2, "gate", "moved", job_id)
    assert moved.evaluation == {
        "metric": "loss",
        "direction": "min",
        "min_improvement": 0.0,
        "holder": FIRST,
        "holder_value": 0.75,
        "candidate_value": 0.5,
        "reason": "better",
    }
    told = plant.decided(job_id)
    assert (told["outcome"], told["candidate_value"], told["holder_value"]) == ("moved", 0.5, 0.75)
    [event] = plant.data_of_events(job_id, "evaluation.gate")
    assert (event["alias"], event["outcome"], event["candidate"]) == (NAME, "moved", SECOND)
    assert plant.job(job_id).state == "succeeded"
    assert plant.roll_back() == FIRST


@pytest.mark.parametrize("value", [0.75, 1.0, None])
def test_a_candidate_that_is_no_better_does_not(plant: AliasPlant, value: float | None) -> None:
    plant.create(FIRST)
    job_id, _ = plant.gate(SECOND)
    plant.measure(value, 0.75)
    assert plant.holder() == FIRST
    kept = plant.history()[-1]
    assert (kept.version, kept.from_model, kept.to_model) == (None, FIRST, SECOND)
    assert (kept.outcome, plant.decided(job_id)["outcome"]) == ("kept", "kept")
    assert kept.evaluation is not None
    assert kept.evaluation["candidate_value"] == value
    plant.move(THIRD)  # the numbers of versions have no gap
    assert plant.history()[-1].version == 2


def test_more_is_better_where_the_metric_says_so(plant: AliasPlant) -> None:
    plant.create(FIRST)
    plant.gate(SECOND, metric="macro_f1", min_improvement=0.125)
    plant.measure(0.75, 0.625, metric="macro_f1")
    assert plant.holder() == FIRST  # better by as much, not by more
    plant.gate(SECOND, metric="macro_f1", min_improvement=0.125)
    plant.measure(0.875, 0.625, metric="macro_f1")
    assert plant.holder() == SECOND


def test_without_a_holder_the_candidate_is_measured_alone(plant: AliasPlant) -> None:
    plant.create()
    job_id, gate = plant.gate(SECOND)
    assert gate.models == [SECOND]
    plant.measure(3.0)
    assert plant.holder() == SECOND
    assert plant.decided(job_id)["holder_value"] is None


def test_an_alias_that_moved_meanwhile_is_not_moved_by_the_gate(plant: AliasPlant) -> None:
    plant.create(FIRST)
    job_id, _ = plant.gate(SECOND)
    plant.move(THIRD)
    plant.measure(0.1, 0.9)
    assert plant.holder() == THIRD
    superseded = plant.history()[-1]
    assert (superseded.outcome, superseded.from_model, superseded.to_model) == (
        "superseded",
        THIRD,
        SECOND,
    )
    assert plant.decided(job_id)["reason"] == "holder_changed"
    assert plant.job(job_id).state == "succeeded"


def test_an_alias_that_is_moved_while_the_gate_decides_takes_its_turn(plant: AliasPlant) -> None:
    plant.create(FIRST)
    job_id, _ = plant.gate(SECOND)
    with ThreadPoolExecutor(1) as threads, plant.engine.begin() as moving:
        alias_verbs.move_alias(moving, tenant_id=TENANT, name=NAME, model=THIRD)
        deciding = threads.submit(plant.measure, 0.1, 0.9)
        until_blocked(plant)
        moving.commit()
        deciding.result(PATIENCE_SECONDS)
    assert plant.holder() == THIRD
    assert plant.decided(job_id)["outcome"] == "superseded"


def test_two_gates_for_one_alias_let_one_through(plant: AliasPlant) -> None:
    plant.create(FIRST)
    first, _ = plant.gate(SECOND)
    second, _ = plant.gate(THIRD)
    plant.dispatch("train")
    plant.measure(0.5, 0.9)
    plant.measure(0.1, 0.9)
    assert plant.holder() == SECOND
    assert plant.decided(first)["outcome"] == "moved"
    assert plant.decided(second)["outcome"] == "superseded"


def test_an_alias_that_was_made_anew_is_another_one(plant: AliasPlant) -> None:
    plant.create(FIRST)
    job_id, _ = plant.gate(SECOND)
    with plant.engine.begin() as connection:
        assert alias_verbs.delete_alias(connection, tenant_id=TENANT, name=NAME)
    plant.create(FIRST)
    plant.measure(0.1, 0.9)
    assert plant.holder() == FIRST
    assert plant.decided(job_id)["reason"] == "alias_gone"
    assert len(plant.history()) == 1


def test_a_candidate_that_was_deleted_gets_nothing(plant: AliasPlant) -> None:
    plant.create(FIRST)
    job_id, _ = plant.gate(SECOND)
    plant.delete_model(SECOND)
    plant.measure(0.1, 0.9)
    assert plant.holder() == FIRST
    assert plant.decided(job_id)["reason"] == "candidate_gone"


def test_both_models_stay_while_they_are_measured(plant: AliasPlant) -> None:
    plant.create(FIRST)
    job_id, _ = plant.gate(SECOND)
    plant.move(THIRD)
    with plant.connection() as connection:
        assert needed_by(connection, TENANT, FIRST) == job_id
        assert needed_by(connection, TENANT, SECOND) == job_id


def test_a_holder_that_its_operator_has_withdrawn_is_not_measured(plant: AliasPlant) -> None:
    plant.create(FIRST)
    plant.delete_model(FIRST)
    _, gate = plant.gate(SECOND)
    assert gate.models == [SECOND]
    plant.measure(0.5)
    assert plant.holder() == SECOND


def test_a_gate_wants_another_model_and_an_alias(plant: AliasPlant) -> None:
    plant.create(FIRST)
    with pytest.raises(InvalidRequest):
        plant.gate(FIRST)
    with pytest.raises(ModelNotFound):
        plant.gate("ft:nothing")
