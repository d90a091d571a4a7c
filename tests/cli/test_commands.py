"""The commands as people use them, with tiny numbers."""

from __future__ import annotations

import json
import shutil

import pytest

from kasmina_env.cli.compare import default_controls
from kasmina_env.learning.training_config import load_training_config
from kasmina_env.settings.paths import config_path
from kasmina_env.settings.presets import PRESETS
from tests.cli.running import complaint, said

SPIRALS = "Kasmina/Spirals-v0"
TINY = {
    "num_envs": 4,
    "total_steps": 192,
    "hyperparameters": {"batch_size": 48},
    "settings": {"batches_per_step": 1, "batch_size": 8, "watch_samples": 16, "score_samples": 16},
}


@pytest.fixture
def tiny(tmp_path):
    """Words that train with tiny numbers."""
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY))
    return "train", SPIRALS, "--config", path


# ── list, describe, check, rollout ──────────────────────────────────────────────────────────────


def test_list_names_every_environment(capsys):
    out = said(capsys, "list")
    assert all(name in out for name in PRESETS)


def test_list_says_which_data_have_to_be_fetched(capsys):
    datasets = {line["id"]: line["dataset"] for line in json.loads(said(capsys, "list", "--json"))}
    assert (datasets["Kasmina/CIFAR10-v0"], datasets["Kasmina/Spirals-v0"]) == ("cifar10", None)


@pytest.mark.parametrize("preset", PRESETS)
def test_describe_shows_actions_observations_reward_and_rules(preset, capsys):
    out = said(capsys, "describe", preset)
    assert all(word in out for word in ("GERMINATE", "HOLDING", "score_change", "generalization_gap"))


def test_check_runs_both_checkers_in_both_forms(capsys):
    assert said(capsys, "check", SPIRALS).count("ok ") == 4


def test_rollout_shows_an_episode(capsys):
    out = said(capsys, "rollout", SPIRALS, "--policy", "plateau", "--every", "12")
    assert all(words in out for words in ("layer0", "committed score"))


# ── train ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.needs("matplotlib")
def test_train_then_compare_writes_what_it_says(tmp_path, tiny, capsys):
    folder, results = tmp_path / "run", tmp_path / "results"
    said(capsys, *tiny, "-o", folder)
    out = said(capsys, "compare", SPIRALS, "--run", folder, "--episodes", "4", "-o", results)
    assert all(arm in out for arm in ("maskable_ppo", "plateau", "random", "wait"))
    pictures = {"comparison.png", "profiles.png", "pareto.png", "training.png"}
    files = {"comparison.md", "comparison.json", "episodes.csv", "samples", *pictures}
    assert {path.name for path in results.iterdir()} == files
    assert said(capsys, "validate", results).count("ok maskable_ppo, run 0") == 2
    alone = tmp_path / "alone.safetensors"  # the controller without the folder of its run
    shutil.copy(folder / "model.safetensors", alone)
    said(capsys, "compare", SPIRALS, "--run", alone, "--policies", "wait", "--episodes", "2", "-o", tmp_path / "again")
    assert files - {path.name for path in (tmp_path / "again").iterdir()} == {"training.png"}
    assert len(json.loads((results / "comparison.json").read_text())["rows"]) == 4


def test_what_the_settings_say_of_problem_and_seed_counts(tmp_path, capsys):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**TINY, "preset": SPIRALS, "seed": 5}))
    assert SPIRALS in said(capsys, "train", "-o", tmp_path / "run", "--config", path)
    again = load_training_config(tmp_path / "run" / "training.json")
    assert (again.preset, again.seed) == (SPIRALS, 5)


def test_resumed_training_goes_on_counting(tmp_path, tiny, capsys):
    from kasmina_env.learning.controller_file import load_controller

    folder = tmp_path / "run"
    said(capsys, *tiny, "-o", folder)
    said(capsys, *tiny, "-o", folder, "--steps", "288", "--resume")
    assert load_controller(folder).steps == 288


def test_resuming_without_a_run_writes_nothing(tmp_path, capsys):
    words = ("train", SPIRALS, "-o", tmp_path / "run", "--resume")
    assert "`out` must hold a training run to go on with" in complaint(capsys, *words)
    assert not (tmp_path / "run").exists()


def test_resuming_with_other_settings_is_refused_and_keeps_the_old_ones(tmp_path, tiny, capsys):
    folder = tmp_path / "run"
    said(capsys, *tiny, "-o", folder)
    before = (folder / "training.json").read_text()
    assert "`seed` must be 0" in complaint(capsys, *tiny, "-o", folder, "--seed", "7", "--resume")
    assert (folder / "training.json").read_text() == before


def test_nothing_is_announced_before_it_is_known_to_be_possible(tmp_path, capsys):
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({**TINY, "hyperparameters": {"learning_rte": 1}}))
    words = ("train", SPIRALS, "--config", path, "-o", tmp_path / "run")
    assert complaint(capsys, *words).startswith("error: ")


