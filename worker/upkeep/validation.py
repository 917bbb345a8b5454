"""The first stage of a batch: read the input once, name every bad line, cut it into slices."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from types import MappingProxyType

import msgspec
import numpy as np

from shared.db.models import Model
from shared.errors import ModerationNotConfigured, PressrunError
from shared.lifecycle import BadLine
from shared.plans import is_planned
from shared.pools import UPKEEP
from shared.quotas import NOTHING, Reservation
from shared.sharding import PoolCutters, Slice, in_order
from shared.specs import ANY_ENDPOINT, ENDPOINTS, InferenceSpec, parse_body_json
from shared.translation import serves
from shared.translation.moderations import HINT
from worker.rows import InputLine, decode_line, model_of
from worker.upkeep.costs import GRAPH_SECONDS, expected_seconds, result_weight
from worker.upkeep.demand import Demand
from worker.upkeep.lines import Line, read_lines
from worker.upkeep.offers import Names, with_moderator
from worker.upkeep.reserving import Reserving
from worker.upkeep.unfolding import Planner, plan_row

BOM = b"\xef\xbb\xbf"
MAX_CUSTOM_ID_CHARACTERS = 512
MAX_MESSAGE_CHARACTERS = 500
MAX_PARAM_CHARACTERS = 100
"""A field's name may be as long as a line, and a thousand bad lines are kept."""


class Verdict:
    """What validation found: slices, or bad lines (all counted, the first ones kept)."""

    def __init__(self, max_reported: int, *, measured: bool = False) -> None:
        self._max_reported = max_reported
        self.demand = Demand(measured=measured)
        self.slices: list[Slice] = []
        self.errors: list[BadLine] = []
        self.bad_lines = 0
        self.rows = 0
        self.models: dict[str, str] = {}
        """The models that hold the aliases which rows name, by alias."""
        self.tuned: set[str] = set()
        """Models that jobs made and that rows name, by whatever name."""

    @property
    def pools(self) -> list[str]:
        """Where the slices are to run."""
        return sorted({part.pool for part in self.slices})

    def refuse(self, error: BadLine) -> None:
        self.bad_lines += 1
        if len(self.errors) < self._max_reported:
            self.errors.append(
                replace(
                    error,
                    message=error.message[:MAX_MESSAGE_CHARACTERS],
                    param=error.param and error.param[:MAX_PARAM_CHARACTERS],
                )
            )


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a row is to run, and what it weighs in its slice."""

    pool: str
    seconds: float
    results: int
    model: str | None = None
    """None for a row that is a graph: its steps have their own."""
    reserved: Reservation = NOTHING
    """What it may consume at most."""


class BatchValidator:
    """Judges one input file, line by line, in memory that does not grow with its bodies.

    ``chunks`` opens the file from its start; it is opened a second time only to name duplicates,
    which 8 bytes a row of hashes are enough to notice. ``endpoint`` may be ``ANY_ENDPOINT``: each
    row's ``url`` decides then. ``models`` are all that the tenant may name, by name, and
    ``aliases`` who holds them at this moment: every row means the same by one. ``measured``: the
    verdict also says what the rows would consume. ``moderation_model`` is configured to moderate.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        models: dict[str, Model],
        aliases: Mapping[str, str] = MappingProxyType({}),
        max_rows: int,
        max_line_bytes: int,
        max_reported: int,
        planner: Planner = plan_row,
        measured: bool = False,
        moderation_model: str | None = None,
    ) -> None:
        self._planner = planner
        self._names = Names(models, with_moderator(models, aliases, moderation_model))
        self._reserving = Reserving(models)
        self._endpoint = endpoint
        self._max_rows = max_rows
        self._max_line_bytes = max_line_bytes
        self._cutters = PoolCutters()
        self._hashes = array("Q")
        self._verdict = Verdict(max_reported, measured=measured)

    def run(self, chunks: Callable[[], Iterable[bytes]]) -> Verdict:
        """Raises whatever opening or reading the file raises."""
        verdict = self._verdict
        for line in read_lines(chunks(), max_bytes=self._max_line_bytes):
            if line.text is not None and not line.text.strip():
                continue
            verdict.rows += 1
            if verdict.rows > self._max_rows:
                verdict.refuse(
                    BadLine("too_many_tasks", f"a batch has at most {self._max_rows} rows")
                )
                return verdict
            self._judge(line)
        if verdict.rows == 0:
            verdict.refuse(BadLine("empty_file", "the file has no rows"))
        self._name_duplicates(chunks)
        if verdict.bad_lines == 0:
            verdict.slices = in_order([*verdict.slices, *self._cutters.rest()])
            verdict.models = self._names.asked
        verdict.errors.sort(key=lambda error: error.line or 0)
        return verdict

    def _judge(self, line: Line) -> None:
        try:
            row, to = self._parse(line)
        except PressrunError as error:
            self._verdict.refuse(BadLine(error.code, error.message, line.number, error.param))
            return
        except _Refused as refusal:
            self._verdict.refuse(BadLine(refusal.code, refusal.message, line.number, refusal.param))
            return
        self._hashes.append(_hash(row.custom_id))
        done = self._cutters.add(
            to.pool,
            line=line.number,
            byte_start=line.byte_start,
            byte_end=line.byte_end,
            seconds=to.seconds,
            results=to.results,
            model=to.model,
            reserved=to.reserved,
        )
        if done is not None and self._verdict.bad_lines == 0:
            self._verdict.slices.append(done)

    def _parse(self, line: Line) -> tuple[InputLine, Destination]:
        row = parse_line(line, self._max_line_bytes)
        if row.method != "POST":
            raise _Refused("invalid_request", "'method' must be POST", "method")
        if row.url not in ENDPOINTS:
            raise _Refused("invalid_url", "'url' is no endpoint of this server", "url")
        if self._endpoint not in (row.url, ANY_ENDPOINT):
            raise _Refused("url_mismatch", f"'url' must be the batch's {self._endpoint}", "url")
        spec = parse_body_json(row.url, bytes(row.body))
        spec.check_row()
        if not _names_only(row.body, spec.model):
            raise _Refused("invalid_request", "'model' is given more than once", "model")
        return row, self._destination(row.url, spec, line.number)

    def _destination(self, url: str, spec: InferenceSpec, line: int) -> Destination:
        """Raises _Refused, and PressrunErrors for a graph that can't be planned."""
        model = self._names.find(spec.model)
        if model is None and not spec.model:
            raise ModerationNotConfigured(HINT, param="model")
        self._verdict.demand.add(url, model.id if model else spec.model, spec)
        if model is not None and model.job_id is not None:
            self._verdict.tuned.add(model.id)
        if is_planned(url, model.engine if model else ""):
            steps = self._planner(url, spec, self._names, str(line))
            reserved = self._reserving.graph(steps)
            return Destination(UPKEEP, GRAPH_SECONDS, len(steps), reserved=reserved)
        if model is None or not serves(model.endpoints, url):
            raise _Refused("model_not_found", f"no model {spec.model!r} serves {url}", "model")
        return Destination(
            model.pool,
            expected_seconds(spec, model),
            result_weight(spec),
            model.id,
            self._reserving.row(spec, model),
        )

    def _name_duplicates(self, chunks: Callable[[], Iterable[bytes]]) -> None:
        hashes = np.frombuffer(self._hashes, dtype=np.uint64)
        hashes.sort()  # in place: the array is ours and done with
        repeated = {int(value) for value in hashes[1:][hashes[1:] == hashes[:-1]]}
        if not repeated:
            return
        # Digests, as a file may repeat half a million ids of two kilobytes each.
        first_seen: dict[bytes, int] = {}
        for line in read_lines(chunks(), max_bytes=self._max_line_bytes):
            try:
                row = parse_line(line, self._max_line_bytes)
            except _Refused:
                continue
            if _hash(row.custom_id) not in repeated:
                continue
            first = first_seen.setdefault(_digest(row.custom_id, size=16), line.number)
            if first != line.number:
                self._verdict.refuse(
                    BadLine(
                        "duplicate_custom_id",
                        f"'custom_id' was used on line {first} already",
                        line.number,
                        "custom_id",
                    )
                )


