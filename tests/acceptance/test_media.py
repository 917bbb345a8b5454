"""Pictures, speech, video and campaigns from real models, through an unmodified ``openai`` client.

What comes back is opened: a picture is decoded, a sound has its length, a video its frames.
"""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import soundfile
from PIL import Image

from shared.models_catalog import ModelEntry
from tests.plant import Plant, plant, wait_until

TEXT, IMAGE, SPEECH, COMPOSER = "smollm2-135m-instruct", "fluent-emoji", "hibari", "composer"
SIZE = (64, 64)
THINGS = ("red heart", "rocket", "pizza", "tent", "backpack", "light bulb", "bell", "tulip")
PLENTY = 600.0


@pytest.fixture(scope="module")
def catalog(models_dir: Path) -> tuple[ModelEntry, ...]:
    return (
        ModelEntry(id=TEXT, engine="text", source=str(models_dir / "SmolLM2-135M-Instruct")),
        ModelEntry(id=IMAGE, engine="image", source=str(models_dir / "fluent-emoji")),
        ModelEntry(id=SPEECH, engine="speech", source="hibari"),
        ModelEntry(id=COMPOSER, engine="composer"),
    )


@pytest.fixture
def running(
    tmp_path: Path, database_url: str, broker_url: str, catalog: tuple[ModelEntry, ...]
) -> Iterator[Plant]:
    with plant(tmp_path / "plant", database_url, broker_url, models=catalog) as made:
        yield made.start()


def picture(data: bytes) -> Image.Image:
    opened = Image.open(io.BytesIO(data))
    opened.load()
    return opened.convert("RGB")


def colours(image: Image.Image) -> int:
    return len(image.getcolors(maxcolors=2**24) or [])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pictures_by_the_sdk(running: Plant) -> None:
    client = running.client(timeout=PLENTY, max_retries=0)
    drawn = client.images.generate(
        model=IMAGE, prompt="red heart", n=2, response_format="b64_json", extra_body={"seed": 5}
    )
    assert drawn.data is not None
    first, second = (picture(base64.b64decode(item.b64_json or "")) for item in drawn.data)
    assert first.size == second.size == SIZE
    assert colours(first) > 8
    assert first.tobytes() != second.tobytes()

    by_url = client.images.generate(model=IMAGE, prompt="red heart", extra_body={"seed": 5})
    assert by_url.data is not None
    assert by_url.data[0].url is not None
    # Without a key: the signature is the permission.
    fetched = httpx2.get(running.url_for(by_url.data[0].url)).raise_for_status()
    assert fetched.headers["content-type"] == "image/png"
    again = picture(fetched.content)
    assert _difference(first, again) < 2, "the same seed, the same picture"

    buffer = io.BytesIO()
    first.save(buffer, "PNG")
    edited = client.images.edit(
        model=IMAGE,
        image=("heart.png", buffer.getvalue(), "image/png"),
        prompt="green heart",
        response_format="b64_json",
        extra_body={"seed": 5, "strength": 0.9},
    )
    assert edited.data is not None
    assert _difference(first, picture(base64.b64decode(edited.data[0].b64_json or ""))) > 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_speech_by_the_sdk_streamed_to_a_file(running: Plant, tmp_path: Path) -> None:
    client = running.client(timeout=PLENTY, max_retries=0)
    target = tmp_path / "speech.flac"
    text = "The ferry leaves at half past seven. It costs $4.50 for adults."
    with client.audio.speech.with_streaming_response.create(
        model=SPEECH, voice="default", input=text, response_format="flac"
    ) as response:
        assert response.headers["content-type"] == "audio/flac"
        response.stream_to_file(target)
    sound = soundfile.info(target)
    assert 3 < sound.duration < 12
    whole = client.audio.speech.create(
        model=SPEECH, voice="default", input=text, response_format="wav"
    )
    assert abs(soundfile.info(io.BytesIO(whole.content)).duration - sound.duration) < 0.1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_composed_video_by_the_sdk(running: Plant, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    client = running.client(timeout=PLENTY, max_retries=0)
    made = client.videos.create_and_poll(
        model=COMPOSER,
        prompt="A tent that stands in three minutes.",
        size="320x180",  # type: ignore[arg-type]
        extra_body={"script": "This tent stands in three minutes. It keeps out the rain."},
    )
    assert made.status == "completed", made
    for variant, kind in (("video", "video/mp4"), ("thumbnail", "image/webp")):
        content = client.videos.download_content(made.id, variant=variant)  # type: ignore[arg-type]
        assert content.response.headers["content-type"] == kind
        (tmp_path / variant).write_bytes(content.content)
    with av.open(str(tmp_path / "video")) as video:
        assert {stream.type for stream in video.streams} == {"video", "audio"}
        assert (video.streams.video[0].width, video.streams.video[0].height) == (320, 180)
        assert 3 < float(video.duration or 0) / av.time_base < 20
    client.videos.delete(made.id)
    assert made.id not in [item.id for item in client.videos.list()]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_mixed_batch_survives_the_death_of_its_worker(running: Plant) -> None:
    rows = [mixed_row(number) for number in range(200)]
    batch_id = running.submit_batch(rows, endpoint="/v1/*")
    running.wait_progress(batch_id, 40, PLENTY)
    running.processes["worker-0"].kill()
    running.restart("worker-0")
    ended = running.wait_batch(batch_id, PLENTY)

    assert ended.status == "completed", running.processes["worker-0"].log()[-4000:]
    assert ended.error_file_id is None
    results = running.results(ended)  # fails on a repeated custom_id
    assert set(results) == {row["custom_id"] for row in rows}
    made = artifacts(running, batch_id)
    roles = Counter(item["role"] for item in made)
    kinds = Counter(row["url"] for row in rows)
    assert roles["image"] == kinds["/v1/images/generations"]
    assert not roles["thumbnail"], "pictures of 64 pixels are their own"
    assert roles["audio"] == roles["waveform"] == kinds["/v1/audio/speech"]
    usage = running.scalar('SELECT sum("rows") FROM usage WHERE job_id = :id', id=batch_id)
    assert usage == len(rows)
    _open_each_kind(running, results, made)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_campaign_becomes_a_bundle(running: Plant) -> None:
    brief = {
        "model": TEXT,
        "product": "Stillwater Two, a tent for two",
        "description": "It stands in three minutes.",
        "audience": "weekend campers",
        "languages": ["en"],
        "variants": 1,
        "seed": 3,
    }
    with running.http() as http:
        accepted = http.post("/v1/campaigns", json=brief)
        assert accepted.status_code == 202, accepted.text
        path = f"/v1/campaigns/{accepted.json()['id']}"
        wait_until(
            lambda: http.get(path).json()["status"] not in {"queued", "running"},
            PLENTY,
            lambda: http.get(f"{path}/steps").text,
            1.0,
        )
        campaign = http.get(path).json()
        assert campaign["status"] == "succeeded", campaign
        [bundle] = http.get(f"/v1/jobs/{campaign['id']}/artifacts?role=bundle").json()["data"]
        content = f"/v1/artifacts/{bundle['id']}/content"
        data = http.get(content, follow_redirects=True).raise_for_status().content
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("manifest.json"))
        assert "index.html" in names
        kinds = {item["media_type"].split("/")[0] for item in manifest["artifacts"]}
        assert {"image", "audio", "video"} <= kinds
        assert archive.testzip() is None


