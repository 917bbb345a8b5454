"""What rows of a batch may consume at most, by the models that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shared.db.models import Model
from shared.plans.base import BUNDLE, Step
from shared.quotas import Reservation, of_body, of_spec
from shared.specs import InferenceSpec


class Reserving:
    """``models`` are all that the tenant may name, by name."""

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    def row(self, spec: InferenceSpec, model: Model) -> Reservation:
        return of_spec(spec, model.settings, self._price(model))

    def graph(self, steps: Sequence[Step]) -> Reservation:
        """Of one row, whose steps these are."""
        found = [self._step(step) for step in steps if step.endpoint != BUNDLE]
        return Reservation(1, sum(step.tokens for step in found), sum(step.cost for step in found))

    def _step(self, step: Step) -> Reservation:
        model = self._models.get(step.model or "")
        if model is None:
            return Reservation(1)
        return of_body(step.endpoint, step.body, model.settings, self._price(model))

    def _price(self, model: Model) -> Any:
        """A tuned model costs what the catalog's model costs that it was tuned from."""
        found: Model | None = model
        for _ in range(len(self._models)):
            if found is None or found.job_id is None:
                break
            found = self._models.get(found.base_model or "")
        return None if found is None else found.detail.get("price")
