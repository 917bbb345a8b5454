"""Which engine serves which name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shared.db.models import Model, ModelFile
from worker.serving import Absent, Served, Unservable, serve

FILES = (ModelFile("model.safetensors", "k", 3, "0" * 64),)
BASE = Model("base", "text", "text", "/models/base", [], {"slots": 3}, "us", 0)
TUNED = replace(BASE, id="ft:base:t:x", source="", base_model="base", files=FILES, settings={})
ADAPTER = replace(TUNED, id="ft:base:t:y", adapter=True)
ON_TUNED = replace(ADAPTER, id="ft:base:t:z", base_model=TUNED.id)


class Here:
    """Models by name, and where their files are, if they are."""

    def __init__(self, *models: Model, absent: tuple[str, ...] = ()) -> None:
        self.models = {model.id: model for model in models}
        self.absent = absent

    def path(self, model: Model) -> Path | None:
        return None if model.id in self.absent else Path("/scratch") / model.id

    def serve(self, name: str) -> Served:
        return serve(name, self.models.get, self)


ALL = (BASE, TUNED, ADAPTER, ON_TUNED)


def test_a_model_of_the_catalog_is_served_as_it_stands() -> None:
    assert Here(*ALL).serve("base") == Served(BASE)


def test_a_full_tuned_model_is_loaded_from_its_files() -> None:
    assert Here(*ALL).serve(TUNED.id) == Served(replace(TUNED, source=f"/scratch/{TUNED.id}"))


def test_an_adapter_is_served_by_its_base() -> None:
    served = Here(*ALL).serve(ADAPTER.id)
    assert served == Served(BASE, f"/scratch/{ADAPTER.id}", ADAPTER.id)


def test_the_base_of_an_adapter_may_be_a_full_tuned_model() -> None:
    served = Here(*ALL).serve(ON_TUNED.id)
    base = replace(TUNED, source=f"/scratch/{TUNED.id}")
    assert served == Served(base, f"/scratch/{ON_TUNED.id}", ON_TUNED.id)


@pytest.mark.parametrize("missing", [TUNED.id, ON_TUNED.id])
def test_files_that_are_not_here_are_named(missing: str) -> None:
    with pytest.raises(Absent) as found:
        Here(*ALL, absent=(missing,)).serve(ON_TUNED.id)
    assert found.value.model.id == missing


@pytest.mark.parametrize(
    ("models", "name", "code"),
    [
        (ALL, "other", "model_not_found"),
        ((ADAPTER,), ADAPTER.id, "base_model_not_found"),
        ((replace(ADAPTER, base_model=None),), ADAPTER.id, "base_model_not_found"),
        ((BASE, ADAPTER, replace(ON_TUNED, base_model=ADAPTER.id)), ON_TUNED.id, "adapter_unsup"),
        ((replace(BASE, engine="image"), ADAPTER), ADAPTER.id, "adapter_unsupported"),
        (
            (replace(BASE, engine="speech"), replace(ADAPTER, engine="speech")),
            ADAPTER.id,
            "adapter_unsupported",
        ),
    ],
)
def test_what_can_not_be_served_says_why(models: tuple[Model, ...], name: str, code: str) -> None:
    with pytest.raises(Unservable) as refused:
        Here(*models).serve(name)
    assert refused.value.code.startswith(code)
    assert name in refused.value.message
    assert not refused.value.passing
