"""What a recipe finds in its folder: one form for every upload, the same split for a seed."""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.worker.tuning.data_case import (
    chats,
    jsonl,
    labelled,
    picture,
    pictures,
    source,
    spec_of,
    write,
    zipped,
)
from worker.tuning.data.materialise import DataChanged, materialise
from worker.tuning.data.split import held_out_count, hold_out
from worker.upkeep.assembly import Interrupted

# --- the split ----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 5), max_size=60),
    st.floats(0.01, 0.5),
    st.integers(0, 2**31 - 1),
)
def test_every_split_keeps_its_promises(labels: list[int], share: float, seed: int) -> None:
    held = hold_out(labels, share, seed)
    assert held == hold_out(labels, share, seed)
    assert sum(held) == held_out_count(len(labels), share)
    if len(labels) > 1:
        assert 1 <= sum(held) < len(labels)
    sizes = Counter(labels)
    out = Counter(label for label, is_held in zip(labels, held, strict=True) if is_held)
    if len(labels) - len(sizes) >= sum(held):  # there is enough without taking a label's last
        assert all(out[label] < sizes[label] for label in sizes)
        for label, size in sizes.items():
            assert out[label] <= int(size * share) + sum(held) - sum(
                min(n - 1, int(n * share)) for n in sizes.values()
            )


def test_each_label_gives_its_share() -> None:
    labels = [0] * 100 + [1] * 50 + [2] * 10
    held = hold_out(labels, 0.1, 3)
    assert (sum(held[:100]), sum(held[100:150]), sum(held[150:])) == (10, 5, 1)


def test_another_seed_holds_out_others() -> None:
    assert hold_out([0] * 100, 0.1, 1) != hold_out([0] * 100, 0.1, 2)


# --- what is written ----------------------------------------------------------------------------


def test_examples_are_parted_and_none_is_lost(tmp_path: Path) -> None:
    made, train, validate = write("supervised", jsonl(chats(40)), tmp_path, validation_split=0.25)
    assert (made.labels, made.examples, made.validation_examples) == ([], 30, 10)
    questions = [row["messages"][1]["content"] for row in [*train, *validate]]
    assert sorted(questions) == sorted(f"question {n}" for n in range(40))
    again = write("supervised", jsonl(chats(40)), tmp_path / "b", validation_split=0.25)
    assert again == (made, train, validate)
    other = write("supervised", jsonl(chats(40)), tmp_path / "c", validation_split=0.25, seed=8)
    assert other[2] != validate


def test_an_attempt_writes_over_an_earlier_one(tmp_path: Path) -> None:
    write("supervised", jsonl(chats(40)), tmp_path)
    made, train, _ = write("supervised", jsonl(chats(12)), tmp_path)
    assert (made.examples, len(train)) == (11, 11)


def test_labels_are_sorted_and_in_both_parts(tmp_path: Path) -> None:
    rows = labelled(["b", "c", "a"], 60)
    made, train, validate = write("text_classification", jsonl(rows), tmp_path)
    assert made.labels == ["a", "b", "c"]
    assert Counter(row["label"] for row in validate) == {"a": 2, "b": 2, "c": 2}
    assert Counter(row["label"] for row in train) == {"a": 18, "b": 18, "c": 18}


def test_a_validation_file_is_not_mixed_with_the_training_file(tmp_path: Path) -> None:
    data = "".join(f"text {n},{'xy'[n % 2]}\n" for n in range(12))
    validation = jsonl([{"text": "v", "label": "y"}])
    made, train, validate = write(
        "text_classification", f"text,label\n{data}".encode(), tmp_path, "data.csv",
        validation=validation,
    )  # fmt: skip
    assert (made.examples, made.labels) == (12, ["x", "y"])
    assert validate == [{"text": "v", "label": "y"}]
    assert train[0] == {"text": "text 0", "label": "x"}


def test_tags_are_the_labels_of_sentences(tmp_path: Path) -> None:
    text = b"Ada B-PER\nsaw O\nNew B-LOC\nYork I-LOC\n\n" * 10
    made, train, _ = write("token_classification", text, tmp_path, "data.conll")
    assert made.labels == ["B-LOC", "B-PER", "I-LOC", "O"]
    assert train[0]["tokens"] == ["Ada", "saw", "New", "York"]


def test_preferences_are_messages(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "chosen": "yes", "rejected": "no"} for n in range(10)]
    _, train, validate = write("dpo", jsonl(rows), tmp_path)
    assert len(validate) == 1
    assert train[0]["chosen"] == [{"role": "assistant", "content": "yes"}]


def images_of(folder: Path, rows: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """The colour of each picture, which must be a plain PNG."""
    from PIL import Image

    colours = []
    for row in rows:
        with Image.open(folder / "data" / row["image"]) as written:
            assert (written.format, written.mode) == ("PNG", "RGB")
            pixel = written.getpixel((0, 0))
            assert isinstance(pixel, tuple)
            colours.append((int(pixel[0]), int(pixel[1]), int(pixel[2])))
    return colours


def test_pictures_of_a_zip_keep_their_labels(tmp_path: Path) -> None:
    members = {f"{'ab'[n % 2]}/{n:02}.png": picture(n) for n in range(20)}
    made, train, validate = write("gan", zipped(members), tmp_path, "data.zip")
    assert (made.labels, len(train), len(validate)) == (["a", "b"], 18, 2)
    rows = [*train, *validate]
    assert sorted(row["image"] for row in rows) == [f"images/{n:06}.png" for n in range(1, 21)]
    for (red, _, number), row in zip(images_of(tmp_path, rows), rows, strict=True):
        assert red == number * 37 % 256
        assert row["label"] == "ab"[number % 2]


def test_pictures_without_labels_say_so(tmp_path: Path) -> None:
    made, train, _ = write("vae", zipped(pictures(10)), tmp_path, "data.zip")
    assert made.labels == []
    assert {row["label"] for row in train} == {None}


def test_pictures_of_lines_keep_their_captions(tmp_path: Path) -> None:
    def url(number: int) -> str:
        return "data:image/png;base64," + base64.b64encode(picture(number)).decode()

    rows = [{"image": url(n), "text": f" {n} "} for n in range(10)]
    _, train, validate = write("text_to_image", jsonl(rows), tmp_path)
    written = [*train, *validate]
    assert list(train[0]) == ["image", "caption"]
    assert [row["caption"] for row in written] == [
        str(colour[2]) for colour in images_of(tmp_path, written)
    ]


# --- what goes wrong ----------------------------------------------------------------------------


def test_data_that_changed_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(DataChanged, match="line 13") as changed:
        write("supervised", jsonl(chats(12)) + b"{\n", tmp_path)
    assert changed.value.code == "invalid_training_file"
    with pytest.raises(DataChanged, match=r"01\.png"):
        write("vae", zipped(pictures(10) | {"01.png": picture()[:45]}), tmp_path, "data.zip")
    with pytest.raises(DataChanged, match="too few"):
        write("supervised", jsonl(chats(1)), tmp_path)


def test_it_can_be_interrupted(tmp_path: Path) -> None:
    answers = iter([False] * 30 + [True] * 100)
    with pytest.raises(Interrupted):
        materialise(
            "supervised", spec_of("supervised"), source(jsonl(chats(100))), None, tmp_path, 1,
            interrupted=lambda: next(answers),
        )  # fmt: skip
