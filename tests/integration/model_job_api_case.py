"""The API with models that can be measured, and short names for what is asked about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shared.db.models import sync_catalog
from shared.lifecycle.working import Claim
from shared.models_catalog import ModelEntry
from tests.integration.api_case import ApiCase
from tests.integration.tuning_case import TuningPlant, name_of, training_end

EVALUATIONS = "/v1/evaluations"
CATALOG = [
    ModelEntry(id="writer", engine="text"),
    ModelEntry(id="poet", engine="text"),
    ModelEntry(id="sorter", engine="classifier"),
    ModelEntry(id="painter", engine="image"),
]
INT8 = {"type": "quantize", "scheme": "int8"}
LINE = b'{"messages": []}\n'


@pytest.fixture(name="plant")
def plant_fixture(api: ApiCase, database_url: str) -> Iterator[TuningPlant]:
    with api.begin() as connection:
        sync_catalog(connection, CATALOG)
    plant = TuningPlant(database_url)
    yield plant
    plant.close()


def upload(api: ApiCase, purpose: str = "evals", headers: dict[str, str] | None = None) -> str:
    return str(api.upload(LINE, headers=headers, purpose=purpose).json["id"])


def claim(plant: TuningPlant) -> Claim:
    plant.dispatch("train")
    return plant.claim_training()


def tuned(api: ApiCase, plant: TuningPlant, **fields: Any) -> tuple[str, str]:
    """A fine-tuning job of the tenant's, and the adapter that it has made."""
    data = upload(api, "fine-tune")
    body = {"model": "writer", "training_file": data} | fields
    job_id = api.post("/v1/fine_tuning/jobs", body).json["id"]
    assert plant.open_training(plant.claim_one("up", pools=["upkeep"]).held)
    held = claim(plant)
    assert plant.finish_training(held, training_end(held))
    return job_id, name_of(held)


def optimize(api: ApiCase, model: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
    return api.post(f"/v1/models/{model}/optimize", {"method": INT8} | body, headers)
