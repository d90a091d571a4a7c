"""The results of a comparison are validated by playing episodes of every arm again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kasmina_env.cli.main import run
from kasmina_env.comparison.episode_log import ELSEWHERE, load_log
from kasmina_env.comparison.validation import validate
from tests.cli.running import complaint, said

ROOT = Path(__file__).parents[2]
SPIRALS = "Kasmina/Spirals-v0"
ARMS = ("wait", "random", "static_final")


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of three arms, one of which plants seeds in an environment of other settings."""
    pytest.importorskip("matplotlib")  # `compare` draws
    out = tmp_path_factory.mktemp("compared") / "results"
    run(["compare", SPIRALS, "--policies", *ARMS, "--episodes", "3", "-o", str(out)])
    return out


@pytest.fixture
def results(compared, tmp_path):
    """A copy to tamper with."""
    return Path(shutil.copytree(compared, tmp_path / "results"))


def sample(results: Path, arm: str) -> Path:
    return sorted((results / "samples").glob(f"*{arm}*.json"))[0]


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **fields}), encoding="utf-8")


def failure(capsys, results: Path) -> str:
    """What the command says where it fails."""
    capsys.readouterr()
    with pytest.raises(SystemExit, match="1"):
        run(["validate", str(results)])
    return " ".join(capsys.readouterr().out.split())


def test_every_arm_is_played_again_and_every_score_is_the_same(compared, capsys):
    out = said(capsys, "validate", compared)
    assert [out.count(f"{arm}, run 0, seed") for arm in ARMS] == [2, 2, 2]
    assert out.count("ok ") == out.count(": every score") == 6


def test_a_score_that_was_changed_in_a_log_is_found_where_it_was_changed(results, capsys):
    path = sample(results, "random")
    scores = list(load_log(path).scores)
    change(path, scores=[*scores[:7], scores[7] + 0.01, *scores[8:]])
    out = failure(capsys, results)
    assert "random, run 0, seed 1000000: The score after step 7 is" in out
    assert out.count("ok ") == 5


def test_actions_that_were_changed_in_a_log_are_found(results, capsys):
    path = sample(results, "random")
    change(path, actions=[0] * 24, names=["WAIT"] * 24)
    assert "random, run 0, seed 1000000: The score after step" in failure(capsys, results)


def test_a_score_that_was_changed_in_the_table_of_episodes_is_found(results, capsys):
    path = results / "episodes.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:5], "0.99", *cells[6:]])
    path.write_text("\n".join(lines), encoding="utf-8")
    assert "wait, run 0, seed 1000000: The score is 0.990000 in episodes.csv, and" in failure(capsys, results)


def test_scores_of_other_releases_may_differ_by_what_rounding_does(results, capsys):
    path = sample(results, "wait")
    change(path, versions={**load_log(path).versions, "torch": "1.0"})
    out = said(capsys, "validate", results)
    assert f"wait, run 0, seed 1000000: every score within {ELSEWHERE}" in out
    assert "where a replay cannot be exact: it was played with" in out


@pytest.mark.parametrize("name", ["comparison.json", "episodes.csv", "samples"])
def test_a_file_that_is_missing_is_one_sentence(name, results, capsys):
    path = results / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert complaint(capsys, "validate", results).startswith(f"error: No such file or directory: {path}")


FORGED = {
    "no log": ("samples", "{}", "must have the key 'kind'"),
    "no JSON": ("samples", "score", "must be a JSON file"),
    "no table": ("episodes.csv", "arm;score\nwait;1\n", "must be a table as `kasmina compare` writes it"),
    "no summary": ("comparison.json", "[]", "must hold a JSON object"),
}


@pytest.mark.parametrize("name, text, words", FORGED.values(), ids=FORGED)
def test_a_file_that_is_another_one_is_one_sentence(name, text, words, results, capsys):
    (sample(results, "wait") if name == "samples" else results / name).write_text(text, encoding="utf-8")
    assert words in complaint(capsys, "validate", results)


CHANGED = {
    "results of before there were samples": ({"samples": 3}, "must have rows and samples as `kasmina compare` writes"),
    "no sample of an arm": ({"samples": []}, "must have a sample of each arm, got none of random, static_final, wait."),
    "another kind": ({"samples": [{"arm": "wait", "run": "0", "file": "x"}]}, "`run` must be"),
    "another key": ({"samples": [{"arm": "wait", "rnu": 0}]}, "samples"),
    "another id": (
        {"id": "Kasmina/Digits-v0"},
        "must be an episode of Kasmina/Digits-v0, got one of Kasmina/Spirals-v0",
    ),
}


@pytest.mark.parametrize("fields, words", CHANGED.values(), ids=CHANGED)
def test_a_summary_that_does_not_fit_is_one_sentence(fields, words, results, capsys):
    change(results / "comparison.json", **fields)
    assert words in complaint(capsys, "validate", results)


def test_samples_lie_within_the_results(results, capsys):
    outside = [{"arm": arm, "run": 0, "file": "../../etc/passwd"} for arm in ARMS]
    change(results / "comparison.json", samples=outside)
    assert "must have samples within its folder" in complaint(capsys, "validate", results)


def test_logs_of_another_version_are_one_sentence(results, capsys):
    change(sample(results, "wait"), schema=1)
    assert "must be the log of an episode by this version" in complaint(capsys, "validate", results)


@pytest.mark.parametrize("name", ["spirals", "digits"])
def test_the_results_that_come_with_the_repository_are_played_again(name):
    """Exactly where releases and processor are those that made them. docs/results/README.md says how to renew them."""
    pytest.importorskip("numba")  # they are of the fused engine
    found = list(validate(ROOT / "docs" / "results" / "samples" / name))
    assert {verdict.sample.arm for verdict in found} == {"wait", "fixed", "static_final"}
    assert [verdict.difference for verdict in found] == [""] * 6


def test_networks_that_diverge_are_logged_too(tmp_path, capsys):
    from kasmina_env.comparison.arms import compare_arms
    from kasmina_env.comparison.table import table, write
    from kasmina_env.episode.problem import make_problem

    settings = {"learning_rate": 1.0, "optimizer": "sgd", "clip_norm": 0.0, "horizon": 6}
    arms = compare_arms(SPIRALS, {"wait": ["wait"]}, 2, **settings)
    assert all(len(log.actions) < 6 for log in arms[0].logs[0])
    problem = make_problem(SPIRALS, **settings)
    rows, best = table(arms, problem.actions)
    write(tmp_path, problem, rows, arms, best)
    assert [verdict.difference for verdict in validate(tmp_path)] == ["", ""]
