"""Every row that the review of the prior system left is held by a test that carries its number."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NUM_ROWS = 18


def rows_carried(source: str) -> Iterator[int]:
    """Numbers in the names (`test_r7_...`) and docstrings (`R7.`) of test functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            in_name = re.findall(r"(?<=_)r(\d+)(?=_|$)", node.name)
            in_docstring = re.findall(r"\bR(\d+)\b", ast.get_docstring(node) or "")
            yield from map(int, in_name + in_docstring)


CARRIED = {row for path in sorted(TESTS.rglob("test_*.py")) for row in rows_carried(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("row", range(1, NUM_ROWS + 1))
def test_a_test_carries_the_row(row):
    assert row in CARRIED


def test_only_names_and_docstrings_of_tests_carry_a_row():
    source = (
        'def test_r3_x():\n    """R14, R15: why."""\ndef f():\n    """R1."""\ndef test_y():\n    "no"\n    x = "R2"\n'
    )
    assert sorted(rows_carried(source)) == [3, 14, 15]
