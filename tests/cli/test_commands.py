"""The command line as people use it, with tiny numbers."""

from __future__ import annotations

import json

import pytest

from kasmina_env.cli.commands import run
from kasmina_env.learning.training_config import Recipe, load_recipe
from kasmina_env.settings.configs import config_path
from kasmina_env.settings.presets import PRESETS

SPIRALS = "Kasmina/Spirals-v0"
TINY = {
    "num_envs": 4,
    "total_steps": 192,
    "hyperparameters": {"batch_size": 48},
    "settings": {"batches_per_step": 1, "batch_size": 8, "watch_samples": 16, "score_samples": 16},
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.json"
    path.write_text(json.dumps(TINY))
    return path


def said(capsys, *words: str) -> str:
    run(list(words))
    return " ".join(capsys.readouterr().out.split())


def test_list_names_every_environment(capsys):
    out = said(capsys, "list")
    assert all(name.split("/")[1] in out for name in PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_describe_shows_actions_observations_reward_and_rules(preset, capsys):
    out = said(capsys, "describe", preset)
    assert all(word in out for word in ("GERMINATE", "HOLDING", "score_change", "generalization_gap"))


def test_check_runs_both_checkers_in_both_forms(capsys):
    assert said(capsys, "check", SPIRALS).count("ok ") == 4


def test_rollout_shows_an_episode(capsys):
    out = said(capsys, "rollout", SPIRALS, "--policy", "plateau", "--every", "12")
    assert all(words in out for words in ("layer0", "committed score"))


def test_train_then_compare_writes_what_it_says(tmp_path, recipe, capsys):
    folder, results = tmp_path / "run", tmp_path / "results"
    said(capsys, "train", SPIRALS, "-o", str(folder), "--recipe", str(recipe))
    out = said(capsys, "compare", SPIRALS, "--run", str(folder), "--episodes", "4", "-o", str(results))
    assert all(arm in out for arm in ("maskable_ppo", "fixed", "plateau", "random", "wait"))
    assert {path.name for path in results.iterdir()} == {
        "comparison.md",
        "comparison.json",
        "comparison.png",
        "episodes.csv",
        "pareto.png",
        "training.png",
    }
    assert len(json.loads((results / "comparison.json").read_text())["rows"]) == 7


def test_resumed_training_goes_on_counting(tmp_path, recipe, capsys):
    folder = str(tmp_path / "run")
    said(capsys, "train", SPIRALS, "-o", folder, "--recipe", str(recipe))
    said(capsys, "train", SPIRALS, "-o", folder, "--recipe", str(recipe), "--steps", "288", "--resume")
    from sb3_contrib import MaskablePPO

    assert MaskablePPO.load(tmp_path / "run" / "model.zip").num_timesteps == 288


def test_resuming_without_a_checkpoint_writes_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(["train", SPIRALS, "-o", str(tmp_path / "run"), "--resume"])
    assert "`out` must hold a checkpoint" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "run").exists()


def test_resuming_with_another_recipe_is_refused_and_keeps_the_old_one(tmp_path, recipe, capsys):
    folder = tmp_path / "run"
    said(capsys, "train", SPIRALS, "-o", str(folder), "--recipe", str(recipe))
    before = (folder / "recipe.json").read_text()
    with pytest.raises(SystemExit, match="2"):
        run(["train", SPIRALS, "-o", str(folder), "--recipe", str(recipe), "--seed", "7", "--resume"])
    assert "`seed` must be 0" in " ".join(capsys.readouterr().out.split())
    assert (folder / "recipe.json").read_text() == before


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["describe", "Kasmina/Digit-v0"], "Did you mean 'Kasmina/Digits-v0'?"),
        (["rollout", SPIRALS, "--policy", "plateu"], "Did you mean 'plateau'?"),
        (["rollout", SPIRALS, "--every", "0"], "`every` must be at least 1, got 0"),
        (["rollout", SPIRALS, "--policy", "runs/typo"], "`runs/typo` must be a control, or a file or folder"),
        (["compare", SPIRALS, "--run", "nowhere"], "got 'nowhere'"),
        (["search", SPIRALS, "--facts", "param_price"], "`facts` must be left out without --per-context"),
        (["train", SPIRALS, "--steps", "0", "-o", "runs/never"], "`total_steps` must be at least 1, got 0"),
        (["train", SPIRALS, "--recipe", "a.json", "--algorithm", "ppo"], "`algorithm` must be left to the recipe"),
    ],
)
def test_a_wrong_word_is_named_in_one_sentence(words, sentence, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(words)
    assert sentence in " ".join(capsys.readouterr().out.split())


def test_a_run_is_never_overwritten(tmp_path, capsys):
    (tmp_path / "model.zip").write_text("precious")
    with pytest.raises(SystemExit, match="2"):
        run(["train", SPIRALS, "-o", str(tmp_path)])
    assert (tmp_path / "model.zip").read_text() == "precious"


@pytest.mark.parametrize("command", ["search", "calibrate"])
def test_a_file_of_results_is_not_overwritten_unasked(command, tmp_path, capsys):
    path = tmp_path / "found.json"
    path.write_text("precious")
    with pytest.raises(SystemExit, match="2"):
        run([command, SPIRALS, "--out", str(path)])
    assert "pass --overwrite" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit, match="2"):
        run([command, SPIRALS, "--out", str(tmp_path), "--overwrite"])
    assert "`out` must be a file" in " ".join(capsys.readouterr().out.split())
    assert path.read_text() == "precious"


