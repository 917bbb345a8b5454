"""What a batch's rows may call their models, and what is remembered of it."""

from __future__ import annotations

import pytest

from shared.db.models import Model
from shared.errors import ModelNotFound
from tests.unit.worker.claims import CHAT, make_claim
from tests.unit.worker.test_validation import MODELS, jsonl, row
from worker.rows import slice_rows
from worker.upkeep.offers import Names
from worker.upkeep.validation import BatchValidator, Verdict

ALIASES = {"writer@x": "m", "large@x": "large", "gone@x": "nothing", "e": "m"}


def validate(*rows: dict[str, object]) -> Verdict:
    validator = BatchValidator(
        endpoint=CHAT,
        models=MODELS,
        aliases=ALIASES,
        max_rows=100,
        max_line_bytes=4_096,
        max_reported=100,
    )
    return validator.run(lambda: [jsonl(*rows)])


def test_aliases_lead_rows_to_the_pools_of_their_models() -> None:
    verdict = validate(row("a", "writer@x"), row("b", "large@x"), row("c", "m"))
    assert verdict.bad_lines == 0
    assert verdict.pools == ["a100", "text"]
    assert verdict.models == {"writer@x": "m", "large@x": "large"}


def test_only_what_rows_name_is_kept() -> None:
    assert validate(row("a", "m")).models == {}


def test_an_alias_of_nothing_is_a_bad_line() -> None:
    verdict = validate(row("a", "gone@x"), row("b", "writer@x"))
    assert [(error.line, error.code) for error in verdict.errors] == [(1, "model_not_found")]
    assert verdict.models == {}


def test_a_model_goes_before_an_alias_of_its_name() -> None:
    names = Names(MODELS, ALIASES)
    found = names.find("e")
    assert found is not None
    assert (found.id, names.asked) == ("e", {})


def test_the_first_that_serves_is_a_model_and_never_an_alias() -> None:
    names = Names(MODELS, ALIASES)
    assert names(CHAT, None, "model").id == "m"
    assert names.asked == {}
    with pytest.raises(ModelNotFound, match="serves /v1/x"):
        names("/v1/x", None, "model")
    with pytest.raises(ModelNotFound, match="does not serve"):
        names("/v1/embeddings", "writer@x", "model")


def test_rows_of_a_slice_are_for_the_models_of_the_record() -> None:
    claim = make_claim(kind="batch", detail='{"models": {"writer@x": "m"}, "other": 1}')
    data = jsonl(row("a", "writer@x"), row("b", "large"))
    rows = slice_rows([data], 1, None, claim.models())
    assert [read.model for read in rows] == ["m", "large"]
    assert b"writer@x" in rows[0].body  # as the tenant wrote it
    assert make_claim(kind="batch").models() == {}


def test_models_are_found_by_their_own_names_too() -> None:
    model: Model | None = Names(MODELS).find("m")
    assert model is MODELS["m"]
    assert Names(MODELS).find("writer@x") is None
