"""What a user registers is known to every command: `--import MODULE`, `--import FILE`, `MODULE:ID`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gymnasium
import pytest

from kasmina_env.comparison import arms  # noqa: F401 - registers the controls
from kasmina_env.controllers.policy import CONTROLS
from kasmina_env.networks.hosts import HOSTS
from kasmina_env.settings.imports import import_file, import_words
from kasmina_env.settings.presets import PRESETS
from tests.cli.running import complaint, said

MINE = """
from kasmina_env import PRESETS, register_environment

spirals = PRESETS.get("Kasmina/Spirals-v0").settings
register_environment("Mine/Short-v0", "Spirals for the impatient", **{**spirals, "horizon": 7})
"""
MY_HOST = """
from kasmina_env import PRESETS, register_environment, register_host
from kasmina_env.networks.hosts.mlp import MLPHost

register_host("mine")(MLPHost)
spirals = PRESETS.get("Kasmina/Spirals-v0").settings
register_environment("Mine/Host-v0", "Spirals with another name of its host", **{**spirals, "host": "mine"})
"""
LAZY = """
import numpy as np
from kasmina_env import Policy, register_policy

@register_policy("lazy", "does nothing")
class Lazy(Policy):
    def __init__(self, problem):
        pass

    def act(self, observation, mask):
        return np.zeros(len(mask), dtype=np.int64)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a module of a user's in it; nothing it does outlives the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for registry in (PRESETS, CONTROLS, HOSTS):
        monkeypatch.setattr(registry, "_infos", dict(registry._infos))
    monkeypatch.setattr(gymnasium.envs.registration, "registry", gymnasium.registry.copy())
    before = set(sys.modules)
    (tmp_path / "my_problems.py").write_text(MINE)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["my_problems", "my_problems.py", "./my_problems.py"])
def test_what_a_module_registers_is_listed(name, folder, capsys):
    assert "Mine/Short-v0 7 comes with the package" in said(capsys, "list", "--import", name)


@pytest.mark.parametrize("module", ["my_problems", "my_problems.py"])
def test_an_id_may_name_its_module(module, folder, capsys):
    assert "An episode is 7 steps" in said(capsys, "describe", f"{module}:Mine/Short-v0")


def test_a_problem_of_ones_own_is_played(folder, capsys):
    words = ("rollout", "Mine/Short-v0", "--policy", "wait", "--every", "7", "--import", "my_problems")
    assert "step 6/7" in said(capsys, *words)


@pytest.mark.parametrize("words", [["Mine/Host-v0", "--import", "my_host.py"], ["my_host.py:Mine/Host-v0"]], ids=str)
def test_what_a_module_registers_is_known_to_workers_too(words, folder, capsys):
    write(folder / "my_host.py", MY_HOST)
    assert "Trained." in said(capsys, "train", *words, "--steps", "64", "--workers", "2")


def test_several_modules_are_imported_in_their_order_and_named_in_what_to_type(folder, capsys):
    write(folder / "second.py", "import sys; assert 'my_problems' in sys.modules")
    said(capsys, "list", "--import", "my_problems", "--import", "second.py")
    assert import_words() == " --import my_problems --import second.py"
    said(capsys, "list")
    assert import_words() == ""


def test_a_file_is_imported_once_under_its_name_and_finds_its_neighbours(folder):
    write(folder / "agents" / "neighbour_of_mine.py", "VALUE = 5")
    path = write(folder / "agents" / "mine.py", "from neighbour_of_mine import VALUE")
    module = import_file(path)
    assert (module.__name__, module.VALUE) == ("mine", 5)
    assert import_file(Path("agents/../agents/mine.py")) is module


def test_files_of_one_name_are_different_modules(folder):
    first, second = (import_file(write(folder / name / "agent.py", f"NAME = {name!r}")) for name in "ab")
    assert (first.NAME, second.NAME) == ("a", "b")
    assert first.__name__ != second.__name__


def test_a_file_never_stands_in_for_a_module_of_somebody_else(folder):
    import random

    module = import_file(write(folder / "random.py", "WHOSE = 'mine'"))
    assert module.WHOSE == "mine"
    assert module.__name__.startswith("random_")
    assert sys.modules["random"] is random


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("x = 1\nundefined", "cannot be imported: NameError: name 'undefined' is not defined ({path}, line 2)."),
        ("x = (", "cannot be imported: SyntaxError: '(' was never closed ({path}, line 1)."),
        ("import missing_thing", "ModuleNotFoundError: No module named 'missing_thing' ({path}, line 1)."),
        (MINE + MINE, "cannot be imported: ValueError: `env_id` must be new, got 'Mine/Short-v0'"),
    ],
)
@pytest.mark.parametrize("name", ["broken.py", "broken"])
def test_what_is_wrong_in_a_module_is_said_with_its_place(name, text, sentence, folder, capsys):
    path = write(folder / "broken.py", text)
    assert sentence.format(path=path) in complaint(capsys, "list", "--import", name)
    assert "broken" not in sys.modules


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("my_problem", "There is no module 'my_problem' here or installed."),
        ("json.nope", "There is no module 'json.nope' here or installed."),
        ("nope.py", "`nope.py` must be a .py file that exists."),
        ("agents/nope", "`agents/nope` must be a .py file that exists."),
    ],
)
@pytest.mark.parametrize("words", [["list", "--import", "{}"], ["describe", "{}:Mine/Short-v0"]])
def test_a_module_that_is_not_there_is_named(words, name, sentence, folder, capsys):
    assert sentence in complaint(capsys, *(word.format(name) for word in words))


def test_a_module_that_does_not_register_the_id_is_no_help(folder, capsys):
    assert "Did you mean 'Mine/Short-v0'?" in complaint(capsys, "describe", "my_problems:Mine/Shor-v0")


# ── policies ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("words", [["--policy", "lazy.py"], ["--policy", "lazy", "--import", "lazy.py"]])
def test_a_file_is_the_policy_it_registers(words, folder, capsys):
    write(folder / "lazy.py", LAZY)
    assert "return 0.0" in said(capsys, "rollout", "Kasmina/Spirals-v0", "--every", "24", *words)


@pytest.mark.needs("matplotlib")
def test_policies_of_files_are_compared_under_their_names(folder, capsys):
    write(folder / "lazy.py", LAZY)
    words = ("compare", "Kasmina/Spirals-v0", "--policy", "wait", "lazy.py", "--episodes", "2", "--json")
    rows = {row["arm"]: row["returns_of_runs"] for row in json.loads(said(capsys, *words))["rows"]}
    assert rows["wait"] == rows["lazy"]


def test_the_agents_that_come_with_the_sources_are_such_files(folder, capsys):
    path = Path(__file__).parents[2] / "agents" / "watch_for_drop.py"
    assert "committed score" in said(capsys, "rollout", "Kasmina/Spirals-v0", "--policy", path)


@pytest.mark.parametrize("text, found", [("", "none"), (LAZY + LAZY.replace("lazy", "lazier"), "lazy, lazier")])
def test_a_file_that_does_not_register_one_policy_is_named(text, found, folder, capsys):
    write(folder / "some.py", text)
    sentence = complaint(capsys, "rollout", "Kasmina/Spirals-v0", "--policy", "some.py")
    assert f"`some.py` must register one policy with `register_policy`, got {found}." in sentence
