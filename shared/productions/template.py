"""A template: the file that says what is made of a row, read and found to be sound."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from shared.errors import InvalidRequest, UnsupportedParameter
from shared.productions.allowed import AUDIENCE, ROW, SOURCES, NotAllowed
from shared.productions.filters import text_of
from shared.productions.head import Head, Path, read_head, refused
from shared.productions.languages import LANGUAGES
from shared.productions.outcomes import output_columns
from shared.productions.presets import with_preset
from shared.productions.sandbox import RowRefused, Text
from shared.productions.schemas import check_schema
from shared.productions.specs import AUDIENCE_FILE, AUDIENCE_LIST, LABEL_COUNTS, TemplateHead

MOST_BYTES = 262_144
BODY = "body"
RESERVED = frozenset({AUDIENCE, SOURCES, ROW, "loop"})
"""Names in a template that mean something else than a column."""


@dataclass(frozen=True, slots=True)
class Template:
    """``texts`` are all texts that may use columns, by their place: ``body``, ``system``,
    ``steps[0].prompt``, ``gates.required[2]`` …"""

    head: TemplateHead
    texts: dict[str, Text]
    source: str
    """The file."""

    def columns(self) -> frozenset[str]:
        """The columns of the data that it needs."""
        steps = {step.name for step in self.head.steps}
        needed = (text.columns for text in self.texts.values())
        return frozenset[str]().union(*needed) - steps

    def audience_columns(self) -> frozenset[str]:
        """The columns that an audience must have."""
        needed = (text.audience for text in self.texts.values())
        return frozenset({"name"}).union(*needed)

    def models(self, default: str | None = None) -> tuple[str, ...]:
        """The models that write candidates. Raises InvalidRequest where none is named."""
        if self.head.models is not None:
            return tuple(self.head.models)
        if self.head.model is None and default is None:
            raise InvalidRequest("neither the template nor the call names a model", param="model")
        return (self.head.model or default or "",)

    def check_table(self, columns: Iterable[str]) -> None:
        """Raises InvalidRequest for a table that this template can't be used with."""
        there = list(columns)
        missing = sorted(self.columns() - set(there))
        if missing:
            named = ", ".join(f"'{name[:80]}'" for name in there[:20])
            message = f"the data has no column '{missing[0]}'; it has {named or 'none'}"
            raise InvalidRequest(message, param=missing[0])
        taken = output_columns(self.head) + tuple(step.name for step in self.head.steps)
        clash = next((name for name in there if name in taken), None)
        if clash is not None:
            raise InvalidRequest(
                f"the data's column '{clash}' would clash with one that is added; rename it",
                param=clash,
            )

    def check_audience(self, audience: dict[str, Any], place: str) -> None:
        """Raises InvalidRequest for an audience without a column that is used."""
        missing = sorted(self.audience_columns() - set(audience))
        if missing:
            raise InvalidRequest(f"{place}: it has no '{missing[0]}'", param=f"template.{place}")
        if not isinstance(audience["name"], str) or not audience["name"].strip():
            raise InvalidRequest(f"{place}: 'name' must be a text", param=f"template.{place}.name")


def parse_template(text: str) -> Template:
    """Reads a template. Raises InvalidRequest (``param`` is ``template`` and the key's path, the
    message has the line), or UnsupportedParameter for a key that there is not."""
    if len(text) > MOST_BYTES or len(text.encode("utf-8", "replace")) > MOST_BYTES:
        raise InvalidRequest(f"a template has at most {MOST_BYTES} bytes", param="template")
    found = read_head(text)
    try:
        head = TemplateHead.model_validate(found.values)
    except ValidationError as error:
        raise _of_the_head(error, found) from None
    head, body = with_preset(head, found.body, found.line_of(("task",)))
    if not body.strip():
        raise refused(found.body_line, "the body is empty: it is the prompt", "template.body")
    template = Template(head, _texts(head, body, found), text)
    _check_head(template, found)
    return template


def _texts(head: TemplateHead, body: str, found: Head) -> dict[str, Text]:
    texts = {BODY: _text(body, found.body_line, BODY)}
    for path, source in _sources(head):
        name = _named(path)
        texts[name] = _text(source, found.line_of(path), name)
    return texts


def _sources(head: TemplateHead) -> Iterable[tuple[Path, str]]:
    """Every text of the head that may use columns."""
    if head.system is not None:
        yield ("system",), head.system
    for at, step in enumerate(head.steps):
        yield ("steps", at, "prompt"), step.prompt
        if step.system is not None:
            yield ("steps", at, "system"), step.system
    for at, phrase in enumerate(head.gates.required):
        yield ("gates", "required", at), phrase
    for at, phrase in enumerate(head.gates.forbidden):
        yield ("gates", "forbidden", at), phrase
    if head.documents is not None:
        yield ("documents", "query"), head.documents.query
        yield ("documents", "not_found"), head.documents.not_found


def _text(source: str, line: int, name: str) -> Text:
    try:
        return Text(source)
    except NotAllowed as error:
        at = line + error.line - 1
        raise refused(at, f"{name}: {error.message}", f"template.{name}") from None


