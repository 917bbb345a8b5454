"""What is found in a whole upload: counts, warnings, too few of something, and who is to blame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.worker.tuning.data_case import (
    SMALL,
    chats,
    found,
    jsonl,
    judge,
    labelled,
    pictures,
    source,
    spec_of,
    zipped,
)
from worker.tuning.data.examine import examine
from worker.tuning.data.source import Source
from worker.upkeep.assembly import Interrupted


def test_counts_labels_lengths_and_digest() -> None:
    rows = [
        {"text": "word " * (4 * number + 1), "label": "yes" if number % 3 else "no"}
        for number in range(12)
    ]
    training, validation = jsonl(rows), jsonl(rows[:2])
    examined = judge("text_classification", training, validation=validation)
    assert (examined.examples, examined.validation_examples, examined.held_out) == (12, 2, False)
    assert examined.labels == {"no": 4, "yes": 8}
    assert list(examined.labels) == ["no", "yes"]
    assert examined.fields == ("text", "label")
    lengths = [len(row["text"]) for row in rows]
    assert examined.characters == sum(lengths)
    assert examined.tokens == sum(-(-length // 4) for length in lengths)
    assert examined.longest_tokens == -(-max(lengths) // 4)
    assert examined.lengths == [
        {"up_to": 2, "examples": 1},
        {"up_to": 8, "examples": 1},
        {"up_to": 16, "examples": 1},
        {"up_to": 32, "examples": 4},
        {"up_to": 64, "examples": 5},
    ]
    assert examined.bytes == len(training) + len(validation)
    assert examined.digest == hashlib.sha256(training + validation).hexdigest()


def test_a_zip_has_the_digest_of_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    data = zipped(pictures(12))
    path = tmp_path / "an upload"
    path.write_bytes(data)
    local = Source.of_file(path, "data.zip")
    examined = examine("vae", spec_of("vae"), local, None, lambda: False)
    assert (examined.bad_lines, examined.digest) == (0, hashlib.sha256(data).hexdigest())
    assert judge("vae", data, "data.zip").digest == examined.digest


@pytest.mark.parametrize("count", [0, 9])
def test_too_few_examples_are_an_error_of_the_file(count: int) -> None:
    examined = judge("supervised", jsonl(chats(count)))
    assert found(examined) == [(None, "too_few_examples", None)]
    assert f"{count} examples" in examined.errors[0].message
    assert judge("supervised", jsonl(chats(10))).bad_lines == 0


def test_a_classifier_needs_two_labels() -> None:
    assert found(judge("text_classification", jsonl(labelled(["a"])))) == [
        (None, "too_few_labels", None)
    ]
    assert judge("text_classification", jsonl(labelled(["a", "b"]))).bad_lines == 0


def test_bad_lines_are_counted_beyond_those_that_are_kept() -> None:
    data = jsonl(chats()) + b"{\n" * 50
    examined = judge("supervised", data)
    assert (examined.bad_lines, len(examined.errors)) == (50, SMALL.reported)
    assert [error.line for error in examined.errors] == list(range(13, 33))


def test_a_file_has_an_end() -> None:
    examined = judge("supervised", jsonl(chats(40)), limits=replace(SMALL, rows=30))
    assert found(examined) == [(None, "too_many_examples", None)]


def test_labels_have_an_end() -> None:
    rows = labelled([str(n) for n in range(12)])
    examined = judge("text_classification", jsonl(rows), limits=replace(SMALL, labels=10))
    assert found(examined) == [(11, "too_many_labels", "label"), (12, "too_many_labels", "label")]


def test_labels_of_the_validation_file_must_be_known() -> None:
    validation = jsonl([{"text": "a", "label": "good"}, {"text": "b", "label": "odd"}])
    examined = judge("text_classification", jsonl(labelled()), validation=validation)
    assert found(examined) == [(2, "unknown_label", "label")]
    assert examined.errors[0].message.startswith("validation file: ")
    assert "'odd'" in examined.errors[0].message


def test_a_label_that_a_bad_line_may_hide_is_not_called_unknown() -> None:
    data = jsonl(labelled()) + b'{"text": "", "label": "odd"}\n'
    validation = jsonl([{"text": "b", "label": "odd"}])
    examined = judge("text_classification", data, validation=validation)
    assert found(examined) == [(13, "empty_content", "text")]


def test_an_empty_validation_file_is_an_error_of_that_file() -> None:
    examined = judge("supervised", jsonl(chats()), validation=b"\n")
    assert found(examined) == [(None, "too_few_examples", None)]
    assert examined.errors[0].message.startswith("validation file: ")


def test_long_names_do_not_fill_the_report() -> None:
    data = jsonl(chats()) + b'{"messages": [], "%s": 1}\n' % (b"x" * 3_000)
    (error,) = judge("supervised", data).errors
    assert error.param is not None
    assert len(error.param) <= 100
    assert len(error.message) < 300


# --- warnings -----------------------------------------------------------------------------------


def test_repeated_and_shared_examples_are_warnings() -> None:
    rows = chats(12)
    examined = judge("supervised", jsonl([*rows, rows[0], rows[0], rows[1]]))
    assert examined.warnings == ["3 training examples repeat another one"]
    validation = jsonl([rows[3], rows[4], *chats(13)[12:]])
    examined = judge("supervised", jsonl(rows), validation=validation)
    assert examined.warnings == ["2 validation examples are in the training file too"]


def test_pictures_repeat_when_their_bytes_do() -> None:
    members = pictures(12) | {"copy.png": pictures(1)["00.png"]}
    assert judge("vae", zipped(members), "a.zip").warnings == [
        "1 training example repeats another one"
    ]


def test_one_sided_labels_are_a_warning() -> None:
    common = [{"text": f"text {n}", "label": "common"} for n in range(63)]
    rare = [{"text": f"rare {n}", "label": "rare"} for n in range(3)]
    examined = judge("text_classification", jsonl([*common, *rare]))
    assert examined.warnings == ["'common' has over 20 times the examples of 'rare'"]
    assert judge("text_classification", jsonl([*common[:60], *rare])).warnings == []


def test_tokens_outside_of_everything_are_no_imbalance() -> None:
    rows = [{"tokens": ["a"] * 40 + [str(n)], "tags": ["O"] * 40 + ["B-X"]} for n in range(12)]
    assert judge("token_classification", jsonl(rows)).warnings == []


def test_examples_that_will_be_cut_are_a_warning() -> None:
    rows = [*chats(12), {"messages": [{"role": "assistant", "content": "word " * 30}]}]
    method = {
        "type": "supervised",
        "supervised": {"hyperparameters": {"max_length": 16}},
    }
    examined = judge("supervised", jsonl(rows), method=method)
    assert examined.warnings == [
        "1 training example is longer than about 16 tokens, and may be cut"
    ]
    assert judge("supervised", jsonl(rows)).warnings == []


# --- faults that are not the data's -------------------------------------------------------------


def test_it_can_be_interrupted_between_lines_and_between_pieces() -> None:
    answers = iter([False] * 5 + [True] * 100)
    with pytest.raises(Interrupted):
        examine(
            "supervised", spec_of("supervised"), source(jsonl(chats(100))), None,
            lambda: next(answers),
        )  # fmt: skip


def test_a_store_that_fails_is_no_bad_line() -> None:
    def chunks() -> Iterator[bytes]:
        yield jsonl(chats())
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        examine(
            "supervised", spec_of("supervised"), Source("a.jsonl", 9, chunks), None, lambda: False
        )
