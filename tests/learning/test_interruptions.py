"""Training in a process of its own that is killed, terminated and interrupted at random moments."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
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
DIGITS = "Kasmina/Digits-v0"


@dataclass(frozen=True)
class Interruption:
    """What a signal left of a training: the steps that are saved, and the seconds of training that are not."""

    number: int
    saved: int
    lost: float


def work(config, run: Path, heartbeat: Path, save_every: float) -> None:
    """Train, or go on, in a process that nobody hears; every step is noted with its time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    torch.set_num_threads(1)
    training.SAVE_EVERY = save_every
    with heartbeat.open("w", encoding="utf-8", buffering=1) as file:
        train(config, run, lambda p: print(p.steps, time.monotonic(), file=file), resume=run.exists())


def started(config, run: Path, save_every: float = 0.2):
    """A process that is going to train, and the file in which it notes its steps."""
    CONTEXT.set_forkserver_preload(["tests.learning.test_interruptions"])
    heartbeat = run.with_suffix(".steps")
    heartbeat.unlink(missing_ok=True)
    process = CONTEXT.Process(target=work, args=(config, run, heartbeat, save_every))
    process.start()
    return process, heartbeat


def noted(heartbeat: Path) -> list[tuple[int, float]]:
    """Steps with their times, as far as they are written."""
    lines = heartbeat.read_text(encoding="utf-8").splitlines(keepends=True) if heartbeat.exists() else []
    words = [line.split() for line in lines if line.endswith("\n")]
    return [(int(steps), float(then)) for steps, then in words]


def wait_for_steps(process, heartbeat: Path, steps: int) -> None:
    """Return when so many steps are done, or it is over."""
    while process.is_alive() and not any(done >= steps for done, _ in noted(heartbeat)[-1:]):
        process.join(timeout=0.1)


def lost_since(heartbeat: Path, saved: int, now: float) -> float:
    """Seconds of training that are not saved: those since the last step that is, or since training began."""
    told = noted(heartbeat)
    return max(0.0, now - max([then for steps, then in told if steps <= saved], default=told[0][1] if told else now))


def interrupted_until_it_ends(config, run: Path, signals: list[int], save_every: float = 0.2) -> list[Interruption]:
    """Interrupt a training soon after random steps of it, and sometimes before it begins; then let it end."""
    rng, seen = np.random.default_rng(0), []
    for number, steps in zip(signals, np.sort(rng.integers(config.total_steps, size=len(signals))), strict=True):
        process, heartbeat = started(config, run, save_every)
        if rng.random() < 0.8:
            wait_for_steps(process, heartbeat, steps)
        process.join(timeout=rng.uniform(0, 0.5))
        now = time.monotonic()
        if process.is_alive():
            os.kill(process.pid, number)
        process.join(timeout=60)
        assert process.exitcode in (0, EXIT_CODES[number])
        saved = num_steps_saved(run)
        seen.append(Interruption(number, saved, 0.0 if process.exitcode == 0 else lost_since(heartbeat, saved, now)))
    last, _ = started(config, run, save_every)
    last.join(timeout=3600)
    assert last.exitcode == 0
    return seen


def steps_saved(seen: list[Interruption]) -> list[int]:
    return [interruption.saved for interruption in seen]


@pytest.mark.parametrize("algorithm", ["maskable_ppo", "dqn"])
def test_a_run_that_was_killed_again_and_again_equals_one_that_was_not(algorithm, tmp_path):
    config = dataclasses.replace(rollouts_in_pieces(algorithm), total_steps=320)
    train(config, tmp_path / "undisturbed")
    signals = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT] * 2
    seen = interrupted_until_it_ends(config, tmp_path / "run", signals)
    assert steps_saved(seen) == sorted(steps_saved(seen))
    assert len({0, *steps_saved(seen)}) > 2
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
    seen = interrupted_until_it_ends(config, tmp_path / "run", fifty_signals())
    assert steps_saved(seen) == sorted(steps_saved(seen))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("env_id", [SPIRALS, DIGITS])
def test_fifty_interruptions_of_the_settings_that_come_with_this_leave_no_trace(env_id, tmp_path):
    config = load_training_config(training_config_path(env_id, "maskable_ppo"), preset=env_id)
    train(config, tmp_path / "undisturbed")
    seen = interrupted_until_it_ends(config, tmp_path / "run", fifty_signals(), training.SAVE_EVERY)
    assert steps_saved(seen) == sorted(steps_saved(seen))
    assert max(interruption.lost for interruption in seen) < 60
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")


def test_a_process_that_is_killed_leaves_no_lock(tmp_path):
    config = dataclasses.replace(rollouts_in_pieces("ppo"), total_steps=100_000)
    process, heartbeat = started(config, tmp_path / "run")
    wait_for_steps(process, heartbeat, 0)
    with pytest.raises(RuntimeError, match=r"^`out` must be trained in by one process at a time, got .*run, where"):
        train(config, tmp_path / "run", resume=True)
    process.kill()
    process.join()
    with locked(tmp_path / "run"):
        assert process.exitcode == -9
