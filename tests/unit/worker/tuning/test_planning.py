from __future__ import annotations

from typing import Any

import pytest

from shared.db.models import Model, ModelFile
from shared.models_catalog import GENERATION_ENDPOINTS
from shared.specs.fine_tuning import FineTuningSpec, seed_of
from worker.tuning.messages import Started
from worker.tuning.planning import (
    Base,
    DataFound,
    checkpoint_name,
    digest_of,
    make_plan,
    model_name,
    new_model,
)

JOB, TENANT = "ftjob-01abcdefgh23456789", "ten_a"
SMOL = Model("smol", "big-text", "text", "/models/smol", ["/v1/chat/completions"], {}, "us", 0)
FILE = ModelFile("model.safetensors", "t/a/m/x", 10, "a" * 64)


def spec(**fields: Any) -> FineTuningSpec:
    return FineTuningSpec.model_validate({"model": "smol", "training_file": "file-1"} | fields)


def plan(base: Base, **fields: Any) -> Any:
    said = spec(**fields)
    return make_plan(said, name="m", job_id=JOB, base=base, data=DataFound(["a", "b"]), resume="/c")


def made(base: Base, started: Started) -> Any:
    return new_model(
        model_name(spec(), TENANT, JOB),
        plan=plan(base),
        base=base,
        started=started,
        files=[FILE],
        detail={"step": 9},
    )


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "ft:smol:ten_a::23456789"),
        ({"suffix": "soap"}, "ft:smol:ten_a:soap:23456789"),
        ({"model": "ft:smol:ten_a:old:00000000"}, "ft:smol:ten_a::23456789"),
        ({"model": "ft:smol:ten_a::00000000:ckpt-step-5"}, "ft:smol:ten_a::23456789"),
    ],
)
def test_a_model_is_named_after_its_base_its_tenant_and_its_job(
    fields: dict[str, Any], name: str
) -> None:
    assert model_name(spec(**fields), TENANT, JOB) == name


def test_a_checkpoint_is_named_after_its_step() -> None:
    assert checkpoint_name("ft:smol:ten_a::23456789", 40) == "ft:smol:ten_a::23456789:ckpt-step-40"


def test_a_seed_is_the_one_given_or_the_same_on_every_attempt() -> None:
    assert seed_of(spec(seed=5), JOB) == 5
    assert seed_of(spec(), JOB) == seed_of(spec(), JOB)
    assert seed_of(spec(), JOB) != seed_of(spec(), JOB + "x")
    assert 0 <= seed_of(spec(), JOB) < 2**31


def test_a_plan_says_what_was_asked_for() -> None:
    said = plan(
        Base("smol", SMOL, "/models/smol"),
        method={
            "type": "supervised",
            "supervised": {
                "hyperparameters": {"max_steps": 7},
                "adapter": "lora",
                "lora": {"rank": 4},
            },
        },
        early_stopping={"patience": 2},
        evaluation={"every_steps": 3},
        processes=2,
    )
    assert (said.recipe, said.base, said.base_model) == ("supervised", "/models/smol", "smol")
    assert (said.adapter, said.lora["rank"], said.hyperparameters["max_steps"]) == ("lora", 4, 7)
    assert said.hyperparameters["n_epochs"] == "auto"
    assert said.early_stopping is not None
    assert said.early_stopping["patience"] == 2
    assert (said.evaluate_steps, said.processes, said.resume) == (3, 2, "/c")
    assert said.labels == ["a", "b"]


def test_only_a_fake_model_is_tuned_by_the_fake_recipe() -> None:
    fake = Model("fake", "text", "fake", "", [], {}, "us", 0)
    assert plan(Base("fake", fake)).recipe == "fake"
    assert plan(Base("gan"), method={"type": "gan"}).recipe == "gan"


def test_a_model_of_the_same_engine_is_served_where_its_base_is() -> None:
    model = made(Base("smol", SMOL, parents=["smol"]), Started(9, engine="text"))
    assert (model.pool, model.endpoints) == ("big-text", ["/v1/chat/completions"])
    assert (model.base_model, model.adapter, model.owned_by) == ("smol", False, TENANT)
    assert model.bytes == 10
    assert model.detail["parents"] == ["smol"]
    assert (model.detail["recipe"], model.detail["step"]) == ("supervised", 9)


def test_a_model_of_another_engine_is_served_where_that_engine_usually_is() -> None:
    model = made(Base("smol", SMOL), Started(9, engine="classifier"))
    assert (model.pool, model.endpoints) == ("text", ["/v1/classifications"])


def test_a_model_made_from_nothing_has_no_base() -> None:
    model = made(Base("gan"), Started(9, engine="sampler"))
    assert (model.pool, model.base_model) == ("image", None)


def test_an_adapter_lies_on_a_whole_model() -> None:
    old = Model(
        "ft:old",
        "text",
        "text",
        "",
        GENERATION_ENDPOINTS,
        {},
        TENANT,
        0,
        base_model="smol",
        adapter=True,
        files=(FILE,),
    )
    base = Base("ft:old", old, "/models/smol", "/models/old", ["ft:old", "smol"])
    model = made(base, Started(9, engine="text", adapter=True))
    assert (model.base_model, model.adapter) == ("smol", True)
    assert plan(base).base_adapter == "/models/old"
    assert made(base, Started(9, engine="text")).base_model == "ft:old"


def test_a_digest_is_of_names_and_contents_in_any_order() -> None:
    other = ModelFile("config.json", "elsewhere", 3, "b" * 64)
    assert digest_of([FILE, other]) == digest_of([other, FILE])
    moved = ModelFile("config.json", "somewhere", 3, "b" * 64)
    assert digest_of([FILE, other]) == digest_of([FILE, moved])
    changed = ModelFile("config.json", "elsewhere", 3, "c" * 64)
    assert digest_of([FILE, other]) != digest_of([FILE, changed])


@pytest.mark.parametrize("base", ["smol", "models/writer:1"])
def test_a_base_may_hold_colons_and_is_tuned_again(base: str) -> None:
    first = model_name(spec(model=base, suffix="ads"), TENANT, JOB)
    assert first == f"ft:{base}:{TENANT}:ads:{JOB[-8:]}"
    for tuned in (first, checkpoint_name(first, 20)):
        again = model_name(spec(model=tuned), "ten_b", JOB)
        assert again == f"ft:{base}:ten_b::{JOB[-8:]}"
