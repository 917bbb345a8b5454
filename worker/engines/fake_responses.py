"""What the fake engine answers: pure functions of a request body.

Tokens are words. A reply wants 8 to 71 words; ``max_tokens`` cuts it (``finish_reason`` is then
``length``), and so does a stop sequence. Everything derives from a hash of the prompt, the seed
and the model, so equal requests get equal bytes however their JSON is spelled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from shared.errors import UnsupportedEndpoint
from worker.engines.fake_labels import ClassificationRequest, classifications
from worker.engines.fake_logprobs import fake_logprobs, likeliest
from worker.engines.fake_objects import held_words, refusal_of, schema_of
from worker.engines.fake_vectors import vectors_body

_HEADS = ["b", "br", "ch", "d", "f", "g", "gl", "h", "k", "l", "m", "n", "p", "r", "st", "t"]
_TAILS = ["a", "ade", "al", "an", "ane", "el", "en", "er", "i", "ine", "o", "ond", "or", "ost"]
WORDS = [head + tail for head in _HEADS for tail in [*_TAILS, "u", "une"]]
"""256 words, one for each value of a byte."""

EMBEDDING_DIMENSIONS = 64
COMPLETION_MAX_TOKENS = 16
CREATED = 1_700_000_000
"""``created`` of every response: the clock would make equal requests differ."""

_SHORTEST_REPLY = 8
_LONGEST_REPLY = _SHORTEST_REPLY + 63


class FakeResult(NamedTuple):
    """A response body and its usage in words."""

    body: bytes
    input_tokens: int
    output_tokens: int


def fake_response(endpoint: str, body: bytes, model: str) -> bytes:
    """The response to a request, both JSON in OpenAI's shapes.

    Raises UnsupportedEndpoint, and msgspec.MsgspecError for a body that doesn't fit the endpoint.
    """
    return fake_result(endpoint, body, model).body


def fake_result(
    endpoint: str, body: bytes, model: str, default_max_tokens: int | None = None
) -> FakeResult:
    """Like ``fake_response``, with usage; ``default_max_tokens`` is for chats that name none."""
    answer = _ANSWERS.get(endpoint)
    if answer is None:
        raise UnsupportedEndpoint(f"no fake answer for {endpoint}", param="endpoint")
    return answer(body, model, default_max_tokens)


def last_text(endpoint: str, body: bytes) -> str:
    """The last message, prompt or input of a body. Raises as ``fake_response`` does."""
    match endpoint:
        case "/v1/chat/completions":
            messages = _chat.decode(body).messages
            return messages[-1].text if messages else ""
        case "/v1/completions":
            texts = _listed(_completion.decode(body).prompt)
        case "/v1/embeddings":
            texts = _listed(_embedding.decode(body).input)
        case "/v1/classifications":
            texts = _classification.decode(body).texts
        case _:
            raise UnsupportedEndpoint(f"no fake answer for {endpoint}", param="endpoint")
    return texts[-1] if texts else ""


def prompts_of(endpoint: str, body: bytes) -> list[str]:
    """The prompts that the answer repeats; none where it repeats nothing."""
    if endpoint != "/v1/completions":
        return []
    spec = _completion.decode(body)
    return _listed(spec.prompt) if spec.echo else []


# --- requests: the fields that matter here; validation is the API's work ----------------------


class _Part(msgspec.Struct):
    text: str


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part]

    @property
    def text(self) -> str:
        content = self.content
        return content if isinstance(content, str) else "".join(part.text for part in content)


class _Sampling(msgspec.Struct, kw_only=True):
    max_tokens: int | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None


class _ChatRequest(_Sampling, kw_only=True):
    messages: list[_Message]
    max_completion_tokens: int | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class _CompletionRequest(_Sampling, kw_only=True):
    prompt: str | list[str]
    echo: bool | None = None
    logprobs: int | None = None
    best_of: int | None = None


class _EmbeddingRequest(msgspec.Struct):
    input: str | list[str]
    dimensions: int | None = None
    encoding_format: str | None = None


_chat = msgspec.json.Decoder(_ChatRequest)
_completion = msgspec.json.Decoder(_CompletionRequest)
_embedding = msgspec.json.Decoder(_EmbeddingRequest)
_classification = msgspec.json.Decoder(ClassificationRequest)
_encode = msgspec.json.Encoder().encode


def _listed(text: str | list[str] | None) -> list[str]:
    if text is None:
        return []
    return [text] if isinstance(text, str) else text


# --- responses --------------------------------------------------------------------------------


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Reply(msgspec.Struct):
    content: str
    role: str = "assistant"
    refusal: str | None = None


class _ChatChoice(msgspec.Struct):
    index: int
    message: _Reply
    finish_reason: str
    logprobs: dict[str, Any] | None = None


class _TextChoice(msgspec.Struct):
    index: int
    text: str
    finish_reason: str
    logprobs: dict[str, Any] | None = None


class _Generated(msgspec.Struct):
    id: str
    object: str
    model: str
    choices: list[_ChatChoice] | list[_TextChoice]
    usage: _Usage
    created: int = CREATED


class _Words(NamedTuple):
    text: str
    words_n: int
    finish_reason: str


def _digest(model: str, seed: int | None, text: str) -> bytes:
    return hashlib.blake2b(f"{model}\0{seed}\0{text}".encode(), digest_size=16).digest()


def _say(digest: bytes, choice: int, limit: int | None, stops: list[str]) -> _Words:
    stream = hashlib.shake_128(digest + choice.to_bytes(4)).digest(_LONGEST_REPLY + 1)
    wanted = _SHORTEST_REPLY + (stream[0] & 63)
    count, finish_reason = wanted, "stop"
    if limit is not None and limit < wanted:
        count, finish_reason = limit, "length"
    text = " ".join(map(WORDS.__getitem__, stream[1 : count + 1]))
    cut = min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)
    if cut is not None:
        text = text[:cut]
        count, finish_reason = len(text.split()), "stop"
    return _Words(text, count, finish_reason)


def _chat_completion(body: bytes, model: str, default_max_tokens: int | None) -> FakeResult:
    spec = _chat.decode(body)
    texts = [message.text for message in spec.messages]
    turns = "\0".join([f"{m.role}\0{t}" for m, t in zip(spec.messages, texts, strict=True)])
    digest = _digest(model, spec.seed, turns)
    limit = spec.max_completion_tokens or spec.max_tokens or default_max_tokens
    stops = _listed(spec.stop)
    schema = schema_of(spec.response_format)
    if schema is None:
        said = [_say(digest, choice, limit, stops) for choice in range(spec.n or 1)]
    else:
        said = [_Words(*held_words(schema, digest, c, limit)) for c in range(spec.n or 1)]
    choices = [
        _ChatChoice(i, _Reply(w.text, refusal=refusal_of(schema, w.finish_reason)), w.finish_reason)
        for i, w in enumerate(said)
    ]
    if spec.logprobs:
        for choice in choices:
            lucky, top = digest + choice.index.to_bytes(4), spec.top_logprobs or 0
            choice.logprobs = fake_logprobs(choice.message.content, lucky, top, WORDS)
    read, written = sum([len(t.split()) for t in texts]), sum([w.words_n for w in said])
    usage = _Usage(read, written, read + written)
    made = _Generated(f"chatcmpl-{digest.hex()}", "chat.completion", model, choices, usage)
    return FakeResult(_encode(made), read, written)


def _text_completion(body: bytes, model: str, default_max_tokens: int | None) -> FakeResult:
    spec = _completion.decode(body)
    prompts = _listed(spec.prompt)
    limit = spec.max_tokens or COMPLETION_MAX_TOKENS
    stops = _listed(spec.stop)
    choices: list[_TextChoice] = []
    written = 0
    for prompt in prompts:
        digest = _digest(model, spec.seed, prompt)
        told = spec.n or 1
        spoken = [_say(digest, choice, limit, stops) for choice in range(spec.best_of or told)]
        written += sum([said.words_n for said in spoken])
        luck = [digest + choice.to_bytes(4) for choice in range(len(spoken))]
        for choice in likeliest([said.text for said in spoken], luck, told):
            said = spoken[choice]
            text = f"{prompt} {said.text}" if spec.echo else said.text
            made = _TextChoice(len(choices), text, said.finish_reason)
            if spec.logprobs is not None:
                lucky, top = luck[choice], max(1, spec.logprobs)
                made.logprobs = fake_logprobs(text, lucky, top, WORDS, at=len(prompt))
            choices.append(made)
    read = sum([len(prompt.split()) for prompt in prompts])
    usage = _Usage(read, written, read + written)
    name = _digest(model, spec.seed, "\0".join(prompts)).hex()
    whole = _Generated(f"cmpl-{name}", "text_completion", model, choices, usage)
    return FakeResult(_encode(whole), read, written)


def _embeddings(body: bytes, model: str, default_max_tokens: int | None) -> FakeResult:
    spec = _embedding.decode(body)
    texts = _listed(spec.input)
    read = sum([len(text.split()) for text in texts])
    answer = vectors_body(
        model,
        [_digest(model, None, text) for text in texts],
        dimensions=spec.dimensions or EMBEDDING_DIMENSIONS,
        packed=spec.encoding_format == "base64",
        read=read,
    )
    return FakeResult(answer, read, 0)


def _labels(body: bytes, model: str, default_max_tokens: int | None) -> FakeResult:
    answer, read = classifications(_classification.decode(body), model)
    return FakeResult(answer, read, 0)


_ANSWERS: dict[str, Callable[[bytes, str, int | None], FakeResult]] = {
    "/v1/chat/completions": _chat_completion,
    "/v1/completions": _text_completion,
    "/v1/embeddings": _embeddings,
    "/v1/classifications": _labels,
}
