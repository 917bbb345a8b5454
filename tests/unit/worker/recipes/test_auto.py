"""Every rule of ``worker.recipes.auto``, and that it needs no torch."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.specs.fine_tuning import Hyperparameters, RecipeName
from worker.recipes import auto
from worker.recipes.auto import DEFAULTS, RULES, Resolved, resolve


def _resolved(examples: int = 240, **given_ones: object) -> Resolved:
    return resolve(given_ones, recipe="supervised", examples=examples, adapter=True)


def test_every_recipe_has_its_defaults() -> None:
    assert set(DEFAULTS) == set(get_args(RecipeName))


def test_every_auto_hyperparameter_has_a_rule() -> None:
    told = " ".join(name for name, _ in RULES)
    of_one_recipe = {"beta", "image_size"}
    for name, field in Hyperparameters.model_fields.items():
        if field.default == "auto" and name not in of_one_recipe:
            assert name in told


@pytest.mark.parametrize(
    ("examples", "batch"), [(10, 4), (63, 4), (240, 8), (256, 8), (1100, 16), (100_000, 32)]
)
def test_batches_grow_with_the_root_of_the_examples(examples: int, batch: int) -> None:
    assert _resolved(examples).batch_size == batch


@pytest.mark.parametrize(("examples", "epochs"), [(10, 10), (250, 4), (1000, 2), (50_000, 2)])
def test_small_data_is_seen_more_often(examples: int, epochs: int) -> None:
    assert _resolved(examples).n_epochs == epochs


def test_given_numbers_stay() -> None:
    found = _resolved(n_epochs=3, batch_size=6, learning_rate=1e-3, max_length=99, beta=0.5)
    assert (found.n_epochs, found.batch_size, found.learning_rate) == (3, 6, 1e-3)
    assert (found.max_length, found.beta, found.steps) == (99, 0.5, 120)
    assert found.learning_rate_multiplier == pytest.approx(5)
    assert found.auto == ("image_size", "precision")
    assert found.deciding(max_length=7, precision="fp32").max_length == 99


def test_a_multiplier_multiplies_the_recipes_rate() -> None:
    assert _resolved(learning_rate_multiplier=2.0).learning_rate == pytest.approx(4e-4)


def test_large_models_take_smaller_rates_for_all_weights() -> None:
    def rate(parameters: int, *, adapter: bool) -> float:
        return resolve(
            {}, recipe="supervised", examples=99, adapter=adapter, parameters=parameters
        ).learning_rate

    assert rate(10**8, adapter=False) == 2e-5
    assert rate(4 * 10**9, adapter=False) == pytest.approx(1e-5)
    assert rate(4 * 10**9, adapter=True) == 2e-4


@given(
    examples=st.integers(10, 10**6),
    processes=st.integers(1, 8),
    accumulation=st.integers(1, 8),
    batch=st.one_of(st.just("auto"), st.integers(1, 1024)),
)
def test_every_process_gets_as_many_rows(
    examples: int, processes: int, accumulation: int, batch: int | str
) -> None:
    found = resolve(
        {"batch_size": batch, "gradient_accumulation": accumulation},
        recipe="gan",
        examples=examples,
        adapter=False,
        processes=processes,
    )
    assert found.batch_size % (processes * accumulation) == 0
    assert found.steps == math.ceil(found.n_epochs * examples / found.batch_size)
    assert 1 <= found.evaluate_steps <= found.steps


def test_lengths_cover_nineteen_of_twenty() -> None:
    lengths = [*range(1, 101)]
    assert auto.max_length(lengths, 4096) == 128
    assert auto.max_length([10] * 95 + [900] * 5, 4096) == 64
    assert auto.max_length([5000], 2048) == 2048


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_schedules_warm_up_and_never_leave_their_range(kind: str) -> None:
    shares = [auto.schedule(kind, step, 100, 0.1) for step in range(1, 101)]
    assert shares[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert all(0 < share <= 1 for share in shares)
    falling = shares[10:]
    assert falling == sorted(falling, reverse=True)
    assert (shares[-1] == 1.0) == (kind == "constant")
    assert auto.schedule(kind, 1, 1, 0.0) == 1.0


def test_small_classifiers_train_all_their_weights() -> None:
    assert not auto.takes_adapter("text_classification", "auto", 22_000_000)
    assert auto.takes_adapter("text_classification", "lora", 22_000_000)
    assert auto.takes_adapter("text_classification", "auto", 7 * 10**9)
    assert auto.takes_adapter("supervised", "auto", 135_000_000)
    assert not auto.takes_adapter("supervised", "none", 135_000_000)
    assert not auto.takes_adapter("gan", "lora", None)


def test_the_tables_for_the_documentation() -> None:
    told = auto.rules_table()
    assert "| `supervised` | 1,000 | 2–10 | 4–32 | 2e-05 | 0.0002 | – |" in told
    assert all(f"| `{name}` |" in told for name in (*DEFAULTS, *(name for name, _ in RULES)))
    assert len({line.count("|") for line in told.splitlines() if line}) == 2


def test_the_rules_are_reached_without_torch() -> None:
    code = "import sys, worker.recipes.auto, worker.recipes.run; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
