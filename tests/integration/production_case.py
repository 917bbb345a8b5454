"""An API and one worker's upkeep, with productions; their batches are answered by hand. Import
``press_fixture`` into a test module to have the fixture ``press`` there."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.production_objects import Production
from shared.doorbell import Ringer
from shared.lifecycle import working
from shared.lifecycle.working import Claim, SliceEnd, UsageLine
from shared.states import ShardState
from tests.integration.api_case import MODEL
from tests.integration.upkeep_case import Hall, dumped
from tests.plant import wait_until
from worker.outputs import RowError, error_line, response_line, store_lines
from worker.rows import RowInput, read_slice
from worker.upkeep.productions_pass import ProductionPass

CHAT = "/v1/chat/completions"
PRODUCTIONS = "/v1/productions"
MOST_CLAIMS = 400
PATIENCE_SECONDS = 240.0
PLAIN = "Praise the {{ colour }} {{ name }}."
TABLE = b"name,colour\nchair,red\ntable,blue\nlamp,green\n"


@dataclass(frozen=True)
class Said:
    """What a model says to one row: a text, or an error."""

    text: str = ""
    finish_reason: str = "stop"
    code: str | None = None
    body: dict[str, Any] | None = None
    """The whole answer, of a call that is no chat."""


@dataclass(frozen=True)
class Asked:
    """One row of a batch of a production."""

    custom_id: str
    body: dict[str, Any]
    round: int
    phase: int

    @property
    def place(self) -> tuple[int, ...]:
        """Row, audience, model, candidate."""
        return tuple(map(int, self.custom_id.split(".")))

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"])


Writer = Callable[[Asked], str | Said]


def echo(asked: Asked) -> str:
    """A text for each candidate and round that no other has."""
    return f"{asked.custom_id} in {asked.round}: {asked.prompt}"


class Press(Hall):
    """Every call is its own transaction."""

    def __init__(self, url: str, folder: Path, **changed: Any) -> None:
        super().__init__(url, folder, **changed)
        self.passes = ProductionPass(self.engine, Ringer(""))
        self.asked: list[Asked] = []
        """All that was asked so far, in the order of the batches' rows."""

    # --- what tenants do ------------------------------------------------------------------------

    def data(self, content: bytes = TABLE, name: str = "data.csv") -> str:
        reply = self.upload(content, filename=name, purpose="user_data")
        return str(reply.json["id"])

    def submit_production(
        self, template: str, content: bytes = TABLE, *, name: str = "data.csv", **changed: Any
    ) -> str:
        body = {"template": template, "data_file_id": self.data(content, name), "model": MODEL}
        reply = self.post(PRODUCTIONS, body | changed)
        assert reply.status_code == 202, reply.json
        return str(reply.json["id"])

    def body_of(self, **changed: Any) -> dict[str, Any]:
        """What is posted for a plain production."""
        body = {"template": PLAIN, "data_file_id": self.data(), "model": MODEL}
        return body | changed

    def batches_of(self, production_id: str) -> list[dict[str, Any]]:
        """Oldest first."""
        page = self.get(f"/v1/batches?production={production_id}&limit=100").json
        return list(reversed(page["data"]))

    def see(self, production_id: str) -> dict[str, Any]:
        """As it is told, and as it is documented."""
        seen = dict(self.get(f"{PRODUCTIONS}/{production_id}").json)
        Production.model_validate(seen, strict=True)
        return seen

    def output(self, production_id: str) -> bytes:
        found = self.get(f"{PRODUCTIONS}/{production_id}/output")
        assert found.status_code == 302, found.json
        return bytes(self.client.get(found.headers["Location"]).data)

    def lines(self, production_id: str) -> list[dict[str, str]]:
        """Of a CSV output."""
        return list(csv.DictReader(io.StringIO(self.output(production_id).decode())))

    # --- what workers do ------------------------------------------------------------------------

    def run(self, writer: Writer = echo) -> None:
        """Works until nothing is left to be done."""
        for _ in range(MOST_CLAIMS):
            if not self.work(writer):
                return
        raise AssertionError("there is no end to it")

    def upkeep(self) -> bool:
        claims = self.claim("upkeep")
        for claim in claims:
            self.chores.begin(claim, self.me)
        self.settle()
        return bool(claims)

    def settle(self) -> None:
        """Returns once upkeep has done what it has begun; it may start processes."""
        wait_until(lambda: self.chores.idle, PATIENCE_SECONDS, pause_seconds=0.005)

    def work(self, writer: Writer = echo) -> bool:
        """Something that is to be done; false when there is nothing."""
        self.passes.run()
        if self.upkeep():
            return True
        claims = self.claim("text", 64)
        for claim in claims:
            self.answer(claim, writer)
        return bool(claims)

    def answer(self, claim: Claim, writer: Writer = echo) -> None:
        """Ends a slice: lines in another order than its rows, as engines end them."""
        spec = json.loads(claim.spec)
        good: list[bytes] = []
        bad: list[bytes] = []
        for row in reversed(read_slice(self.services.store, claim)):
            asked = Asked(str(row.custom_id), json.loads(row.body), spec["round"], spec["phase"])
            self.asked.append(asked)
            said = writer(asked)
            said = Said(said) if isinstance(said, str) else said
            (bad if said.code else good).append(_line(claim, row, said))
        store, rows = self.services.store, len(good)
        end = SliceEnd(
            claim.held,
            ShardState.SUCCEEDED,
            store_lines(store, claim, "output.jsonl", good),
            store_lines(store, claim, "errors.jsonl", bad),
            rows,
            len(bad),
            [UsageLine(CHAT, MODEL, rows, 3 * rows, 5 * rows)],
        )
        with self.begin() as connection:
            assert working.finish_slice(connection, self.me, end)


def _line(claim: Claim, row: RowInput, said: Said) -> bytes:
    if said.code is not None:
        error = RowError(said.code, "it went wrong")
        return error_line(claim.job_id, row.line, row.custom_id, error)
    if said.body is not None:
        return response_line(claim.job_id, row, 200, dumped(said.body))
    message = {"role": "assistant", "content": said.text}
    choice = {"index": 0, "message": message, "finish_reason": said.finish_reason}
    return response_line(claim.job_id, row, 200, dumped({"choices": [choice]}))


@pytest.fixture(name="press")
def press_fixture(database_url: str, tmp_path: Path) -> Iterator[Press]:
    case = Press(database_url, tmp_path)
    yield case
    case.close()
