"""Templates come from strangers: what can't be asked for, and what it can cost."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.productions.allowed import MOST_NODES, NotAllowed
from shared.productions.sandbox import MOST_RENDERED, RowRefused, Text
from shared.productions.template import MOST_BYTES

LONG = "x" * 1_000_000
MANY = list(range(10_000))
ROOM = 64 * 2**20
"""Bytes that a rendering may take at most, whatever it tries."""

ESCAPES = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ name.__class__.__mro__ }}",
    "{{ name|attr('__class__') }}",
    "{{ name|map('upper') }}",
    "{{ name['__cl' 'ass__'] }}",
    "{{ name['__cl' ~ 'ass__'] }}",
    "{{ name[other] }}",
    "{{ name.format(name) }}",
    "{{ '{0.__class__}'.format(name) }}",
    "{{ name|format(name) }}",
    "{{ '%s' % name }}",
    "{{ cycler('a') }}",
    "{{ lipsum() }}",
    "{{ joiner() }}",
    "{{ dict(a=1) }}",
    "{{ namespace(a=1) }}",
    "{{ range(10) }}",
    "{{ self }}{{ self.x() }}",
    "{{ caller() }}",
    "{{ _work }}",
    "{{ name._work }}",
    "{{ loop }}",
    "{{ loop.index }}",
    "{% for each in names %}{{ loop }}{% endfor %}",
    "{% for each in names %}{{ loop.cycle('a') }}{% endfor %}",
    "{% for each in names %}{{ loop.depth }}{% endfor %}",
    "{% for each in names recursive %}{{ loop(each) }}{% endfor %}",
    "{% for _work in names %}{% endfor %}",
    "{% for row in names %}{% endfor %}",
    "{% for a, b in names %}{% endfor %}",
    "{% for a in names %}{% for b in a %}{% for c in b %}{% endfor %}{% endfor %}{% endfor %}",
    "{{ row }}",
    "{{ row[0] }}",
    "{{ row|tojson }}",
    "{{ row[:2] }}",
    "{% set a = 1 %}",
    "{% set a %}b{% endset %}",
    "{% macro a() %}{% endmacro %}",
    "{% call a() %}{% endcall %}",
    "{% import 'a' as b %}",
    "{% from 'a' import b %}",
    "{% include 'a' %}",
    "{% extends 'a' %}",
    "{% block a %}{% endblock %}",
    "{% with a = 1 %}{% endwith %}",
    "{% filter upper %}a{% endfilter %}",
    "{% autoescape true %}{% endautoescape %}",
    "{% do name %}",
    "{% trans %}a{% endtrans %}",
    "{{ 'a' * 1000000000 }}",
    "{{ 10 ** 1000000000 }}",
    "{{ name + name }}",
    "{{ name ~ name }}",
    "{{ -name }}",
    "{{ {'a': 1} }}",
    "{{ name|center(1000000000) }}",
    "{{ name|indent(1000000000) }}",
    "{{ name|wordwrap(1) }}",
    "{{ name|pprint }}",
    "{{ name|safe }}",
    "{{ name|list }}",
    "{{ name|batch(3) }}",
    "{{ name|upper(x=1) }}",
    "{{ name|upper(*names) }}",
    "{{ name|upper(1) }}",
    "{{ name|replace('a') }}",
    "{{ name|@each(1) }}",
    "{{ name is callable }}",
    "{{ name is divisibleby(0) }}",
    "{{ name[a:b] }}",
    "{{ ａ.__ｃlass__ }}",
    "{{ ﬁ }}",
    "{{ ＿work }}",
]


@pytest.mark.parametrize("source", ESCAPES)
def test_what_no_template_needs_is_refused_when_it_is_read(source: str) -> None:
    with pytest.raises(NotAllowed) as refused:
        Text(source)
    assert refused.value.line == 1


DEEP = 20_000


@pytest.mark.parametrize(
    "source",
    [
        "{{ " + "(" * DEEP + "a" + ")" * DEEP + " }}",
        "{{ " + "[" * DEEP + "a" + "]" * DEEP + " }}",
        "{{ " + "not " * DEEP + "a }}",
        "{{ a" + ".b" * DEEP + " }}",
        "{{ a" + "|upper" * (DEEP // 2) + " }}",
        "{{ a" + " and a" * (DEEP // 2) + " }}",
        "{{ a" + " < a" * DEEP + " }}",
        "{{ a in [" + "1," * DEEP + "] }}",
        "{{ " + "a if a else " * (DEEP // 4) + "a }}",
        "{% if a %}" + "{% elif a %}" * (DEEP // 6) + "{% endif %}",
        "{% if a %}" * 5_000 + "{% endif %}" * 5_000,
        "{{ a }}" * (MOST_NODES + 1),
        "{{ " + "9" * MOST_BYTES + " }}",
        "{%" * (MOST_BYTES // 2),
        "{#" + "a" * MOST_BYTES,
        "{% raw %}" + "{{" * (MOST_BYTES // 4),
    ],
    ids=lambda source: source[:12].strip(),
)
def test_deep_and_broad_texts_are_refused_when_they_are_read(source: str) -> None:
    with pytest.raises(NotAllowed):
        Text(source[: 2 * MOST_BYTES])


BOMBS: list[tuple[str, dict[str, Any], str]] = [
    ("{{ a }}" * 2_000, {"a": LONG}, "prompt_too_long"),
    ("{{ a" + "|upper|lower" * 17 + " }}", {"a": LONG}, "prompt_too_long"),
    ("{{ a|upper|length }}" * 900, {"a": LONG}, "prompt_too_long"),
    ("{{ a|upper }}", {"a": "\u0390" * 900_000}, "prompt_too_long"),
    ("{{ a|replace('x', a) }}", {"a": LONG}, "prompt_too_long"),
    ("{{ a|replace('', 'x') }}", {"a": LONG}, "row_not_rendered"),
    ("{{ a|join(b) }}", {"a": ["x"] * 10_000, "b": LONG}, "prompt_too_long"),
    ("{{ a|tojson }}", {"a": [LONG[:10_000]] * 300}, "prompt_too_long"),
    ("{{ a }}", {"a": [LONG[:10_000]] * 300}, "prompt_too_long"),
    (
        "{% for i in a %}{% for j in a %}x{% endfor %}{% endfor %}",
        {"a": MANY},
        "prompt_too_long",
    ),
    ("{% for i in a %}{% if 'y' in b %}{% endif %}{% endfor %}", {"a": MANY, "b": LONG},
     "prompt_too_long"),
    ("{% for i in a if b in c %}{% endfor %}", {"a": MANY, "b": "y", "c": LONG},
     "prompt_too_long"),
    ("{% for i in a %}{% if b[1:] %}{% endif %}{% endfor %}", {"a": MANY, "b": LONG},
     "prompt_too_long"),
    ("{% for i in a %}{{ b == c }}{% endfor %}",
     {"a": MANY, "b": [LONG[:9_000]] * 20, "c": [LONG[:9_000]] * 20}, "prompt_too_long"),
    ("{% for i in a %}{% endfor %}", {"a": [0] * 10_001}, "prompt_too_long"),
    ("{% for i in a %}{% endfor %}", {"a": "text"}, "row_not_rendered"),
    ("{{ a|round(999999999) }}", {"a": 10**4_000}, "row_not_rendered"),
    ("{{ a|int }}", {"a": "9" * 1_000_000}, "row_not_rendered"),
    ("{{ a|int }}", {"a": "inf"}, "row_not_rendered"),
    ("{{ a < b }}", {"a": "x", "b": 1}, "row_not_rendered"),
    ("{{ a }}", {}, "column_missing"),
    ("{{ a.b }}", {"a": {}}, "column_missing"),
    ("{{ a.items }}", {"a": {}}, "column_missing"),
    ("{{ a.upper }}", {"a": "text"}, "column_missing"),
    ("{{ row['_work'] }}", {}, "column_missing"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "row", "code"), BOMBS, ids=lambda part: str(part)[:24])
def test_a_rendering_is_bounded_by_its_row(source: str, row: dict[str, Any], code: str) -> None:
    text = Text(source)
    tracemalloc.start()
    try:
        with pytest.raises(RowRefused) as refused:
            text.render(row)
        assert tracemalloc.get_traced_memory()[1] < ROOM
    finally:
        tracemalloc.stop()
    assert refused.value.code == code
    assert len(refused.value.message) < 400


@pytest.mark.parametrize(
    ("source", "row", "rendered"),
    [
        ("Hi {{ name }}!", {"name": "Bo"}, "Hi Bo!"),
        ('{{ row["Product name"] }} {{ row.sku }}', {"Product name": "Mug", "sku": 7}, "Mug 7"),
        ('{{ row["_id"] }}', {"_id": "a"}, "a"),
        ("{{ a.b.c[1] }} {{ a.b.c[-1] }} {{ a.b.c[:1] }}", {"a": {"b": {"c": [1, 2, 3]}}},
         "2 3 [1]"),
        ("{% if a %}yes{% elif b %}maybe{% else %}no{% endif %}", {"a": "", "b": 1}, "maybe"),
        ("{{ 'yes' if a == 'x' else 'no' }}", {"a": "x"}, "yes"),
        (
            "{% for each in a if each %}{{ loop.index }}.{{ each }}"
            "{% if not loop.last %}, {% endif %}{% else %}none{% endfor %}",
            {"a": ["p", "", "q"]},
            "1.p, 2.q",
        ),
        ("{% for each in a %}{% else %}none{% endfor %}", {"a": None}, "none"),
        ("{{ a }}|{{ b }}|{{ c }}", {"a": None, "b": True, "c": 1.5}, "|true|1.5"),
        ("{{ a }}", {"a": {"k": ["é", None]}}, '{"k": ["é", null]}'),
        ("{{ a|title }} {{ b|trim|upper }}", {"a": "don't stop", "b": " x "}, "Don't Stop X"),
        ("{{ a|join(' & ') }} {{ a|length }} {{ a|first }} {{ a|last }}", {"a": ["x", "y"]},
         "x & y 2 x y"),
        ("{{ a|truncate(9) }} {{ b|truncate(9) }}", {"a": "one two three", "b": "short"},
         "one two… short"),
        ("{{ a|words(2) }} {{ a|wordcount }}", {"a": "one  two three"}, "one two 3"),
        ("{{ a|default('n/a') }} {{ b|default('n/a', true) }}", {"a": None, "b": ""}, "n/a n/a"),
        ("{{ a|round(2) }} {{ a|int }} {{ b|float }}", {"a": "3.14159", "b": "1,000"},
         "3.14 3 1000.0"),
        ("{{ a|round }} {{ b|replace('-', ' ') }} {{ c|capitalize }}",
         {"a": 2.6, "b": "a-b", "c": "hI"}, "3 a b Hi"),
        ("{% if a is defined and a is string and a in ['x', 'y'] %}ok{% endif %}", {"a": "x"},
         "ok"),
        ("{% raw %}{{ a }}{% endraw %}{# not here #}", {}, "{{ a }}"),
        ("{{ a }}", {"a": "{{ b }}{% for %}"}, "{{ b }}{% for %}"),
        ("{{ a|tojson }}", {"a": 'say "hi"'}, '"say \\"hi\\""'),
    ],
)  # fmt: skip
def test_what_templates_are_for(source: str, row: dict[str, Any], rendered: str) -> None:
    assert Text(source).render(row) == rendered


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("a\n{% if a %}\nb\n{% endif %}\nc", "a\nb\nc"),
        ("a\n  {% if a %}\n  b\n  {% endif %}  \nc", "a\n  b\nc"),
        ("a{% if a %} b{% endif %}\nc", "a b\nc"),
        ("{% if a %}\n\na{% endif %}\n\nc", "a\n\nc"),
        ("{% for i in l %}\n- {{ i }}\n{% endfor %}\nc", "- 1\n- 2\nc"),
        ("{% for i in l %}{{ i }}\n{% endfor %}c", "1\n2\nc"),
        ("a\n{# b\n{% c %}\n #}\nd", "a\nd"),
        ("{% if a %}{% if l %}\nb\n{% endif %}{% endif %}\nc", "b\nc"),
        ("x{% raw %}\n{% if a %}\n{% endraw %}\nc", "x\n{% if a %}\n\nc"),
        ("a {%- if a %}\n b{% endif %}", "a\n b"),
        ("a\n\n{%- if a -%}\n b{% endif %}", "ab"),
        ("{{ a }}\n{{ a }}", "1\n1"),
    ],
)
def test_lines_of_tags_alone_leave_no_line(source: str, rendered: str) -> None:
    assert Text(source).render({"a": 1, "l": [1, 2]}) == rendered


def test_the_line_of_a_mistake_counts_lines_of_tags() -> None:
    with pytest.raises(NotAllowed) as refused:
        Text("{% if a %}\n\n{% endif %}\n{# a\n #}\n{{ a|shout }}")
    assert refused.value.line == 6


def test_the_columns_that_a_text_needs() -> None:
    text = Text(
        '{{ name }}{% for each in features %}{{ each.a }}{{ brand }}{% endfor %}{{ row["Två"] }}'
        "{{ audience.tone }}{{ sources }}"
    )
    assert text.columns == {"name", "features", "brand", "Två"}
    assert text.audience == {"tone"}
    assert text.uses_audience
    assert text.uses_sources


def test_two_renderings_share_nothing() -> None:
    text = Text("{% for each in a %}x{% endfor %}")
    for _ in range(100):  # together they would be over the bound
        assert text.render({"a": MANY[:5_000]}) == "x" * 5_000


@given(st.text(alphabet="{}%#|.[]()'\" abrowlp_in*~-\n", max_size=60))
def test_any_text_is_read_or_refused(source: str) -> None:
    try:
        text = Text(source)
    except NotAllowed:
        return
    with suppress(RowRefused):
        assert len(text.render({"a": "1", "b": ["2"]})) <= MOST_RENDERED