def _check_head(template: Template, found: Head) -> None:
    head = template.head
    _check_steps(template, found)
    _check_uses(template, found)
    for path, schema in [(("schema",), head.json_schema)] + [
        (("steps", at, "schema"), step.json_schema) for at, step in enumerate(head.steps)
    ]:
        if schema is not None:
            check_schema(schema, _named(path), found.line_of(path))
    if head.gates.language is not None and head.gates.language not in LANGUAGES:
        line = found.line_of(("gates", "language"))
        known = ", ".join(sorted(LANGUAGES))
        raise refused(line, f"gates.language: one of {known}", "template.gates.language")
    if head.gates.cites_sources and head.documents is None:
        line = found.line_of(("gates", "cites_sources"))
        message = "gates.cites_sources: it needs 'documents'"
        raise refused(line, message, "template.gates.cites_sources")
    if head.best_of is not None and head.n * len(head.models or [""]) == 1:
        raise refused(
            found.line_of(("best_of",)), "best_of: it needs 'n' over 1, or 'models'",
            "template.best_of",
        )  # fmt: skip
    _check_examples(template, found)
    if isinstance(head.audiences, list):
        _check_audiences(template, head.audiences)


def _check_steps(template: Template, found: Head) -> None:
    """A prompt may use the steps before it, and no other."""
    names: list[str] = []
    every = {step.name for step in template.head.steps}
    for at, step in enumerate(template.head.steps):
        line, param = found.line_of(("steps", at, "name")), f"template.steps[{at}].name"
        if step.name in RESERVED or step.name in names:
            raise refused(line, f"steps[{at}].name: '{step.name}' is taken", param)
        for key in ("prompt", "system"):
            text = template.texts.get(f"steps[{at}].{key}")
            early = sorted(text.columns & (every - set(names))) if text else []
            if early:
                message = f"steps[{at}].{key}: '{early[0]}' is not there before this step"
                raise refused(
                    found.line_of(("steps", at, key)), message, f"template.steps[{at}].{key}"
                )
        names.append(step.name)
    for name, text in template.texts.items():
        if name.startswith(("gates.", "documents.")) and text.columns & every:
            used = sorted(text.columns & every)[0]
            raise InvalidRequest(
                f"{name}: a step's '{used}' is no column", param=f"template.{name}"
            )


def _check_uses(template: Template, found: Head) -> None:
    head = template.head
    for name, text in template.texts.items():
        if (text.uses_audience or text.audience) and head.audiences is None:
            raise InvalidRequest(
                f"{name}: 'audience' is used, and there are no 'audiences'",
                param=f"template.{name}",
            )
        if text.uses_sources and (head.documents is None or name.startswith("documents.")):
            message = f"{name}: 'sources' is used, and there are no 'documents' before it"
            raise InvalidRequest(message, param=f"template.{name}")


def _check_examples(template: Template, found: Head) -> None:
    needed = template.texts[BODY].columns
    for at, example in enumerate(template.head.examples):
        _check_company(template, found, at)
        missing = sorted(needed - set(example.input))
        if missing:
            line = found.line_of(("examples", at, "input"))
            message = f"examples[{at}].input: it has no '{missing[0]}', which the body uses"
            raise refused(line, message, f"template.examples[{at}].input")
        if example.output.strip() == "":
            line = found.line_of(("examples", at, "output"))
            message = f"examples[{at}].output: it is empty"
            raise refused(line, message, f"template.examples[{at}].output")
    body = template.texts[BODY]
    if body.uses_audience or body.uses_sources:
        return  # what they look like depends on the item
    for at, example in enumerate(template.head.examples):
        try:
            body.render(example.input)
        except RowRefused as error:
            line = found.line_of(("examples", at, "input"))
            message = f"examples[{at}].input: {error.message}"
            raise refused(line, message, f"template.examples[{at}].input") from None


def _check_company(template: Template, found: Head, at: int) -> None:
    """What an example brings instead of the row's own."""
    head, example = template.head, template.head.examples[at]
    for key, is_there, needs in (
        ("sources", bool(example.sources), "documents"),
        ("audience", example.audience is not None, "audiences"),
    ):
        if is_there and getattr(head, needs) is None:
            line = found.line_of(("examples", at, key))
            message = f"examples[{at}].{key}: it needs '{needs}'"
            raise refused(line, message, f"template.examples[{at}].{key}")
    if example.audience is not None:
        template.check_audience(example.audience, f"examples[{at}].audience")


def _check_audiences(template: Template, audiences: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for at, audience in enumerate(audiences):
        template.check_audience(audience, f"audiences[{at}]")
        name = text_of(audience["name"])
        if name in seen:
            message = f"audiences[{at}].name: '{name[:80]}' is there twice"
            raise InvalidRequest(message, param=f"template.audiences[{at}].name")
        seen.add(name)


def _of_the_head(error: ValidationError, found: Head) -> InvalidRequest:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    ways = (AUDIENCE_LIST, AUDIENCE_FILE, LABEL_COUNTS)
    path = tuple(part for part in first["loc"] if part not in ways)
    name, line = _named(path), found.line_of(path)
    param = f"template.{name}" if name else "template"
    if first["type"] == "extra_forbidden":
        return UnsupportedParameter(f"line {line}: there is no key '{name}'", param=param)
    if first["type"] == "missing":
        return refused(line, f"'{name}' is required", param)
    message = first["msg"].removeprefix("Value error, ")
    return refused(line, f"{name}: {message}" if name else message, param)


def _named(path: Iterable[str | int]) -> str:
    """``steps[0].prompt``."""
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name