@pytest.mark.parametrize("command", [["compare", SPIRALS, "-o"], ["search", SPIRALS, "--out"]])
def test_what_cannot_be_written_is_said_before_anything_is_played(command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="2"):
        run([*command, str(tmp_path / "file" / "out")])
    assert "must be in a folder that can be written to" in " ".join(capsys.readouterr().out.split())


def test_controls_whose_schedules_are_of_other_menus_are_left_out_aloud(capsys):
    from kasmina_env.cli.compare import default_controls

    assert default_controls(SPIRALS, tempos=(4,)) == ("wait", "random", "plateau")
    assert "Left out: fixed, instant, static_final." in " ".join(capsys.readouterr().out.split())


def test_a_comparison_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "comparison.md").write_text("precious")
    with pytest.raises(SystemExit, match="2"):
        run(["compare", SPIRALS, "--policies", "wait", "--episodes", "2", "-o", str(tmp_path)])
    assert "`out` must be a new or empty folder" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "comparison.md").read_text() == "precious"


def test_what_a_recipe_says_of_problem_and_seed_counts(tmp_path, capsys):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**TINY, "preset": SPIRALS, "seed": 5}))
    assert SPIRALS in said(capsys, "train", "-o", str(tmp_path / "run"), "--recipe", str(path))
    again = load_recipe(tmp_path / "run" / "recipe.json")
    assert (again.preset, again.seed) == (SPIRALS, 5)


def test_runs_are_compared_on_the_problem_they_were_trained_on(tmp_path, recipe, capsys, monkeypatch):
    folder, seen = tmp_path / "run", {}
    said(capsys, "train", SPIRALS, "-o", str(folder), "--recipe", str(recipe))
    with pytest.raises(SystemExit, match="2"):
        run(["compare", "--run", str(folder), "-o", str(tmp_path / "other")])
    assert f"which is of {SPIRALS}" in " ".join(capsys.readouterr().out.split())

    def see(preset, players, episodes, on_step, split, **settings):
        seen.update(settings, split=split)
        raise ValueError("seen")

    with pytest.raises(SystemExit, match="2"):
        run(["compare", SPIRALS, "--run", str(folder), "--run", f"again={folder}", "-o", str(tmp_path / "other")])
    assert "must be another one each time" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr("kasmina_env.cli.compare.compare_arms", see)
    with pytest.raises(SystemExit, match="2"):
        run(["compare", SPIRALS, "--run", str(folder), "--split", "train", "-o", str(tmp_path / "other")])
    assert seen == {**TINY["settings"], "split": "train"}


def test_a_rollout_of_a_run_plays_the_problem_it_was_trained_on(tmp_path, capsys):
    recipe = {**TINY, "settings": {**TINY["settings"], "horizon": 7}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    said(capsys, "train", SPIRALS, "-o", str(tmp_path / "run"), "--recipe", str(tmp_path / "recipe.json"))
    assert "/7 " in said(capsys, "rollout", SPIRALS, "--policy", str(tmp_path / "run"), "--every", "3")
    with pytest.raises(SystemExit, match="2"):
        run(["rollout", "Kasmina/Digits-v0", "--policy", str(tmp_path / "run")])


def test_controls_without_a_schedule_are_left_out_aloud(tmp_path, monkeypatch, capsys):
    from kasmina_env.cli.compare import default_controls

    monkeypatch.setattr("kasmina_env.settings.configs.CONFIGS", (tmp_path,))
    monkeypatch.chdir(tmp_path)
    assert default_controls("Kasmina/Text-v0") == ("wait", "random", "plateau")
    assert "Left out: fixed, instant, static_final." in " ".join(capsys.readouterr().out.split())


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
    with pytest.raises(SystemExit, match="2"):
        run(["rollout", SPIRALS, "--policy", str(path)])
    assert "schedule.json` must" in "".join(capsys.readouterr().out.split("\n"))


def test_a_recipe_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text("no json")
    with pytest.raises(ValueError, match=r"recipe\.json` must be a JSON file, got another one"):
        load_recipe(path)


@pytest.mark.parametrize("key, value", [("total_steps", "60000"), ("hyperparameters", []), ("net", 64)])
def test_a_value_of_another_kind_in_a_recipe_is_named(key, value, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({key: value}))
    with pytest.raises(ValueError, match=f"`{key}` must be"):
        load_recipe(path)


def test_unknown_key_of_a_recipe_names_the_nearest(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text('{"total_stepps": 1}')
    with pytest.raises(ValueError, match="Did you mean 'total_steps'"):
        load_recipe(path)


def test_recipes_are_what_their_files_say(recipe):
    assert load_recipe(recipe, preset=SPIRALS) == Recipe(preset=SPIRALS, **TINY)
