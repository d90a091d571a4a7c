"""Training in a process of its own that is killed, terminated and interrupted at random moments."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kasmina_env.learning import train as training
from kasmina_env.learning.algorithms import ALGORITHMS
from kasmina_env.learning.checkpoint import num_steps_saved
from kasmina_env.learning.run_folder import locked
from kasmina_env.learning.train import train
from kasmina_env.learning.training_config import load_training_config, training_config_path
from tests.learning.test_going_on import outcome, rollouts_in_pieces
from tests.learning.test_learners import SPIRALS

EXIT_CODES = {signal.SIGKILL: -9, signal.SIGTERM: -15, signal.SIGINT: 1}  # Python ends with 1 after KeyboardInterrupt


CONTEXT = multiprocessing.get_context("forkserver")


def work(config, run: Path, is_training) -> None:
    """Train, or go on, in a process that nobody hears."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    torch.set_num_threads(1)
    training.SAVE_EVERY = 0.2
    train(config, run, lambda progress: is_training.set(), resume=run.exists())


def started(config, run: Path):
    """A process that is going to train, and an event that tells when it does."""
    CONTEXT.set_forkserver_preload(["tests.learning.test_interruptions"])
    is_training = CONTEXT.Event()
    process = CONTEXT.Process(target=work, args=(config, run, is_training))
    process.start()
    return process, is_training


def interrupted_until_it_ends(config, run: Path, signals: list[int], longest: float) -> list[int]:
    """Interrupt a training at random moments, then let it end; returns the steps that were saved each time."""
    rng, saved = np.random.default_rng(0), [0]
    for number in signals:
        process, is_training = started(config, run)
        if rng.random() < 0.8:  # otherwise before it trains, too
            while process.is_alive() and not is_training.wait(timeout=0.1):
                pass
        process.join(timeout=rng.uniform(0, longest))
        if process.is_alive():
            os.kill(process.pid, number)
        process.join(timeout=60)
        assert process.exitcode in (0, EXIT_CODES[number])
        saved.append(num_steps_saved(run))
    last, _ = started(config, run)
    last.join(timeout=3600)
    assert last.exitcode == 0
    return saved


@pytest.mark.parametrize("algorithm", ["maskable_ppo", "dqn"])
def test_a_run_that_was_killed_again_and_again_equals_one_that_was_not(algorithm, tmp_path):
    config = dataclasses.replace(rollouts_in_pieces(algorithm), total_steps=320)
    train(config, tmp_path / "undisturbed")
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT] * 2
    saved = interrupted_until_it_ends(config, tmp_path / "run", signals, longest=1.0)
    assert saved == sorted(saved)
    assert len(set(saved)) > 2
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")


def fifty_signals() -> list[int]:
    """Kills, terminations and Ctrl-C in random order."""
    signals = [signal.SIGKILL] * 30 + [signal.SIGTERM] * 10 + [signal.SIGINT] * 10
    return [int(number) for number in np.random.default_rng(1).permutation(signals)]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_fifty_interruptions_leave_no_trace(algorithm, tmp_path):
    config = dataclasses.replace(rollouts_in_pieces(algorithm), total_steps=3200)
    train(config, tmp_path / "undisturbed")
    saved = interrupted_until_it_ends(config, tmp_path / "run", fifty_signals(), longest=3.0)
    assert saved == sorted(saved)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_fifty_interruptions_of_the_settings_that_come_with_this_leave_no_trace(tmp_path):
    config = load_training_config(training_config_path(SPIRALS, "maskable_ppo"), preset=SPIRALS)
    train(config, tmp_path / "undisturbed")
    saved = interrupted_until_it_ends(config, tmp_path / "run", fifty_signals(), longest=15.0)
    assert saved == sorted(saved)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")


def test_a_process_that_is_killed_leaves_no_lock(tmp_path):
    config = dataclasses.replace(rollouts_in_pieces("ppo"), total_steps=100_000)
    process, is_training = started(config, tmp_path / "run")
    assert is_training.wait(timeout=60)
    with pytest.raises(RuntimeError, match=r"^`out` must be trained in by one process at a time, got .*run, where"):
        train(config, tmp_path / "run", resume=True)
    process.kill()
    process.join()
    with locked(tmp_path / "run"):
        assert process.exitcode == -9
