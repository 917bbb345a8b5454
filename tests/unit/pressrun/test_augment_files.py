"""The files of ``pressrun augment``: what options and examples become, and how rows are parted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pressrun.augment_files import Parts, Shares, form_of, template_of
from pressrun.exit_codes import CommandError, ExitCode
from shared.productions.template import parse_template
from tests.unit.pressrun.conftest import Run
from tests.unit.pressrun.fake_server import FakeServer

EXAMPLE = {"text": "a", "label": "x"}


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def synthetic(label: str, number: int) -> dict[str, Any]:
    return {"text": f"{label} {number}", "label": label, "metadata": {"synthetic": True}}


@pytest.mark.parametrize(
    ("row", "form"),
    [
        (EXAMPLE, "classification"),
        ({"messages": []}, "chat"),
        ({"prompt": "a", "completion": "b"}, "chat"),
        ({"text": "a"}, "text"),
    ],
    ids=["classification", "messages", "prompt", "text"],
)
def test_the_form_is_that_of_the_first_example(tmp_path: Path, row: Any, form: str) -> None:
    assert form_of(written(tmp_path / "a.jsonl", row)) == form


@pytest.mark.parametrize("content", ["", "\n\n", "[1]\n", '{"tokens": []}\n', '{"text": '])
def test_what_is_no_example_is_wrong_usage(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(CommandError) as error:
        form_of(tmp_path / "a.jsonl")
    assert error.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        ("sport, food", ["sport", "food"]),
        ("sport=50,food=9", {"sport": 50, "food": 9}),
        ("a=b=3,no=1", {"a=b": 3, "no": 1}),
        ('"one, two"=3', {"one, two": 3}),
        ('{{ "=2', {'{{ "': 2}),
    ],
    ids=["list", "counts", "equals-sign", "comma", "quotes"],
)
def test_labels_reach_the_template(said: str, labels: object) -> None:
    rows = 10 if isinstance(labels, list) else None
    text = template_of(
        {"form": "classification", "rows": rows},
        said,
        similar=0.7,
        retries=1,
        sampling={"seed": 3, "max_tokens": None},
    )
    head = parse_template(text).head
    assert head.task is not None
    assert head.task.labels == labels
    assert (head.gates.near_duplicates, head.retries, head.sampling.seed) == (0.7, 1, 3)


@pytest.mark.parametrize(
    ("said", "rows"),
    [("sport=50,food", None), ("sport=many", None), ("=3", None), (None, None), ("sport", None),
     ("sport=3", 3)],
    ids=["one-number", "no-number", "no-label", "nothing", "no-rows", "both"],
)  # fmt: skip
def test_no_number_of_rows_is_wrong_usage(said: str | None, rows: int | None) -> None:
    with pytest.raises(CommandError) as error:
        template_of({"rows": rows}, said, similar=None, retries=None, sampling={})
    assert error.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("share", [0.1, 0.2, 0.29, 0.5])
def test_each_label_gives_its_share(tmp_path: Path, share: float) -> None:
    every = [synthetic(label, number) for number in range(100) for label in "xy"]
    rows = written(tmp_path / "rows.jsonl", *every)
    parts = Parts(tmp_path / "train.jsonl", Shares(share))

    counts = parts.write(rows, tmp_path / "none.jsonl")

    held_out, train = read(tmp_path / "train.held-out.jsonl"), read(tmp_path / "train.jsonl")
    wanted = round(100 * share)
    assert Counter(row["label"] for row in held_out) == {"x": wanted, "y": wanted}
    assert sorted(train + held_out, key=str) == sorted(every, key=str)
    assert counts == {parts.train: len(train), parts.held_out: len(held_out)}


def test_examples_are_told_apart_and_never_held_out(tmp_path: Path) -> None:
    examples = tmp_path / "examples.csv"
    examples.write_text('\ufefftext;label\n"one\nmore";x\ntwo;y\n')
    rows = written(tmp_path / "rows.jsonl", *(synthetic("x", number) for number in range(4)))

    Parts(tmp_path / "t.jsonl", Shares(0.5, with_examples=True)).write(rows, examples)

    first, second, *rest = read(tmp_path / "t.jsonl")
    assert first["text"] == "one\nmore"
    assert first["metadata"] == {"synthetic": False, "example_line": 2}
    assert second["metadata"] == {"synthetic": False, "example_line": 4}
    assert all(row["metadata"]["synthetic"] for row in rest)
    assert len(read(tmp_path / "t.held-out.jsonl")) == len(rest) == 2


def test_a_sidecar_says_what_each_line_is(tmp_path: Path) -> None:
    rows = written(tmp_path / "rows.jsonl", *(synthetic("x", number) for number in range(4)))
    examples = written(tmp_path / "examples.jsonl", EXAMPLE)

    Parts(tmp_path / "t.jsonl", Shares(0.5, with_examples=True, sidecar=True)).write(rows, examples)

    assert all(set(row) == {"text", "label"} for row in read(tmp_path / "t.jsonl"))
    assert read(tmp_path / "t.provenance.jsonl") == [
        {"file": "t.jsonl", "line": 1, "synthetic": False, "example_line": 1},
        {"file": "t.jsonl", "line": 2, "synthetic": True},
        {"file": "t.held-out.jsonl", "line": 1, "synthetic": True},
        {"file": "t.jsonl", "line": 3, "synthetic": True},
        {"file": "t.held-out.jsonl", "line": 2, "synthetic": True},
    ]


@pytest.mark.parametrize(
    "output",
    ["train.csv", "no folder/train.jsonl", "examples.jsonl"],
    ids=["no-jsonl", "no-folder", "the-examples"],
)
def test_an_output_that_can_not_be_is_refused_before_anything_is_written(
    connected: FakeServer, run: Run, output: str
) -> None:
    examples = written(Path("examples.jsonl"), EXAMPLE)
    ended = run("augment", "examples.jsonl", "--rows", "3", "--model", "fake", "-o", output)

    assert ended.code == ExitCode.USAGE
    assert not connected.seen
    assert read(examples) == [EXAMPLE]
