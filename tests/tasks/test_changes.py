"""Changes of pictures, and splits that hold their samples after each of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kasmina_env.tasks import TASKS, Split
from kasmina_env.tasks.changes import CHANGES, UNCHANGED, Change, with_changes

RNG = np.random.default_rng


def pictures() -> torch.Tensor:
    return torch.from_numpy(RNG(0).normal(size=(3, 1, 4, 4)).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "amount", "back"),
    [("turn", 180.0, 180.0), ("invert", 1.0, 1.0), ("mirror", 0.0, 0.0), ("contrast", 0.5, 2.0)],
)
def test_a_change_that_can_be_undone_comes_back(name, amount, back):
    change, x = CHANGES.get(name), pictures()
    there = change(x, amount, RNG(1))
    assert not torch.allclose(there, x)
    torch.testing.assert_close(change(there, back, RNG(1)), x, rtol=0, atol=1e-5)


def test_what_is_moved_brings_its_border_along():
    row = torch.arange(4.0).view(1, 1, 1, 4)
    assert CHANGES.get("shift")(row, 1.0, RNG(0)).flatten().tolist() == [0, 0, 1, 2]
    assert CHANGES.get("shift")(row, -1.0, RNG(0)).flatten().tolist() == [1, 2, 3, 3]


def test_blur_takes_contrast_and_brightness_adds_it_to_all():
    x = pictures()
    assert CHANGES.get("blur")(x, 1.0, RNG(0)).std() < 0.8 * x.std()
    torch.testing.assert_close(CHANGES.get("brightness")(x, 1.5, RNG(0)) - x, torch.full_like(x, 1.5))


def test_noise_is_the_same_for_everybody():
    noise = CHANGES.get("noise")
    assert torch.equal(noise(pictures(), 0.5, RNG(3)), noise(pictures(), 0.5, RNG(3)))


def test_a_split_holds_its_samples_after_each_change_and_so_does_its_head():
    split = TASKS.get("digits")().splits["test"]
    changed = with_changes(split, (UNCHANGED, Change("turn", 90.0), Change("noise", 0.1)), seed=0)
    assert changed.changed.shape == (3, *split.x.shape)
    assert torch.equal(changed.changed[0], split.x)
    assert torch.equal(changed.head(7).changed, changed.changed[:, :7])


def test_only_pictures_drift():
    vectors = Split(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match="events for pictures only"):
        with_changes(vectors, (UNCHANGED,), seed=0)
