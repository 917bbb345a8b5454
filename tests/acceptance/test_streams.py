"""Unmodified ``openai`` clients read text as it is generated, through a whole plant."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from shared.models_catalog import ModelEntry
from tests.plant import Plant, plant, wait_until

STREAMS = 20


@pytest.fixture
def running(tmp_path: Path, database_url: str, broker_url: str) -> Iterator[Plant]:
    """One API process, one worker; rows are held by files in ``scratch``."""
    scratch = tmp_path / "marks"
    scratch.mkdir()
    model = ModelEntry(id="fake", engine="fake", settings={"scratch": str(scratch)})
    settings = {"API_THREADS": "64"}
    with plant(
        tmp_path / "plant", database_url, broker_url, models=(model,), settings=settings
    ) as made:
        made.start_api("--workers", "1")
        made.start_worker("upkeep", "upkeep")
        made.start_worker("worker-0", "text")
        made.wait_ready()
        made.api_key = made.new_key(made.new_tenant("first"))
        yield made


def ask(client: openai.OpenAI, mark: str, **more: Any) -> Any:
    """A stream whose job is held, half told, until ``release``."""
    return client.chat.completions.create(
        model="fake",
        messages=[{"role": "user", "content": f"say it [[hold {mark}]]"}],
        stream=True,
        **more,
    )


def release(running: Plant, mark: str) -> None:
    (running.folder.parent / "marks" / f"hold-{mark}").touch()


def until_word(chunks: Iterator[Any]) -> str:
    """The first words."""
    return next(text for text in map(text_of, chunks) if text)


def text_of(chunk: Any) -> str:
    return "".join(choice.delta.content or "" for choice in chunk.choices)


def job_of(running: Plant, stream: Any) -> dict[str, Any]:
    job_id = stream.response.headers["x-pressrun-job"]
    return dict(running.http().get(f"/v1/jobs/{job_id}").json())


def whole_text(job: dict[str, Any]) -> str:
    return str(job["result"]["choices"][0]["message"]["content"])


@pytest.mark.timeout(300)
def test_words_come_before_the_last_is_said(running: Plant) -> None:
    client = running.client(_strict_response_validation=True)
    with ask(client, "one", stream_options={"include_usage": True}) as stream:
        first = until_word(iter(stream))
        job = job_of(running, stream)
        assert (job["state"], job["result"]) == ("running", None)
        release(running, "one")
        chunks = list(stream)
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    job = job_of(running, stream)
    assert first + "".join(map(text_of, chunks)) == whole_text(job)
    assert chunks[-1].usage.model_dump(exclude_none=True) == job["result"]["usage"]

    _the_helper_of_the_client(running, whole_text(job))
    _the_other_endpoint(running)
    _callers_who_go_away(running)
    _many_at_once(running)
    assert running.scalar("SELECT count(*) FROM jobs WHERE state = 'failed'") == 0
    assert "say it" not in running.processes["worker-0"].log()


def _the_helper_of_the_client(running: Plant, want: str) -> None:
    messages: Any = [{"role": "user", "content": "say it [[hold one]]"}]
    with running.client().chat.completions.stream(model="fake", messages=messages) as stream:
        kinds = [event.type for event in stream]
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == want
    assert "content.done" in kinds


def _the_other_endpoint(running: Plant) -> None:
    asked: Any = {"model": "fake", "prompt": ["a [[delay 0.4]]", "b [[delay 0.4]]"], "n": 2}
    client = running.client()
    plain = client.completions.create(**asked, echo=True, stop=["a "])
    said = [""] * 4
    for chunk in client.completions.create(**asked, echo=True, stop=["a "], stream=True):
        for choice in chunk.choices:
            said[choice.index] += choice.text
    assert said == [choice.text for choice in plain.choices]


def _callers_who_go_away(running: Plant) -> None:
    client = running.client()
    going = {"x-pressrun-cancel-on-disconnect": "true"}
    with ask(client, "gone") as left, ask(client, "gone", extra_headers=going) as cancelled:
        assert until_word(iter(left)) == until_word(iter(cancelled))
    wait_until(lambda: job_of(running, cancelled)["state"] == "cancelled", 30)
    assert job_of(running, left)["state"] == "running"
    release(running, "gone")
    wait_until(lambda: job_of(running, left)["state"] == "succeeded", 30)


def _many_at_once(running: Plant) -> None:
    """All of them are open at a time, of one API process."""
    client = running.client()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(STREAMS) as pool:
        streams = [
            stack.enter_context(stream)
            for stream in pool.map(lambda _: ask(client, "many"), range(STREAMS))
        ]
        # None of their jobs has ended.
        first = [until_word(iter(stream)) for stream in streams]
        release(running, "many")
        rest = list(pool.map(lambda stream: "".join(map(text_of, stream)), streams))
    [text] = {one + other for one, other in zip(first, rest, strict=True)}
    assert text == whole_text(job_of(running, streams[0]))


@pytest.mark.timeout(300)
def test_a_stream_outlives_its_worker(running: Plant) -> None:
    with ask(running.client(), "lost") as stream:
        chunks = iter(stream)
        first = until_word(chunks)
        running.processes["worker-0"].kill()
        running.start_worker("worker-1", "text")
        wait_until(lambda: running.scalar("SELECT max(epoch) FROM deltas") > 1, 60)
        release(running, "lost")
        rest = "".join(map(text_of, chunks))
    job = job_of(running, stream)
    assert job["state"] == "succeeded"
    assert first + rest == whole_text(job)
    assert running.scalar("SELECT lost_n FROM shards") == 1
