"""A newcomer's first minutes: the demo from nothing, and a machine that loses its power."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pressrun.demo.rows import LEAST_ROWS, PICTURES, VOICE_OVERS, demo_rows
from tests.integration.cli_plant import plant, run_cli, wait_until_gone

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for remains in /proc"),
]

ROWS = 120
DEMO_ROWS = len(demo_rows(LEAST_ROWS))


def test_the_demo_runs_from_nothing_with_the_real_model(tmp_path: Path) -> None:
    folder = tmp_path / "somebody's folder"
    folder.mkdir()
    done = run_cli("demo", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert f"{DEMO_ROWS} of {DEMO_ROWS} rows" in done.stdout

    output = folder / "demo-output"
    rows = [json.loads(line) for line in (output / "output.jsonl").read_text().splitlines()]
    asked = [json.loads(line) for line in (output / "input.jsonl").read_text().splitlines()]
    assert {row["custom_id"] for row in rows} == {row["custom_id"] for row in asked}
    bodies = [row["response"]["body"] for row in rows]
    texts = [body["choices"][0]["message"]["content"] for body in bodies if "choices" in body]
    assert len(texts) == LEAST_ROWS
    assert all(len(text.split()) >= 3 for text in texts)
    assert len(set(texts)) == len(texts)
    assert (output / "errors.jsonl").read_text() == ""
    assert f"{DEMO_ROWS} completed, 0 failed, 0 missing" in (output / "summary.md").read_text()
    for folder_name, count in (("pictures", PICTURES), ("voice-overs", VOICE_OVERS)):
        made = list((output / folder_name).iterdir())
        assert len(made) == count
        assert all(path.stat().st_size > 500 for path in made)
    sheet = output / "campaign" / "index.html"
    assert sheet.resolve().as_uri() in done.stdout
    kinds = {path.suffix for path in (output / "campaign").rglob("*")}
    assert {".png", ".mp3", ".mp4", ".txt"} <= kinds
    assert wait_until_gone(folder, 1.0) == []


def test_a_batch_outlives_kill_9_of_everything(tmp_path: Path) -> None:
    data = tmp_path / "plant data"
    source = tmp_path / "rows.jsonl"
    body = {"model": "fake", "messages": [{"role": "user", "content": "[[delay 3]] hello"}]}
    row = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    lines = [json.dumps({"custom_id": f"row-{n}", **row}) for n in range(ROWS)]
    source.write_text("\n".join(lines) + "\n")
    quick = {"session_ttl_seconds": "5", "heartbeat_seconds": "1"}

    with plant(data, **quick) as first:
        first.wait_ready()
        submitted = first.cli("batch", "submit", str(source))
        assert submitted.returncode == 0, submitted.stderr
        batch = submitted.stdout.strip()
        while json.loads(first.cli("batch", "show", batch, "--json").stdout)["status"] != (
            "in_progress"
        ):
            pass
        first.kill()
        with plant(data, **quick) as second:
            second.wait_ready()
            done = second.cli("batch", "watch", batch, "--output", "results", "--json")
            assert done.returncode == 0, done.stderr
            assert second.stop() == 0

    counts = json.loads(done.stdout)["request_counts"]
    assert counts == {"total": ROWS, "completed": ROWS, "failed": 0}
    results = (tmp_path / "results" / "output.jsonl").read_text().splitlines()
    names = sorted(json.loads(line)["custom_id"] for line in results)
    assert names == sorted(f"row-{n}" for n in range(ROWS))
