"""Taking a network home from the command line: what is reported of it is true of the file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kasmina_env import KasminaVectorEnv, load_network, make_problem
from kasmina_env.cli.main import run
from kasmina_env.comparison.arms import compare_arms
from kasmina_env.comparison.harvest import harvest, quality
from kasmina_env.comparison.players import Source, find_player, find_source
from kasmina_env.controllers.policy import HELD_OUT, instances_in_turn, play
from kasmina_env.controllers.schedule import save_schedule
from kasmina_env.episode.data import make_task
from kasmina_env.lifecycle.state import Op
from kasmina_env.networks.network_file import read_description
from kasmina_env.tasks import classify
from tests.episodes import IDS, small_settings

SPIRALS = "Kasmina/Spirals-v0"
TINY = {"batches_per_step": 1, "batch_size": 8, "watch_samples": 16, "score_samples": 16}


@pytest.fixture
def trained(tmp_path):
    config = {"num_envs": 4, "total_steps": 96, "hyperparameters": {"batch_size": 48}, "settings": TINY}
    (tmp_path / "training.json").write_text(json.dumps(config))
    run(["train", SPIRALS, "-o", str(tmp_path / "run"), "--config", str(tmp_path / "training.json")])
    return tmp_path / "run"


def export(*words: object) -> None:
    run(["export", *map(str, words)])


def facts_of(path) -> dict:
    return read_description(path)["metadata"]


def test_the_reported_test_accuracy_is_that_of_the_loaded_file(tmp_path):
    path = tmp_path / "net.safetensors"
    export("fixed", "-o", path, "--env-id", SPIRALS, "--episodes", 4)
    facts, player = facts_of(path), find_player("fixed", SPIRALS)
    env = KasminaVectorEnv(4, player.problem)
    played = play(env, player.policy, HELD_OUT + np.arange(4))
    best = int(played.scores.argmax())
    assert quality(load_network(path), env.episodes.test_data(best), classify) == facts["test_accuracy"]
    assert (facts["seed"], facts["score"]) == (played.seeds[best], played.scores[best])
    assert abs(facts["test_accuracy"] - played.test_accuracies[best]) < 1e-6
    assert facts["test_accuracy"] > 0.5


@pytest.mark.parametrize("env_id", IDS)
def test_what_is_reported_of_a_network_is_what_its_environment_reports(env_id):
    """In the measure of the task (for text this is not accuracy), and with the noise of the instance."""
    settings = small_settings(env_id)
    grown = harvest(Source("plateau", env_id, settings), 1, seed=5)
    player, seeds = find_player("plateau", env_id, **settings), np.array([5])
    instances = instances_in_turn(player.problem, seeds)
    played = play(KasminaVectorEnv(1, player.problem), player.policy, seeds, instances=instances)
    assert grown.facts["score"] == played.scores[0]
    assert abs(grown.facts["test_accuracy"] - played.test_accuracies[0]) < 1e-6


def test_a_trained_run_plays_its_own_problem_with_its_own_settings(trained, tmp_path, capsys):
    export(trained, "-o", tmp_path / "net.safetensors", "--episodes", 2)
    facts = facts_of(tmp_path / "net.safetensors")
    assert (facts["id"], facts["settings"], facts["policy"]) == (SPIRALS, TINY, str(trained))
    assert facts["seed"] in (HELD_OUT, HELD_OUT + 1)
    assert f"quality on test {facts['test_accuracy']:.3f}" in " ".join(capsys.readouterr().out.split())


def test_one_episode_can_be_named_by_its_seed(tmp_path):
    export("plateau", "-o", tmp_path / "net.safetensors", "--env-id", SPIRALS, "--episode", 5)
    facts = facts_of(tmp_path / "net.safetensors")
    assert (facts["seed"], facts["episodes_played"]) == (5, 1)


def test_in_a_family_the_episodes_are_those_of_a_comparison():
    family, settings = "Kasmina/DigitsMix-v0", small_settings("Kasmina/DigitsMix-v0")
    (arm,) = compare_arms(family, {"wait": ["wait"]}, 3, **settings)
    found = harvest(Source("wait", family, settings), 1, seed=HELD_OUT + 2).facts
    assert found["instance"] == arm.runs[0].instances[2] >= 180
    assert found["score"] == pytest.approx(arm.runs[0].scores[2], abs=0.03)  # one network rounds otherwise than three


def test_a_schedule_of_ones_own_is_played_from_its_file(tmp_path):
    problem = make_problem(SPIRALS)
    actions = np.zeros(problem.horizon, dtype=np.int64)
    actions[0] = problem.actions.find(Op.GERMINATE, "layer0", "mlp", "ADD", 3)[0]
    save_schedule(tmp_path / "mine.json", problem, actions, {})
    source = find_source(str(tmp_path / "mine.json"), None)
    facts = harvest(source, num_episodes=2).facts
    assert facts["schedule"] == "0: GERMINATE layer0 mlp ADD tempo3"


def test_only_what_was_fossilized_comes_home():
    grown = harvest(find_source("plateau", SPIRALS), num_episodes=8)
    fossils = grown.facts["schedule"].count("FOSSILIZE")
    assert len(grown.network.spec.seeds) == fossils > 0
    assert all(seed.alpha == 1 for seed in grown.network.spec.seeds.values())


def test_it_is_written_as_a_program_that_needs_nothing_of_ours(tmp_path):
    export("wait", "-o", tmp_path / "net.pt2", "--env-id", SPIRALS, "--episode", 5)
    test = make_task(make_problem(SPIRALS)).splits["test"]
    predicted = torch.export.load(tmp_path / "net.pt2").module()(test.x).argmax(dim=1)
    accuracy = (predicted == test.y).double().mean().item()
    assert accuracy == facts_of(tmp_path / "net.pt2")["test_accuracy"]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["fixd"], "Did you mean 'fixed'?"),
        (["wait", "--episode", "first"], "`episode` must be 'best' or a seed, got 'first'"),
        (["wait", "-o", "net.zip"], "`path` must end in .safetensors, .pt2, .onnx, got 'net.zip'"),
        (["wait", "--episodes", "0"], "`episodes` must be at least 1, got 0"),
        (["wait", "--env-id", "Kasmina/Digit-v0"], "Did you mean 'Kasmina/Digits-v0'?"),
        (["tests"], "`run` must be a folder with a finished training run, got 'tests'"),
    ],
)
def test_a_wrong_word_is_named_in_one_sentence(words, sentence, capsys, tmp_path):
    out = [] if "-o" in words else ["-o", str(tmp_path / "net.safetensors")]
    with pytest.raises(SystemExit, match="2"):
        run(["export", *words, *out])
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_a_run_plays_a_problem_of_the_same_layout_only(trained):
    own, file = (find_source(str(path), None) for path in (trained, trained / "model.safetensors"))
    assert (own.preset, own.settings) == (file.preset, file.settings) == (SPIRALS, TINY)
    other = find_source(str(trained), "Kasmina/Digits-v0")
    with pytest.raises(ValueError, match="`run` must be trained on the observations and actions of Kasmina/Digits-v0"):
        find_player(other.name, other.preset, **other.settings)


def test_a_file_that_exists_is_kept_and_nothing_is_played(tmp_path, capsys):
    (tmp_path / "net.safetensors").write_text("precious")
    with pytest.raises(SystemExit, match="2"):
        export("fixed", "-o", tmp_path / "net.safetensors", "--episodes", 100_000)
    assert "`path` must be new" in capsys.readouterr().err
    assert (tmp_path / "net.safetensors").read_text() == "precious"
