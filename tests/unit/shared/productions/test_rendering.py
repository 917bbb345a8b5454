"""From rows to messages: steps, examples, audiences, sources; presets; plans and their seeds."""

from __future__ import annotations

import itertools

import pytest

from shared.errors import InvalidRequest
from shared.productions.choosing import best
from shared.productions.plan import PhaseKind, Place, chat_body, plan_of, seed_of
from shared.productions.presets import PRESETS
from shared.productions.rendering import Renderer, RowRefused, Source
from shared.productions.specs import BestOf, Example
from shared.productions.template import parse_template

CHAIN = parse_template(
    """---
system: You write for {{ audience.name }}.
models: [small, large]
n: 2
sampling: {max_tokens: 80, temperature: 0.5, seed: 3}
steps:
- {name: facts, prompt: "Facts of {{ name }}:", system: Be brief., sampling: {max_tokens: 20}}
- {name: draft, prompt: "Draft: {{ facts }}", model: tiny, schema: {type: string}}
examples:
- {input: {name: Mug, draft: d}, output: Fine mug.}
audiences: [{name: parents}, {name: students}]
schema: {type: object}
---
{{ name }}: {{ draft }}
"""
)


def test_messages_of_every_step() -> None:
    renderer = Renderer(CHAIN)
    row = {"name": "Cup"}
    assert renderer.messages(row, step="facts", audience={"name": "x"}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Facts of Cup:"},
    ]
    assert renderer.messages(row, step="draft", texts={"facts": "round"}) == [
        {"role": "user", "content": "Draft: round"},
    ]
    assert renderer.messages(
        row,
        audience={"name": "parents"},
        examples=[Example(input={"name": "Jug", "draft": "j"}, output="Nice jug.")],
        texts={"draft": "round"},
    ) == [
        {"role": "system", "content": "You write for parents."},
        {"role": "user", "content": "Mug: d"},
        {"role": "assistant", "content": "Fine mug."},
        {"role": "user", "content": "Jug: j"},
        {"role": "assistant", "content": "Nice jug."},
        {"role": "user", "content": "Cup: round"},
    ]


def test_sources_are_written_or_looped_over() -> None:
    template = parse_template(
        "---\ndocuments: {files: [f], query: 'About {{ q }}', not_found: 'No {{ q }}.'}\n---\n"
        "{{ sources }}{% for each in sources %} <{{ each.number }}:{{ each.file }}>{% endfor %}"
        " {{ q }}"
    )
    renderer = Renderer(template)
    sources = [Source(1, "One.", "a.txt"), Source(2, "Two.", "b.txt")]
    [message] = renderer.messages({"q": "tea"}, sources=sources)
    assert message["content"] == "[1] One.\n\n[2] Two. <1:a.txt> <2:b.txt> tea"
    assert renderer.query({"q": "tea"}) == "About tea"
    assert renderer.not_found({"q": "tea"}) == "No tea."
    assert renderer.input_text({"q": "tea", "other": "x"}) == "tea"


def test_an_example_may_bring_an_audience_and_sources_of_its_own() -> None:
    template = parse_template(
        "---\naudiences: [{name: parents}]\ndocuments: {files: [f], query: q}\nexamples:\n"
        "- {input: {q: tea}, output: Hot., audience: {name: students}, sources: [Hot., Dear.]}\n"
        "- {input: {q: ice}, output: Cold.}\n---\n{{ audience.name }}, {{ q }}: {{ sources }}"
    )
    said = Renderer(template).messages(
        {"q": "jam"}, audience={"name": "parents"}, sources=[Source(1, "Sweet.", "a.txt")]
    )
    assert [message["content"] for message in said] == [
        "students, tea: [1] Hot.\n\n[2] Dear.",
        "Hot.",
        "parents, ice: [1] Sweet.",
        "Cold.",
        "parents, jam: [1] Sweet.",
    ]


