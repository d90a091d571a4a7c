"""Interleaved spirals in the plane, which a narrow network cannot tell apart."""

from __future__ import annotations

import numpy as np

from kasmina_env.settings.config import check_sizes
from kasmina_env.tasks.base import Task, register_task, split_samples


@register_task("spirals")
def spirals(num_classes: int = 3, turns: float = 1.0, noise: float = 0.05) -> Task:
    """Points along `num_classes` arms that wind `turns` times around the origin.

    Args:
        num_classes: Number of arms; each is a class.
        turns: Turns of each arm; more are harder.
        noise: Standard deviation of the noise on each coordinate, where the arms end at radius 1.
    """
    check_sizes({"num_classes": num_classes})
    if not 0 <= noise <= 1000:
        raise ValueError(f"`noise` must be a number from 0 to 1000, got {noise}. Change it in `task_settings`.")
    rng = np.random.default_rng(0)
    sizes = {"train": 1024, "inner_valid": 256, "outer_valid": 512, "test": 512}
    n = sum(sizes.values())
    y = rng.integers(num_classes, size=n)
    radius = np.sqrt(rng.uniform(0.01, 1.0, size=n))
    angle = 2 * np.pi * (y / num_classes + turns * radius)
    points = radius * np.stack([np.cos(angle), np.sin(angle)])  # [2, n]
    x = (points.T + noise * rng.standard_normal((n, 2))).astype(np.float32) * 2
    return Task(split_samples(x, y.astype(np.int64), sizes, seed=0), num_classes)
