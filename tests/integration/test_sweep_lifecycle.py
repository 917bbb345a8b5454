"""Sweeps as the database keeps them: trials added, counted however they end, promoted; fenced."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.exc import IntegrityError

from shared.db.jobs import list_jobs
from shared.db.models import delete_model, get_model
from shared.db.sweeps import Sweeping, sweeping
from shared.errors import ModelNotFound
from shared.lifecycle import working
from shared.lifecycle.settle import MAX_CRASHES, MAX_ERRORS, MAX_LOSSES
from shared.lifecycle.working import Claim, ReleaseReason, TrainingStep
from shared.states import JobState
from tests.integration.protocol import OTHER, TENANT
from tests.integration.sweep_case import SweepPlant
from tests.integration.tuning_case import FOUND, name_of, training_end


@pytest.fixture
def plant(database_url: str) -> Iterator[SweepPlant]:
    plant = SweepPlant(database_url)
    yield plant
    plant.close()


# --- trials are added ---------------------------------------------------------------------------


def test_good_data_open_a_search_that_upkeep_claims(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    assert plant.claim("trainer", pools=["train"]) == []
    claim = plant.claim_sweep()
    assert (claim.stage, claim.pool, claim.job_id) == ("sweep", "upkeep", job_id)
    assert plant.job(job_id).stage == "sweep"


def test_trials_are_jobs_that_begin_with_their_training(plant: SweepPlant) -> None:
    job_id = plant.new_sweep(parallel=2)
    first, second = plant.started(job_id, 2, parallel=2)
    parent, trial = plant.job(job_id), plant.job(first.job_id)
    assert trial.id.startswith("ftjob-")
    assert (trial.kind, trial.stage, trial.tenant_id) == ("fine_tune", "train", TENANT)
    assert (trial.input_file_id, trial.model) == (parent.input_file_id, parent.model)
    assert trial.detail["data"] == FOUND
    assert trial.detail["sweep"] == {
        "parent": job_id,
        "number": 1,
        "params": {"learning_rate": 0.001},
    }
    assert [shard.stage for shard in plant.shards(second.job_id)] == ["train"]
    assert plant.waits(job_id)
    assert parent.state == JobState.RUNNING


def test_a_search_goes_on_when_a_place_is_free(plant: SweepPlant) -> None:
    job_id = plant.new_sweep(trials=4, parallel=2)
    first, _ = plant.started(job_id, 2, parallel=2)
    assert plant.waits(job_id)
    plant.end(first)
    assert plant.collect() == 1
    assert not plant.waits(job_id)
    assert plant.job(job_id).progress == 0.25
    assert plant.add(plant.claim_sweep(), 1, parallel=2)
    assert plant.waits(job_id)


def test_a_trial_that_ended_before_the_commit_leaves_its_place_free(plant: SweepPlant) -> None:
    """The search is claimed, and decides by what it has read; meanwhile a trial ends."""
    job_id = plant.new_sweep(trials=4, parallel=2)
    (first,) = plant.started(job_id, 1, parallel=2)
    assert not plant.waits(job_id)
    claim = plant.claim_sweep()
    new = plant.new_trials(job_id, 1)
    plant.end(first)
    plant.collect()
    assert plant.add(claim, new, parallel=2)
    assert not plant.waits(job_id)


def test_adding_them_again_is_the_same_and_a_zombie_adds_nothing(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    slow = plant.claim_sweep()
    plant.lose("up")
    assert not plant.add(slow, 1)
    assert plant.search(job_id).fenced_n == 1
    plant.session("up2", pools=["upkeep"])
    second, new = plant.claim_sweep("up2"), plant.new_trials(job_id, 1)
    assert plant.add(second, new, by="up2")
    assert plant.add(second, new, by="up2")
    assert not plant.add(second, plant.new_trials(job_id, 1), by="up2")
    assert not plant.add(slow, plant.new_trials(job_id, 1))
    assert [trial.job_id for trial in plant.trials(job_id)] == [new[0].job_id]


def test_a_number_is_given_once(plant: SweepPlant) -> None:
    job_id = plant.new_sweep(trials=4, parallel=3)
    plant.started(job_id, 1, parallel=3)
    again = plant.new_trials(job_id, 1)[0]
    twice = working.NewTrial(again.job_id, 1, again.params, again.spec)
    claim = plant.claim_sweep()
    with pytest.raises(IntegrityError):
        plant.add(claim, [twice], parallel=3)
    assert len(plant.trials(job_id)) == 1


def test_what_was_decided_forgives_losses_before_it(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    for number in range(MAX_LOSSES - 1):
        session = plant.session(f"lost{number}", pools=["upkeep"])
        plant.claim_sweep(session)
        plant.lose(session)
    assert plant.search(job_id).lost_n == MAX_LOSSES - 1
    assert plant.add(plant.claim_sweep(), 1)
    assert plant.search(job_id).lost_n == 0


# --- and end, by every way that there is --------------------------------------------------------


def succeed(plant: SweepPlant, claim: Claim) -> None:
    plant.end(claim)


def fail(plant: SweepPlant, claim: Claim) -> None:
    assert plant.fail(claim)


def cancel_running(plant: SweepPlant, claim: Claim) -> None:
    assert plant.stop(claim.job_id)
    plant.give_back(claim)


def cancel_waiting(plant: SweepPlant, claim: Claim) -> None:
    plant.give_back(claim)
    assert plant.stop(claim.job_id)


def spend(reason: ReleaseReason, times: int) -> Callable[[SweepPlant, Claim], None]:
    def end(plant: SweepPlant, claim: Claim) -> None:
        for _ in range(times):
            plant.release("trainer", claim.held, reason, code="broken", message="it broke")
            plant.dispatch("train")
            for again in plant.claim("trainer", pools=["train"]):
                claim = again

    return end


def vanish(plant: SweepPlant, claim: Claim) -> None:
    plant.lose("trainer")
    for number in range(MAX_LOSSES - 1):
        session = plant.session(f"trainer{number}", pools=["train"])
        plant.dispatch("train")
        plant.claim_training(session)
        plant.lose(session)


ENDS: dict[str, tuple[Callable[[SweepPlant, Claim], None], str]] = {
    "finish": (succeed, "succeeded"),
    "fail": (fail, "failed"),
    "stop": (cancel_running, "cancelled"),
    "stop, waiting": (cancel_waiting, "cancelled"),
    "errors": (spend(ReleaseReason.ERROR, MAX_ERRORS), "failed"),
    "crashes": (spend(ReleaseReason.CRASHED, MAX_CRASHES), "failed"),
    "losses": (vanish, "failed"),
}


@pytest.mark.parametrize("how", ENDS)
def test_every_end_of_a_trial_lets_the_search_go_on(plant: SweepPlant, how: str) -> None:
    end, state = ENDS[how]
    job_id = plant.new_sweep()
    (claim,) = plant.started(job_id)
    assert plant.collect() == 0
    end(plant, claim)
    assert plant.job(claim.job_id).state == state
    assert plant.waits(job_id)
    assert plant.collect() == 1
    assert plant.collect() == 0
    (trial,) = plant.trials(job_id)
    assert (trial.ended, trial.value) == (True, 0.5 if state == "succeeded" else None)
    assert plant.claim_sweep().job_id == job_id


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_trials_may_end_in_any_order(plant: SweepPlant, order: tuple[int, ...]) -> None:
    job_id = plant.new_sweep(parallel=3)
    claims = plant.started(job_id, 3, parallel=3)
    for place, number in enumerate(order):
        plant.end(claims[number], value=float(number))
        assert plant.collect() == 1
        claim = plant.claim_sweep()
        if place < 2:
            assert plant.add(claim, 0, parallel=3)
            assert plant.waits(job_id)
    assert plant.finish_sweep(claim)
    assert plant.job(job_id).result["best"]["number"] == 1


def test_a_trial_is_worth_what_was_measured_of_its_model(plant: SweepPlant) -> None:
    job_id = plant.new_sweep(metric="accuracy", parallel=2)
    first, second = plant.started(job_id, 2, parallel=2)
    for claim in (first, second):
        steps = [TrainingStep(step, 1.0, {"accuracy": step / 100}) for step in (20, 40, 60)]
        plant.report(claim.held, *steps)
    plant.finish_training(first)  # of step 40; its report says nothing of the metric
    assert plant.finish_training(
        second, training_end(second, metrics={"after": {"accuracy": 0.9, "valid_loss": 2.0}})
    )
    plant.collect()
    trials = plant.trials(job_id)
    assert [trial.value for trial in trials] == [0.4, 0.9]
    assert trials[0].evaluations == (0.2, 0.4, 0.6)


@pytest.mark.parametrize("after", [{}, {"valid_loss": None}, {"valid_loss": "low"}, None])
def test_a_trial_without_the_metric_has_no_value(plant: SweepPlant, after: object) -> None:
    job_id = plant.new_sweep()
    (claim,) = plant.started(job_id)
    assert plant.finish_training(claim, training_end(claim, metrics={"after": after}))
    plant.collect()
    assert plant.trials(job_id)[0].value is None


# --- pruning ------------------------------------------------------------------------------------


def test_a_pruned_trial_ends_cancelled_and_says_why(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    (claim,) = plant.started(job_id)
    assert plant.prune(claim.job_id)
    assert not plant.prune(claim.job_id)
    plant.give_back(claim)
    assert plant.job(claim.job_id).state == JobState.CANCELLED
    plant.collect()
    assert plant.trials(job_id)[0].pruned
    notes = plant.data_of_events(claim.job_id, "fine_tune.note")
    assert notes[-1]["message"] == "pruned: it is behind"
    with plant.connection() as connection:
        found = sweeping(connection, TENANT, [job_id, claim.job_id])
    assert (found.sweeps[job_id].pruned, found.sweeps[job_id].failed) == (1, 0)
    assert found.trials[claim.job_id].pruned


def test_a_trial_that_ended_before_it_heard_was_not_pruned(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    (claim,) = plant.started(job_id)
    assert plant.prune(claim.job_id)
    plant.end(claim)
    plant.collect()
    (trial,) = plant.trials(job_id)
    assert (trial.pruned, trial.value) == (False, 0.5)
    with plant.connection() as connection:
        found = sweeping(connection, TENANT, [job_id]).sweeps[job_id]
    assert (found.finished, found.pruned) == (1, 0)


def test_only_open_trials_are_pruned(plant: SweepPlant) -> None:
    training = plant.validated()
    claim, job_id = plant.claim_training(), plant.new_sweep()
    assert not plant.prune(training)
    assert not plant.prune(job_id)
    plant.end(claim)
    (claim,) = plant.started(job_id)
    plant.end(claim)
    assert not plant.prune(claim.job_id)


# --- the end ------------------------------------------------------------------------------------


def searched(plant: SweepPlant, values: tuple[float, ...] = (0.5, 0.2, 0.7)) -> tuple[str, Claim]:
    """A search whose trials have all ended, claimed for its end."""
    job_id = plant.new_sweep(parallel=3)
    for claim, value in zip(plant.started(job_id, 3, parallel=3), values, strict=True):
        plant.end(claim, value)
    plant.collect()
    return job_id, plant.claim_sweep()


def test_the_best_trials_model_is_offered_as_the_sweeps(plant: SweepPlant) -> None:
    job_id, claim = searched(plant)
    end = plant.sweep_end(claim)
    for _ in range(2):
        assert plant.finish_sweep(claim, end)
    job, trials = plant.job(job_id), plant.trials(job_id)
    assert (job.state, job.progress) == (JobState.SUCCEEDED, 1)
    assert job.result["fine_tuned_model"] == name_of(claim)
    assert job.result["best"]["job"] == trials[1].job_id
    assert job.result["trained_tokens"] == 3 * 1234
    assert job.result["metrics"] == {"after": {"valid_loss": 0.2}}
    assert plant.usage(job_id) == []
    with plant.connection() as connection:
        made = get_model(connection, TENANT, name_of(claim))
        source = get_model(connection, TENANT, str(trials[1].model))
    assert made is not None
    assert source is not None
    assert (made.files, made.engine, made.adapter) == (source.files, source.engine, True)
    assert (made.job_id, made.detail["sweep"]["number"]) == (job_id, 2)
    assert plant.events(job_id).count("fine_tune.succeeded") == 1


def test_a_zombie_promotes_nothing(plant: SweepPlant) -> None:
    job_id, claim = searched(plant)
    end = plant.sweep_end(claim)
    plant.lose("up")
    assert not plant.finish_sweep(claim, end)
    assert plant.job(job_id).state == JobState.RUNNING
    assert plant.scalar("SELECT count(*) FROM models WHERE id = :id", id=end.model) == 0


def test_a_model_that_was_deleted_is_not_promoted(plant: SweepPlant) -> None:
    job_id, claim = searched(plant)
    end = plant.sweep_end(claim)
    with plant.engine.begin() as connection:
        assert delete_model(connection, TENANT, end.best_model)
    with pytest.raises(ModelNotFound):
        plant.finish_sweep(claim, end)
    assert plant.job(job_id).state == JobState.RUNNING
    assert plant.trials(job_id)[1].model is None


# --- what is shown ------------------------------------------------------------------------------


def test_a_sweep_counts_its_trials(plant: SweepPlant) -> None:
    job_id = plant.new_sweep(trials=4, parallel=4)
    first, second, third, _ = plant.started(job_id, 4, parallel=4)
    plant.end(first, 0.4)
    plant.end(second, 0.3)
    cancel_running(plant, third)
    plant.collect()
    with plant.connection() as connection:
        found = sweeping(connection, TENANT, [job_id]).sweeps[job_id]
        assert sweeping(connection, OTHER, [job_id, first.job_id]) == Sweeping()
    assert (found.finished, found.failed, found.pruned, found.open) == (2, 1, 0, 1)
    assert found.best == {
        "job": second.job_id,
        "number": 2,
        "params": {"learning_rate": 0.002},
        "value": 0.3,
    }
    assert found.progress == 0.75


def test_lists_can_be_of_one_sweep_or_without_trials(plant: SweepPlant) -> None:
    job_id = plant.new_sweep()
    (claim,) = plant.started(job_id)
    alone = plant.fine_tune()

    def listed(parent: str | None, tenant: str = TENANT) -> set[str]:
        with plant.connection() as connection:
            rows = list_jobs(
                connection, tenant, kinds=["fine_tune"], after=None, limit=9, parent=parent
            )
        return {row.id for row in rows}

    assert listed(None) == {job_id, claim.job_id, alone}
    assert listed("none") == {job_id, alone}
    assert listed(job_id) == {claim.job_id}
    assert listed(job_id, OTHER) == listed("nobody") == set()
