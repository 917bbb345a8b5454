"""``pressrun admin …`` against the real API."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from werkzeug.serving import make_server

from pressrun.exit_codes import ExitCode
from pressrun.main import main
from shared.retention import parse_retention
from tests.integration.api_case import ADMIN, ADMIN_KEY, ApiCase, make_settings
from tests.integration.retention_case import let_pass
from worker.upkeep.retention import Retention
from worker.upkeep.retention_deletions import Deletions

Run = Callable[..., tuple[int, str]]
JOBS = 3


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[ApiCase]:
    case = ApiCase(make_settings(database_url, tmp_path, deletion_grace_seconds=0))
    server = make_server("127.0.0.1", 0, case.app, threaded=True)
    case.url = f"http://127.0.0.1:{server.port}"  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield case
    server.shutdown()
    thread.join()
    server.server_close()
    case.close()


@pytest.fixture
def run(api: ApiCase, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("PRESSRUN_URL", api.url)  # type: ignore[attr-defined]
    monkeypatch.setenv("PRESSRUN_ADMIN_KEY", ADMIN_KEY)

    def call(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        code = ended.value.code
        return code if isinstance(code, int) else 0, capfd.readouterr().out

    return call


def test_policies_the_archive_and_an_erasure(
    api: ApiCase, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant_id = api.get("/v1/retention").json["tenant_id"]
    code, out = run("admin", "retention", "--tenant", tenant_id, "--keep", "jobs=30", "--json")
    assert (code, json.loads(out)["own"]) == (0, ["jobs"])
    keep = ("--keep", "outputs=forever", "--keep", "jobs=20", "--json")
    policy = json.loads(run("admin", "retention", "--tenant", tenant_id, *keep)[1])
    assert (policy["days"]["jobs"], policy["own"]) == (20, ["outputs", "jobs"])
    for bad in ("pets=3", "jobs=soon"):
        refused = run("admin", "retention", "--tenant", tenant_id, "--keep", bad)
        assert refused == (ExitCode.REFUSED, "")

    jobs = [api.submit() for _ in range(JOBS)]
    for job_id in jobs:
        api.post(f"/v1/jobs/{job_id}/cancel")
    with api.begin() as connection:
        connection.execute(text("UPDATE events SET announced = true"))
        let_pass(connection, 21)
    Retention(api.engine, api.services.store, parse_retention("")).run()
    monkeypatch.setattr("pressrun.archive_commands.LINES_AT_ONCE", 2)  # several pages
    code, out = run("admin", "archive", "--tenant", tenant_id)
    assert (code, [json.loads(line)["id"] for line in out.splitlines()]) == (0, jobs)
    assert run("admin", "archive", "--tenant", tenant_id, "--day", "2001-01-01") == (0, "")

    refused = run("admin", "erase", "--tenant", tenant_id, "--confirm", "yes")
    assert refused == (ExitCode.REFUSED, "")
    code, out = run("admin", "erase", "--tenant", tenant_id, "--confirm", tenant_id)
    deletion_id = out.strip()
    assert (code, deletion_id.startswith("deletion_")) == (0, True)
    assert f"tenant {tenant_id}: pending" in run("admin", "deletion", deletion_id)[1]
    assert Deletions(api.engine, api.services.store, grace_seconds=0).run() == 1
    code, out = run("admin", "deletion", deletion_id)
    assert f"tenant {tenant_id}: complete" in out
    assert "3 archived_jobs" in out
    assert api.client.get(f"/v1/admin/deletions/{deletion_id}", headers=ADMIN).status_code == 200
