"""The layers of the house, walked.

Imports flow one way and never in a circle, and importing the library imports nothing heavy.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = "kasmina_env"
# Each entry, a module or a package, imports from entries before it only.
LAYERS = (
    *("registry", "machine", "alpha", "lifecycle", "config"),
    *(
        "files",
        "shipped",
        "layers",
        "blend",
        "blueprints",
        "hosts",
        "tasks",
        "population",
        "presets",
        "instances",
        "ingredients",
    ),
    *("modes", "view", "actions", "reward", "features", "observation", "governor", "core"),
    *("render", "shell", "vector_env", "env", "sb3", "replay", "bench", "cli"),
)
WITHOUT_TORCH = ("registry", "machine", "alpha", "lifecycle", "config", "files", "shipped")
WITHOUT_GYMNASIUM = LAYERS[: LAYERS.index("shell")]
HEAVY = ("torch", "sklearn", "matplotlib", "stable_baselines3")

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Import:
    """One imported module, or one name imported from it."""

    line: int
    module: str  # absolute, e.g. "kasmina_env.hosts.base"
    name: str  # what `from module import name` names; empty for `import module`
    is_typing_only: bool  # stands under `if TYPE_CHECKING:`

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


def module_name(path: Path) -> str:
    """`hosts/base.py` is kasmina_env.hosts.base; the `__init__.py` of a package is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(node: ast.AST) -> bool:
    """Whether `node` is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def import_nodes(node: ast.AST, is_typing_only: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Every import below `node`, in functions too, and whether only type checkers see it."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node, is_typing_only
    unseen = node.body if is_type_checking(node) else []
    for child in ast.iter_child_nodes(node):
        yield from import_nodes(child, is_typing_only or child in unseen)


def absolute_module(node: ast.ImportFrom, importer: str, is_package: bool) -> str:
    """The module that a `from` statement in `importer` names, its leading dots resolved."""
    if node.level == 0:
        return node.module
    parents = importer.split(".")
    kept = len(parents) - node.level + is_package
    return ".".join([*parents[:kept], *([node.module] if node.module else [])])


def imports_in(source: str, importer: str, is_package: bool = False) -> list[Import]:
    """All imports of the module `importer`, whose text is `source`."""
    found = []
    for node, is_typing_only in import_nodes(ast.parse(source)):
        is_from = isinstance(node, ast.ImportFrom)
        for alias in node.names:
            module = absolute_module(node, importer, is_package) if is_from else alias.name
            found.append(Import(node.lineno, module, alias.name if is_from else "", is_typing_only))
    return found


def layer_of(name: str) -> str:
    """The layer of a full name in the package, e.g. "hosts"; empty for the package itself."""
    return name.removeprefix(PACKAGE).removeprefix(".").split(".")[0]


def layer_problem(imported: Import, layer: str) -> str:
    """What is wrong with `imported` standing in a module of `layer`; empty if nothing is."""
    top = imported.module.split(".")[0]
    target = layer_of(imported.full_name)
    if top == "agents":
        return "the library never imports agents"
    if top == "torch" and layer in WITHOUT_TORCH:
        return f"{layer} does without torch"
    if top == "gymnasium" and layer in WITHOUT_GYMNASIUM:
        return f"{layer} does without gymnasium"
    if top != PACKAGE or target == layer:
        return ""
    if target not in LAYERS:
        return f"{target or PACKAGE} is not a layer; import from the module that defines the name"
    is_earlier = LAYERS.index(target) < LAYERS.index(layer)
    return "" if is_earlier else f"{target} comes after {layer}"


def layer_problems(source: str, importer: str, is_package: bool = False) -> list[str]:
    """One line for each import of a kasmina_env module that the layers forbid."""
    layer = layer_of(importer)
    if layer not in LAYERS:
        return [f"{importer} has no place in LAYERS"]
    imports = imports_in(source, importer, is_package)
    problems = ((imported, layer_problem(imported, layer)) for imported in imports)
    return [f"line {imported.line}: {problem}" for imported, problem in problems if problem]


def private_names(source: str, importer: str) -> list[str]:
    """What a module outside the library imports from it that is not public."""
    return [
        imported.full_name
        for imported in imports_in(source, importer)
        if imported.module.split(".")[0] == PACKAGE
        and any(part.startswith("_") and part[:2] != "__" for part in imported.full_name.split("."))
    ]


def import_graph(sources: dict[str, str], packages: set[str]) -> dict[str, set[str]]:
    """For each module the modules of `sources` that it imports when it runs."""
    graph = {}
    for importer, source in sources.items():
        names = [
            imported.full_name if imported.full_name in sources else imported.module
            for imported in imports_in(source, importer, importer in packages)
            if not imported.is_typing_only
        ]
        graph[importer] = {name for name in names if name in sources}
    return graph


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports, first module repeated at the end; empty if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def files_of(*folders: str) -> list[Path]:
    """The python files below these folders, in a fixed order."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def path_id(path: Path) -> str:
    """A test id that can be clicked."""
    return path.relative_to(ROOT).as_posix()


