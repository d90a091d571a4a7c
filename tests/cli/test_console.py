"""What is printed: no cut numbers, no markup, no escape codes where they have no place."""

from __future__ import annotations

import re
import sys

import pytest

from kasmina_env.cli.console import column_widths, note, print_table, say
from kasmina_env.cli.progress import step_counter
from kasmina_env.comparison.results import COLUMNS, NUM_FOR_TERMINALS

ARM = ("instant_per_context ×5", "0.628 [0.612, 0.642]", "+0.025 ± 0.012", "0.98", "105.8%", "76%", "0.905", "+1118%")


def use_terminal(monkeypatch, **environment: str) -> None:
    """Have both streams be a terminal of 80 columns with colours."""
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "80", **environment}.items():
        monkeypatch.setenv(name, value)


def test_no_number_of_a_comparison_is_cut_at_80_columns(monkeypatch, capsys):
    use_terminal(monkeypatch, NO_COLOR="1")
    print_table("Comparison", COLUMNS[:NUM_FOR_TERMINALS], [ARM] * 3)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert all(printed.split().count(word) >= 3 for cell in ARM for word in cell.split())


def test_rows_are_printed_as_lines_where_a_terminal_is_too_narrow(monkeypatch, capsys):
    use_terminal(monkeypatch, COLUMNS="40")
    print_table("Comparison", COLUMNS[:NUM_FOR_TERMINALS], [ARM])
    assert "return: 0.628 [0.612, 0.642]\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "width, widths",
    [(40, [4, 20]), (26, [4, 20]), (15, [4, 9]), (9, [2, 5]), (8, None)],
)
def test_columns_keep_what_they_need_and_share_the_rest(width, widths):
    assert column_widths([["a bc", "de fghij kl mn opqrs"]], width) == widths


def test_a_terminal_gets_colours_and_a_moving_bar(monkeypatch, capsys):
    use_terminal(monkeypatch)
    say("checked", passed=True)
    with step_counter("playing", 10) as on_step:
        on_step(10)
    screen = "".join(capsys.readouterr())
    assert "\x1b[32mok" in screen
    assert "10/10 steps" in screen


@pytest.mark.parametrize("name, value", [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_escape_codes_where_they_are_not_wanted(name, value, monkeypatch, capsys):
    use_terminal(monkeypatch, **{name: value})
    say("checked", passed=True)
    print_table("Title", ("a", "b"), [(1, 2.5)])
    with step_counter("playing", 10) as on_step:
        on_step(10)
    screen = "".join(capsys.readouterr())
    assert "\x1b" not in screen
    assert "playing: 10 of 10 steps" in screen


def test_a_pipe_gets_no_escape_codes(capsys):
    say("checked", passed=True)
    print_table("Title", ("a", "b"), [(1, 2.5)])
    assert not re.search("\x1b", capsys.readouterr().out)


def test_nothing_in_brackets_is_taken_for_markup(capsys):
    text = "pip install 'kasmina-env[onnx]' [bold] :smile: " + "x" * 200
    say(text)
    note(text)
    print_table("[title]", ("[column]",), [("[cell]",)])
    out, err = capsys.readouterr()
    assert out.startswith(f"{text}\n")
    assert err == f"{text}\n"
    assert all(word in out for word in ("[title]", "[column]", "[cell]"))
