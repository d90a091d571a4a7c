"""Small problems, random play and ways to compare episodes, shared by the tests of the environment."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode

from kasmina_env import PRESETS
from kasmina_env.episode.report import FAILURES
from kasmina_env.lifecycle.state import Op
from kasmina_env.tasks import DATASETS

ROOT = Path(__file__).parents[1]
IDS = tuple(PRESETS)
ALWAYS_IDS = ("Kasmina/Spirals-v0", "Kasmina/Digits-v0")  # need no data files
FORMS = ("flat", "factored")
WAIT = 0  # the first action of every table
# Short episodes on little data, in which a seed can nevertheless live its whole life.
SMALL = {
    "horizon": 10,
    "batches_per_step": 1,
    "batch_size": 8,
    "watch_samples": 16,
    "score_samples": 16,
    "min_training_steps": 1,
    "min_prune_age": 1,
    "embargo_steps": 1,
    "tempos": (1, 2),
    "prune_tempos": (0, 1),
    "targets": (0.5, 1.0),
}
PRICED_ALIKE = {"instances": "", "objective": "final"}  # prices are those of the settings, and of what is kept
SMALLER_DATA = {
    "Kasmina/DigitsService-v0": {"warmup_batches": 2},
    "Kasmina/DigitsDrift-v0": {"warmup_batches": 2},
    "Kasmina/Text-v0": {"task_settings": {"context": 8}, "host_settings": {"context": 8, "width": 8}},
    "Kasmina/FashionMNIST-v0": {"host_settings": {"stem": 4}},
    "Kasmina/CIFAR10-v0": {"host_settings": {"stem": 4, "width": 8}},
}
NON_FINITE = FAILURES.index("non_finite")
INFO_KEYS = {
    "action_mask",
    *("step", "score", "quality", "inner_valid_accuracy", "train_loss", "param_growth"),
    *("num_fossilized", "num_alive", "action_legal", "failure", "engine", "reward_terms"),
    *("num_rollbacks", "divergence"),
}
TERMINAL_KEYS = {"test_accuracy", "committed_score", "compute", "actions", "instance", "is_success"}


def small_settings(env_id):
    """Short episodes on little data, also where the task would measure a lot of it."""
    is_large = PRESETS.get(env_id).settings["task"] in DATASETS
    sizes = {"train": 500, "inner_valid": 50, "outer_valid": 100, "test": 100}
    return {**SMALL, **SMALLER_DATA.get(env_id, {}), **({"task_settings": sizes} if is_large else {})}


def small_env(env_id, **settings):
    return gym.make(env_id, **{**small_settings(env_id), **settings}).unwrapped


def small_vec(env_id, num_envs=4, **settings):
    return gym.make_vec(env_id, num_envs=num_envs, **{**small_settings(env_id), **settings})


def same_step_vec(env_id, num_envs=4, **settings):
    """A vector whose rows begin their next episode in the step that ends one."""
    return small_vec(env_id, num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **settings)


def networks_of(env):
    """Copies of all networks."""
    return env.snapshot().episodes.content.networks


def dead_row(env, row=0):
    """Plant NaN in the host of one network."""
    env.episodes.local.population._networks.hosts.parameters[row] = torch.nan


def dead_seeds(env):
    """Plant NaN in all seeds of all networks."""
    for cell in env.episodes.local.population._networks.cells.values():
        cell.weights.parameters.fill_(torch.nan)


def lively_actions(rng, env):
    """A legal flat action per row: all legal operations are equally likely, so that seeds live whole lives."""
    table, masks = env.problem.actions, env.episodes.report.mask
    is_of_op = (table.op[:, None] == np.arange(len(Op))).astype(np.int64)  # [A, len(Op)]
    weights = masks / np.maximum(masks @ is_of_op, 1)[:, table.op]
    return np.array([rng.choice(len(w), p=w / w.sum()) for w in weights])


def illegal_actions(rng, env):
    """A flat action per row that is not legal now."""
    return np.array([rng.choice(np.flatnonzero(~mask)) for mask in env.episodes.report.mask])


def mixed_actions(rng, env):
    """Legal actions in two rows of three, any actions in the others."""
    anything = rng.integers(env.problem.actions.num_actions, size=env.episodes.num_networks)
    return np.where(rng.random(env.episodes.num_networks) < 1 / 3, anything, lively_actions(rng, env))


def in_form(env, flat):
    """Flat actions in the form that the environment takes."""
    space = getattr(env, "single_action_space", env.action_space)
    return flat if isinstance(space, gym.spaces.Discrete) else env.problem.actions.entries[flat]


def op_actions(env, op):
    """Flat actions of an operation, in the order of the table."""
    return np.flatnonzero(env.problem.actions.op == op)


def play(env, actions):
    """Take the given actions; return everything that was seen."""
    return [env.step(action) for action in actions]


def play_lively(env, seed=0, num_steps=None):
    """Reset and take legal actions (to the end, if not told otherwise); return everything that was seen."""
    rng, seen = np.random.default_rng(seed), [env.reset(seed=seed)]
    for _ in range(num_steps or env.problem.config.horizon):
        actions = in_form(env, lively_actions(rng, env))
        seen.append(env.step(actions if isinstance(env, gym.vector.VectorEnv) else actions[0]))
    return seen


def shown(step, rows):
    """Every number that a vector step shows of some rows, by name."""
    obs, reward, terminated, truncated, infos = step
    last = {f"final {key}": value for key, value in infos.get("final_info", {}).items()}
    figures = {key: v for key, v in {**infos, **infos["reward_terms"], **last}.items() if is_figure(key, v)}
    figures |= {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated}
    return {name: np.asarray(value)[rows] for name, value in figures.items()}


def is_figure(key, value):
    """Whether an info is an array of numbers, and not one of Gymnasium's masks."""
    is_mask = key.removeprefix("final ").startswith("_")
    return isinstance(value, np.ndarray) and value.dtype != object and not is_mask


def assert_close(one, other):
    """Counts, names and truths are equal, floats up to rounding."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        is_float = np.issubdtype(np.asarray(value).dtype, np.floating)
        compare = partial(np.allclose, rtol=1e-6, atol=1e-6) if is_float else np.array_equal
        assert compare(value, other[name]), name


def is_plain(value):
    """Whether a value is made of plain Python numbers and arrays of integers only."""
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(entry) for key, entry in value.items())
    if type(value) is np.ndarray:
        return value.dtype in (np.int8, np.int64)
    return type(value) in (bool, int, float) and value == value  # NaN is not equal to itself


def leaves(value):
    """The bytes of everything inside a value, in a fixed order."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype}{value.shape}".encode() + value.tobytes()
    elif isinstance(value, np.random.Generator):
        yield from leaves(value.bit_generator.state)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield str(key).encode()
            yield from leaves(value[key])
    elif is_dataclass(value):
        names = [field.name for field in fields(value) if field.name != "setting"]  # of the population, not of networks
        yield from leaves({name: getattr(value, name) for name in names})
    elif isinstance(value, list | tuple | np.ndarray):
        for entry in value:
            yield from leaves(entry)
    else:
        yield repr(value).encode()


def digest(*values):
    """A hash that is equal only for values that are equal bit for bit."""
    total = hashlib.sha256()
    for leaf in leaves(values):
        total.update(leaf + b"|")
    return total.hexdigest()


def run_python(code):
    """What a fresh process prints; warnings are errors there too."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
