"""Alpha ramps: ramps land exactly and rest; rows are taken and put."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasmina_env.lifecycle.alpha import (
    AlphaRamps,
    Curve,
    curve_value,
    hold,
    move_on,
    retarget,
    sigmoid_curve,
)
from kasmina_env.lifecycle.arrays import FloatArray, put_rows, take_rows

CURVES = list(Curve)
amplitudes = st.floats(0.0, 1.0)
lengths = st.integers(1, 60)
curves = st.sampled_from(CURVES)


def one(value: float = 0.0) -> AlphaRamps:
    return AlphaRamps.constant((1, 1), value)


def ramp(start: float, target: float, num_steps: int, curve: int) -> AlphaRamps:
    return retarget(one(start), True, target, num_steps, curve)


def played(ramps: AlphaRamps, num_steps: int) -> FloatArray:
    """Values before the first and after each step, [num_steps + 1]."""
    values = [ramps.value.item()]
    for _ in range(num_steps):
        ramps = move_on(ramps)
        values.append(ramps.value.item())
    return np.array(values)


@st.composite
def ramps(draw: st.DrawFn) -> AlphaRamps:
    """Any mixture of ramps under way and at rest."""
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    ramps = AlphaRamps.constant(shape, draw(amplitudes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    where, target = rng.random(shape) < 0.7, rng.random(shape)
    num_steps, curve = rng.integers(0, 9, shape), rng.integers(0, 5, shape)
    ramps = retarget(ramps, where, target, num_steps, curve)
    for _ in range(draw(st.integers(0, 9))):
        ramps = move_on(ramps)
    return ramps


# ── curves ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("curve", CURVES)
def test_every_curve_maps_zero_to_zero_and_one_to_one(curve: Curve) -> None:
    ends = curve_value(np.full(2, int(curve)), np.array([0.0, 1.0]))
    assert ends.tolist() == [0.0, 1.0]


@given(steepness=st.floats(0.0, sys.float_info.max))
def test_sigmoid_has_exact_ends_and_middle_for_any_steepness(steepness: float) -> None:
    """Neither the smallest nor the largest steepness overflows; warnings are errors."""
    assert sigmoid_curve([0.0, 0.5, 1.0], steepness).tolist() == [0.0, 0.5, 1.0]


@given(steepness=st.floats(0.0, sys.float_info.max))
def test_sigmoid_never_falls_for_any_steepness(steepness: float) -> None:
    """The slack is one rounding of tanh where it saturates."""
    values = sigmoid_curve(np.linspace(0.0, 1.0, 1001), steepness)
    assert (np.diff(values) >= -2e-16).all()
    assert (values >= 0.0).all()
    assert (values <= 1.0).all()


@pytest.mark.parametrize("steepness", [1e-3, 6.0, 12.0, 24.0, 500.0])
def test_sigmoid_is_the_formula_of_the_design(steepness: float) -> None:
    def logistic(x: FloatArray) -> FloatArray:
        return np.asarray(1.0 / (1.0 + np.exp(-x)))

    t, k = np.linspace(0.0, 1.0, 101), np.float64(steepness)
    low, high = logistic(-k / 2), logistic(k / 2)
    expected = (logistic(k * (t - 0.5)) - low) / (high - low)
    np.testing.assert_allclose(sigmoid_curve(t, k), expected, atol=1e-12)


@pytest.mark.parametrize("steepness", [-1.0, np.nan, np.inf])
def test_sigmoid_refuses_a_steepness_without_a_curve(steepness: float) -> None:
    with pytest.raises(ValueError, match="`steepness` must be finite"):
        sigmoid_curve(0.5, steepness)


def test_linear_and_cosine_are_the_formulas_of_the_design() -> None:
    t = np.linspace(0.0, 1.0, 101)
    linear, cosine = (curve_value(np.full(101, c), t) for c in (Curve.LINEAR, Curve.COSINE))
    np.testing.assert_array_equal(linear, t)
    np.testing.assert_allclose(cosine, (1.0 - np.cos(np.pi * t)) / 2.0, atol=1e-15)


def test_mixed_curves_are_evaluated_each_by_its_own_formula() -> None:
    t = np.linspace(0.1, 0.9, len(CURVES))
    mixed = curve_value(np.array(CURVES), t)
    alone = [curve_value(np.array([c]), t[i : i + 1]).item() for i, c in enumerate(CURVES)]
    np.testing.assert_allclose(mixed, alone, rtol=1e-15)


# ── ramps ───────────────────────────────────────────────────────────────────────────────────────


@given(start=amplitudes, target=amplitudes, num_steps=lengths, curve=curves)
def test_a_ramp_lands_exactly_on_its_target_and_rests(start, target, num_steps, curve) -> None:
    values = played(ramp(start, target, num_steps, curve), num_steps + 3)
    assert values[0] == start
    assert (values[num_steps:] == target).all()


@given(start=amplitudes, target=amplitudes, num_steps=lengths, curve=curves)
def test_a_ramp_is_monotone_and_never_overshoots(start, target, num_steps, curve) -> None:
    values = played(ramp(start, target, num_steps, curve), num_steps)
    moves = np.diff(values) * (1 if target >= start else -1)
    assert (moves >= 0.0).all()
    assert min(start, target) <= values.min() <= values.max() <= max(start, target)


@given(start=amplitudes, target=amplitudes, num_steps=lengths, curve=curves)
def test_a_ramp_is_at_rest_exactly_when_nothing_remains(start, target, num_steps, curve) -> None:
    ramps = ramp(start, target, num_steps, curve)
    for taken in range(num_steps + 2):
        expected = 0 if start == target else max(num_steps - taken, 0)
        assert ramps.remaining.item() == expected
        assert ramps.is_at_rest.item() == (expected == 0)
        ramps = move_on(ramps)


def test_a_linear_ramp_of_three_takes_thirds() -> None:
    values = played(ramp(0.0, 1.0, 3, Curve.LINEAR), 4)
    assert values.tolist() == [0.0, 1 / 3, 2 / 3, 1.0, 1.0]


@given(start=amplitudes, target=amplitudes, curve=curves)
def test_zero_steps_land_at_once(start: float, target: float, curve: Curve) -> None:
    ramps = ramp(start, target, 0, curve)
    assert ramps.value.item() == target
    assert ramps.is_at_rest.item()


@given(value=amplitudes, num_steps=lengths, curve=curves)
def test_an_equal_target_rests_at_once(value: float, num_steps: int, curve: Curve) -> None:
    assert ramp(value, value, num_steps, curve).is_at_rest.item()


def test_a_ramp_under_way_cannot_be_retargeted() -> None:
    ramps = move_on(ramp(0.0, 1.0, 5, Curve.COSINE))
    with pytest.raises(ValueError, match="`where` must select entries at rest"):
        retarget(ramps, True, 0.5, 5, Curve.COSINE)


def test_an_interrupted_ramp_goes_on_from_its_current_value() -> None:
    ramps = move_on(ramp(0.0, 1.0, 4, Curve.LINEAR))
    turned = retarget(ramps, True, 0.0, 2, Curve.LINEAR, interrupt=True)
    assert played(turned, 2).tolist() == [0.25, 0.125, 0.0]


def test_only_selected_entries_are_retargeted() -> None:
    moving = move_on(retarget(AlphaRamps.constant((2, 2)), [[True, False]] * 2, 1.0, 4, 1))
    where = np.array([[False, True], [False, False]])
    result = retarget(moving, where, [[9.0, 0.5], [np.nan, -1.0]], 0, 0)
    expected = moving.value
    expected[0, 1] = 0.5
    np.testing.assert_array_equal(result.value, expected)


@pytest.mark.parametrize("target", [-0.1, 1.1, np.nan, np.inf])
def test_a_target_outside_zero_to_one_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match=r"`target` must be in \[0, 1\]"):
        ramp(0.0, target, 3, Curve.LINEAR)


def test_a_negative_length_and_an_unknown_curve_are_refused() -> None:
    with pytest.raises(ValueError, match="`num_steps` must be at least 0, got -1"):
        ramp(0.0, 1.0, -1, Curve.LINEAR)
    with pytest.raises(ValueError, match="`curve` must be a Curve, got 5"):
        ramp(0.0, 1.0, 3, 5)


def test_hold_puts_selected_entries_at_rest_at_a_value() -> None:
    moving = move_on(retarget(AlphaRamps.constant((1, 2)), True, 1.0, 4, Curve.LINEAR))
    held = hold(moving, [[True, False]], 0.75)
    assert held.value.tolist() == [[0.75, 0.25]]
    assert held.is_at_rest.tolist() == [[True, False]]
    with pytest.raises(ValueError, match="`value` must be in"):
        hold(moving, True, 2.0)


@given(ramps=ramps())
def test_no_function_changes_its_input(ramps: AlphaRamps) -> None:
    for field in fields(ramps):
        getattr(ramps, field.name).flags.writeable = False
    move_on(ramps)
    hold(ramps, True, 0.5)
    retarget(ramps, True, 0.5, 3, 0, interrupt=True)
    put_rows(ramps, [0], take_rows(ramps, [0]))
    ramps.value[...] = 0.0  # the value is a copy, not a window into the ramps


# ── rows ────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Nested:
    count: np.ndarray
    alpha: AlphaRamps


def nested(num_rows: int) -> Nested:
    count = np.arange(num_rows)
    alpha = hold(AlphaRamps.constant((num_rows, 2)), True, count[:, None] / 10)
    return Nested(count, alpha)


def test_rows_are_taken_in_order_and_may_repeat() -> None:
    taken = take_rows(nested(5), [3, 0, 3])
    assert taken.count.tolist() == [3, 0, 3]
    assert taken.alpha.value[:, 0].tolist() == [0.3, 0.0, 0.3]


def test_taken_rows_share_no_memory() -> None:
    state = nested(3)
    taken = take_rows(state, [0, 1, 2])
    assert not np.shares_memory(taken.count, state.count)
    assert not np.shares_memory(taken.alpha.target, state.alpha.target)


def test_rows_put_in_replace_only_those_rows() -> None:
    state = put_rows(nested(4), [2, 0], take_rows(nested(9), [7, 8]))
    assert state.count.tolist() == [8, 1, 7, 3]
    assert state.alpha.value[:, 1].tolist() == [0.8, 0.1, 0.7, 0.3]


def test_rows_may_be_named_by_a_mask_or_be_none() -> None:
    mask = np.array([True, False, True])
    assert take_rows(nested(3), mask).count.tolist() == [0, 2]
    empty = take_rows(nested(3), [])
    assert empty.alpha.value.shape == (0, 2)
    assert put_rows(nested(3), [], empty).count.tolist() == [0, 1, 2]


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="`source` must have `count` of shape"):
        put_rows(nested(4), [0, 1], nested(1))


def test_a_field_without_rows_is_refused() -> None:
    with pytest.raises(TypeError, match="`alpha` must be an array or a dataclass of arrays"):
        take_rows(Nested(np.arange(2), 3.0), [0])  # type: ignore[arg-type]