class _Refused(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def parse_line(line: Line, max_bytes: int) -> InputLine:
    """The envelope of a row; its body is not looked at. Raises _Refused."""
    if line.text is None:
        raise _Refused("line_too_long", f"the line is longer than {max_bytes} bytes")
    if line.text.startswith(BOM):
        raise _Refused("invalid_encoding", "the line begins with a byte order mark")
    try:
        line.text.decode()
    except UnicodeDecodeError:
        raise _Refused("invalid_encoding", "the line is not UTF-8") from None
    try:
        row = decode_line(line.text)
    except ValueError as error:
        raise _envelope_error(str(error)) from None
    except RecursionError:
        raise _Refused("invalid_json_line", "the line is nested too deeply") from None
    if not 1 <= len(row.custom_id) <= MAX_CUSTOM_ID_CHARACTERS:
        limit = MAX_CUSTOM_ID_CHARACTERS
        raise _Refused("invalid_request", f"'custom_id' has 1 to {limit} characters", "custom_id")
    return row


def _envelope_error(message: str) -> _Refused:
    """From msgspec's sentence to a code; its sentences name the field between backticks."""
    if message.startswith("Object missing required field"):
        field = message.split("`")[1]
        return _Refused("missing_required_parameter", f"'{field}' is required", field)
    if message.startswith("Object contains unknown field"):
        field = message.split("`", 1)[1].rpartition("`")[0]
        return _Refused("unsupported_parameter", f"'{field}' is not a field of a row", field)
    if message.startswith("Expected") and "`$." in message:
        field = message.split("`$.")[1].rstrip("`")
        return _Refused("invalid_request", f"'{field}' has the wrong type", field)
    if message.startswith("Expected"):
        return _Refused("invalid_request", "the line is not a JSON object")
    return _Refused("invalid_json_line", "the line is not valid JSON")


def _names_only(body: msgspec.Raw, model: str) -> bool:
    """Whether workers, who read nothing else of the body, will find the same model in it."""
    try:
        return model_of(body) == model
    except ValueError:
        return False


def _hash(custom_id: str) -> int:
    return int.from_bytes(_digest(custom_id, size=8), "little")


def _digest(custom_id: str, *, size: int) -> bytes:
    return blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=size).digest()
