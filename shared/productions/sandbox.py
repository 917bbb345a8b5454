"""Texts with ``{{ … }}`` in them: read once, rendered for every row, in bounded time and memory.

On top of Jinja's sandbox: only what ``allowed`` lists, no attribute of any Python object (a dot
looks a name up in the row's own objects), no globals, no functions, and a budget for the work of
each rendering.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import (
    StrictUndefined,
    TemplateError,
    TemplateSyntaxError,
    Undefined,
    UndefinedError,
    meta,
    nodes,
    pass_context,
)
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from shared.productions.allowed import AUDIENCE, LOOP, LOOP_PARTS, ROW, SOURCES, NotAllowed, check
from shared.productions.filters import FILTERS, TESTS, Filter, TooLarge, text_of
from shared.productions.tag_lines import without_tag_lines

MOST_WORK = 250_000
"""Of one rendering: an expression is one, and so are 64 characters that one looks at."""
MOST_RENDERED = 1_000_000
"""Characters of one rendered text."""
MOST_LIST = 10_000
"""Entries of a list that is looped over."""
CHARACTERS_A_UNIT = 64

_WORK = "_work"
_EACH = "@each"
_WEIGHED = "@weighed"


class RowRefused(Exception):
    """This row can't be rendered; ``message`` says why, ``param`` names the column if one is."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class _Work:
    """What is left to be done for one rendering."""

    def __init__(self) -> None:
        self.left = MOST_WORK

    def spend(self, units: int) -> None:
        self.left -= units
        if self.left < 0:
            raise TooLarge("the row takes too much work to render")

    def look_at(self, value: Any) -> None:
        self.spend(1 + _size(value) // CHARACTERS_A_UNIT)


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list | tuple):
        return 8 + sum(map(_size, value))
    if isinstance(value, dict):
        return 8 + sum(len(key) + _size(each) for key, each in value.items())
    return 8


class _Environment(ImmutableSandboxedEnvironment):
    """Knows data alone: whatever a name after a dot is, it is a key."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext) and attribute in LOOP_PARTS:
            return getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Undefined):
            str(obj)  # raises, and names the column
        if isinstance(obj, dict) and isinstance(argument, str) and argument in obj:
            return obj[argument]
        if isinstance(obj, str | list | tuple) and isinstance(argument, int | slice):
            try:
                return obj[argument]
            except IndexError:
                pass
        return self.undefined(hint=f"there is no '{str(argument)[:80]}' in it")

    def is_safe_callable(self, obj: Any) -> bool:
        return False

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return False


@pass_context
def _finalized(context: Context, value: Any) -> str:
    written = text_of(value)
    _work_of(context).look_at(written)
    return written


@pass_context
def _each(context: Context, value: Any, weight: int) -> list[Any] | tuple[Any, ...]:
    if isinstance(value, Undefined):
        str(value)
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise TypeError("a loop needs a list")
    if len(value) > MOST_LIST:
        raise TooLarge(f"a loop takes at most {MOST_LIST} entries")
    _work_of(context).spend(len(value) * weight)
    return value


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    _work_of(context).look_at(value)
    return value


def _work_of(context: Context) -> _Work:
    work: _Work = context.parent[_WORK]
    return work


def _measured(known: Filter) -> Any:
    @pass_context
    def run(context: Context, value: Any, *arguments: Any) -> Any:
        work = _work_of(context)
        for each in (value, *arguments):
            if isinstance(each, Undefined) and not known.takes_undefined:
                str(each)
            work.look_at(each)
        made = known.function(value, *arguments)
        if isinstance(made, str) and len(made) > 2 * MOST_RENDERED:
            raise TooLarge(f"a text of more than {2 * MOST_RENDERED} characters")
        work.look_at(made)
        return made

    return run


@lru_cache(maxsize=1)
def _environment() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined,
        finalize=_finalized,
        optimized=False,  # nothing is worked out while a text is read
        cache_size=0,
        autoescape=False,
    )
    environment.globals.clear()
    environment.tests = dict(TESTS)
    environment.filters = {name: _measured(known) for name, known in FILTERS.items()}
    environment.filters |= {_EACH: _each, _WEIGHED: _weighed}
    return environment


class Text:
    """A text that was found to be allowed. ``columns`` are those of the row that it needs, among
    them the names of earlier steps; ``audience`` the columns of the audience."""

    def __init__(self, source: str) -> None:
        """Raises NotAllowed."""
        environment = _environment()
        try:
            tree = environment.parse(without_tag_lines(source))
            uses = check(tree)
            free = meta.find_undeclared_variables(tree)
            if LOOP in free:
                raise NotAllowed("'loop' is only there in a loop", 1)
            _weigh(tree)
            tree.set_environment(environment)
            code = environment.compile(tree)
        except TemplateSyntaxError as error:
            raise NotAllowed(error.message or "the text can't be read", error.lineno) from None
        except (RecursionError, MemoryError, OverflowError, ValueError, SyntaxError):
            raise NotAllowed("the text is too deep or too odd to be read", 1) from None
        self.source = source
        self.audience = frozenset(uses.audience)
        self.uses_audience = AUDIENCE in free
        self.uses_sources = SOURCES in free
        self.columns = frozenset(free - {ROW, LOOP, AUDIENCE, SOURCES} | uses.columns)
        self._template = environment.template_class.from_code(environment, code, {}, None)

    def render(self, values: Mapping[str, Any], *, most: int = MOST_RENDERED) -> str:
        """Raises RowRefused."""
        pieces: list[str] = []
        left = most
        try:
            for piece in self._template.generate({**values, ROW: dict(values), _WORK: _Work()}):
                left -= len(piece)
                if left < 0:
                    raise TooLarge(f"the text gets longer than {most} characters")
                pieces.append(piece)
        except TooLarge as error:
            raise RowRefused("prompt_too_long", str(error)) from None
        except UndefinedError as error:
            raise RowRefused("column_missing", _sentence(error)) from None
        except (TypeError, ValueError, OverflowError, RecursionError, TemplateError) as error:
            raise RowRefused("row_not_rendered", _sentence(error)) from None
        return "".join(pieces).strip()


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _weigh(tree: nodes.Template) -> None:
    """Has loops, comparisons and slices ask the budget first, by filters that no text can name."""
    todo: list[nodes.Node] = [tree]
    while todo:
        node = todo.pop()
        todo += list(node.iter_child_nodes())
        if isinstance(node, nodes.For):
            weight = nodes.Const(sum(1 for _ in node.find_all(nodes.Node)))
            node.iter = _through(_EACH, node.iter, [weight])
        elif isinstance(node, nodes.Compare):
            node.expr = _through(_WEIGHED, node.expr, [])
            for operand in node.ops:
                operand.expr = _through(_WEIGHED, operand.expr, [])
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            node.node = _through(_WEIGHED, node.node, [])


def _through(name: str, node: Any, arguments: list[nodes.Expr]) -> nodes.Filter:
    return nodes.Filter(node, name, arguments, [], None, None, lineno=node.lineno)
