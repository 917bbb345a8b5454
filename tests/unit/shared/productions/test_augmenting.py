"""Rows of productions that make training data: how many, with which examples, and why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidRequest
from shared.productions.augmenting import COLUMNS, Augmenter, Seed, augmenting, seed_of_row
from shared.productions.augmenting_hints import TOPICS, WRITERS
from shared.productions.rendering import Renderer
from shared.productions.specs import Task
from shared.productions.template import Template, parse_template

TURN = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]


def seeds(**counts: int) -> list[Seed]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [Seed(line, f"text {line} here", label) for line, label in enumerate(labels, 1)]


def task(**keys: Any) -> Task:
    return Task.model_validate({"name": "augment", "form": "classification", **keys})


def rows(found: Sequence[Seed], seed: int = 1, **keys: Any) -> list[dict[str, Any]]:
    made = list(Augmenter(task(**keys), found, seed).rows())
    assert [row.number for row in made] == list(range(1, len(made) + 1))
    return [row.values for row in made]


@given(
    counts=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 9), min_size=1),
    wanted=st.integers(1, 60),
    shown=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_labels_are_balanced_and_examples_shown_alike(
    counts: dict[str, int], wanted: int, shown: int, seed: int
) -> None:
    found = seeds(**counts)
    made = rows(found, seed, rows=wanted, examples=shown)

    by_label = Counter(row["label"] for row in made)
    assert sum(by_label.values()) == wanted
    assert max(by_label.values()) - min(by_label[label] for label in counts) <= 1
    for label, there in counts.items():
        mine = [row for row in made if row["label"] == label]
        lines = {seed.line for seed in found if seed.label == label}
        uses = Counter(line for row in mine for line in row["seeds"])
        assert set(uses) <= lines
        assert all(len(set(row["seeds"])) == min(shown, there) for row in mine)
        # A round shows each equally often; within one, none more than `shown` times.
        assert max(uses.values(), default=0) - min(uses[line] for line in lines) <= shown
    assert made == rows(found, seed, rows=wanted, examples=shown)


def test_rows_of_a_label_have_prompts_of_their_own() -> None:
    made = rows(seeds(a=3), rows=200)
    hints = {(row["topic"], row["writer"]) for row in made}
    assert len(hints) == 200 <= len(TOPICS) * len(WRITERS)
    assert len({*TOPICS}) == len(TOPICS)
    assert len({*WRITERS}) == len(WRITERS)
    assert tuple(made[0]) == COLUMNS


def test_other_seeds_show_other_examples() -> None:
    found = seeds(a=8, b=8)
    assert rows(found, 1, rows=10) != rows(found, 2, rows=10)


def test_labels_get_the_numbers_that_they_were_given() -> None:
    made = rows(seeds(a=2, b=2, c=2), labels={"c": 3, "a": 1, "b": 0})
    assert [row["label"] for row in made] == ["c", "a", "c", "c"]


def test_labels_are_those_that_were_listed() -> None:
    made = rows(seeds(a=2, b=2, c=2), rows=5, labels=["c", "a"])
    assert [row["label"] for row in made] == ["c", "a", "c", "a", "c"]


@pytest.mark.parametrize(
    ("found", "keys", "param"),
    [
        ([], {"rows": 3}, "data_file_id"),
        (seeds(a=1), {"rows": 3, "labels": ["b"]}, "template.task.labels"),
        (seeds(a=1), {"labels": {"a": 1, "b": 0}}, "template.task.labels"),
    ],
    ids=["no-examples", "no-example-of-a-label", "not-even-of-none"],
)
def test_examples_that_will_not_do(found: list[Seed], keys: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        Augmenter(task(**keys), found, 1)
    assert error.value.param == param


@pytest.mark.parametrize(
    ("row", "form", "seed"),
    [
        ({"text": " a ", "label": 3}, "classification", Seed(7, "a", "3")),
        ({"text": "a"}, "text", Seed(7, "a")),
        ({"prompt": "q", "completion": " a"}, "chat", Seed(7, "a", asked="q")),
        ({"messages": TURN}, "chat", Seed(7, "So.", asked="Why?")),
        (
            {
                "messages": [
                    {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                    *TURN,
                ]
            },
            "chat",
            Seed(7, "So.", asked="Why?", system="Be brief."),
        ),
    ],
    ids=["label", "text", "prompt", "messages", "system"],
)
def test_lines_of_training_files_are_examples(row: dict[str, Any], form: str, seed: Seed) -> None:
    assert seed_of_row(row, form, 7) == seed


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"text": "a"}, "classification"),
        ({"text": " ", "label": "x"}, "classification"),
        ({"messages": TURN}, "text"),
        ({"text": "a"}, "chat"),
        ({"messages": TURN + TURN}, "chat"),
        ({"messages": ["hello"]}, "chat"),
        ({"messages": [{"role": "system", "content": 3}]}, "chat"),
        ({"tokens": ["a"], "tags": ["O"]}, "classification"),
    ],
    ids=["no-label", "empty", "messages", "no-chat", "turns", "texts", "system", "tokens"],
)
def test_other_lines_are_refused_by_number(row: dict[str, Any], form: str) -> None:
    with pytest.raises(InvalidRequest, match="line 7: "):
        seed_of_row(row, form, 7)


# --- the preset ---------------------------------------------------------------------------------


def preset(task: str, head: str = "", body: str = "") -> Template:
    return parse_template(f"---\ntask: {task}\n{head}\n---\n{body}")


@pytest.mark.parametrize("form", ["classification", "chat", "text"])
def test_a_prompt_shows_examples_and_hints(form: str) -> None:
    found = [Seed(1, "First {{ text }}", "a" if form == "classification" else None)]
    if form == "chat":
        found = [Seed(1, "First {{ text }}", asked="Why?", system="Be brief.")]
    template = preset(f"{{name: augment, form: {form}, rows: 3, language: de, tone: dry}}")
    template.check_table(COLUMNS)
    [row, *_] = Augmenter(task(form=form, rows=1), found, 1).rows()

    _, asked, shown, last = Renderer(template).messages(row.values)

    assert [each["role"] for each in (asked, shown, last)] == ["user", "assistant", "user"]
    assert "First {{ text }}" in shown["content"]
    for part in (row.values["topic"], row.values["writer"]):
        assert part in last["content"]
        assert part not in asked["content"]
    for part in ("German", "dry"):
        assert part in last["content"]
        assert part in asked["content"]
    assert ("Be brief." in last["content"]) == (form == "chat")


def test_a_body_may_show_the_examples_itself() -> None:
    template = preset("{name: augment, rows: 3, hints: false}", body="Like {{ shots|join(', ') }}")
    [row, *_] = Augmenter(task(rows=1, hints=False), seeds(a=1), 1).rows()

    assert [each["content"] for each in Renderer(template).messages(row.values)[1:]] == [
        "Like text 1 here"
    ]
    assert (row.values["topic"], row.values["writer"]) == (None, None)


def test_what_the_template_says_comes_first() -> None:
    template = preset(
        "{name: augment, rows: 3}",
        "retries: 1\nsystem: Be brief.\ngates: {near_duplicates: 0.9}\nsampling: {temperature: 0}",
        "Like {{ shots[0] }}",
    )
    head = template.head
    assert (head.retries, head.gates.near_duplicates, head.sampling.temperature) == (1, 0.9, 0)
    assert (head.system, template.texts["body"].source) == ("Be brief.", "Like {{ shots[0] }}")
    plain = preset("{name: augment, rows: 3}").head
    assert (plain.retries, plain.gates.near_duplicates) == (5, 0.6)
    found = augmenting(plain)
    assert found is not None
    assert found.form == "classification"
    assert augmenting(preset("summary").head) is None


@pytest.mark.parametrize(
    ("task", "head", "param"),
    [
        ("augment", "", "task.rows"),
        ("{name: augment, rows: 3, labels: {a: 1}}", "", "task.rows"),
        ("{name: augment, labels: {a: 0}}", "", "task.labels"),
        ("{name: augment, labels: {a: many}}", "", "task.labels.a"),
        ("{name: augment, labels: a}", "", "task.labels"),
        ("{name: augment, rows: 3, form: chat, labels: [a]}", "", "task.labels"),
        ("{name: augment, rows: 3, words: 9}", "", "task.words"),
        ("{name: augment, rows: 3, columns: [text]}", "", "task.columns"),
        ("{name: summary, rows: 3}", "", "task.rows"),
        ("{name: augment, rows: 3}", "n: 2", "n"),
        ("{name: augment, rows: 3}", "models: [a, b]", "models"),
        ("{name: augment, rows: 3}", "schema: {type: object}", "schema"),
    ],
)
def test_what_does_not_go_together_is_refused(task: str, head: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        preset(task, head)
    assert error.value.param == f"template.{param}"
