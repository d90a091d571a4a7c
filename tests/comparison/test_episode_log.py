"""Episodes are played again from their logs, and a log that was tampered with is caught."""

from __future__ import annotations

import dataclasses
import json

import pytest

from kasmina_env.cli.main import run
from kasmina_env.comparison.episode_log import first_difference, load_log, replay, save_log

SPIRALS = "Kasmina/Spirals-v0"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Log of an episode of random legal actions."""
    path = tmp_path_factory.mktemp("log") / "episode.json"
    run(["rollout", SPIRALS, "--policy", "random", "--seed", "4", "--log", str(path)])
    return path


def test_a_replayed_episode_has_every_score_of_its_log(path):
    log = load_log(path)
    assert replay(log) == log.scores
    assert len(log.actions) == len(log.names) == 24


def test_the_other_engine_plays_the_same_episode_to_rounding(path):
    log = load_log(path)
    other = "torch" if log.engine == "fused" else "fused"
    assert replay(log, engine=other)[0] == pytest.approx(log.scores[0], abs=1e-4)


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
    forged = dataclasses.replace(log, actions=(0,) * len(log.actions))
    assert first_difference(log, replay(forged))


def test_a_log_of_static_final_plants_its_seeds_again(tmp_path):
    path = tmp_path / "given.json"
    run(["rollout", SPIRALS, "--policy", "static_final", "--log", str(path)])
    log = load_log(path)
    assert log.planted
    assert replay(log) == log.scores


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 99}, "must be the log of an episode by this version"),
        ({"actions": ["WAIT"]}, "must be a tuple of integers"),
        ({"scores": [0.5]}, "one score more than actions"),
        ({"config": 3}, "must be a mapping"),
    ],
)
def test_what_is_no_log_is_one_sentence(change, words, path, tmp_path):
    forged = {**json.loads(path.read_text(encoding="utf-8")), **change}
    (tmp_path / "forged.json").write_text(json.dumps(forged), encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        load_log(tmp_path / "forged.json")
