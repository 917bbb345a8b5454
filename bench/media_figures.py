"""Pictures and speech through the whole plant, against bare diffusers and bare hibari."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from bench.batches import Batch, run_batch
from bench.beside import Beside, beside
from bench.report import Measurement, median
from bench.rig import Rig, logged
from shared.models_catalog import ModelEntry
from tests.plant import Plant, wait_until

IMAGE_MODEL = "emoji"
SPEECH_MODEL = "hibari"
TEXT_MODEL = "smollm2"
IMAGE_ROWS, SPEECH_ROWS = 64, 64
STEPS = 20
GUIDANCE = 4.0
BATCH_SECONDS = 600.0
JOB_SECONDS = 120.0
THINGS = (
    "red heart", "rocket", "pizza", "soccer ball", "tulip", "dolphin", "guitar", "umbrella",
    "strawberry", "sailboat", "fox", "alarm clock", "cactus", "snowman", "pear", "owl",
)  # fmt: skip
PASSAGE = (
    "The ferry left the harbour at dawn, and nobody on deck spoke until the island was out of "
    "sight. By noon the wind had turned. Number {} on the passenger list stood at the rail and "
    "counted the gulls, as she had done every summer since the lighthouse was built."
)


def images_vs_bare(rig: Rig) -> Measurement:
    """The plant's images a second over bare diffusers at the same microbatch."""
    measured = _images(rig, "bare")
    return _figure(measured, "bare")


def images_vs_one_by_one(rig: Rig) -> Measurement:
    """The plant's images a second over bare diffusers with one image at a time."""
    measured = _images(rig, "one_by_one")
    return _figure(measured, "one_by_one")


def _figure(measured: dict[str, Any], other: str) -> Measurement:
    rates = measured["rates"]
    sides = {"plant": rates["plant"], other: rates[other]}
    return Measurement(
        rates["plant"] / rates[other], {"unit": measured["unit"], "sides": sides, **measured}
    )


@cache
def _images(rig: Rig, other: str) -> dict[str, Any]:
    """Both sides take turns; ``other`` draws in the engine's microbatches, or one by one."""
    count = 16 if rig.quick else IMAGE_ROWS
    rows = [_image_row(number) for number in range(count)]
    prompts = [row["body"]["prompt"] for row in rows]
    samples: dict[str, list[float]] = {"plant": [], other: []}
    cpu: dict[str, list[float]] = {"engine": [], "supervisor": [], other: []}
    with _plant(rig, _image_entry(rig)) as plant, _bare(rig) as bare:
        run_batch(plant, _file(rig, rows[:2]), BATCH_SECONDS, endpoint="/v1/*")  # loads the model
        chosen = logged(plant, "worker-0", "engine_ready")[-1]["detail"]
        asked = {"prompts": prompts, "steps": STEPS, "guidance": GUIDANCE, "dtype": chosen["dtype"]}
        for _ in range(rig.rounds):
            before = _cpu_seconds(plant)
            batch = run_batch(plant, _file(rig, rows), BATCH_SECONDS, endpoint="/v1/*")
            samples["plant"].append(batch.rows / batch.seconds)
            for name, seconds in _cpu_seconds(plant).items():
                cpu[name].append(seconds - before[name])
            size = chosen["microbatch"] if other == "bare" else 1
            drawn = bare.ask(images=True, microbatch=size, **asked)
            samples[other].append(drawn["rate"])
            cpu[other].append(drawn["cpu_s"])
    return {
        "unit": "images/s",
        "rates": {name: median(found) for name, found in samples.items()},
        "samples": samples,
        "cpu_s": {name: median(found) for name, found in cpu.items()},
        "rows": count,
        "steps": STEPS,
        "engine": chosen,
        "phases_s": batch.phases,
    }


def _cpu_seconds(plant: Plant) -> dict[str, float]:
    """Of the worker's supervisor and of its engine, since they began."""
    supervisor = psutil.Process(plant.processes["worker-0"].pid)
    sides = {"supervisor": [supervisor], "engine": supervisor.children()}
    return {
        name: sum(sum(process.cpu_times()[:2]) for process in processes)
        for name, processes in sides.items()
    }


def speech_vs_bare(rig: Rig) -> Measurement:
    """Seconds of speech that the plant makes a second, over bare hibari in a loop."""
    count = 8 if rig.quick else SPEECH_ROWS
    rows = [_speech_row(number) for number in range(count)]
    texts = [row["body"]["input"] for row in rows]
    samples: dict[str, list[float]] = {"plant": [], "bare": []}
    with _plant(rig, _speech_entry()) as plant, _bare(rig) as bare:
        run_batch(plant, _file(rig, rows[:2]), BATCH_SECONDS, endpoint="/v1/*")
        chosen = logged(plant, "worker-0", "engine_ready")[-1]["detail"]
        for _ in range(rig.rounds):
            batch = run_batch(plant, _file(rig, rows), BATCH_SECONDS, endpoint="/v1/*")
            samples["plant"].append(_speech_seconds(plant, batch) / batch.seconds)
            samples["bare"].append(bare.ask(texts=texts, threads=chosen["threads"]))
    rates = {name: median(found) for name, found in samples.items()}
    return Measurement(
        rates["plant"] / rates["bare"],
        {
            "unit": "seconds of speech/s",
            "sides": rates,
            "samples": samples,
            "rows": count,
            "engine": chosen,
            "phases_s": batch.phases,
        },
    )


