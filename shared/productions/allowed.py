"""Which Jinja a template may be made of: a list of what is allowed, looked at before anything runs.

There are no calls, no arithmetic, no assignments and no other files in it, so what a template can
cost follows from its size and from the row.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import Any

from jinja2 import nodes

from shared.productions.filters import FILTERS, TESTS

MOST_NODES = 5_000
MOST_DEPTH = 40
MOST_BRANCHES = 50
"""``elif`` of one ``if``, parts of one comparison, entries of one list."""
MOST_LOOPS = 2
"""Inside one another."""
ROW = "row"
AUDIENCE = "audience"
SOURCES = "sources"
LOOP = "loop"
LOOP_PARTS = frozenset({"index", "index0", "first", "last", "length"})

_ALLOWED: tuple[type[nodes.Node], ...] = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr,
    nodes.Getitem, nodes.Slice, nodes.If, nodes.For, nodes.Filter, nodes.Test, nodes.Compare,
    nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.CondExpr, nodes.List,
    nodes.Tuple,
)  # fmt: skip
_NAMED: dict[type[nodes.Node], str] = {
    nodes.Call: "calls such as 'range(3)'",
    nodes.Macro: "'macro'",
    nodes.CallBlock: "'call'",
    nodes.FilterBlock: "'filter' blocks",
    nodes.Assign: "'set'",
    nodes.AssignBlock: "'set'",
    nodes.With: "'with'",
    nodes.Block: "'block'",
    nodes.Extends: "'extends'",
    nodes.Include: "'include'",
    nodes.Import: "'import'",
    nodes.FromImport: "'import'",
    nodes.ScopedEvalContextModifier: "'autoescape'",
    nodes.Dict: "objects '{…}'",
    nodes.Concat: "'~'",
}


class NotAllowed(Exception):
    """The message is for the tenant; ``line`` counts from 1 in the text that was read."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line or 1  # some of Jinja's nodes have none


@dataclass(slots=True)
class Uses:
    """What a text refers to."""

    columns: set[str] = field(default_factory=set)
    """By ``row["…"]``, which takes any name."""
    audience: set[str] = field(default_factory=set)
    """Columns of the audience."""


def check(tree: nodes.Template) -> Uses:
    """Raises NotAllowed for what no template may have."""
    uses = Uses()
    todo: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    seen = 0
    while todo:
        node, depth, loops = todo.pop()
        seen += 1
        if seen > MOST_NODES:
            raise NotAllowed(f"more than {MOST_NODES} expressions in one text", node.lineno)
        if depth > MOST_DEPTH:
            raise NotAllowed(f"nested more than {MOST_DEPTH} deep", node.lineno)
        if not isinstance(node, _ALLOWED):
            what = _NAMED.get(type(node), f"'{type(node).__name__.lower()}'")
            raise NotAllowed(f"{what} can't be used in templates", node.lineno)
        loops += isinstance(node, nodes.For)
        if loops > MOST_LOOPS:
            raise NotAllowed(f"loops nest at most {MOST_LOOPS} deep", node.lineno)
        _check_node(node, uses)
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Name):
                _check_name(child, whole=not _is_looked_into(node, child))
            todo.append((child, depth + 1, loops))
    return uses


def _check_node(node: nodes.Node, uses: Uses) -> None:
    match node:
        case nodes.Getattr():
            _check_part(node, node.attr, uses)
        case nodes.Getitem():
            _check_item(node, uses)
        case nodes.For():
            _check_loop(node)
        case nodes.Filter():
            _check_filter(node)
        case nodes.Test():
            _check_test(node)
        case nodes.Neg() if not _is_number(node.node):
            raise NotAllowed("arithmetic can't be used in templates", node.lineno)
        case nodes.If() | nodes.Compare() | nodes.List() | nodes.Tuple():
            _check_breadth(node)


def _is_looked_into(node: nodes.Node, child: nodes.Name) -> bool:
    return isinstance(node, nodes.Getattr | nodes.Getitem) and child is node.node


