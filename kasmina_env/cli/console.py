"""What commands say: results to stdout, everything else to stderr, plain text where nobody looks at a terminal."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH_OF_FILES = 130  # columns of a table that goes into a file or a pipe
GAP = 2  # columns between two cells


def is_plain(for_errors: bool = False) -> bool:
    """Whether escape codes have no place: in files and pipes, and where NO_COLOR is set (https://no-color.org)."""
    stream = sys.stderr if for_errors else sys.stdout
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not stream.isatty()


def console(for_errors: bool = False) -> Console:
    """Console of stdout or stderr as they are now. It prints text as it is: nothing in brackets is markup."""
    stream, plain = (sys.stderr if for_errors else sys.stdout), is_plain(for_errors)
    is_sized = stream.isatty() or "COLUMNS" in os.environ
    return Console(
        file=stream,
        color_system=None if plain else "auto",
        force_terminal=False if plain else None,
        width=None if is_sized else WIDTH_OF_FILES,
        markup=False,
        highlight=False,
        emoji=False,
    )


def say(text: str = "", passed: bool = False) -> None:
    """Print a result, behind a green "ok" if something was checked and passed."""
    mark = [("ok  ", "green")] if passed else []
    console().print(Text.assemble(*mark, text), soft_wrap=True)


def note(text: str) -> None:
    """Print what is good to know but no result, to stderr."""
    console(for_errors=True).print(text, soft_wrap=True)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under a title.

    Cells wrap between words, so that no number is ever cut in two. Where even that leaves a terminal too narrow, each
    row is printed as lines of its own.
    """
    cells = [[_in_words(cell) for cell in row] for row in rows]
    out = console()
    widths = column_widths([columns, *cells], out.width)
    out.print(Text(title, style="bold"))
    if widths is None:
        for row in cells:
            out.print("\n".join(f"{name}: {cell}" for name, cell in zip(columns, row, strict=True)) + "\n")
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width)
    for row in cells:
        table.add_row(*row)
    out.print(table)
    out.print()


def column_widths(lines: Sequence[Sequence[str]], width: int) -> list[int] | None:
    """Widths in which all lines of cells fit a table; None if some word would have to be cut.

    Columns that need little keep all of it; the others share what is left.

    Args:
        lines: Header and rows, C cells each.
        width: Columns of the terminal.
    """
    columns = list(zip(*lines, strict=True))
    natural = [max(len(cell) for cell in column) for column in columns]
    least = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    room = width - GAP * (len(columns) - 1)
    if sum(least) > room:
        return None
    share = room
    while sum(wanted := [max(low, min(full, share)) for low, full in zip(least, natural, strict=True)]) > room:
        share -= 1
    return wanted


def _in_words(value: object) -> str:
    """A cell: a range from a pair, a list of choices, or menus by name, as people read them."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return " to ".join(map(_in_words, value))
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_in_words(choices)}" for name, choices in value.items())
    return "" if value is None else str(value)


def print_json(document: object) -> None:
    """Print plain data for other programs; numbers that JSON does not have become null."""
    say(json.dumps(_with_null(document), indent=2, allow_nan=False))


def _with_null(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _with_null(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_with_null(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
