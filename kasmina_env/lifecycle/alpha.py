"""Alpha, the amplitude of a seed: a ramp that lands exactly and then rests.

The ramps of all slots of all networks are one object of arrays, and nothing is changed in place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray

# ── curves ────────────────────────────────────────────────────────────────────────────────────────


class Curve(IntEnum):
    """Shape of a ramp. A sigmoid's number is its steepness."""

    LINEAR = 0
    COSINE = 1
    SIGMOID_6 = 2
    SIGMOID_12 = 3
    SIGMOID_24 = 4


# [len(Curve)] a sigmoid of steepness 0 is LINEAR; COSINE has none
_STEEPNESS: FloatArray = np.array([0.0, 0.0, 6.0, 12.0, 24.0])
_NEARLY_LINEAR = 1e-8  # a sigmoid flatter than this differs from a line by less than one rounding


def sigmoid_curve(t: ArrayLike, steepness: ArrayLike) -> FloatArray:
    """Sigmoid through (0, 0), (1/2, 1/2) and (1, 1), both ends exact.

    With k the steepness this is [σ(k(t−½)) − σ(−k/2)] / [σ(k/2) − σ(−k/2)], written with tanh
    because tanh cannot overflow: ½ + ½·tanh(k(t−½)/2) / tanh(k/4). At k = 0 it is a straight line.

    Args:
        t: Position along the ramp, any shape; values outside [0, 1] are clipped.
        steepness: k, finite and at least 0, broadcast against `t`.

    Returns:
        Values in [0, 1], shape of `t` and `steepness` broadcast.

    Raises:
        ValueError: If a steepness is negative or not finite.
    """
    position = np.clip(np.asarray(t, dtype=np.float64), 0.0, 1.0)
    slope = np.asarray(steepness, dtype=np.float64)
    if not ((slope >= 0.0) & np.isfinite(slope)).all():
        raise ValueError(f"`steepness` must be finite and >= 0, got {slope}. Use 0 for a line.")
    is_line = slope < _NEARLY_LINEAR
    safe_slope = np.where(is_line, 1.0, slope)
    from_middle = position - 0.5
    # abs and copysign make both ends exact: there numerator and denominator are the same number
    rise = np.tanh(safe_slope / 2.0 * np.abs(from_middle)) / np.tanh(safe_slope / 4.0)
    return np.where(is_line, position, 0.5 + np.copysign(0.5 * rise, from_middle))


def curve_value(curve: IntArray, t: FloatArray) -> FloatArray:
    """Height of each entry's curve at its position.

    Args:
        curve: Members of `Curve` as integers, any shape.
        t: Position along the ramp, same shape; values outside [0, 1] are clipped.

    Returns:
        Values in [0, 1], same shape: 0 at t = 0, 1 at t = 1, never falling in between.
    """
    position = np.clip(t, 0.0, 1.0)
    # sin²(πt/2) is (1 − cos πt)/2 without the cancellation near t = 0
    cosine = np.sin(0.5 * np.pi * position) ** 2
    return np.where(curve == Curve.COSINE, cosine, sigmoid_curve(position, _STEEPNESS[curve]))


# ── ramps ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class AlphaRamps:
    """Ramps from `start` to `target`, one per entry. N networks, S slots.

    A ramp of `num_steps` steps has the value `start` before its first step and exactly `target`
    after its last one, where it rests until it is given another target.
    """

    start: FloatArray  # [N, S] in [0, 1]
    target: FloatArray  # [N, S] in [0, 1]
    num_steps: IntArray  # [N, S] length of the ramp, at least 0
    elapsed: IntArray  # [N, S] steps taken, at least 0
    curve: IntArray  # [N, S] members of Curve

    @classmethod
    def constant(cls, shape: tuple[int, ...], value: float = 0.0) -> AlphaRamps:
        """Ramps of one shape that all rest at one value.

        Args:
            shape: Shape of every array, normally (N, S).
            value: Alpha at which they rest, in [0, 1].

        Raises:
            ValueError: If `value` is outside [0, 1].
        """
        _check_amplitude("value", np.asarray(value, dtype=np.float64))
        zeros = np.zeros(shape, dtype=np.int64)
        return cls(np.full(shape, value), np.full(shape, value), zeros, zeros.copy(), zeros.copy())

    @property
    def is_at_rest(self) -> BoolArray:
        """True where the ramp is over, [N, S]."""
        return np.asarray(self.elapsed >= self.num_steps)

    @property
    def remaining(self) -> IntArray:
        """Steps until the target is reached, 0 at rest, [N, S]."""
        return np.asarray(np.maximum(self.num_steps - self.elapsed, 0))

    @property
    def value(self) -> FloatArray:
        """Alpha now, [N, S] in [0, 1]; exactly `target` at rest."""
        value = self.target.copy()
        is_ramping = ~self.is_at_rest
        if not is_ramping.any():
            return value
        start, target = self.start[is_ramping], self.target[is_ramping]
        t = self.elapsed[is_ramping] / self.num_steps[is_ramping]
        now = start + (target - start) * curve_value(self.curve[is_ramping], t)
        # the sum may round past the target by one bit, which would be an overshoot
        value[is_ramping] = np.clip(now, np.minimum(start, target), np.maximum(start, target))
        return value


