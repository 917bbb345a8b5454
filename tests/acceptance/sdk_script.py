"""What an ``openai`` client does all day, whatever its generation: run with that client's Python.

Takes the address, the API key, and ``strict`` or ``loose``. Prints one JSON object of what it did;
fails at the first thing that is not as the client expects it.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

import openai

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8dfc0000004010180c52a185d0000000049454e44ae426082"
)
"""A PNG of one orange pixel."""
ROW = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "fake", "messages": [{"role": "user", "content": "hello"}]},
}
EXAMPLE = {
    "messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]
}
PATIENCE_SECONDS = 240.0


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def until(ask, wanted, ended):  # type: ignore[no-untyped-def]
    """Polls until the object has ended; fails unless it has ended as ``wanted``."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = ask()
        if found.status in ended:
            assert found.status == wanted, found
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def refused(kind, code, call):  # type: ignore[no-untyped-def]
    """Fails unless the call is refused so, in all that a client reads of an error."""
    try:
        call()
    except kind as error:
        told, number = error.code, error.request_id or ""
    else:
        raise AssertionError(f"not refused as {code}")
    assert (told, number[:4]) == (code, "req_"), (told, number)


def files(client: openai.OpenAI) -> None:
    made = client.files.create(
        file=("rows.jsonl", lines(ROW)),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert made.expires_at == made.created_at + 3600
    assert client.files.wait_for_processing(made.id, max_wait_seconds=5).status == "processed"
    assert client.files.retrieve(made.id) == made
    assert made.id in [file.id for file in client.files.list(limit=1, purpose="batch")]
    assert client.files.content(made.id).read() == lines(ROW)
    assert client.files.delete(made.id).deleted
    refused(openai.NotFoundError, "not_found", lambda: client.files.retrieve(made.id))


def uploads(client: openai.OpenAI) -> None:
    data = lines(*[ROW] * 20)
    upload = client.uploads.upload_file_chunked(
        file=data,
        filename="rows.jsonl",
        bytes=len(data),
        mime_type="application/jsonl",
        purpose="batch",
        part_size=1000,
    )
    assert upload.status == "completed"
    assert upload.file is not None
    assert client.files.content(upload.file.id).read() == data


def batches(client: openai.OpenAI) -> None:
    given = client.files.create(file=("rows.jsonl", lines(ROW)), purpose="batch")
    made = client.batches.create(
        input_file_id=given.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"who": "ü b"},
    )
    ended = until(
        lambda: client.batches.retrieve(made.id), "completed", {"completed", "failed", "expired"}
    )
    assert ended.error_file_id is None
    assert ended.metadata == {"who": "ü b"}
    assert ended.request_counts.completed == 1
    (row,) = client.files.content(ended.output_file_id).text.splitlines()
    assert json.loads(row)["custom_id"] == "a"
    assert made.id in [batch.id for batch in client.batches.list(limit=1)]
    refused(openai.ConflictError, "conflict", lambda: client.batches.cancel(made.id))


def models(client: openai.OpenAI) -> None:
    assert "fake" in [model.id for model in client.models.list()]
    assert client.models.retrieve("fake").object == "model"


def inference(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="fake", messages=[{"role": "user", "content": "hello"}]
    )
    assert chat.choices[0].message.content
    assert chat.usage.total_tokens > 0
    assert client.completions.create(model="fake", prompt="x").choices[0].text
    # Left alone, the client asks for base64, which its own types do not allow.
    found = client.embeddings.create(model="fake", input=["a", "b"], encoding_format="float")
    assert [item.index for item in found.data] == [0, 1]
    refused(
        openai.NotFoundError,
        "model_not_found",
        lambda: client.completions.create(model="nobody", prompt="x"),
    )


def images(client: openai.OpenAI) -> None:
    made = client.images.generate(
        model="fake", prompt="a kettle", size="1024x1024", response_format="b64_json"
    )
    assert made.data[0].b64_json.startswith("iVBOR")
    edited = client.images.edit(
        model="fake",
        image=("in.png", PICTURE, "image/png"),
        prompt="red",
        size="1024x1024",
    )
    assert edited.data[0].url


def speech(client: openai.OpenAI) -> None:
    sound = client.audio.speech.create(
        model="fake", voice="anna", input="Hello.", response_format="wav"
    )
    assert sound.content.startswith(b"RIFF")


def fine_tuning(client: openai.OpenAI) -> None:
    given = client.files.create(file=("rows.jsonl", lines(*[EXAMPLE] * 12)), purpose="fine-tune")
    made = client.fine_tuning.jobs.create(
        model="fake",
        training_file=given.id,
        suffix="sdk",
        seed=1,
        metadata={"run": str(time.time_ns())},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}},
    )
    ended = until(
        lambda: client.fine_tuning.jobs.retrieve(made.id),
        "succeeded",
        {"succeeded", "failed", "cancelled"},
    )
    assert ended.fine_tuned_model.startswith("ft:fake:")
    events = [event.id for event in client.fine_tuning.jobs.list_events(made.id, limit=2)]
    assert len(set(events)) == len(events) > 2
    assert client.fine_tuning.jobs.checkpoints.list(made.id).data
    assert made.id in [job.id for job in client.fine_tuning.jobs.list(limit=1)]
    if hasattr(client.fine_tuning.jobs, "pause"):
        labelled = client.fine_tuning.jobs.list(metadata=made.metadata)
        assert [job.id for job in labelled] == [made.id]
    assert client.models.delete(ended.fine_tuned_model).deleted


def videos(client: openai.OpenAI) -> None:
    made = client.videos.create_and_poll(
        model="fake", prompt="a kettle", seconds="4", size="1280x720"
    )
    assert (made.status, made.progress) == ("completed", 100)
    assert client.videos.download_content(made.id).read()
    assert made.id in [video.id for video in client.videos.list(limit=1)]
    assert client.videos.delete(made.id).deleted


def main() -> None:
    address, key, mode = sys.argv[1:]
    # No retries: what would hide behind them fails.
    client = openai.OpenAI(
        base_url=address,
        api_key=key,
        max_retries=0,
        timeout=120,
        _strict_response_validation=mode == "strict",
    )
    calls = [files, uploads, batches, models, inference, images, speech, fine_tuning]
    if hasattr(client, "videos"):
        calls.append(videos)
    warnings.simplefilter("ignore", DeprecationWarning)
    for call in calls:
        call(client)
    done = {"version": openai.__version__, "done": [call.__name__ for call in calls]}
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
