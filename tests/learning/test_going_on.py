"""Interrupted training goes on as if nothing had happened: weights, episodes and logs are those of one run."""

from __future__ import annotations

import csv
import dataclasses
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kasmina_env.learning import train as training
from kasmina_env.learning.algorithms import ALGORITHMS
from kasmina_env.learning.learner import make_learner
from kasmina_env.learning.random_states import random_states
from kasmina_env.learning.time_spent import Clock
from kasmina_env.learning.train import Progress, train
from tests.episodes import digest
from tests.learning.test_learners import tiny

STEPS = 5 * 32  # five episodes of four rows


def rollouts_in_pieces(algorithm: str):
    """Settings in which episodes and rollouts end at different times."""
    config = tiny(algorithm, total_steps=STEPS)
    if ALGORITHMS.get(algorithm).is_off_policy:
        own = {"train_freq": 3, "target_update_interval": 20, "buffer_size": 60}
    else:
        own = {"n_steps": 5, "learning_rate": "lin_0.01", "ent_coef": "lin_0.1"}
        own |= {"batch_size": 10} if "batch_size" in config.hyperparameters else {}
    return dataclasses.replace(config, hyperparameters={**config.hyperparameters, **own})


def interrupting(at: int, number: int = signal.SIGINT) -> Callable[[Progress], None]:
    """A report that sends this process a signal when so many steps are done."""

    def report(progress: Progress) -> None:
        if progress.steps == at:
            signal.raise_signal(number)

    return report


def stop_and_go(config, run: Path, places: list[int]) -> None:
    """Train, interrupted in the step after each of some places."""
    for i, place in enumerate(places):
        with pytest.raises(KeyboardInterrupt):
            train(config, run, interrupting(place), resume=i > 0)
    train(config, run, resume=True)


def table(run: Path) -> list[dict[str, str]]:
    """Rows of the logs without times."""
    with (run / "logs" / "progress.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: value for name, value in row.items() if name not in ("time/fps", "time/time_elapsed")} for row in rows
    ]


def outcome(run: Path) -> str:
    """Digest of everything that training leaves behind, but for times."""
    checkpoint = load_file(run / "checkpoint.safetensors")
    return digest(load_file(run / "model.safetensors"), checkpoint, table(run))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Outcome of an uninterrupted run by its settings."""
    outcomes: dict[str, str] = {}

    def find(config) -> str:
        if str(config) not in outcomes:
            run = tmp_path_factory.mktemp("undisturbed") / "run"
            train(config, run)
            outcomes[str(config)] = outcome(run)
        return outcomes[str(config)]

    return find


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_that_was_stopped_anywhere_equals_one_that_was_not(algorithm, undisturbed, tmp_path):
    config = rollouts_in_pieces(algorithm)
    stop_and_go(config, tmp_path / "run", [4, 16, 20, 72, 76, 140])
    assert outcome(tmp_path / "run") == undisturbed(config)


def test_a_run_over_workers_goes_on_too(tmp_path):
    config = rollouts_in_pieces("maskable_ppo")
    train(config, tmp_path / "undisturbed", num_workers=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", interrupting(76), num_workers=2)
    train(config, tmp_path / "run", resume=True, num_workers=2)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_for_whoever_handled_it_before_once_all_is_saved(number, tmp_path):
    seen = []
    before = signal.signal(number, lambda *_: seen.append(load_file(tmp_path / "run" / "checkpoint.safetensors")))
    try:
        model = train(tiny("ppo"), tmp_path / "run", interrupting(8, number))
    finally:
        signal.signal(number, before)
    assert (len(seen), model.num_timesteps) == (1, 12)
    assert sum(name.startswith("steps.") and name.endswith(".rewards") for name in seen[0]) == 3
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_second_signal_is_not_waited_for(tmp_path):
    def report(progress: Progress) -> None:
        if progress.steps == 8:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(tiny("ppo"), tmp_path / "run", report)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train(tiny("ppo"), tmp_path / "run", resume=True).num_timesteps == 64


def test_what_was_saved_is_never_older_than_the_interval(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)

    def stop(progress: Progress) -> None:
        if progress.steps == 20:
            raise SystemExit

    with pytest.raises(SystemExit):
        train(rollouts_in_pieces("maskable_ppo"), tmp_path / "run", stop)
    steps = {name.split(".")[1] for name in load_file(tmp_path / "run" / "checkpoint.safetensors") if "steps." in name}
    assert steps == {"0", "1", "2", "3", "4"}


def test_a_longer_run_goes_on_where_a_finished_one_ended(undisturbed, tmp_path):
    config = tiny("ppo", total_steps=STEPS)
    train(dataclasses.replace(config, total_steps=64), tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == undisturbed(config)


def test_nothing_is_written_where_nothing_is_left_to_do(tmp_path):
    train(tiny("ppo"), tmp_path / "run")
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files if path.name != ".lock"}
    train(tiny("ppo"), tmp_path / "run", resume=True)
    again = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in again} == before


def test_training_leaves_global_random_states_and_threads_alone(tmp_path):
    before, threads = digest(random_states()), torch.get_num_threads()
    train(tiny("maskable_ppo"), tmp_path / "run")
    assert (digest(random_states()), torch.get_num_threads()) == (before, threads)


@pytest.mark.parametrize("algorithm", ["maskable_ppo", "dqn"])
def test_the_policy_learns_in_one_thread(algorithm, tmp_path, monkeypatch):
    model, threads = ALGORITHMS.get(algorithm).model, []
    learn = model.train
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(model, "train", lambda self, *args, **kw: (threads.append("learns"), learn(self, *args, **kw)))
    train(tiny(algorithm), tmp_path / "run")
    assert all(before == 1 for before, now in pairwise(threads) if now == "learns")
    assert threads[-1] == 3


def test_a_run_says_where_its_time_went(tmp_path):
    told: list[Progress] = []
    train(tiny("ppo"), tmp_path / "run", told.append)
    assert [progress.steps for progress in told] == [0, *range(4, 65, 4), 64]
    assert np.isnan(told[0].score) and 0 < told[-1].score < 1  # noqa: PT018
    last = told[-1].spent
    assert min(last.environment, last.policy, last.update, last.saving) > 0
    assert sum(int(share.split()[1]) for share in str(last).split(", ")) == pytest.approx(100, abs=2)
    again: list[Progress] = []
    train(tiny("ppo", total_steps=96), tmp_path / "run", again.append, resume=True)
    assert again[0].spent.environment > 0.9 * last.environment


def test_time_is_counted_once():
    seconds = iter(range(0, 1000, 10))
    clock = Clock(lambda: next(seconds))
    clock.switch("policy")
    with clock.during("environment"):
        pass
    clock.switch("update")
    clock.switch("")
    spent = clock.spent
    assert (spent.policy, spent.environment, spent.update, spent.saving) == (20, 10, 10, 0)


def test_the_environments_of_a_learner_that_cannot_be_made_are_closed(monkeypatch):
    closed = []
    monkeypatch.setattr("kasmina_env.envs.sb3.KasminaVecEnv.close", lambda self: closed.append(self))
    with pytest.raises(ValueError, match="Did you mean 'learning_rate'"):
        make_learner(dataclasses.replace(tiny("ppo"), hyperparameters={"learning_rte": 1}), 1, Clock())
    assert len(closed) == 1
