"""What a batch asks for, summed up, and what that would cost."""

from __future__ import annotations

from typing import Any

import pytest

from shared.db.models import Model
from shared.specs import parse_body
from worker.upkeep.batch_estimates import charge, cost
from worker.upkeep.demand import Calls, Demand

CHAT, EMBED, IMAGES = "/v1/chat/completions", "/v1/embeddings", "/v1/images/generations"
PRICE = {
    "currency": "EUR",
    "input_per_million": 1.0,
    "output_per_million": 2.0,
    "per_image": 0.5,
    "per_second": None,
}


def model(price: dict[str, Any] | None) -> Model:
    detail = {} if price is None else {"price": price}
    return Model("m", "text", "fake", "", [], {}, "x", 0, detail=detail)


def chat(**more: Any) -> Any:
    messages = [{"role": "user", "content": "x" * 40}]
    return parse_body(CHAT, {"model": "m", "messages": messages, **more})


def demand(*, measured: bool = True, **more: Any) -> Demand:
    found = Demand(measured=measured)
    for _ in range(3):
        found.add(CHAT, "m", chat(**more))
    return found


def test_bounds_are_summed_up_and_lost_when_one_row_has_none() -> None:
    bounded = demand(max_tokens=10, n=2)
    calls = bounded.calls[CHAT, "m"]
    assert (calls.rows, calls.max_output_tokens, bounded.model) == (3, 60, "m")
    assert (calls.images, calls.seconds) == (None, None)
    assert calls.input_tokens == 3 * chat().estimated_input_tokens() > 0
    bounded.add(CHAT, "m", chat())
    assert calls.max_output_tokens is None
    bounded.add(CHAT, "other", chat())
    assert bounded.model is None


def test_rows_alone_are_counted_where_nobody_asks_for_more() -> None:
    calls = demand(measured=False).calls[CHAT, "m"]
    assert (calls.rows, calls.input_tokens) == (3, 0)


def test_pictures_and_vectors_have_measures_of_their_own() -> None:
    found = Demand(measured=True)
    found.add(IMAGES, "m", parse_body(IMAGES, {"model": "m", "prompt": "x", "n": 3}))
    found.add(EMBED, "m", parse_body(EMBED, {"model": "m", "input": "xxxxxxxx"}))
    assert (found.calls[IMAGES, "m"].images, found.calls[IMAGES, "m"].input_tokens) == (3, None)
    assert found.calls[EMBED, "m"].max_output_tokens == 0


@pytest.mark.parametrize(
    ("calls", "output", "charged"),
    [
        (Calls(1, 1_000_000, 500_000, None, None), 500_000, 2.0),
        (Calls(1, 1_000_000, 0, None, None), 0, 1.0),
        (Calls(1, 1_000_000, None, None, None), None, None),
        (Calls(2, None, None, 4, None), None, 2.0),
        (Calls(2, None, None, None, 8.0), None, None),
        (Calls(1, None, None, None, None), None, None),
    ],
)
def test_charges(calls: Calls, output: int | None, charged: float | None) -> None:
    assert charge(PRICE, calls, output) == charged


def test_a_cost_needs_a_price_for_every_call_and_one_currency() -> None:
    asked = demand(max_tokens=10)
    key = (CHAT, "m")
    inputs = asked.calls[key].input_tokens
    assert inputs is not None
    found = cost(asked, {"m": model(PRICE)}, {key: 6})
    assert found is not None
    assert found["currency"] == "EUR"
    assert found["expected"] == pytest.approx((inputs + 12) / 10**6)
    assert found["at_most"] == pytest.approx((inputs + 60) / 10**6)
    unknown = cost(asked, {"m": model(PRICE)}, {key: None})
    assert unknown is not None
    assert set(unknown) == {"currency", "at_most"}
    assert cost(asked, {"m": model(None)}, {key: 6}) is None
    assert cost(asked, {}, {key: 6}) is None
    asked.add(CHAT, "other", chat(max_tokens=10))
    models = {"m": model(PRICE), "other": model(PRICE | {"currency": "USD"})}
    assert cost(asked, models, {key: 6, (CHAT, "other"): 6}) is None
