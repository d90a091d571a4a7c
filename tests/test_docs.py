"""The pages are right: their Python runs, the commands they name exist, and their links lead somewhere."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from kasmina_env.cli.main import run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXCUSE = re.compile(r"<!-- not run: \S.+ -->")  # on the line before a block, with the reason
STRICT = ("-W", "error", "-W", "ignore::FutureWarning")  # PyTorch's exporters warn of PyTorch's own functions
COMMAND = re.compile(r"\bkasmina ([a-z]+)((?:[^\n`\\|;&]|\\\n)*)")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    line: int  # of its first line of code, from 1
    code: str
    is_excused: bool


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    lines, found, start = page.read_text(encoding="utf-8").splitlines(), [], None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
        else:
            is_excused = start > 0 and EXCUSE.fullmatch(lines[start - 1]) is not None
            code = "\n".join(lines[start + 1 : number])
            found.append(Block(lines[start].removeprefix("```"), start + 2, code, is_excused))
            start = None
    assert start is None, f"{page.name}: the block of line {start + 1} has no end"
    return found


def python_of(page: Path) -> str:
    """The Python of a page as one program in which every line has the number it has on the page."""
    program: list[str] = []
    for block in blocks_of(page):
        if block.language == "python" and not block.is_excused:
            program += [""] * (block.line - 1 - len(program)) + block.code.splitlines()
    return "\n".join(program) + "\n"


def commands_of(page: Path) -> list[tuple[str, tuple[str, ...]]]:
    """Every `kasmina …` in blocks and in the text, with its options."""
    found = COMMAND.findall(page.read_text(encoding="utf-8"))
    return [(command, tuple(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest))) for command, rest in found]


@cache
def help_of(command: str) -> str:
    """What `kasmina COMMAND --help` prints; empty for a command that there is not."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit) as stop:
        run([command, "--help"])
    return "" if stop.value.code else out.getvalue()


@cache
def anchors_of(page: Path) -> set[str]:
    """What may stand behind # in a link to a page: its headings, as GitHub writes them, and its own anchors."""
    text = page.read_text(encoding="utf-8")
    headings = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {heading.replace(" ", "-") for heading in headings} | set(re.findall(r'<a name="([^"]+)">', text))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page).strip()], ids=name_of)
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path):
    program = tmp_path / page.with_suffix(".py").name
    program.write_text(python_of(page), encoding="utf-8")
    played = subprocess.run([sys.executable, *STRICT, program], cwd=tmp_path, capture_output=True, text=True)
    assert played.returncode == 0, f"{name_of(page)}:\n{played.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_on_a_page_exist(page):
    for command, options in commands_of(page):
        described = help_of(command)
        assert described, f"there is no `kasmina {command}`"
        for option in options:
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", described), f"`kasmina {command}` has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_on_a_page_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if "://" not in link:
            assert target.exists(), link
            assert not anchor or anchor in anchors_of(target), link


def test_every_page_and_every_example_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT / "docs") for page in PAGES if page.parent == ROOT / "docs"]
    examples = [Path("..") / path.relative_to(ROOT) for path in (ROOT / "examples").glob("*.py")]
    for path in (*pages, *examples):
        assert path.name == "README.md" or f"]({path.as_posix()})" in index, path
