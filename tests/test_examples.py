"""Every example runs, with tiny numbers."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = {
    "engines": {"preset": "Kasmina/Spirals-v0", "sizes": (2,), "repeats": 1},
    "fork_futures": {"horizon": 8, "fork_at": 1},
    "grow_by_hand": {"steps": 6},
    "lowerings": {"networks": 2, "repeats": 1},
    "new_blueprint": {"horizon": 7},
    "ordinary_environment": {"num_envs": 2, "total_timesteps": 48, "episodes": 2},
    "ray_actors": {"preset": "Kasmina/Spirals-v0", "rows": 2, "repeats": 1},
    "take_home": {"horizon": 8, "epochs": 1},
    "told_the_change": {"num_train": 4, "num_test": 2},
}


def run_example(name: str, **arguments: object) -> None:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(**arguments)


@pytest.mark.parametrize("name", TINY)
def test_example_is_short_and_says_what_it_shows(name):
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 60
    assert ast.get_docstring(ast.parse(source))


def test_every_example_is_run_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_example_runs_and_says_what_it_did(name, capsys):
    if name == "ray_actors":
        pytest.importorskip("ray", reason="ray is not installed: pip install 'kasmina-env[ray]'")
    run_example(name, **TINY[name])
    assert capsys.readouterr().out
