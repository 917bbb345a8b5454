"""Schemas on their way to grammars: each is tried in a process that may be ended, and compiled once
on a thread of its own, one after the other."""

from __future__ import annotations

import json
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from llguidance import LLTokenizer
from transformers import PreTrainedTokenizerFast

from worker.engines.constraints import Grammar
from worker.engines.matchers import UnusableSchema, matcher_of, tokenizer_of
from worker.engines.schema_checks import AnswerCheck
from worker.engines.schema_trials import SchemaTrials
from worker.engines.vocabulary import Vocabulary

MOST_KEPT = 64
IDLE_SECONDS = 60.0
"""Without a new schema, until the process that tries them ends."""


Compiled = Grammar | UnusableSchema


class Grammars:
    """The grammars of one model. ``get`` is for one thread; compiling is not in its way."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._kept: OrderedDict[str, Compiled] = OrderedDict()
        self._asked: set[str] = set()
        self._orders: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[tuple[str, Compiled]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def get(self, schema: str) -> Compiled | None:
        """What became of ``schema``, JSON of one that was checked (``shared.specs.schemas``);
        None while it is being compiled."""
        self._take()
        if schema in self._kept:
            self._kept.move_to_end(schema)
            return self._kept[schema]
        if schema not in self._asked:
            self._asked.add(schema)
            self._start().put(schema)
        return None

    def wait(self, seconds: float) -> None:
        """Returns when something more is compiled, or after ``seconds``."""
        self._take(seconds)

    def _take(self, seconds: float | None = None) -> None:
        while True:
            try:
                made = self._made.get(block=seconds is not None, timeout=seconds)
            except queue.Empty:
                return
            seconds = None
            self._asked.discard(made[0])
            self._kept[made[0]] = made[1]
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)

    def _start(self) -> queue.SimpleQueue[str]:
        if self._thread is None:
            compiler = Compiler(self._vocabulary)
            self._thread = threading.Thread(
                target=_compile_all, args=(compiler, self._orders, self._made), daemon=True
            )
            self._thread.start()
        return self._orders


def _compile_all(
    compiler: Compiler,
    orders: queue.SimpleQueue[str],
    made: queue.SimpleQueue[tuple[str, Compiled]],
) -> None:
    while True:
        try:
            schema = orders.get(timeout=IDLE_SECONDS)
        except queue.Empty:
            compiler.rest()
            continue
        made.put((schema, compiler.compile(schema)))


class Compiler:
    """Makes grammars for one tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        """Reads the tokenizer, which takes a moment; what takes longer waits for ``compile``."""
        self._ends = sorted(vocabulary.end_ids)
        tokenizer = vocabulary.tokenizer
        fast = isinstance(tokenizer, PreTrainedTokenizerFast)
        self._written = tokenizer.backend_tokenizer.to_str() if fast else None
        self._tokenizer: LLTokenizer | None = None
        self._trials: SchemaTrials | None = None

    def compile(self, schema: str) -> Compiled:
        """Never raises: whatever is wrong with a schema is its row's affair."""
        try:
            tokenizer = self._tokens()
            self._try(schema)
            matcher = matcher_of(tokenizer, schema)
            return Grammar(matcher, AnswerCheck(json.loads(schema)), tokenizer.vocab_size)
        except UnusableSchema as error:
            return error
        except Exception as error:
            return UnusableSchema(f"{type(error).__name__}: {error}"[:300])

    def _tokens(self) -> LLTokenizer:
        if self._tokenizer is None:
            if self._written is None or not self._ends:
                raise TypeError("this model's tokenizer can't be held to a schema")
            self._tokenizer = tokenizer_of(self._written, self._ends)
        return self._tokenizer

    def _try(self, schema: str) -> None:
        """Raises UnusableSchema for one that takes too much."""
        if self._trials is None:
            self._trials = SchemaTrials(self._written or "", self._ends)
        self._trials.run(schema)

    def rest(self) -> None:
        """Nothing more is to be compiled for a while."""
        if self._trials is not None:
            self._trials.rest()


class Wanting(Protocol):
    """A row as the line sees it."""

    @property
    def schema(self) -> str | None: ...

    def hold_to(self, grammar: Grammar) -> None: ...


Row = TypeVar("Row", bound=Wanting)


class SchemaLine(Generic[Row]):
    """Rows that wait for their schema to be compiled; others run meanwhile."""

    def __init__(self, get: Callable[[str], Compiled | None]) -> None:
        self._get = get
        self._waiting: list[Row] = []

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, row: Row) -> None:
        self._waiting.append(row)

    def leave(self, row: Row) -> None:
        """The row is not wanted any more, wherever it is."""
        if row in self._waiting:
            self._waiting.remove(row)

    def board(self) -> tuple[list[Row], list[tuple[Row, str]]]:
        """The rows that may run now, and those whose schema is no use, with the reason."""
        boarded: list[Row] = []
        failed: list[tuple[Row, str]] = []
        kept: list[Row] = []
        for row in self._waiting:
            compiled = self._get(row.schema or "")
            if compiled is None:
                kept.append(row)
            elif isinstance(compiled, UnusableSchema):
                failed.append((row, compiled.why))
            else:
                row.hold_to(compiled)
                boarded.append(row)
        self._waiting = kept
        return boarded, failed
