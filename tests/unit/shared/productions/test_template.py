"""Templates: what a file says, and what is wrong with one, by key and line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest, UnsupportedParameter
from shared.productions.specs import AudienceFile, TemplateHead
from shared.productions.template import MOST_BYTES, Template, parse_template


def template(head: str, body: str = "About {{ name }}.") -> Template:
    return parse_template(f"---\n{head}\n---\n{body}")


def refused(head: str, body: str = "About {{ name }}.") -> InvalidRequest:
    with pytest.raises(InvalidRequest) as error:
        template(head, body)
    return error.value


def test_a_body_alone_is_a_template() -> None:
    found = parse_template("Write about {{ name }}\n---\nand {{ brand }}")
    assert found.columns() == {"name", "brand"}
    assert found.head.n == 1
    assert found.head.retries == 2
    assert found.texts["body"].source == "Write about {{ name }}\n---\nand {{ brand }}"


def test_everything_at_once() -> None:
    found = parse_template(
        "\ufeff---\r\n"
        "system: You write for {{ audience.name }}, {{ audience.tone }}.\r\n"
        "models: [small, large]\r\n"
        "n: 2\r\n"
        "best_of: {rule: closest_to, words: 40}\r\n"
        "sampling: {max_tokens: 80, temperature: 0.7, seed: 7}\r\n"
        "steps:\r\n"
        "- {name: facts, prompt: 'List facts of {{ name }}.'}\r\n"
        "- {name: draft, prompt: 'Write. {{ facts }} {{ style }}', model: tiny}\r\n"
        "audiences:\r\n"
        "- {name: parents, tone: warm}\r\n"
        "- {name: students, tone: brief}\r\n"
        "gates: {max_words: 60, required: ['{{ brand }}'], near_duplicates: 0.9}\r\n"
        "---\r\n"
        "Improve: {{ draft }}\r\n"
    )
    assert found.columns() == {"name", "style", "brand"}
    assert found.audience_columns() == {"name", "tone"}
    assert found.models() == ("small", "large")
    found.check_table(["name", "style", "brand", "price"])


@pytest.mark.parametrize(
    ("head", "line", "param"),
    [
        ("n: 3\nm: 4", 3, "template.m"),
        ("n: 0", 2, "template.n"),
        ("n: 17", 2, "template.n"),
        ("n: three", 2, "template.n"),
        ("n: 2\n\n\nretries: 6", 5, "template.retries"),
        ("gates:\n  max_words: -1", 3, "template.gates.max_words"),
        ("gates:\n  min_words: 9\n  max_words: 3", 2, "template.gates"),
        ("gates:\n  words: 3", 3, "template.gates.words"),
        ("gates:\n  language: xx", 3, "template.gates.language"),
        ("gates:\n  near_duplicates: 0.2", 3, "template.gates.near_duplicates"),
        ("gates:\n  cites_sources: true", 3, "template.gates.cites_sources"),
        ("gates:\n  known_numbers: 1", 3, "template.gates.known_numbers"),
        ("examples:\n- {input: {a: x}, output: y, sources: [z]}", 3,
         "template.examples[0].sources"),
        ("examples:\n- {input: {a: x}, output: y, audience: {name: z}}", 3,
         "template.examples[0].audience"),
        ("gates:\n  required:\n  - a\n  - '{{ x'", 5, "template.gates.required[1]"),
        ("model: a\nmodels: [b]", 2, "template"),
        ("models: [a, a]", 2, "template"),
        ("best_of: {rule: longest}", 2, "template.best_of"),
        ("n: 2\nbest_of: {rule: closest_to}", 3, "template.best_of"),
        ("n: 2\nbest_of: {rule: longest, model: m}", 3, "template.best_of"),
        ("n: 2\nbest_of: {model: m}", 3, "template.best_of"),
        ("steps:\n- name: a\n  prompt: '{{ b.__class__ }}'", 4, "template.steps[0].prompt"),
        ("steps:\n- name: A b\n  prompt: x", 3, "template.steps[0].name"),
        ("steps:\n- name: a\n  prompt: x\n- name: a\n  prompt: x", 5, "template.steps[1].name"),
        ("steps:\n- name: row\n  prompt: x", 3, "template.steps[0].name"),
        ("steps:\n- {name: a, prompt: '{{ b }}'}\n- {name: b, prompt: x}", 3,
         "template.steps[0].prompt"),
        ("steps:\n- name: a", 3, "template.steps[0].prompt"),
        ("examples:\n- input: {brand: x}\n  output: y", 3, "template.examples[0].input"),
        ("examples:\n- input: {name: x}", 3, "template.examples[0].output"),
        ("schema: {type: objekt}", 2, "template.schema.type"),
        ("steps:\n- name: a\n  prompt: x\n  schema: {$ref: 'http://example.com/s'}", 5,
         "template.steps[0].schema.$ref"),
        ("task: poem", 2, "template.task.name"),
        ("task: {name: summary, turns: 3}", 2, "template.task.turns"),
        ("task: translation", 2, "template.task.language"),
        ("a: 1\na: 2", 3, "template"),
        ("a: &b 1", 2, "template"),
        ("a: *b", 2, "template"),
        ("a: !!python/object/apply:os.system [x]", 2, "template"),
        ("? [a]\n: b", 2, "template"),
        ("- a", 2, "template"),
        ("a: 'b", 3, "template"),
        ("system: ''", 2, "template.system"),
        ("sampling: {temperature: 3}", 2, "template.sampling.temperature"),
        ("sampling: {top_k: 3}", 2, "template.sampling.top_k"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_line_and_key(head: str, line: int, param: str) -> None:
    error = refused(head)
    assert error.param == param
    assert error.message.startswith(f"line {line}: ")


def test_an_unknown_key_has_a_code_of_its_own() -> None:
    assert isinstance(refused("colour: red"), UnsupportedParameter)


@pytest.mark.parametrize(
    ("head", "param"),
    [
        ("audiences: []", "template.audiences"),
        ("audiences: [{tone: x}]", "template.audiences[0]"),
        ("audiences: [{name: 3}]", "template.audiences[0].name"),
        ("audiences: [{name: a}, {name: a}]", "template.audiences[1].name"),
        ("audiences: {file: x, path: y}", "template.audiences.path"),
        ("audiences: x", "template.audiences"),
        (
            "audiences: [{name: a}]\nexamples:\n- {input: {name: x}, output: y, audience: {b: z}}",
            "template.examples[0].audience",
        ),
    ],
)
def test_audiences_are_named_too(head: str, param: str) -> None:
    assert refused(head).param == param


def test_audiences_may_be_a_file() -> None:
    found = template("audiences: {file: file-a}", "For {{ audience.name }}, {{ audience.tone }}")
    assert isinstance(found.head.audiences, AudienceFile)
    with pytest.raises(InvalidRequest, match="it has no 'tone'"):
        found.check_audience({"name": "x"}, "audiences[0]")


@pytest.mark.parametrize(
    ("head", "body", "param"),
    [
        ("n: 2", "{{ audience.name }}", "template.body"),
        ("n: 2", "{{ sources }}", "template.body"),
        ("documents: {files: [f], query: '{{ sources }}'}", "x", "template.documents.query"),
        ("steps: [{name: a, prompt: b}]\ngates: {required: ['{{ a }}']}", "x",
         "template.gates.required[0]"),
        ("n: 2", "  \n", "template.body"),
    ],
)  # fmt: skip
def test_what_is_used_must_be_there(head: str, body: str, param: str) -> None:
    assert refused(head, body).param == param


def test_a_mistake_in_the_body_has_the_files_line() -> None:
    assert refused("n: 2", "one\n\n{{ name|shout }}").message.startswith("line 6: body: ")
    assert refused("n: 2", "{% if name %}").param == "template.body"


def test_a_head_without_an_end() -> None:
    with pytest.raises(InvalidRequest, match="no second '---'"):
        parse_template("---\nn: 2\n")


def test_words_of_yaml_are_what_they_look_like() -> None:
    found = template(
        "examples:\n"
        "- input: {name: no, time: 12:30, day: 2026-01-01, zip: 01234, on: yes, e: 1e3}\n"
        "  output: off"
    )
    values: dict[str, Any] = found.head.examples[0].input
    assert values == {
        "name": "no", "time": "12:30", "day": "2026-01-01", "zip": "01234", "on": "yes",
        "e": 1000.0,
    }  # fmt: skip
    assert found.head.examples[0].output == "off"


def test_the_table_must_have_the_columns_and_no_clash() -> None:
    found = template("n: 2\nsteps: [{name: draft, prompt: x}]", "{{ name }} {{ draft }}")
    found.check_table(["name"])
    for columns, param in (
        (["title"], "name"),
        (["name", "output"], "output"),
        (["name", "reason"], "reason"),
        (["name", "draft"], "draft"),
    ):
        with pytest.raises(InvalidRequest) as error:
            found.check_table(columns)
        assert error.value.param == param
    found.check_table(["name", "model", "audience", "sources"])  # not added here


HEADS = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text("a{}%' \n", max_size=8)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from([*TemplateHead.model_fields, "name", "prompt", "file", "words", "x"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(list(TemplateHead.model_fields)), HEADS, max_size=4))
def test_any_head_is_read_or_refused(values: dict[str, Any]) -> None:
    try:
        template(json.dumps(values).replace("json_schema", "schema"))
    except InvalidRequest as error:
        said, param = error.message, error.param
    else:
        return
    assert said
    assert (param or "").startswith("template")


@given(st.text("abn: -[]{}'\"\n#&*!|>%?,", max_size=60))
def test_any_text_between_the_lines_is_read_or_refused(head: str) -> None:
    try:
        template(head)
    except InvalidRequest as error:
        said = error.message
    else:
        return
    assert said.startswith("line ")


def test_bounds() -> None:
    parse_template("x" * MOST_BYTES)
    with pytest.raises(InvalidRequest, match="at most 262144 bytes"):
        parse_template("x" * (MOST_BYTES + 1))
    with pytest.raises(InvalidRequest, match="at most 262144 bytes"):
        parse_template("é" * (MOST_BYTES // 2 + 1))
    assert "more than 32 deep" in refused("a: " + "[" * 1_000).message
    assert "more than 20000 values" in refused("\n".join(f"k{n}: 1" for n in range(20_001))).message


def test_no_model_is_named() -> None:
    found = template("n: 2")
    with pytest.raises(InvalidRequest) as error:
        found.models()
    assert error.value.param == "model"
    assert found.models("m") == ("m",)
