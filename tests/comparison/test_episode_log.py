"""Episodes are played again from their logs, and a log that was tampered with is caught."""

from __future__ import annotations

import dataclasses
import json

import pytest

from kasmina_env.cli.main import run
from kasmina_env.comparison.episode_log import first_difference, load_log, replay, save_log, why_inexact

SPIRALS = "Kasmina/Spirals-v0"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Log of an episode of random legal actions."""
    path = tmp_path_factory.mktemp("log") / "episode.json"
    run(["rollout", SPIRALS, "--policy", "random", "--seed", "4", "--log", str(path)])
    return path


def test_a_replayed_episode_has_every_score_of_its_log(path):
    log = load_log(path)
    assert replay(log).scores == log.scores
    assert len(log.actions) == len(log.names) == 24


def test_the_other_engine_plays_the_same_episode_to_rounding(path):
    log = load_log(path)
    other = "torch" if log.engine == "fused" else "fused"
    assert replay(log, engine=other).scores[0] == pytest.approx(log.scores[0], abs=1e-4)


def test_the_command_verifies_and_says_so(path, capsys):
    run(["replay", str(path), "--verify"])
    assert "Every score is that of the log." in capsys.readouterr().out


@pytest.mark.parametrize("step", [0, 7, 24])
def test_a_score_that_was_changed_is_found_where_it_was_changed(step, path, tmp_path, capsys):
    log = load_log(path)
    scores = [score + 0.01 * (i == step) for i, score in enumerate(log.scores)]
    save_log(tmp_path / "forged.json", dataclasses.replace(log, scores=tuple(scores)))
    with pytest.raises(SystemExit, match="1"):
        run(["replay", str(tmp_path / "forged.json"), "--verify"])
    assert f"The score after step {step} is" in capsys.readouterr().out


def test_other_actions_lead_to_other_scores(path):
    log = load_log(path)
    forged = dataclasses.replace(log, actions=(0,) * len(log.actions), names=("WAIT",) * len(log.actions))
    assert first_difference(log, replay(forged))


def test_an_action_that_is_not_legal_there_is_named(path):
    log = load_log(path)
    grow = next(name for name in log.names if name.startswith("GERMINATE"))
    twice = log.names.index(grow) + 1
    actions, names = list(log.actions), list(log.names)
    actions[twice], names[twice] = actions[twice - 1], grow
    forged = dataclasses.replace(log, actions=tuple(actions), names=tuple(names))
    assert first_difference(forged, replay(forged)) == f"The action of step {twice + 1}, {grow}, is not legal there."


def test_actions_of_another_table_are_refused(path):
    log = load_log(path)
    with pytest.raises(ValueError, match="must hold actions of its problem, got 'JUMP' for 'WAIT'"):
        replay(dataclasses.replace(log, actions=(0,), names=("JUMP",)))


def test_scores_of_another_machine_may_differ_by_what_rounding_does(path, tmp_path, capsys):
    log = load_log(path)
    elsewhere = {**log.versions, "processor": "abacus"}
    for change, is_same in ((0.05, True), (0.2, False)):
        forged = dataclasses.replace(log, versions=elsewhere, scores=tuple(score + change for score in log.scores))
        assert (first_difference(forged, replay(log)) == "") == is_same
    save_log(tmp_path / "elsewhere.json", dataclasses.replace(log, versions=elsewhere))
    run(["replay", str(tmp_path / "elsewhere.json"), "--verify"])
    assert "within 0.1 of the log: it was played with" in capsys.readouterr().out


def test_one_of_several_networks_of_the_torch_engine_is_not_exact_alone(path):
    log = load_log(path)
    assert why_inexact(log) == ""
    alone, beside = (dataclasses.replace(log, engine="torch", num_networks=n) for n in (1, 64))
    assert why_inexact(alone) == ""
    assert why_inexact(beside) == "it was one of 64 networks side by side, and is played alone"


def test_a_log_of_static_final_plants_its_seeds_again(tmp_path):
    path = tmp_path / "given.json"
    run(["rollout", SPIRALS, "--policy", "static_final", "--log", str(path)])
    log = load_log(path)
    assert log.planted
    assert replay(log).scores == log.scores


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 99}, "must be the log of an episode by this version"),
        ({"actions": ["WAIT"]}, "must be a tuple of integers"),
        ({"scores": [0.5]}, "one score more than actions"),
        ({"scores": ["one"]}, "`scores` must be"),
        ({"scores": 3}, "`scores` must be"),
        ({"config": 3}, "must be a mapping"),
        ({"config": {"horizon": 3}}, "must hold the settings of this version"),
    ],
)
def test_what_is_no_log_is_one_sentence(change, words, path, tmp_path):
    forged = {**json.loads(path.read_text(encoding="utf-8")), **change}
    (tmp_path / "forged.json").write_text(json.dumps(forged), encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        load_log(tmp_path / "forged.json")
