"""Words of strangers are shown on a terminal, and never obeyed by it."""

from __future__ import annotations

import pytest
from rich.console import Group
from rich.text import Text

from pressrun import main
from pressrun.exit_codes import CommandError
from pressrun.terminal import Terminal, table, visible

EVIL = "a\x1b]0;title\x07\x1b[2J\x9b31m\x7f\x08\r\u202eb"
OBEYED = ("\x1b", "\x07", "\x9b", "\x7f", "\x08", "\r", "\u202e")


@pytest.mark.parametrize(
    "shown", [EVIL, Text(EVIL), Group(Text(EVIL)), table(EVIL, rows=[[EVIL], [None]])]
)
def test_what_a_terminal_would_obey_is_made_visible(
    shown: Text, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    terminal.result({}, lambda: shown)
    terminal.note(EVIL)
    written = capsys.readouterr()
    for text in (written.out, written.err):
        assert "]0;title" in text
        assert not [sign for sign in OBEYED if sign in text]


def test_lines_tabs_and_other_scripts_stay() -> None:
    assert visible("a\n\tü 漢字 \u200d👩\u200d🚀") == "a\n\tü 漢字 \u200d👩\u200d🚀"


def test_a_cell_is_as_wide_as_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().result({}, lambda: table("c", rows=[["\x1b[2Jx"]]))
    assert "\N{REPLACEMENT CHARACTER}[2Jx" in capsys.readouterr().out


def test_an_error_that_quotes_a_stranger_is_made_visible(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise CommandError(EVIL)

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit):
        main.main([])
    written = capsys.readouterr().err
    assert "]0;title" in written
    assert not [sign for sign in OBEYED if sign in written]