# ── what is there already ───────────────────────────────────────────────────────────────────────


def test_a_run_is_never_overwritten(tmp_path, capsys):
    (tmp_path / "model.safetensors").write_text("precious")
    assert "`out` must be a new or empty folder" in complaint(capsys, "train", SPIRALS, "-o", tmp_path)
    assert (tmp_path / "model.safetensors").read_text() == "precious"


def test_a_comparison_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "comparison.md").write_text("precious")
    words = ("compare", SPIRALS, "--policies", "wait", "--episodes", "2", "-o", tmp_path)
    assert "`out` must be a new or empty folder" in complaint(capsys, *words)
    assert (tmp_path / "comparison.md").read_text() == "precious"


@pytest.mark.needs("stable_baselines3", "sb3_contrib", "matplotlib")
def test_the_shipped_controller_plays_without_signals_too(tmp_path, capsys):
    words = ("compare", SPIRALS, "--policies", "wait", "learned", "--without", "gradients", "--episodes", "2")
    out = said(capsys, *words, "-o", tmp_path / "out")
    assert "learned without gradients" in out


@pytest.mark.parametrize("command", ["search", "calibrate"])
def test_a_file_of_results_is_not_overwritten_unasked(command, tmp_path, capsys):
    path = tmp_path / "found.json"
    path.write_text("precious")
    assert "pass --overwrite" in complaint(capsys, command, SPIRALS, "--out", path)
    assert "`out` must be a file" in complaint(capsys, command, SPIRALS, "--out", tmp_path, "--overwrite")
    assert path.read_text() == "precious"


@pytest.mark.parametrize("words", [["compare", SPIRALS], ["search", SPIRALS], ["train", SPIRALS]])
def test_what_cannot_be_written_is_said_before_anything_is_played(words, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    complaint_about_it = complaint(capsys, *words, "-o", tmp_path / "file" / "out")
    assert "must be in a folder that can be written to" in complaint_about_it


# ── which policies and runs ─────────────────────────────────────────────────────────────────────


@pytest.mark.needs("matplotlib")
def test_runs_of_another_environment_are_not_compared(tmp_path, tiny, capsys):
    said(capsys, *tiny, "-o", tmp_path / "run")
    words = ("--run", tmp_path / "run", "-o", tmp_path / "other")
    assert f"which is of {SPIRALS}" in complaint(capsys, "compare", *words)
    again = f"again={tmp_path / 'run'}"
    assert "must be another one each time" in complaint(capsys, "compare", SPIRALS, *words, "--run", again)


def test_runs_are_compared_on_the_problem_they_were_trained_on(tmp_path, tiny, capsys):
    from kasmina_env.cli.compare import arms_of

    said(capsys, *tiny, "-o", tmp_path / "run")
    arms, settings = arms_of([f"mine={tmp_path / 'run'}"], SPIRALS)
    assert (arms, settings) == ({"mine": [str(tmp_path / "run")]}, TINY["settings"])


def test_a_rollout_of_a_run_plays_the_problem_it_was_trained_on(tmp_path, capsys):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**TINY, "settings": {**TINY["settings"], "horizon": 7}}))
    said(capsys, "train", SPIRALS, "-o", tmp_path / "run", "--config", path)
    assert "/7 " in said(capsys, "rollout", SPIRALS, "--policy", tmp_path / "run", "--every", "3")
    complaint(capsys, "rollout", "Kasmina/Digits-v0", "--policy", tmp_path / "run")


def test_controls_whose_schedules_are_of_other_menus_are_left_out_aloud(capsys):
    assert default_controls(SPIRALS, tempos=(4,)) == ("wait", "random", "plateau")
    assert "Left out: fixed, reactive, instant, static_final." in capsys.readouterr().err


def test_controls_without_a_schedule_are_left_out_aloud(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kasmina_env.settings.paths.CONFIGS", (tmp_path,))
    monkeypatch.chdir(tmp_path)
    assert default_controls("Kasmina/Text-v0") == ("wait", "random", "plateau")
    err = capsys.readouterr().err
    assert all(f"Left out: {names}." in err for names in ("fixed, instant, static_final", "reactive", "learned"))


def test_what_commands_write_into_configs_is_read_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "spirals-v0.schedule.json").write_text("{}")
    assert config_path("spirals-v0.schedule.json", "", with_found=True).resolve().parent == tmp_path / "configs"
    assert config_path("spirals-v0.schedule.json", "").resolve().parent != tmp_path / "configs"
    assert config_path("spirals-v0.calibration.json", "", with_found=True).is_file()


@pytest.mark.parametrize("text", ["{}", "[]", "no json", json.dumps({"id": SPIRALS, "steps": []})])
def test_a_file_that_is_no_schedule_is_named(text, tmp_path, capsys):
    path = tmp_path / "schedule.json"
    path.write_text(text)
    assert "schedule.json` must" in complaint(capsys, "rollout", SPIRALS, "--policy", path)
