"""Settings of an environment on your own data: a small host that fits, and a menu of what can grow in it."""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import ArrayLike

from kasmina_env.tasks.arrays import task_from_arrays
from kasmina_env.tasks.base import Split, Task, register_task

SIDE = 16  # pixels to which a stem brings larger pictures, so that a step takes milliseconds
SMALLEST_SIDE = 8
COMMON = {"horizon": 30, "batches_per_step": 8, "learning_rate": 0.01, "tempos": (3, 8), "operation_price": 0.01}
MOST_SCORED = 100  # samples of a split that are measured every step
BLUEPRINTS = {
    "cnn": ("norm", "attention", "pointwise", "depthwise", "conv_light"),
    "mlp": ("layer_norm", "lora", "mlp_small", "mlp"),
    "transformer": ("layer_norm", "lora", "shift", "attention", "mlp_small", "mlp"),
}


def settings_from_arrays(name: str, x: ArrayLike, y: ArrayLike | None = None, **options: Any) -> dict[str, Any]:
    """Register a task of your own arrays, and choose settings of an environment for it.

    They go to `kasmina_env.register_environment`; change what you like before, such as ``{**settings, "horizon": 40}``.

    Args:
        name: New name of the task.
        x, y: Samples and labels, see `task_from_arrays`.
        **options: Keyword arguments of `task_from_arrays`.
    """
    task = task_from_arrays(x, y, **options)
    settings = settings_for(name, task)
    register_task(name)(lambda: task)
    return settings


def settings_for(name: str, task: Task) -> dict[str, Any]:
    """Settings of an environment for a task, with a host that is small on purpose: growing is for the controller.

    Args:
        name: Name under which the task is registered.
        task: Samples ``[n, C, H, H]``, ``[n, F]`` or, as integers, ``[n, T]``.
    """
    host, host_settings = _host(task)
    return {
        **COMMON,
        "task": name,
        "host": host,
        "host_settings": host_settings,
        "blueprints": BLUEPRINTS[host],
        "watch_samples": min(MOST_SCORED, len(task.splits["inner_valid"])),
        "score_samples": min(MOST_SCORED, len(task.splits["outer_valid"])),
        "success_score": _success_score(task.splits["train"]),
    }


def _host(task: Task) -> tuple[str, dict[str, Any]]:
    """Name and settings of a host for samples of this shape."""
    shape, num_classes = task.input_shape, task.num_classes
    if not task.splits["train"].x.is_floating_point():
        return "transformer", {"num_classes": num_classes, "context": shape[0], "width": 16, "num_heads": 2}
    if len(shape) == 1:
        return "mlp", {"in_features": shape[0], "num_classes": num_classes, "width": 16, "depth": 2}
    channels, height, width = shape
    if height != width:
        raise ValueError(
            f"`x` must be square pictures for the host 'cnn', got {height} x {width} pixels. Pad or cut them, or make "
            "the task with task_from_arrays and register a host of your own."
        )
    stem = _stem(height)
    return "cnn", {
        "in_channels": channels,
        "image_size": height,
        "num_classes": num_classes,
        "width": 8 if channels == 1 else 16,
        "kernels": (3, 3, 3),
        "stem": stem,
        "pooling": "average",
        "pools": tuple(block for block in range(3) if math.ceil(height // stem / 2**block) > 1),
    }


def _stem(size: int) -> int:
    """Side of the squares that are averaged first: a divisor of the picture's size that leaves about `SIDE` pixels."""
    divisors = [d for d in range(1, size + 1) if size % d == 0 and size // d >= min(size, SMALLEST_SIDE)]
    return next((d for d in divisors if size // d <= SIDE), divisors[-1])


def _success_score(train: Split) -> float:
    """Half-way between naming the most frequent class and naming the right one; 0.5 where tokens are predicted."""
    if train.y.ndim > 1:
        return 0.5
    most = int(torch.bincount(train.y).max()) / len(train)
    return round((1 + most) / 2, 3)