def _check_name(node: nodes.Name, *, whole: bool) -> None:
    """``whole`` is a name without a dot or bracket behind it."""
    if node.name.startswith("_"):
        raise NotAllowed(f"the name '{node.name[:80]}' begins with '_'", node.lineno)
    if unicodedata.normalize("NFKC", node.name) != node.name:
        how = f'row["{node.name[:80]}"]'
        raise NotAllowed(f"write {how} for a name with such signs", node.lineno)
    if whole:
        _check_bare(node)


def _check_bare(node: nodes.Name) -> None:
    if node.name in (ROW, LOOP):
        how = 'row["Product name"]' if node.name == ROW else "loop.index"
        raise NotAllowed(f"'{node.name}' is only used as in {how}", node.lineno)


def _check_part(node: nodes.Getattr | nodes.Getitem, part: Any, uses: Uses) -> None:
    of = node.node.name if isinstance(node.node, nodes.Name) else None
    if isinstance(part, str) and part.startswith("_") and of != ROW:
        raise NotAllowed(f"the name '{part[:80]}' begins with '_'", node.lineno)
    if of == LOOP and part not in LOOP_PARTS:
        known = ", ".join(f"loop.{each}" for each in sorted(LOOP_PARTS))
        raise NotAllowed(f"of loops there are {known}", node.lineno)
    if of == ROW and not isinstance(part, str):
        raise NotAllowed('a column needs its name: row["Product name"]', node.lineno)
    if of == ROW:
        uses.columns.add(part)
    if of == AUDIENCE and isinstance(part, str):
        uses.audience.add(part)


def _check_item(node: nodes.Getitem, uses: Uses) -> None:
    item: Any = node.arg
    if isinstance(item, nodes.Slice):
        if isinstance(node.node, nodes.Name) and node.node.name in (ROW, LOOP):
            _check_bare(node.node)
        parts = (item.start, item.stop, item.step)
        if any(part is not None and not _is_number(part) for part in parts):
            raise NotAllowed("'[a:b]' takes whole numbers", node.lineno)
        return
    if isinstance(item, nodes.Const) and isinstance(item.value, str):
        _check_part(node, item.value, uses)
    elif _is_number(item):
        _check_part(node, 0, uses)
    else:
        raise NotAllowed("'[…]' takes a number or a name in quotes", node.lineno)


def _check_loop(node: nodes.For) -> None:
    if node.recursive:
        raise NotAllowed("'recursive' can't be used in templates", node.lineno)
    if not isinstance(node.target, nodes.Name):
        raise NotAllowed("a loop has one name: for each in list", node.lineno)
    if node.target.name in (ROW, LOOP, AUDIENCE, SOURCES):
        raise NotAllowed(f"a loop can't take the name '{node.target.name}'", node.lineno)


def _check_filter(node: nodes.Filter) -> None:
    known = FILTERS.get(node.name)
    if known is None:
        names = ", ".join(sorted(FILTERS))
        raise NotAllowed(f"there is no filter '{node.name[:80]}'; known: {names}", node.lineno)
    if node.kwargs or node.dyn_args or node.dyn_kwargs:
        raise NotAllowed(f"arguments of '{node.name}' have no names", node.lineno)
    if not known.least <= len(node.args) <= known.most:
        wanted = f"{known.least}" if known.least == known.most else f"{known.least} to {known.most}"
        raise NotAllowed(f"'{node.name}' takes {wanted} arguments", node.lineno)
    if node.node is None:
        raise NotAllowed("'filter' blocks can't be used in templates", node.lineno)


def _check_test(node: nodes.Test) -> None:
    if node.name not in TESTS or node.args or node.kwargs:
        known = ", ".join(sorted(TESTS))
        raise NotAllowed(f"there is no test 'is {node.name[:80]}'; known: {known}", node.lineno)


def _check_breadth(node: nodes.If | nodes.Compare | nodes.List | nodes.Tuple) -> None:
    what, parts = {
        nodes.If: ("'elif' of an 'if'", getattr(node, "elif_", ())),
        nodes.Compare: ("parts of a comparison", getattr(node, "ops", ())),
    }.get(type(node), ("entries of a list", getattr(node, "items", ())))
    if len(parts) > MOST_BRANCHES:
        raise NotAllowed(f"more than {MOST_BRANCHES} {what}", node.lineno)


def _is_number(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Neg):
        return _is_number(node.node)
    return isinstance(node, nodes.Const) and type(node.value) is int
