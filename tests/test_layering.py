"""Imports flow one way and never in a circle, and importing the library imports nothing heavy."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "kasmina_env"
# Each folder imports from itself and from folders before it only.
LAYERS = (
    *("lifecycle", "settings", "tasks", "networks", "population", "episode", "envs"),
    *("bench", "controllers", "learning", "comparison", "cli"),
)
WITHOUT_TORCH = ("lifecycle", "settings")
WITHOUT_GYMNASIUM = LAYERS[: LAYERS.index("envs")]
HEAVY = ("torch", "sklearn", "matplotlib", "stable_baselines3", "numba", "ray")


def module_name(path: Path) -> str:
    """`networks/hosts/base.py` is kasmina_env.networks.hosts.base; the `__init__.py` of a package is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(source: str, with_typing: bool = True) -> Iterator[str]:
    """Full names of everything that a module imports, in functions too."""
    for node in ast.walk(ast.parse(source) if with_typing else _without_typing(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _without_typing(source: str) -> ast.AST:
    class Drop(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if ast.unparse(node.test).endswith("TYPE_CHECKING") else self.generic_visit(node)

    return Drop().visit(ast.parse(source))


def layer_problems(source: str, importer: str) -> list[str]:
    """What a module imports against the layers, in words."""
    layer, problems = importer.split(".")[1], []
    for name in imported_names(source):
        top, target = name.split(".")[0], (*name.split("."), "")[1]
        if top == "torch" and layer in WITHOUT_TORCH:
            problems.append(f"{layer} does without torch")
        if top == "gymnasium" and layer in WITHOUT_GYMNASIUM:
            problems.append(f"{layer} does without gymnasium")
        if top in ("agents", "tests", "examples"):
            problems.append(f"the library never imports {top}")
        if top == PACKAGE and target not in LAYERS and target != "__version__":
            problems.append(f"{name}: import from the module that defines the name")
        if top == PACKAGE and target in LAYERS and LAYERS.index(target) > LAYERS.index(layer):
            problems.append(f"{target} comes after {layer}")
    return problems


def path_id(path: Path) -> str:
    """A test id that can be clicked."""
    return path.relative_to(ROOT).as_posix()


LAYERED = sorted(path for path in (ROOT / PACKAGE).rglob("*.py") if path.parent != ROOT / PACKAGE)
SHOWN = sorted(path for folder in ("agents", "examples") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", LAYERED, ids=path_id)
def test_module_imports_from_earlier_layers_only(path):
    assert layer_problems(path.read_text(encoding="utf-8"), module_name(path)) == []


@pytest.mark.parametrize("path", SHOWN, ids=path_id)
def test_agents_and_examples_import_public_names_only(path):
    names = [n for n in imported_names(path.read_text(encoding="utf-8")) if n.split(".")[0] == PACKAGE]
    assert [n for n in names if any(part.startswith("_") for part in n.split("."))] == []


def test_modules_import_in_no_circle():
    sources = {module_name(p): p.read_text(encoding="utf-8") for p in (ROOT / PACKAGE).rglob("*.py")}
    graph = {}
    for module, source in sources.items():
        names = imported_names(source, with_typing=False)
        graph[module] = {n if n in sources else n.rpartition(".")[0] for n in names} & set(sources) - {module}
    graphlib.TopologicalSorter(graph).prepare()  # a CycleError names the circle


def test_importing_the_library_imports_nothing_heavy_and_says_nothing():
    code = f"import {PACKAGE}, sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    run = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")


@pytest.mark.parametrize(
    ("importer", "source", "problem"),
    [
        ("episode.state", "from kasmina_env.envs.env import KasminaEnv", "envs comes after episode"),
        ("networks.costs", "def f():\n    import kasmina_env.population.state", "population comes after networks"),
        ("envs.env", "from kasmina_env import PRESETS", "import from the module that defines the name"),
        ("episode.core", "import gymnasium as gym", "episode does without gymnasium"),
        ("lifecycle.alpha", "from torch import Tensor", "lifecycle does without torch"),
        ("cli.main", "from agents.scripted import Wait", "the library never imports agents"),
    ],
)
def test_planted_import_against_the_layers_is_found(importer, source, problem):
    (found,) = layer_problems(source, f"{PACKAGE}.{importer}")
    assert problem in found
