"""The size rules of the house, measured: short files, short functions, flat code."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

MAX_FILE_LINES = 400
MAX_BODY_LINES = 50
MAX_DEPTH = 3

ROOT = Path(__file__).parents[1]
FOLDERS = ("kasmina_env", "agents", "examples", "tests")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (
    *(ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Match),
    *(ast.Try, ast.TryStar),
)
OWN_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def functions(tree: ast.AST) -> Iterator[FunctionNode]:
    """Every function, nested ones and methods included."""
    return (node for node in ast.walk(tree) if isinstance(node, FunctionNode))


def first_line(statement: ast.stmt) -> int:
    """Where a statement begins, its decorators included."""
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(decorator.lineno for decorator in decorators)])


def body_lines(function: FunctionNode) -> int:
    """Lines from the first statement after the docstring to the last."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return statements[-1].end_lineno - first_line(statements[0]) + 1 if statements else 0


def is_elif(block: ast.AST, child: ast.AST) -> bool:
    """Whether `child` is an `elif`: all of the else branch, and starting where its `if` starts."""
    return (
        isinstance(block, ast.If)
        and isinstance(child, ast.If)
        and block.orelse == [child]
        and child.col_offset == block.col_offset
    )


def depth_inside(node: ast.AST) -> int:
    """How deep blocks are nested below `node`; a function inside a function starts again at 0."""
    depths = [0]
    for child in ast.iter_child_nodes(node):
        if isinstance(child, OWN_SCOPES):
            continue
        adds_level = isinstance(child, BLOCKS) and not is_elif(node, child)
        depths.append(depth_inside(child) + adds_level)
    return max(depths)


def size_problems(source: str) -> list[str]:
    """One sentence for each size rule that `source` breaks."""
    problems = []
    num_lines = len(source.splitlines())
    if num_lines > MAX_FILE_LINES:
        problems.append(f"the file has {num_lines} lines, at most {MAX_FILE_LINES}")
    for function in functions(ast.parse(source)):
        where = f"line {function.lineno}: {function.name}"
        num_body_lines, depth = body_lines(function), depth_inside(function)
        if num_body_lines > MAX_BODY_LINES:
            problems.append(f"{where} has {num_body_lines} body lines, at most {MAX_BODY_LINES}")
        if depth > MAX_DEPTH:
            problems.append(f"{where} nests {depth} deep, at most {MAX_DEPTH}")
    return problems


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_file_keeps_the_size_rules(path):
    assert size_problems(path.read_text(encoding="utf-8")) == []


def test_long_file_is_found():
    assert size_problems("x = 1\n" * MAX_FILE_LINES) == []
    assert "401 lines" in size_problems("x = 1\n" * (MAX_FILE_LINES + 1))[0]


def test_long_body_is_found_and_its_docstring_is_not_counted():
    head = 'def f():\n    """Docstring\n\n    of many lines.\n    """\n'
    assert size_problems(head + "    x = 1\n" * MAX_BODY_LINES) == []
    assert "f has 51 body lines" in size_problems(head + "    x = 1\n" * (MAX_BODY_LINES + 1))[0]


def test_decorators_of_a_nested_function_count_as_its_lines():
    source = "def f():\n    @one\n    @two\n    def g(): ...\n    return g\n"
    assert body_lines(ast.parse(source).body[0]) == 4


NESTED = """
class Host:
    def f(self):
        for x in a:
            with b:
                try:
                    {inner}
                except E:
                    pass
"""


def test_deep_nesting_is_found():
    assert size_problems(NESTED.format(inner="pass")) == []
    assert "f nests 4 deep" in size_problems(NESTED.format(inner="while c: pass"))[0]


def test_nested_function_starts_at_depth_zero():
    inner = "def g():\n                        if a: pass"
    assert size_problems(NESTED.format(inner=inner)) == []


def test_elif_adds_no_depth_but_an_if_in_an_else_does():
    chain = "def f():\n    if a: pass\n    elif b: pass\n    elif c: pass\n    else: pass\n"
    nested = "def f():\n    if a: pass\n    else:\n        if b: pass\n"
    assert depth_inside(ast.parse(chain).body[0]) == 1
    assert depth_inside(ast.parse(nested).body[0]) == 2
