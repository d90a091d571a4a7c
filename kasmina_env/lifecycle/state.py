"""What is in the slots of N networks, what may be asked of them, and what decides whether it is legal.

N networks, S slots. States are frozen dataclasses of arrays and are never changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from kasmina_env.lifecycle.alpha import AlphaRamps
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray

MAX_STEPS = 100_000  # the longest episode
NONE = -1  # blueprint and operator of a slot without a seed


class Stage(IntEnum):
    """Stage of a slot."""

    DORMANT = 0
    TRAINING = 1
    BLENDING = 2
    HOLDING = 3
    FOSSILIZED = 4
    EMBARGOED = 5


class Op(IntEnum):
    """Operation of a controller on a slot."""

    WAIT = 0
    GERMINATE = 1
    ADVANCE = 2
    SET_ALPHA_TARGET = 3
    PRUNE = 4
    FOSSILIZE = 5


SEED_STAGES = (Stage.TRAINING, Stage.BLENDING, Stage.HOLDING, Stage.FOSSILIZED)
LIVE_STAGES = (Stage.BLENDING, Stage.HOLDING, Stage.FOSSILIZED)
_HAS_SEED = np.array([stage in SEED_STAGES for stage in Stage])  # [len(Stage)]
_IS_LIVE = np.array([stage in LIVE_STAGES for stage in Stage])  # [len(Stage)]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the lifecycle. A value out of its range is a ValueError."""

    min_training_steps: int = 2  # steps a seed must spend in TRAINING before ADVANCE
    min_prune_age: int = 2  # steps since germination before PRUNE
    embargo_steps: int = 3  # ticks a slot stays EMBARGOED after its seed was removed
    min_contribution: float | None = None  # for FOSSILIZE, in accuracy; None asks only for a measured one
    instant: bool = False  # a germinated seed is in HOLDING at alpha 1 at once

    def __post_init__(self) -> None:
        for name in ("min_training_steps", "min_prune_age", "embargo_steps"):
            steps = getattr(self, name)
            if type(steps) is not int or not 0 <= steps <= MAX_STEPS:
                raise ValueError(f"`{name}` must be an integer from 0 to {MAX_STEPS}, got {steps!r}. It counts steps.")
        least = self.min_contribution
        if least is not None and (type(least) not in (int, float) or not -1 <= least <= 1):
            raise ValueError(f"`min_contribution` must be a number from -1 to 1, got {least!r}. Or use None.")
        if type(self.instant) is not bool:
            raise ValueError(f"`instant` must be True or False, got {self.instant!r}. Use a bool.")


@dataclass(frozen=True, eq=False)
class LifecycleState:
    """Content of every slot of every network. N networks, S slots."""

    stage: IntArray  # [N, S] members of Stage
    blueprint: IntArray  # [N, S] index into the menu of blueprints, NONE without a seed
    operator: IntArray  # [N, S] index into the menu of blend operators, NONE without a seed
    tempo: IntArray  # [N, S] steps of the ramp that ADVANCE will start, chosen at GERMINATE
    curve: IntArray  # [N, S] its Curve, chosen at GERMINATE
    steps_in_stage: IntArray  # [N, S] ticks since the stage was entered
    age: IntArray  # [N, S] ticks since germination, 0 without a seed
    is_pruning: BoolArray  # [N, S] True while alpha ramps down to the removal of the seed
    alpha: AlphaRamps  # of [N, S]

    @classmethod
    def dormant(cls, num_networks: int, num_slots: int) -> LifecycleState:
        """All slots empty and free."""
        shape = (num_networks, num_slots)
        stage, tempo, curve, steps, age = np.zeros((5, *shape), dtype=np.int64)
        blueprint, operator = np.full((2, *shape), NONE, dtype=np.int64)
        is_pruning = np.zeros(shape, dtype=np.bool_)
        alpha = AlphaRamps.constant(shape)
        return cls(stage, blueprint, operator, tempo, curve, steps, age, is_pruning, alpha)

    @property
    def has_seed(self) -> BoolArray:
        """True where a seed is in the slot, [N, S]."""
        return np.asarray(_HAS_SEED[self.stage])

    @property
    def is_live(self) -> BoolArray:
        """True where the seed is part of the network's output, at its alpha, [N, S]."""
        return np.asarray(_IS_LIVE[self.stage])


@dataclass(frozen=True, eq=False)
class SeedMeasurements:
    """Measurements of the seeds that decide what is legal. N networks, S slots."""

    has_finite_gradients: BoolArray  # [N, S]
    contribution: FloatArray  # [N, S] read only where has_contribution
    has_contribution: BoolArray  # [N, S] True where it was measured

    @classmethod
    def unmeasured(cls, num_networks: int, num_slots: int) -> SeedMeasurements:
        """No gradients and no contributions yet."""
        shape = (num_networks, num_slots)
        return cls(np.zeros(shape, np.bool_), np.zeros(shape), np.zeros(shape, np.bool_))


@dataclass(frozen=True, eq=False)
class Commands:
    """N operations with their arguments; an argument that an operation does not have is not read."""

    op: IntArray  # [N] members of Op
    slot: IntArray  # [N] for all operations but WAIT
    blueprint: IntArray  # [N] for GERMINATE
    operator: IntArray  # [N] for GERMINATE
    tempo: IntArray  # [N] for GERMINATE, SET_ALPHA_TARGET, PRUNE; 0 or less lands at once
    curve: IntArray  # [N] for GERMINATE, SET_ALPHA_TARGET, PRUNE
    target: FloatArray  # [N] for SET_ALPHA_TARGET

    @classmethod
    def wait(cls, num_networks: int) -> Commands:
        """Every network waits."""
        op, slot, blueprint, operator, tempo, curve = np.zeros((6, num_networks), dtype=np.int64)
        return cls(op, slot, blueprint, operator, tempo, curve, np.zeros(num_networks))
