"""Image classification on data that needs no download."""

from __future__ import annotations

import numpy as np

from kasmina_env.tasks.base import Task, register_task, split_samples


@register_task("digits")
def digits() -> Task:
    """The 1 797 real 8x8 handwritten digits inside scikit-learn (Alpaydin & Kaynak 1998), scaled to zero mean."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = ((pixels - 4.884) / 6.017).astype(np.float32).reshape(-1, 1, 8, 8)
    sizes = {"train": 900, "inner_valid": 256, "outer_valid": 320, "test": 321}
    return Task(split_samples(x, labels.astype(np.int64), sizes, seed=0), num_classes=10)