def mixed_row(number: int) -> dict[str, Any]:
    """Texts, pictures and voice-overs take turns."""
    if number % 4 == 1:
        url = "/v1/images/generations"
        prompt = THINGS[number // 4 % len(THINGS)]
        body: dict[str, Any] = {"model": IMAGE, "prompt": prompt, "seed": number}
    elif number % 4 == 3:
        url = "/v1/audio/speech"
        body = {"model": SPEECH, "input": f"This is row number {number}.", "response_format": "wav"}
    else:
        url = "/v1/chat/completions"
        messages = [{"role": "user", "content": f"Name {number % 9 + 1} animals."}]
        body = {"model": TEXT, "messages": messages, "max_tokens": 12, "temperature": 0}
    return {"custom_id": f"row-{number}", "method": "POST", "url": url, "body": body}


def artifacts(running: Plant, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with running.http() as http:
        while True:
            after = {"after": found[-1]["id"]} if found else {}
            page = http.get(
                f"/v1/jobs/{job_id}/artifacts", params={"limit": 100, **after}
            ).raise_for_status()
            found += page.json()["data"]
            if not page.json()["has_more"]:
                return found


def _open_each_kind(
    running: Plant, results: dict[str, dict[str, Any]], made: list[dict[str, Any]]
) -> None:
    """The URL in a batch's line wants the key, and leads to the file."""
    by_id = {item["id"]: item for item in made}
    image = results["row-1"]["response"]["body"]["data"][0]
    sound = results["row-3"]["response"]["body"]
    with running.http() as http:
        path = f"/v1/artifacts/{image['artifact_id']}/content"
        assert path in image["url"]
        assert picture(http.get(path, follow_redirects=True).content).size == SIZE
        path = f"/v1/artifacts/{sound['artifact_id']}/content"
        data = http.get(path, follow_redirects=True).content
    assert len(data) == by_id[sound["artifact_id"]]["bytes"]
    assert abs(soundfile.info(io.BytesIO(data)).duration - sound["seconds"]) < 0.05


def _difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of the two pictures' values, 0 to 255."""
    pairs = zip(one.tobytes(), other.tobytes(), strict=True)
    return sum(abs(a - b) for a, b in pairs) / len(one.tobytes())
