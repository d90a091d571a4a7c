"""The folder of a run: made at once, written by one process, and damage in it is said in one sentence."""

from __future__ import annotations

import dataclasses
import errno
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from kasmina_env import make_problem
from kasmina_env.controllers.policy import play
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.learning.checkpoint import KEYS, KIND, SCHEMA
from kasmina_env.learning.controller_file import load_learned
from kasmina_env.learning.logs import ProgressTable
from kasmina_env.learning.run_folder import check_resumable, locked, make_run_folder
from kasmina_env.learning.train import train
from kasmina_env.learning.training_config import load_training_config
from kasmina_env.networks.tensor_file import describe, read_file, to_bytes
from tests.learning.test_going_on import interrupting, outcome
from tests.learning.test_learners import SMALL, SPIRALS, tiny

CONFIG = tiny("maskable_ppo")
LONGER = dataclasses.replace(CONFIG, total_steps=96)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that is over."""
    run = tmp_path_factory.mktemp("finished") / "run"
    train(CONFIG, run)
    return run


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


# ── making it ───────────────────────────────────────────────────────────────────────────────────


def no_space(descriptor: int) -> None:
    """What a full disk says when a file is brought to it."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_is_there_with_its_settings_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        make_run_folder(tmp_path / "run", CONFIG)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "run").mkdir()
    make_run_folder(tmp_path / "run", CONFIG)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "training.json"]


def test_a_run_that_was_killed_before_its_first_checkpoint_is_begun_anew(tmp_path, finished):
    make_run_folder(tmp_path / "run", CONFIG)
    train(CONFIG, tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(finished)


def test_what_is_in_a_folder_is_never_overwritten(run):
    before = outcome(run)
    with pytest.raises(FileExistsError, match=r"^`out` must be a new or empty folder, got .*run\. "):
        train(CONFIG, run)
    assert outcome(run) == before


def test_settings_are_put_down_again_only_if_they_changed(run):
    before = (run / "training.json").stat().st_mtime_ns
    train(CONFIG, run, resume=True)
    assert (run / "training.json").stat().st_mtime_ns == before
    train(LONGER, run, resume=True)
    assert load_training_config(run / "training.json") == LONGER


@pytest.mark.parametrize("files", [[], ["model.safetensors"], ["recipe.json", "model.zip"]])
def test_there_must_be_a_run_to_go_on_with(files, tmp_path):
    for name in files:
        (tmp_path / name).write_text("{}", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"^`out` must hold a training run to go on with, got ") as caught:
        train(CONFIG, tmp_path, resume=True)
    assert ("of an earlier version" in str(caught.value)) == ("recipe.json" in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


@pytest.mark.parametrize("name, value", [("seed", 1), ("net", (8,)), ("hyperparameters", {"batch_size": 16})])
def test_other_settings_are_refused_and_change_nothing(name, value, run):
    before = outcome(run)
    with pytest.raises(
        ValueError, match=rf"^`{name}` must be .* as in .*run, got .*\. Resume with the same settings\.$"
    ):
        train(dataclasses.replace(LONGER, **{name: value}), run, resume=True)
    assert outcome(run) == before
    check_resumable(run, CONFIG)


def test_two_do_not_train_in_one_folder(run):
    before = outcome(run)
    with locked(run), pytest.raises(RuntimeError, match=r"^`out` must be trained in by one process at a time, got "):
        train(LONGER, run, resume=True)
    assert outcome(run) == before
    assert train(LONGER, run, resume=True).num_timesteps == 96


def test_what_a_killed_process_was_writing_is_removed(run):
    (run / ".checkpoint.safetensors.123.tmp").write_bytes(b"half")
    train(CONFIG, run, resume=True)
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".")) == [".lock"]


def test_a_full_disk_leaves_the_last_checkpoint(run, monkeypatch):
    before = (run / "checkpoint.safetensors").read_bytes()
    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        train(LONGER, run, resume=True)
    assert (run / "checkpoint.safetensors").read_bytes() == before
    monkeypatch.undo()
    assert train(LONGER, run, resume=True).num_timesteps == 96


# ── damage ──────────────────────────────────────────────────────────────────────────────────────


