"""Following one job to its end: by its event stream, and by asking where there is none."""

from __future__ import annotations

from contextlib import suppress

from pressrun.api_client import ApiClient, Json
from pressrun.exit_codes import CommandError
from pressrun.server_sent import messages
from pressrun.terminal import Terminal
from pressrun.watching import LONG_POLL_SECONDS, PATIENCE_SECONDS, TERMINAL_JOB, interrupted

STREAM_HEADERS = {"Accept": "text/event-stream"}


def watch_job(client: ApiClient, job_id: str, terminal: Terminal) -> Json:
    """Returns the job once it has ended; a note for each new state and each thing that happens.
    Raises CommandError. Ctrl-C becomes a CommandError that says that the job goes on."""
    watch = _Watch(job_id, terminal)
    try:
        while True:
            # Without a stream (there may be too many of them) the long-poll below does.
            with suppress(CommandError):
                watch.listen(client)
            job = client.get(
                f"/v1/jobs/{job_id}", patience_seconds=PATIENCE_SECONDS, wait=LONG_POLL_SECONDS
            )
            if job["state"] in TERMINAL_JOB:
                return job
            watch.note_state(job)
    except KeyboardInterrupt:
        raise interrupted("job", job_id) from None


class _Watch:
    """What was told of the job so far."""

    def __init__(self, job_id: str, terminal: Terminal) -> None:
        self._job_id = job_id
        self._terminal = terminal
        self._state: str | None = None
        self._seen: str | None = None

    def listen(self, client: ApiClient) -> None:
        """Returns when the stream ends, and so for the job's end. Raises CommandError when there is
        none, or it breaks off."""
        headers = STREAM_HEADERS | ({"Last-Event-ID": self._seen} if self._seen else {})
        with client.stream(f"/v1/jobs/{self._job_id}/events", headers=headers) as response:
            for message in messages(response.iter_lines()):
                if message.data is None:
                    return
                if message.name == "job":
                    self.note_state(message.data)
                    continue
                self._seen = message.id or self._seen
                self._note_event(message.data)

    def note_state(self, job: Json) -> None:
        if job["state"] not in {self._state, *TERMINAL_JOB}:
            self._note(str(job["state"]))
        self._state = job["state"]

    def _note_event(self, event: Json) -> None:
        data = event.get("data") or {}
        if event.get("type") == "job.progress" and data.get("steps"):
            told = f"{data.get('stage') or 'step'} {data.get('step')}/{data['steps']}"
            self._note(" ".join(filter(None, [data.get("name"), told])))

    def _note(self, text: str) -> None:
        if not self._terminal.json_only:
            self._terminal.note(f"{self._job_id}: {text}")