LAYERED_FILES = [path for path in files_of(PACKAGE) if path != ROOT / PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", LAYERED_FILES, ids=path_id)
def test_module_imports_from_earlier_layers_only(path):
    """R16: contracts never refer back to what implements them."""
    source = path.read_text(encoding="utf-8")
    assert layer_problems(source, module_name(path), path.name == "__init__.py") == []


@pytest.mark.parametrize("path", files_of("agents", "examples"), ids=path_id)
def test_agents_and_examples_import_public_names_only(path):
    assert private_names(path.read_text(encoding="utf-8"), module_name(path)) == []


def test_library_root_never_imports_agents():
    path = ROOT / PACKAGE / "__init__.py"
    source = path.read_text(encoding="utf-8") if path.exists() else ""
    assert "agents" not in {i.module.split(".")[0] for i in imports_in(source, PACKAGE, True)}


def test_modules_import_in_no_circle():
    """R16."""
    paths = files_of(PACKAGE, "agents")
    sources = {module_name(path): path.read_text(encoding="utf-8") for path in paths}
    packages = {module_name(path) for path in paths if path.name == "__init__.py"}
    assert find_cycle(import_graph(sources, packages)) == []


def test_importing_the_library_imports_nothing_heavy_and_says_nothing():
    code = f"import {PACKAGE}, sys; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    run = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")


@pytest.mark.parametrize(
    ("importer", "source", "problem"),
    [
        ("view", "from kasmina_env.core import step", "core comes after view"),
        ("view", "from kasmina_env import core", "core comes after view"),
        ("view", "def f():\n    import kasmina_env.core", "core comes after view"),
        ("view", "if TYPE_CHECKING:\n    from kasmina_env import core", "core comes after view"),
        ("hosts.cnn", "from ..tasks.base import Task", "tasks comes after hosts"),
        ("hosts.cnn", "from .. import tasks", "tasks comes after hosts"),
        ("env", "from kasmina_env import make_config", "import from the module that defines"),
        ("core", "import gymnasium as gym", "core does without gymnasium"),
        ("lifecycle", "from torch import Tensor", "lifecycle does without torch"),
        ("cli", "from agents.policy import rollout", "never imports agents"),
        ("misc", "", "kasmina_env.misc has no place in LAYERS"),
    ],
)
def test_planted_import_against_the_layers_is_found(importer, source, problem):
    (found,) = layer_problems(source, f"{PACKAGE}.{importer}")
    assert problem in found


def test_allowed_imports_are_not_reported():
    source = "import torch\nfrom .base import Host\nfrom kasmina_env.registry import Registry\n"
    assert layer_problems(source, f"{PACKAGE}.hosts.cnn") == []
    assert layer_problems("from .base import Host", f"{PACKAGE}.hosts", is_package=True) == []


def test_planted_private_names_are_found():
    source = "from kasmina_env import _a, __version__\nimport kasmina_env._b\nimport _thread\n"
    assert private_names(source, "agents.train") == ["kasmina_env._a", "kasmina_env._b"]


def test_planted_circle_is_found_unless_only_type_checkers_walk_it():
    sources = {"p": "import p.b", "p.a": "from p import b", "p.b": "def f():\n    import p.a"}
    assert set(find_cycle(import_graph(sources, {"p"}))) == {"p.a", "p.b"}
    sources["p.b"] = "if typing.TYPE_CHECKING:\n    import p.a"
    assert find_cycle(import_graph(sources, {"p"})) == []


def test_name_taken_from_a_package_is_an_import_of_the_package():
    sources = {"p": "from p.a import f", "p.a": "from p import register"}
    assert set(find_cycle(import_graph(sources, {"p"}))) == {"p", "p.a"}