def retarget(
    ramps: AlphaRamps,
    where: ArrayLike,
    target: ArrayLike,
    num_steps: ArrayLike,
    curve: ArrayLike,
    interrupt: bool = False,
) -> AlphaRamps:
    """Start a new ramp from the current alpha of the selected entries.

    A ramp of zero steps, or to the current alpha, is at rest at once. Entries that are not selected keep their ramp,
    and arguments at their places are not read.

    Args:
        ramps: Arrays of shape [N, S].
        where: Mask of the entries that get a new ramp; it and the next three broadcast to [N, S].
        target: End of the ramp, in [0, 1].
        num_steps: Length of the ramp, at least 0.
        curve: Shape of the ramp, members of `Curve`.
        interrupt: Whether a ramp that is still under way may be replaced.

    Raises:
        ValueError: If a selected entry is not at rest and `interrupt` is False, or a selected
            argument is out of its range.
    """
    shape = ramps.start.shape
    chosen = np.broadcast_to(np.asarray(where, dtype=np.bool_), shape)
    end = np.broadcast_to(np.asarray(target, dtype=np.float64), shape)
    length = np.broadcast_to(np.asarray(num_steps, dtype=np.int64), shape)
    form = np.broadcast_to(np.asarray(curve, dtype=np.int64), shape)
    num_moving = int((chosen & ~ramps.is_at_rest).sum())
    if num_moving and not interrupt:
        got = f"{num_moving} under way"
        raise ValueError(f"`where` must select entries at rest, got {got}. Pass interrupt=True.")
    _check_amplitude("target", end[chosen])
    _check_count("num_steps", length[chosen])
    _check_curve(form[chosen])
    now = ramps.value
    return AlphaRamps(
        start=np.where(chosen, now, ramps.start),
        target=np.where(chosen, end, ramps.target),
        num_steps=np.where(chosen, np.where(end == now, 0, length), ramps.num_steps),
        elapsed=np.where(chosen, 0, ramps.elapsed),
        curve=np.where(chosen, form, ramps.curve),
    )


def move_on(ramps: AlphaRamps) -> AlphaRamps:
    """Take one step of every ramp that is under way; entries at rest stay as they are."""
    return dataclasses.replace(ramps, elapsed=ramps.elapsed + ~ramps.is_at_rest)


def hold(ramps: AlphaRamps, where: ArrayLike, value: ArrayLike) -> AlphaRamps:
    """Put the selected entries at rest at a value, whatever they were doing.

    Args:
        ramps: Arrays of shape [N, S].
        where: Mask of the entries, broadcast to [N, S].
        value: Alpha at which they rest, in [0, 1], broadcast to [N, S].

    Raises:
        ValueError: If a selected value is outside [0, 1].
    """
    shape = ramps.start.shape
    chosen = np.broadcast_to(np.asarray(where, dtype=np.bool_), shape)
    rest = np.broadcast_to(np.asarray(value, dtype=np.float64), shape)
    _check_amplitude("value", rest[chosen])
    return AlphaRamps(
        start=np.where(chosen, rest, ramps.start),
        target=np.where(chosen, rest, ramps.target),
        num_steps=np.where(chosen, 0, ramps.num_steps),
        elapsed=np.where(chosen, 0, ramps.elapsed),
        curve=np.where(chosen, int(Curve.LINEAR), ramps.curve),
    )


def _check_amplitude(name: str, values: NDArray[Any]) -> None:
    outside = values[~((values >= 0.0) & (values <= 1.0))]  # written so that NaN is outside
    if outside.size:
        raise ValueError(f"`{name}` must be in [0, 1], got {outside.flat[0]}. Scale it.")


def _check_count(name: str, values: NDArray[Any]) -> None:
    outside = values[values < 0]
    if outside.size:
        raise ValueError(f"`{name}` must be at least 0, got {outside.flat[0]}. Use 0 for none.")


def _check_curve(values: NDArray[Any]) -> None:
    outside = values[(values < 0) | (values >= len(Curve))]
    if outside.size:
        known = ", ".join(f"{curve.value} {curve.name}" for curve in Curve)
        raise ValueError(f"`curve` must be a Curve, got {outside.flat[0]}. Choose from: {known}.")
