"""--json: the tables of a command as plain data on stdout, and nothing else there."""

from __future__ import annotations

import json

import pytest

from kasmina_env.cli.console import print_json
from kasmina_env.settings.presets import PRESETS
from tests.cli.running import said

SPIRALS = "Kasmina/Spirals-v0"


def test_list_as_json(capsys):
    rows = json.loads(said(capsys, "list", "--json"))
    assert [row["id"] for row in rows] == list(PRESETS)
    assert rows[-1] | {"description": ""} == {
        "id": "Kasmina/CIFAR10-v0",
        "steps": 30,
        "dataset": "cifar10",
        "description": "",
    }


@pytest.fixture(scope="module")
def described():
    """What `describe --json` says of a family."""
    from contextlib import redirect_stdout
    from io import StringIO

    from kasmina_env.cli.main import run

    with redirect_stdout(StringIO()) as out:
        run(["describe", "Kasmina/DigitsMix-v0", "--json"])
    return json.loads(out.getvalue())


def test_describe_as_json_has_every_table(described):
    assert described["id"] == "Kasmina/DigitsMix-v0"
    tables = ("slots", "actions", "rules", "reward", "instances", "observation", "calibration")
    assert all(described[name] for name in tables)


def test_numbers_are_numbers_in_json(described):
    host, seed = described["slots"][:2]
    assert host == {
        "slot": "(host)",
        "channels": None,
        "blueprint": None,
        "parameters": 6274,
        "compute_per_sample": 43594,
    }
    assert isinstance(seed["parameters"], int)
    ranges = {row["name"]: row["value"] for row in described["instances"]}
    assert ranges["learning_rate"][0] < ranges["learning_rate"][1]
    assert described["actions"][1]["choices"]["tempo"] == [1]


@pytest.mark.needs("matplotlib")
def test_compare_as_json_is_what_it_writes(tmp_path, capsys):
    out = tmp_path / "out"
    words = ("compare", SPIRALS, "--policy", "wait", "random", "--episodes", "2", "-o", out, "--json")
    printed = json.loads(said(capsys, *words))
    assert printed == json.loads((out / "comparison.json").read_text())
    assert {row["arm"] for row in printed["rows"]} == {"wait", "random"}


def test_bench_as_json_has_all_repeats(capsys):
    words = ("bench", SPIRALS, "--sizes", "1", "--repeats", "2", "--steps", "1", "--workers", "1")
    (measured,) = json.loads(said(capsys, *words, "--no-rivals", "--no-memory", "--json"))
    assert measured["preset"] == SPIRALS
    assert len(measured["steps"]["1"]) == 2


def test_what_json_does_not_have_is_null(capsys):
    print_json({"a": [float("nan"), (1, float("inf"))], 2: "[bold]"})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [1, None]], "2": "[bold]"}
