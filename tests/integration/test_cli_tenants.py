"""``pressrun tenants …`` and ``pressrun usage`` against a real API."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import text

from pressrun.exit_codes import ExitCode
from pressrun.main import main
from tests.integration.api_case import ADMIN, ADMIN_KEY, MODEL, ApiCase, api_fixture
from tests.integration.test_cli_webhooks import served

__all__ = ["api_fixture"]

Run = Callable[..., str]
DAY = date(2026, 2, 3)


@pytest.fixture
def run(
    api: ApiCase, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Runs a command line that is to end well; returns what it wrote."""
    monkeypatch.setenv("PRESSRUN_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setenv("PRESSRUN_API_KEY", api.key["Authorization"].removeprefix("Bearer "))

    def call(*arguments: str, code: int = ExitCode.OK) -> str:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main(list(arguments))
        out, err = capfd.readouterr()
        assert (exit_info.value.code or 0) == code, err
        return out

    with served(api) as url:
        monkeypatch.setenv("PRESSRUN_URL", url)
        yield call


def consume(api: ApiCase, rows: int, shard: int) -> None:
    values = {"at": datetime(DAY.year, DAY.month, DAY.day, 12, tzinfo=UTC), "model": MODEL}
    with api.begin() as connection:
        connection.execute(
            text("""
INSERT INTO usage (shard_id, endpoint, model, epoch, tenant_id, job_id, rows, input_tokens,
                   output_tokens, cost, created_at)
SELECT :shard, '/v1/completions', :model, 1, id, 'job_x', :rows, 10, 1234567, 2500000, :at
  FROM tenants
"""),
            values | {"rows": rows, "shard": shard},
        )


def test_a_tenant_is_limited_disabled_and_let_in_again(run: Run) -> None:
    made = run("admin", "tenants", "create", "acme").strip()
    out = run("tenants", "set", "acme", "--queued-rows", "9", "--monthly-budget", "12.5",
              "--weight", "3", "--json")  # fmt: skip
    shown = json.loads(out)
    assert (shown["id"], shown["weight"]) == (made, 3.0)
    assert shown["limits"]["queued_rows"] == 9
    assert shown["limits"]["monthly_budget"] == 12_500_000
    sheet = run("tenants", "show", "acme")
    assert "12.5" in sheet
    out = run("tenants", "set", made, "--no-limit", "queued-rows", "--name", "acme2", "--json")
    assert json.loads(out)["limits"] == shown["limits"] | {"queued_rows": None}
    assert json.loads(run("tenants", "disable", "acme2", "--json"))["disabled"] is True
    assert json.loads(run("tenants", "enable", "acme2", "--json"))["disabled"] is False


def test_a_tenant_sees_what_is_left(api: ApiCase, run: Run) -> None:
    api.submit()
    path = f"/v1/admin/tenants/{json.loads(run('tenants', 'show', 't', '--json'))['id']}"
    limits = {"queued_rows": 4, "monthly_budget": 12_500_000, "daily_compute_seconds": 0.5}
    assert api.client.patch(path, json={"limits": limits}, headers=ADMIN).status_code == 200
    lines = {line.split()[0]: line.split()[1:] for line in run("limits").splitlines()}
    assert lines["queued_rows"] == ["4", "1", "-", "3", "25"]
    assert lines["monthly_budget"] == ["12.5", "0", "0", "12.5", "0"]
    assert lines["daily_compute_seconds"] == ["0.5", "0", "-", "0.5", "0"]
    assert lines["daily_tokens"][:2] == ["-", "0"]
    assert json.loads(run("limits", "--json"))["held"]["queued_rows"] == 1


def test_commands_that_make_no_sense_are_refused(run: Run) -> None:
    run("tenants", "set", "t", code=ExitCode.USAGE)
    run("tenants", "set", "t", "--no-limit", "rows", code=ExitCode.USAGE)
    run("tenants", "set", "nobody", "--queued-rows", "1", code=ExitCode.REFUSED)
    run("tenants", "set", "t", "--weight", "0", code=ExitCode.REFUSED)
    run("usage", "--by", "colour", code=ExitCode.USAGE)
    run("usage", "--since", "soon", code=ExitCode.USAGE)
    run("usage", "--since", "2026-02-03", "--until", "2026-02-02", code=ExitCode.USAGE)


def test_usage_is_a_table_json_or_csv(api: ApiCase, run: Run) -> None:
    consume(api, 3, 1)
    consume(api, 4, 2)
    span = ("--since", "2026-02-01", "--until", "2026-02-28")
    lines = run("usage", *span).splitlines()
    assert lines[0].split()[:2] == ["day", "model"]
    assert lines[1].split() == ["2026-02-03", MODEL, "7", "20", "2,469,134", "0", "0.0", "0.0", "5"]
    assert lines[2].split()[:2] == ["total", "7"]
    found: dict[str, Any] = json.loads(run("usage", *span, "--json"))
    assert found["totals"]["rows"] == 7
    assert len(found["data"]) == 28
    (row,) = csv.DictReader(io.StringIO(run("usage", *span, "--by", "endpoint,model", "--csv")))
    assert (row["day"], row["endpoint"], row["cost"]) == (
        "2026-02-03",
        "/v1/completions",
        "5000000",
    )


def test_the_administrator_sees_everybodys_usage(api: ApiCase, run: Run) -> None:
    consume(api, 3, 1)
    span = ("--since", "2026-02-03", "--until", "2026-02-03", "--json")
    every = json.loads(run("usage", *span, "--all-tenants", "--by", "tenant_id"))
    (told,) = every["data"][0]["results"]
    one = json.loads(run("usage", *span, "--tenant", told["tenant_id"]))
    other = run("admin", "tenants", "create", "other").strip()
    none = json.loads(run("usage", *span, "--tenant", other))
    assert [told["rows"], one["totals"]["rows"], none["totals"]["rows"]] == [3, 3, 0]
