"""Rows of text generation on their way: a row has prompts, a prompt has choices."""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.errors import ContextLengthExceeded, PressrunError
from shared.specs import ChatCompletionSpec, CompletionSpec, GenerationSpec, parse_body_json
from shared.specs.completions import DEFAULT_COMPLETION_TOKENS
from shared.specs.formats import UNFINISHED
from worker.engines.constraints import Constraint, Grammar
from worker.engines.likelihoods import Marks, Telling
from worker.engines.protocol import Row, RowResult
from worker.engines.responses import (
    FinishedChoice,
    FinishReason,
    Usage,
    chat_body,
    completion_body,
    out_of_memory,
    unusable_schema,
)
from worker.engines.sampling import Sampling, Stream, random_seed, seed_of
from worker.engines.spelling import Spellings
from worker.engines.vocabulary import Vocabulary


@dataclass(eq=False, slots=True)
class Prompt:
    """Tokens to continue; its choices share one prefill when they start together."""

    tokens: list[int]
    text: str
    """What ``echo`` repeats."""
    adapter: str = ""
    """The adapter that reads it; empty for the model as it is."""


@dataclass(eq=False, slots=True)
class Choice:
    """One continuation: what sits in a slot."""

    row: TextRow
    prompt: Prompt
    index: int
    """Among the row's choices, from 0; with the seed it names the random stream."""
    max_new_tokens: int
    seeded: bool
    stream: Stream = field(init=False)
    generated: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    failure: str | None = None
    text: str = ""
    constraint: Constraint | None = None
    """What holds it to its row's schema."""
    marks: Marks | None = None
    """How likely its tokens are, where the row asks for that."""

    def __post_init__(self) -> None:
        self.stream = Stream(self.row.seed, self.index)
        if self.row.alternatives is not None or self.row.told is not None:
            self.marks = Marks(self.row.alternatives or 0)

    @property
    def sampling(self) -> Sampling:
        return self.row.sampling

    @property
    def adapter(self) -> str:
        return self.prompt.adapter

    @property
    def need(self) -> int:
        """Cache cells that it may come to use."""
        return len(self.prompt.tokens) + self.max_new_tokens

    @property
    def position(self) -> int:
        """Where its newest token goes in the cache; everything before is cached."""
        return len(self.prompt.tokens) + len(self.generated) - 1

    def telling(self, spellings: Spellings) -> Telling | None:
        """Says how likely its tokens are, where the row asks for that."""
        if self.marks is None or self.row.alternatives is None:
            return None
        return Telling(self.marks, spellings, chat=self.row.chat, at=len(self.prompt.text))

    def restart(self) -> None:
        """Forgets what was generated; the same stream begins anew."""
        self.generated = []
        self.stream = Stream(self.row.seed, self.index)
        if self.constraint is not None:
            self.constraint.restart()
        if self.marks is not None:
            self.marks.restart()

    def accept(self, token: int, vocabulary: Vocabulary) -> bool:
        """Adds a token; True when the choice is finished, with text and reason set."""
        self.generated.append(token)
        if token in vocabulary.end_ids:
            return self._finish("stop", vocabulary.decode(self.generated[:-1]))
        if self.constraint is not None:
            self.constraint.accept(token)
        if self.row.stops:
            before = vocabulary.find_stop(self.generated, self.row.stops)
            if before is not None:
                return self._finish("stop", before)
        if self.constraint is not None and self.constraint.complete:
            return self._finish("stop", vocabulary.decode(self.generated))
        if len(self.generated) >= self.max_new_tokens:
            return self._finish("length", vocabulary.decode_cut(self.generated))
        return False

    def _finish(self, reason: FinishReason, text: str) -> bool:
        self.finish_reason, self.text = reason, text
        return True