def test_a_row_may_leave_a_column_out_and_a_prompt_may_not_be_empty() -> None:
    renderer = Renderer(parse_template("{{ name }}{% if brand %} by {{ brand }}{% endif %}"))
    assert renderer.messages({"name": "Cup"})[0]["content"] == "Cup"
    with pytest.raises(RowRefused) as refused:
        renderer.messages({"name": " "})
    assert refused.value.code == "prompt_empty"


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("more", ["", ", columns: [title, product_text], tone: '{{ mood }}'"])
def test_every_preset_renders(name: str, more: str) -> None:
    options = ", language: de" + (", turns: 6" if name == "dialogue" else "")
    template = parse_template(f"---\ntask: {{name: {name}{options}{more}}}\n---\n")
    row = {"text": "A lamp.", "title": "Lamp", "product_text": "It shines.", "mood": "calm"}
    template.check_table(row)
    system, user = Renderer(template).messages(row)
    assert system["content"] == PRESETS[name].system
    assert "German" in user["content"]
    assert template.head.gates.language == "de"
    if more:
        assert user["content"].endswith("Title: Lamp\nProduct text: It shines.")
        assert "The tone is calm." in user["content"]
    else:
        assert user["content"].endswith("\n\nA lamp.")


def test_a_preset_fills_only_what_is_left_out() -> None:
    template = parse_template(
        "---\ntask: {name: summary, words: 30}\nsystem: Mine.\ngates: {max_words: 99}\n---\n{{ a }}"
    )
    assert Renderer(template).messages({"a": "x"}) == [
        {"role": "system", "content": "Mine."},
        {"role": "user", "content": "x"},
    ]
    assert template.head.gates.max_words == 99
    assert parse_template("---\ntask: {name: summary, words: 30}\n---").head.gates.max_words == 45


def test_a_presets_columns_can_not_break_out() -> None:
    with pytest.raises(InvalidRequest) as error:
        parse_template("""---\ntask: {name: summary, columns: ['a"] }}{{ x']}\n---""")
    assert error.value.param == "template.task.columns"


def test_a_plan() -> None:
    plan = plan_of(CHAIN)
    kinds = [(phase.kind, phase.name, phase.model) for phase in plan.phases]
    assert kinds == [
        (PhaseKind.STEP, "step-facts", None),
        (PhaseKind.STEP, "step-draft", "tiny"),
        (PhaseKind.OUTPUT, "output", None),
    ]
    assert (plan.audiences, plan.candidates, plan.kept) == (2, 4, 4)
    places = list(plan.places(7))
    named = [str(place) for place in places]
    assert named[:5] == ["7.0.0.0", "7.0.0.1", "7.0.1.0", "7.0.1.1", "7.1.0.0"]
    assert places == sorted(places)
    facts, _, output = plan.phases
    body = chat_body(facts, [{"role": "user", "content": "x"}], model="small", seed=5)
    assert body == {
        "model": "small", "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 20, "temperature": 0.5, "seed": 5,
    }  # fmt: skip
    assert chat_body(output, [], model="m", seed=5)["response_format"]["json_schema"] == {
        "name": "output", "schema": {"type": "object"}, "strict": True,
    }  # fmt: skip


def test_all_phases() -> None:
    template = parse_template(
        "---\nn: 3\nexamples_from: {file: f}\nbest_of: {model: judge, label: good}\n"
        "documents: {files: [d], query: '{{ q }}'}\n---\n{{ q }}"
    )
    plan = plan_of(template, model="m")
    assert [phase.name for phase in plan.phases] == ["examples", "documents", "output", "score"]
    assert plan.phases[3].endpoint == "/v1/classifications"
    assert plan.kept == 1


def test_seeds_differ_and_stay() -> None:
    assert seed_of(7, "output", Place(1), 0) == 150002660065166
    every = [
        seed_of(seed, phase, place, again)
        for seed, phase, place, again in itertools.product(
            (1, 2), ("output", "step-a"), (Place(1), Place(2), Place(1, 0, 0, 1)), (0, 1)
        )
    ]
    assert len(set(every)) == len(every) == 24
    assert all(0 <= seed < 2**48 for seed in every)


def test_the_best_candidate() -> None:
    texts = ["a b c", "a", "a b c d e", "b"]
    assert best(texts, BestOf(rule="first")) == 0
    assert best(texts, BestOf(rule="longest")) == 2
    assert best(texts, BestOf(rule="shortest")) == 1
    assert best(texts, BestOf(rule="closest_to", words=4)) == 0
    assert best(texts, BestOf(model="m", label="good"), [0.1, 0.9, 0.9, 0.2]) == 1
    assert best(texts, BestOf(rule="likeliest"), [-0.9, -0.2, -5.0, -0.2]) == 1
    with pytest.raises(ValueError, match="one score a text"):
        best(texts, BestOf(rule="likeliest"))
