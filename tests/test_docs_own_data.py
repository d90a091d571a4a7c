"""The page on your own data: its Python runs from top to bottom, and its commands run too, with few steps."""

from __future__ import annotations

import re
from pathlib import Path

from tests.episodes import run_python

PAGE = Path(__file__).parents[1] / "docs" / "your-own-data.md"
PYTHON, COMMANDS = (
    re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for language in ("python", "bash")
)


def test_python_of_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = run_python("\n".join(PYTHON)).splitlines()
    accuracy, *_ = printed[0].split()
    assert float(accuracy) > 0.8
    assert printed[0].endswith("with 1 seed kept")
    assert printed[1] == "setosa virginica"
    assert printed[2] == "{'train': 57, 'inner_valid': 9, 'outer_valid': 9, 'test': 75}"
    assert float(printed[3].removeprefix("first score ")) > 0.8