def first_progress(rig: Rig) -> Measurement:
    """The denoising step that the first progress event of an image job tells of; the worst of
    several jobs."""
    steps: list[int] = []
    with _plant(rig, _image_entry(rig)) as plant:
        for number in range(2 if rig.quick else 8):
            job = _submit(plant, "/v1/images/generations", _image_row(number)["body"])
            _wait(plant, job)
            steps.append(_first_step(plant, job))
    return Measurement(float(max(steps)), {"unit": "step", "samples": steps, "steps": STEPS})


def text_beside_images(rig: Rig) -> Measurement:
    """Seconds from submit to end of a short text job while a batch of images runs in the same
    worker, over the same on an idle plant."""
    count = 64 if rig.quick else 512
    text = ModelEntry(id=TEXT_MODEL, engine="text", source=str(rig.text_model))
    idle: list[float] = []
    busy: list[float] = []
    with _plant(rig, text, _image_entry(rig)) as plant:
        _timed_text(plant)
        run_batch(plant, _file(rig, [_image_row(0)]), BATCH_SECONDS, endpoint="/v1/*")
        idle += [_timed_text(plant) for _ in range(3 if rig.quick else 9)]
        file = _file(rig, [_image_row(number) for number in range(count)])
        running = threading.Thread(
            target=run_batch, args=(plant, file, BATCH_SECONDS), kwargs={"endpoint": "/v1/*"}
        )
        running.start()
        time.sleep(2.0)  # until the images are being drawn
        while running.is_alive() and len(busy) < len(idle):
            busy.append(_timed_text(plant))
        still = running.is_alive()
        running.join()
    if not still:
        raise RuntimeError("the images were done before the texts: more rows are needed")
    sides = {"busy": median(busy), "idle": median(idle)}
    return Measurement(
        sides["busy"] / sides["idle"],
        {"unit": "s", "sides": sides, "samples": {"busy": busy, "idle": idle}},
    )


# --- rows and jobs ------------------------------------------------------------------------------


def _image_row(number: int) -> dict[str, Any]:
    body = {
        "model": IMAGE_MODEL,
        "prompt": THINGS[number % len(THINGS)],
        "steps": STEPS,
        "guidance": GUIDANCE,
        "seed": number,
    }
    return _row(number, "/v1/images/generations", body)


def _speech_row(number: int) -> dict[str, Any]:
    body = {
        "model": SPEECH_MODEL,
        "input": PASSAGE.format(number + 11),
        "response_format": "wav",
    }
    return _row(number, "/v1/audio/speech", body)


def _row(number: int, url: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": f"row-{number}", "method": "POST", "url": url, "body": body}


def _timed_text(plant: Plant) -> float:
    body = {
        "model": TEXT_MODEL,
        "messages": [{"role": "user", "content": "Write a headline about rain."}],
        "max_tokens": 16,
        "temperature": 0,
    }
    began = time.perf_counter()
    _wait(plant, _submit(plant, "/v1/chat/completions", body))
    return time.perf_counter() - began


def _submit(plant: Plant, endpoint: str, body: dict[str, Any]) -> str:
    with plant.http() as http:
        answer = http.post("/v1/jobs", json={"endpoint": endpoint, "body": body})
        return str(answer.raise_for_status().json()["id"])


def _wait(plant: Plant, job: str) -> None:
    with plant.http() as http:

        def ended() -> bool:
            found = http.get(f"/v1/jobs/{job}", params={"wait": 20}).raise_for_status().json()
            if found["state"] == "failed":
                raise RuntimeError(f"{job}: {found['error']}")
            return bool(found["state"] == "succeeded")

        wait_until(ended, JOB_SECONDS, lambda: job, 0.0)


def _first_step(plant: Plant, job: str) -> int:
    with plant.http() as http:
        events = http.get(f"/v1/jobs/{job}/events").raise_for_status().json()["data"]
    return int(next(event["data"]["step"] for event in events if event["type"] == "job.progress"))


def _speech_seconds(plant: Plant, batch: Batch) -> float:
    """Of all sounds that the batch made, as their artifacts say."""
    return float(
        plant.scalar(
            "SELECT sum(seconds) FROM artifacts WHERE job_id = :job AND role = 'audio'",
            job=batch.id,
        )
    )


# --- the two sides ------------------------------------------------------------------------------


def _image_entry(rig: Rig) -> ModelEntry:
    return ModelEntry(id=IMAGE_MODEL, engine="image", source=str(rig.image_model))


def _speech_entry() -> ModelEntry:
    return ModelEntry(id=SPEECH_MODEL, engine="speech", source="hibari")


@contextmanager
def _plant(rig: Rig, *models: ModelEntry) -> Iterator[Plant]:
    with rig.plant(models=models, settings={"LOG_LEVEL": "INFO"}) as plant:
        yield plant.start()


@contextmanager
def _bare(rig: Rig) -> Iterator[Beside]:
    with beside(rig, "bench.bare_media", str(rig.image_model)) as process:
        yield process


def _file(rig: Rig, lines: list[dict[str, Any]]) -> Path:
    path = rig.folder("input") / "input.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