@dataclass(eq=False, slots=True)
class TextRow:
    """A row in the engine, and all that its response needs."""

    shard: int
    epoch: int
    index: int
    chat: bool
    echo: bool
    sampling: Sampling
    seed: int
    stops: tuple[str, ...]
    prompts: list[Prompt]
    adapter: str = ""
    """The folder of its adapter, or empty."""
    adapter_name: str = ""
    streamed: bool = False
    """Somebody reads along."""
    alternatives: int | None = None
    """How many likely tokens are told beside each; None: nobody asks how likely they are."""
    told: int | None = None
    """How many choices of each prompt are told, the likeliest; None: all."""
    schema: str | None = None
    """The JSON schema that its answers are held to."""
    grammar: Grammar | None = None
    """What that was compiled to; there when the row runs."""
    choices: list[Choice] = field(default_factory=list)
    finished_n: int = 0

    def hold_to(self, grammar: Grammar) -> None:
        """Holds every choice to the grammar of ``schema``."""
        self.grammar = grammar
        for choice in self.choices:
            choice.constraint = grammar.begin()

    def result(self, model: str, fingerprint: str, spelling: Spellings) -> RowResult:
        """The row's response, once every choice is finished; ``model`` is what it is said to be
        of when no adapter has a name of its own."""
        failed = [choice.failure for choice in self.choices if choice.failure]
        if failed:
            return out_of_memory(self.shard, self.epoch, self.index, failed[0])
        held = [choice.constraint for choice in self.choices if choice.constraint is not None]
        lost = [constraint.failure for constraint in held if constraint.failure]
        if lost:
            return unusable_schema(self.shard, self.epoch, self.index, lost[0])
        usage = Usage(
            prompt=sum(len(prompt.tokens) for prompt in self.prompts),
            completion=sum(len(choice.generated) for choice in self.choices),
        )
        chosen = self.choices if self.told is None else self._likeliest(self.told)
        finished = [self._rendered(at, choice, spelling) for at, choice in enumerate(chosen)]
        render = chat_body if self.chat else completion_body
        body = render(self.adapter_name or model, fingerprint, finished, usage)
        return RowResult(
            self.shard, self.epoch, self.index, 200, body, usage.prompt, usage.completion
        )

    def _likeliest(self, count: int) -> list[Choice]:
        """So many of each prompt, best first; of two that are as good the earlier."""
        found: list[Choice] = []
        for prompt in self.prompts:
            own = [choice for choice in self.choices if choice.prompt is prompt]
            found += sorted(own, key=lambda c: -c.marks.mean if c.marks else 0.0)[:count]
        return found

    def _rendered(self, at: int, choice: Choice, spelling: Spellings) -> FinishedChoice:
        text = choice.prompt.text + choice.text if self.echo else choice.text
        reason = choice.finish_reason or "stop"
        telling = choice.telling(spelling)
        marks = None if telling is None else telling.whole(choice.text, choice.generated)
        return FinishedChoice(at, text, reason, self._refusal(choice), marks)

    def _refusal(self, choice: Choice) -> str | None:
        """Why the text is not what the schema asks, where it isn't."""
        flaw = None if self.grammar is None else self.grammar.flaw(choice.text)
        if flaw is not None and choice.finish_reason == "length":
            return UNFINISHED
        return flaw and f"the answer can't be used: {flaw}"


@dataclass(frozen=True, slots=True)
class Room:
    """How long texts may be, in tokens."""

    context: int
    """Prompt and output together."""
    default_output: int
    """The limit of a chat completion that names none."""


def read_row(shard: int, epoch: int, row: Row, vocabulary: Vocabulary, room: Room) -> TextRow:
    """Parses and tokenises a row. Raises InvalidRequest or a subclass: it can't be run."""
    spec = parse_body_json(row.endpoint, row.body, streams=True)
    if isinstance(spec, ChatCompletionSpec):
        prompts = [Prompt(vocabulary.encode_chat(spec.messages), "", row.adapter)]
        default = room.default_output
    elif isinstance(spec, CompletionSpec):
        prompts = [Prompt(vocabulary.encode(text), text, row.adapter) for text in spec.prompts]
        default = DEFAULT_COMPLETION_TOKENS
    else:
        raise PressrunError(f"the text engine does not serve {row.endpoint}")
    text_row = TextRow(
        shard=shard,
        epoch=epoch,
        index=row.index,
        chat=isinstance(spec, ChatCompletionSpec),
        echo=isinstance(spec, CompletionSpec) and spec.echo,
        sampling=_sampling(spec),
        seed=_seed(spec, row),
        stops=tuple(spec.stop_sequences),
        prompts=prompts,
        adapter=row.adapter,
        adapter_name=row.adapter_name,
        streamed=spec.stream,
        alternatives=spec.alternatives,
        told=spec.n if spec.candidates > spec.n else None,
        schema=spec.grammar if isinstance(spec, ChatCompletionSpec) else None,
    )
    for prompt in prompts:
        limit = _output_limit(spec, len(prompt.tokens), room.context, default)
        for _ in range(spec.candidates):
            index = len(text_row.choices)
            choice = Choice(text_row, prompt, index, limit, seeded=spec.seed is not None)
            text_row.choices.append(choice)
    most = sum(choice.max_new_tokens for choice in text_row.choices)
    spec.check_logprobs(most * spec.n // spec.candidates)
    return text_row


def _seed(spec: GenerationSpec, row: Row) -> int:
    """Its own, or any; of a row that is read along the same on every attempt, so that another
    attempt can go on where the text stood."""
    if spec.seed is not None:
        return spec.seed
    return seed_of(row.id) if spec.stream and row.id else random_seed()


def _sampling(spec: GenerationSpec) -> Sampling:
    return Sampling(
        temperature=spec.temperature,
        top_p=spec.top_p,
        presence_penalty=spec.presence_penalty,
        frequency_penalty=spec.frequency_penalty,
    )


def _output_limit(spec: GenerationSpec, prompt: int, context: int, default: int) -> int:
    """The most tokens to generate; what does not fit is cut only when it was nobody's wish."""
    room = context - prompt
    if room < 1:
        raise ContextLengthExceeded(
            f"this model's context is {context} tokens; the prompt has {prompt} and leaves no "
            "room for output",
            param="messages" if isinstance(spec, ChatCompletionSpec) else "prompt",
        )
    if spec.max_tokens is None and getattr(spec, "max_completion_tokens", None) is None:
        return min(default, room)
    asked = spec.max_new_tokens or default
    if asked > room:
        raise ContextLengthExceeded(
            f"this model's context is {context} tokens; the prompt has {prompt} and the output "
            f"limit is {asked}, together {prompt + asked}",
            param="max_tokens" if spec.max_tokens is not None else "max_completion_tokens",
        )
    return asked
