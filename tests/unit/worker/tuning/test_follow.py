from __future__ import annotations

from pathlib import Path

import pytest

from worker.tuning import follow
from worker.tuning.follow import Garbled, MessageReader
from worker.tuning.messages import MESSAGES, Metrics, Note, Stopped, encode


def append(folder: Path, data: bytes) -> None:
    with (folder / MESSAGES).open("ab") as file:
        file.write(data)


def test_nothing_was_said_yet(tmp_path: Path) -> None:
    assert MessageReader(tmp_path).read() == []


def test_each_message_comes_once_and_in_order(tmp_path: Path) -> None:
    reader = MessageReader(tmp_path)
    append(tmp_path, encode(Note("a")) + encode(Metrics(1, {"train_loss": 0.5})))
    assert reader.read() == [Note("a"), Metrics(1, {"train_loss": 0.5})]
    assert reader.read() == []
    append(tmp_path, encode(Stopped(1)))
    assert reader.read() == [Stopped(1)]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    reader = MessageReader(tmp_path)
    line = encode(Note("später"))
    for place in range(1, len(line)):
        append(tmp_path, line[place - 1 : place])
        assert reader.read() == []
    append(tmp_path, line[-1:])
    assert reader.read() == [Note("später")]


def test_a_long_story_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "READ_BYTES", 50)
    said = [Note(str(number)) for number in range(20)]
    append(tmp_path, b"".join(encode(message) for message in said))
    reader, heard = MessageReader(tmp_path), []
    while messages := reader.read():
        assert len(messages) <= 2
        heard += messages
    assert heard == said


@pytest.mark.parametrize("line", [b"hello\n", b'{"type":"Nobody"}\n', b'{"type":"Stopped"}\n'])
def test_what_is_no_message_is_refused(tmp_path: Path, line: bytes) -> None:
    append(tmp_path, encode(Note("a")) + line)
    with pytest.raises(Garbled):
        MessageReader(tmp_path).read()


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LONGEST_LINE", 100)
    append(tmp_path, b"x" * 101)
    with pytest.raises(Garbled):
        MessageReader(tmp_path).read()


def test_a_line_longer_than_a_piece_comes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reader takes nothing, from a training that has ended, for a death without a word."""
    monkeypatch.setattr(follow, "READ_BYTES", 50)
    append(tmp_path, encode(Note("x" * 200)) + encode(Stopped(1)))
    reader = MessageReader(tmp_path)
    heard = reader.read()
    assert heard[0] == Note("x" * 200)
    assert heard[1:] + reader.read() == [Stopped(1)]
