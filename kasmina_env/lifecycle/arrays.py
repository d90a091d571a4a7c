"""Types of arrays, and operations on states: frozen dataclasses of arrays whose first axis is the rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

BoolArray: TypeAlias = NDArray[np.bool_]
IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
Float32Array: TypeAlias = NDArray[np.float32]

State = TypeVar("State", bound="DataclassInstance")


def take_rows(state: State, rows: Sequence[int] | IntArray | BoolArray) -> State:
    """Copy some rows of a state, in the order given; a row may be taken more than once.

    Args:
        state: Dataclass whose fields are [N, …] arrays or such dataclasses again.
        rows: Row numbers [R], or a mask [N].

    Returns:
        The same dataclass with [R, …] arrays that share no memory with `state`.
    """
    index = _row_index(rows)
    taken = {
        name: value[index] if isinstance(value, np.ndarray) else take_rows(value, index)
        for name, value in _row_fields(state)
    }
    return dataclasses.replace(state, **taken)


def put_rows(state: State, rows: Sequence[int] | IntArray | BoolArray, source: State) -> State:
    """Replace some rows of a state by the rows of another one.

    Args:
        state: Dataclass whose fields are [N, …] arrays or such dataclasses again.
        rows: Row numbers [R], or a mask [N] with R entries True.
        source: The same dataclass with [R, …] arrays.

    Raises:
        ValueError: If `source` does not have exactly R rows of the right shape.
    """
    index = _row_index(rows)
    merged: dict[str, Any] = {}
    for (name, old), (_, new) in zip(_row_fields(state), _row_fields(source), strict=True):
        if not isinstance(old, np.ndarray):
            merged[name] = put_rows(old, index, new)
            continue
        merged[name] = old.copy()
        if new.shape != old[index].shape:
            raise ValueError(
                f"`source` must have `{name}` of shape {old[index].shape}, got {new.shape}. "
                "Give it one row per entry of `rows`."
            )
        merged[name][index] = new
    return dataclasses.replace(state, **merged)


def _row_index(rows: Sequence[int] | IntArray | BoolArray) -> NDArray[Any]:
    index = np.atleast_1d(np.asarray(rows))
    return index.astype(np.intp) if index.size == 0 and index.dtype != np.bool_ else index


def _row_fields(state: DataclassInstance) -> list[tuple[str, Any]]:
    pairs = [(field.name, getattr(state, field.name)) for field in dataclasses.fields(state)]
    for name, value in pairs:
        if not isinstance(value, np.ndarray) and not dataclasses.is_dataclass(value):
            kind = type(value).__name__
            raise TypeError(
                f"`{name}` must be an array or a dataclass of arrays, got {kind}. Keep it outside the state."
            )
    return pairs


def join_rows(parts: Sequence[State]) -> State:
    """One state with the rows of several, in their order.

    Args:
        parts: Equal dataclasses whose fields are [R, …] arrays or such dataclasses again; at least one.
    """
    joined: dict[str, Any] = {}
    for name, first in _row_fields(parts[0]):
        values = [getattr(part, name) for part in parts]
        joined[name] = np.concatenate(values) if isinstance(first, np.ndarray) else join_rows(values)
    return dataclasses.replace(parts[0], **joined)
