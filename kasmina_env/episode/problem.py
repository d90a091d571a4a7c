"""What a problem is made of, built from its settings and checked: the host and its variants, the task and its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from kasmina_env.lifecycle.arrays import FloatArray, IntArray
from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.hosts import HOSTS, Host
from kasmina_env.population.augment import check_pictures
from kasmina_env.population.initial_weights import load_initial_weights
from kasmina_env.settings.config import EnvConfig, check_nested
from kasmina_env.settings.instances import Instances
from kasmina_env.tasks import TASKS, Measure, Split, with_noise

BuiltT = TypeVar("BuiltT")


@dataclass(frozen=True)
class Data:
    """All samples of a problem, where its networks are."""

    splits: Mapping[str, Split]
    watched: Split  # the slice of inner_valid the controller sees every step
    scored: Split  # the slice of outer_valid that is scored every step
    warmup: Split  # what hosts are trained on before their episode, without noise
    measure: Measure


def make_host(config: EnvConfig) -> Host:
    """The host, which must accept all blueprints of the menu."""
    host = _build(HOSTS.get(config.host), "host_settings", config.host_settings)
    for name in config.blueprints:
        if host.topology not in BLUEPRINTS.get(name).topologies:
            fitting = [n for n in BLUEPRINTS if host.topology in BLUEPRINTS.get(n).topologies]
            raise ValueError(
                f"`blueprints` must accept {host.topology} features, got {name!r}. Choose from {', '.join(fitting)}."
            )
    return host


def make_variants(config: EnvConfig, instances: Instances) -> tuple[tuple[Host, ...], IntArray]:
    """The different hosts of all instances, and for each instance which is its own ``[I]``; none if all are whole."""
    settings = [{**config.host_settings, **own} for own in instances.host_settings]
    written = [repr(sorted(values.items())) for values in settings]  # hosts themselves need not be hashable
    different, make = dict(zip(written, settings, strict=True)), HOSTS.get(config.host)
    # What the problem itself settles has been checked.
    hosts = tuple(_build(make, "instances", values) for values in different.values())
    return hosts if any(instances.host_settings) else (), np.array([list(different).index(key) for key in written])


def initial_weights(config: EnvConfig, host: Host) -> FloatArray | None:
    """Parameters that every fresh host starts from ``[P]``; None where they are drawn."""
    return load_initial_weights(Path(config.initial_weights), host) if config.initial_weights else None


def make_data(config: EnvConfig, host: Host, instances: Instances, device: torch.device, dtype: torch.dtype) -> Data:
    """Load the task's data, which must fit the host."""
    task = _build(TASKS.get(config.task), "task_settings", config.task_settings)
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
    splits = {name: split.to(device, dtype) for name, split in task.splits.items()}
    warmup = task.warmup.to(device, dtype) if task.warmup else splits["train"]  # before, and so without, the noise
    if any(instances.numbers[name].any() for name in ("label_noise", "pixel_noise")):
        named = enumerate(splits.items())
        splits = {name: with_noise(split, task.num_classes, seed=number) for number, (name, split) in named}
    return Data(
        splits=splits,
        watched=_head(splits["inner_valid"], config.watch_samples, "watch_samples"),
        scored=_head(splits["outer_valid"], config.score_samples, "score_samples"),
        warmup=warmup,
        measure=task.measure,
    )


def _build(make: Callable[..., BuiltT], setting: str, values: Mapping[str, Any]) -> BuiltT:
    """Call what is registered with its keyword settings, whose names and kinds are checked first."""
    check_nested(setting, make, values)
    return make(**values)


def _head(split: Split, size: int, setting: str) -> Split:
    if size > len(split):
        raise ValueError(f"`{setting}` must be at most {len(split)}, got {size}. Ask for fewer.")
    return split.head(size)
