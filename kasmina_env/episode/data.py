"""Samples of a problem, on the device of its networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from kasmina_env.episode.problem import Problem, build
from kasmina_env.population.augment import check_pictures
from kasmina_env.tasks import TASKS, Criterion, Split, Task, with_noise
from kasmina_env.tasks.changes import with_changes


@dataclass(frozen=True)
class Data:
    """All samples of a problem."""

    splits: Mapping[str, Split]
    watched: Split  # slice of inner_valid that the controller sees every step
    scored: Split  # slice of outer_valid that is scored every step
    warmup: Split  # samples for training hosts before their episode, without noise
    criterion: Criterion


def make_task(problem: Problem) -> Task:
    """Load the problem's task and check that it fits the host."""
    config, host = problem.config, problem.host
    task = build(TASKS.get(config.task), "task_settings", config.task_settings)
    if task.input_shape != host.input_shape:
        raise ValueError(
            f"`host_settings` must fit samples of shape {task.input_shape}, got a host for {host.input_shape}. Change "
            "the host's settings or the task's."
        )
    if task.num_classes != host.num_classes:
        raise ValueError(
            f"`host_settings` must fit the {task.num_classes} classes of the task, got a host for {host.num_classes}. "
            "Change the host's settings or the task's."
        )
    check_pictures(task.input_shape, config.augment)
    if len(problem.changes) > 1 and config.augment != "none":
        raise ValueError(f"`augment` must be 'none' where data drift, got {config.augment!r}.")
    _check_size(task, "inner_valid", "watch_samples", config.watch_samples)
    _check_size(task, "outer_valid", "score_samples", config.score_samples)
    return task


def load_data(problem: Problem, device: torch.device, dtype: torch.dtype) -> Data:
    """Samples of a problem on a device."""
    task, config, numbers = make_task(problem), problem.config, problem.instances.numbers
    splits = {name: split.to(device, dtype) for name, split in task.splits.items()}
    warmup = task.warmup.to(device, dtype) if task.warmup else splits["train"]  # taken before noise is added below
    if any(numbers[name].any() for name in ("label_noise", "pixel_noise")):
        named = enumerate(splits.items())
        splits = {name: with_noise(split, task.num_classes, seed=number) for number, (name, split) in named}
    if len(problem.changes) > 1:
        named = enumerate(splits.items())
        splits = {name: with_changes(split, problem.changes, seed=number) for number, (name, split) in named}
    return Data(
        splits=splits,
        watched=splits["inner_valid"].head(config.watch_samples),
        scored=splits["outer_valid"].head(config.score_samples),
        warmup=warmup,
        criterion=task.criterion,
    )


def _check_size(task: Task, split: str, setting: str, size: int) -> None:
    if size > len(task.splits[split]):
        raise ValueError(f"`{setting}` must be at most {len(task.splits[split])}, got {size}. Ask for fewer.")
