"""Pictures made from noise, of any size: for benchmarks and tests."""

from __future__ import annotations

import numpy as np

from kasmina_env.settings.config import check_sizes
from kasmina_env.tasks.base import Task, register_task, split_samples

MOST_PIXELS = 2**30  # of all samples, 4 GiB


@register_task("synthetic")
def synthetic(
    image_size: int = 28,
    in_channels: int = 1,
    num_classes: int = 10,
    noise: float = 0.5,
    seed: int = 0,
    train: int = 1000,
    inner_valid: int = 256,
    outer_valid: int = 256,
    test: int = 256,
) -> Task:
    """Pictures of random coarse patterns, one for each class, shifted by up to an eighth and covered with noise.

    Args:
        image_size: Height and width in pixels.
        in_channels: Number of channels.
        num_classes: Number of patterns.
        noise: Standard deviation of the noise on every pixel; that of the patterns is 1.
        seed: Seed of patterns and samples.
        train, inner_valid, outer_valid, test: Number of samples of each split.
    """
    sizes = {"train": train, "inner_valid": inner_valid, "outer_valid": outer_valid, "test": test}
    check_sizes({"image_size": image_size, "in_channels": in_channels, "num_classes": num_classes, **sizes})
    num_samples = sum(sizes.values())
    if (num_samples + num_classes) * in_channels * image_size**2 > MOST_PIXELS:
        raise ValueError(
            f"`image_size` must leave at most {MOST_PIXELS} pixels to all samples and patterns, got {image_size} for "
            f"{num_samples} samples and {num_classes} patterns of {in_channels} channels. Lower one of them."
        )
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, got {seed}. Raise it.")
    rng = np.random.default_rng(seed)
    y = rng.integers(num_classes, size=num_samples)
    block = max(1, image_size // 7)  # pixels of one patch of a pattern
    patches = rng.choice((-1.0, 1.0), (num_classes, in_channels, *[-(-image_size // block)] * 2)).astype(np.float32)
    patterns = patches.repeat(block, axis=2).repeat(block, axis=3)[..., :image_size, :image_size]
    reach = image_size // 8
    moves = rng.integers(-reach, reach + 1, (len(y), 2))
    rows, columns = ((np.arange(image_size) - moves[:, [axis]]) % image_size for axis in (0, 1))  # [n, image_size]
    x = patterns[y[:, None, None], :, rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)
    x = x + noise * rng.standard_normal(x.shape, dtype=np.float32)
    return Task(split_samples(x.astype(np.float32), y, sizes, seed=0), num_classes)
