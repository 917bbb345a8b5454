"""Whether work fits, and what it may take: pure."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import BudgetExceeded, PressrunError, QuotaExceeded
from shared.quotas import (
    OPEN_ENDED,
    Limits,
    Reservation,
    Standing,
    judge,
    most_cost,
    of_body,
)

PRICE = {
    "input_per_million": 2.0,
    "output_per_million": 3.0,
    "per_image": 0.5,
    "per_second": 0.25,
    "training_per_million": 4.0,
}
FREE = Reservation(1, 0, 0)


def refusal(limits: Limits, standing: Standing, asked: Reservation) -> PressrunError | None:
    try:
        judge(limits, standing, asked)
    except (QuotaExceeded, BudgetExceeded) as error:
        return error
    return None


@pytest.mark.parametrize(
    ("limits", "standing", "asked", "param"),
    [
        (Limits(), Standing(10**9, 10**9, 10**9), Reservation(1, 1, 1), None),
        (Limits(queued_rows=5), Standing(open_rows=5), Reservation(1), None),
        (Limits(queued_rows=5), Standing(open_rows=6), Reservation(1), "queued_rows"),
        (Limits(queued_rows=5), Standing(open_rows=5), OPEN_ENDED, "queued_rows"),
        (Limits(queued_rows=5), Standing(open_rows=4), OPEN_ENDED, None),
        (
            Limits(daily_tokens=9),
            Standing(open_tokens=5, tokens_today=5),
            Reservation(1, 5),
            "daily_tokens",
        ),
        (Limits(daily_tokens=9), Standing(open_tokens=4, tokens_today=5), Reservation(1, 4), None),
        (Limits(daily_tokens=9), Standing(tokens_today=99), FREE, None),
        (Limits(daily_tokens=9), Standing(tokens_today=9), OPEN_ENDED, "daily_tokens"),
        (
            Limits(daily_compute_seconds=2.0),
            Standing(compute_seconds_today=2.0),
            OPEN_ENDED,
            "daily_compute_seconds",
        ),
        (
            Limits(daily_compute_seconds=2.0),
            Standing(compute_seconds_today=2.0),
            Reservation(1, 1, 1),
            "daily_compute_seconds",
        ),
        (Limits(daily_compute_seconds=2.0), Standing(compute_seconds_today=1.9), FREE, None),
        (
            Limits(daily_budget=7),
            Standing(open_cost=4, cost_today=4),
            Reservation(1, 1, 4),
            "daily_budget",
        ),
        (Limits(daily_budget=7), Standing(open_cost=4, cost_today=3), Reservation(1, 1, 4), None),
        (Limits(daily_budget=7), Standing(cost_today=8), FREE, None),
        (
            Limits(monthly_budget=7),
            Standing(cost_this_month=7),
            OPEN_ENDED,
            "monthly_budget",
        ),
    ],
)
def test_work_fits_or_not(
    limits: Limits, standing: Standing, asked: Reservation, param: str | None
) -> None:
    error = refusal(limits, standing, asked)
    assert (None if error is None else error.param) == param
    if error is not None:
        assert isinstance(error, BudgetExceeded) == param.endswith("budget")  # type: ignore[union-attr]


def test_tomorrow_there_are_new_tokens() -> None:
    standing = Standing(tokens_today=9, seconds_to_midnight=123.4)
    error = refusal(Limits(daily_tokens=9), standing, OPEN_ENDED)
    assert isinstance(error, QuotaExceeded)
    assert error.retry_after_seconds == 123.4


@pytest.mark.parametrize(
    ("endpoint", "body", "settings", "tokens", "cost"),
    [
        ("/v1/completions", {"prompt": "x" * 40, "max_tokens": 7, "n": 3}, {}, 31, 83),
        ("/v1/completions", {"prompt": ["x" * 40, "y" * 8], "max_tokens": 7}, {}, 26, 66),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x" * 40}]},
            {"default_max_tokens": 100},
            114,
            328,
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "x" * 40}]},
            {},
            526,
            1564,
        ),
        ("/v1/embeddings", {"input": "x" * 40}, {}, None, None),
        ("/v1/images/generations", {"prompt": "x", "n": 3}, {}, 0, 1_500_000),
        ("/v1/videos", {"prompt": "x", "seconds": "8"}, {}, 0, 2_000_000),
    ],
)
def test_what_a_row_may_take(
    endpoint: str, body: dict[str, Any], settings: dict[str, Any], tokens: int, cost: int
) -> None:
    found = of_body(endpoint, {"model": "m"} | body, settings, PRICE)
    assert found.rows == 1
    if tokens is None:  # an estimate of the prompt alone
        assert 0 < found.tokens <= 40
        assert found.cost == 2 * found.tokens
    else:
        assert (found.tokens, found.cost) == (tokens, cost)


def test_a_step_that_waits_for_others_takes_what_is_known_of_it() -> None:
    body = {"model": "m", "messages": {"$ref": "x" * 40}, "max_tokens": 50}
    assert of_body("/v1/chat/completions", body, {}, PRICE).tokens == 50 + (1 + 40) // 4 + 1


def test_what_has_no_price_costs_nothing_and_parts_are_rounded_up() -> None:
    assert most_cost(None, input_tokens=10**9) == 0
    assert most_cost({"per_image": None}, images=3) == 0
    assert most_cost({"input_per_million": 0.3}, input_tokens=1) == 1
    assert most_cost(PRICE, trained_tokens=10) == 40