def cuts(content: bytes) -> list[int]:
    """Twenty places in a file."""
    return [len(content) * i // 20 for i in range(20)]


@pytest.mark.parametrize("name", ["training.json", "checkpoint.safetensors"])
def test_a_file_that_was_cut_short_is_one_sentence_for_who_goes_on(name, run):
    whole = (run / name).read_bytes()
    for place in cuts(whole):
        (run / name).write_bytes(whole[:place])
        with pytest.raises(ValueError, match=rf"^`.*{name}` must [^\n]*$"):
            train(LONGER, run, resume=True)
    (run / name).write_bytes(whole)
    assert train(LONGER, run, resume=True).num_timesteps == 96


def test_a_model_that_was_cut_short_is_one_sentence_and_written_anew(run):
    problem, whole = make_problem(SPIRALS, **SMALL), (run / "model.safetensors").read_bytes()
    for place in cuts(whole):
        (run / "model.safetensors").write_bytes(whole[:place])
        with pytest.raises(ValueError, match=r"^`.*model\.safetensors` must [^\n]*$"):
            load_learned(run, problem)
    train(CONFIG, run, resume=True)
    load_learned(run, problem)


@pytest.mark.parametrize("left", ["", "a,b\n1", "time/total_timesteps\n", "\x00\ufffd\n"])
def test_logs_that_were_cut_short_are_gone_on_with(left, run):
    (run / "logs" / "progress.csv").write_text(left, encoding="utf-8")
    train(LONGER, run, resume=True)
    lines = (run / "logs" / "progress.csv").read_text(encoding="utf-8").splitlines()
    assert "time/total_timesteps" in lines[0]
    assert ",96" in lines[-1]


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of logs that a training would go on with."""
    table = ProgressTable(path, 99)
    table.close()
    return table._rows


def test_logs_that_were_cut_anywhere_keep_their_whole_rows(run):
    path = run / "logs" / "progress.csv"
    whole, rows = path.read_bytes(), rows_of(path)
    for place in cuts(whole):
        path.write_bytes(whole[:place])
        kept = rows_of(path)
        assert kept == rows[: len(kept)]
        assert len(kept) >= whole[:place].count(b"\n") - 1


def test_no_file_but_settings_and_checkpoint_is_needed_to_go_on(run):
    for path in [path for path in run.rglob("*") if path.is_file()]:
        if path.name not in ("training.json", "checkpoint.safetensors"):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert train(LONGER, run, resume=True).num_timesteps == 96
    load_learned(run, make_problem(SPIRALS, **SMALL))


@pytest.mark.parametrize(
    "values, sentence",
    [
        ({"num_envs": 8}, "must be of the settings beside it, got others: num_envs"),
        ({"seed": 9}, "must be of the settings beside it, got others: seed"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(values, sentence, run, tmp_path):
    train(dataclasses.replace(CONFIG, **values), tmp_path / "other")
    shutil.copy(tmp_path / "other" / "checkpoint.safetensors", run)
    with pytest.raises(ValueError, match=sentence):
        train(LONGER, run, resume=True)


def test_a_run_from_before_a_setting_came_goes_on(run):
    """A setting that did not exist then is at its default."""
    path = run / "checkpoint.safetensors"
    document, tensors = read_file(path, KIND, SCHEMA, *KEYS)
    del document["training"]["standardized"]
    path.write_bytes(to_bytes(describe(KIND, SCHEMA, document), tensors))
    assert train(LONGER, run, resume=True).num_timesteps == 96


def test_what_a_killed_process_was_writing_is_removed_also_from_the_logs(run):
    (run / "logs" / ".progress.csv.123.tmp").write_text("half", encoding="utf-8")
    train(LONGER, run, resume=True)
    assert not list(run.rglob("*.tmp"))


# ── what a stranger put there ───────────────────────────────────────────────────────────────────


class Payload:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self):
        return Path.touch, (self._trace,)


@pytest.mark.parametrize("protocol", [0, 4])
@pytest.mark.parametrize("name", ["training.json", "model.safetensors", "checkpoint.safetensors", "logs/progress.csv"])
def test_nothing_in_a_run_folder_is_executed(name, protocol, run, tmp_path):
    trace = tmp_path / "trace"
    payload = pickle.dumps(Payload(trace), protocol)
    for content in (payload, json.dumps({"preset": payload.decode("latin-1")}).encode()):
        (run / name).write_bytes(content)
        for use in (lambda: load_learned(run, make_problem(SPIRALS, **SMALL)), lambda: train(LONGER, run, resume=True)):
            try:
                use()
            except ValueError as error:
                assert "must" in str(error)  # noqa: PT017
    assert not trace.exists()
    pickle.loads(payload)
    assert trace.exists()


def test_files_of_earlier_versions_are_not_read(run, tmp_path):
    trace = tmp_path / "trace"
    for name in ("model.zip", "checkpoint.zip"):
        (run / name).write_bytes(pickle.dumps(Payload(trace)))
    env = KasminaVectorEnv(2, SPIRALS, **SMALL)
    play(env, load_learned(run, env.problem), np.arange(2))
    train(LONGER, run, resume=True)
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"got '.*run' with model\.zip of an earlier version, which is not read any "):
        load_learned(run, env.problem)
    assert not trace.exists()


def test_an_interrupted_run_is_no_finished_one(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, tmp_path / "run", interrupting(8))
    with pytest.raises(FileNotFoundError, match=r"^`run` must be a folder with a finished training run, got "):
        load_learned(tmp_path / "run", make_problem(SPIRALS, **SMALL))
