"""Nested values as plain JSON beside named tensors, and back; for files that must never be unpickled.

Known are numbers, strings, None, arrays, tensors, random generators, lists, tuples, dictionaries, dataclasses and named
tuples. What is built again, besides the plain containers, is what the annotations of the wanted type say, never what a
file names.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, NamedTuple, get_args, get_type_hints

import numpy as np
import torch
from torch import Tensor

Tree = Any  # plain JSON; every list is a mark followed by its content
BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


class Packed(NamedTuple):
    """A value as plain JSON, and the tensors in it by their place."""

    tree: Tree
    tensors: Mapping[str, Tensor]


def pack(value: Any, name: str = "") -> Packed:
    """Take a value apart; the names of its tensors begin with `name`.

    Raises:
        TypeError: If there is something in it that is not known.
    """
    tensors: dict[str, Tensor] = {}
    return Packed(_pack(value, name, tensors), tensors)


def unpack(packed: Packed, kind: Any = Any, name: str = "") -> Any:
    """Put a value together again.

    Args:
        packed: Result of `pack` with the same `name`; further tensors are ignored.
        kind: Annotation of the value: needed for dataclasses and named tuples, also for those inside.
        name: See there.

    Raises:
        ValueError: If it is no value of that kind.
    """
    try:
        return _unpack(packed.tree, packed.tensors, kind, name)
    except KeyError as error:
        raise ValueError(f"there is no {error}") from error
    except (IndexError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(str(error)) from error


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Tree:
    if isinstance(value, np.generic):
        return ["number", value.dtype.name, _pack(value.item(), name, tensors)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else ["float", repr(float(value))]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, np.ndarray):
        # Not all releases of safetensors know unsigned integers.
        copy = np.array(value, order="C", dtype=np.int64 if value.dtype == np.uint32 else value.dtype)
        return _keep(torch.from_numpy(copy), name, tensors, ["array", value.dtype.name])
    if isinstance(value, Tensor):
        return _keep(value.detach().cpu().clone(), name, tensors, ["tensor"])
    if isinstance(value, np.random.Generator):
        return ["generator", _pack(value.bit_generator.state, name, tensors)]
    if isinstance(value, dict):
        pairs = enumerate(value.items())
        return ["dict", *([_pack(k, "", {}), _pack(v, _place(name, k, i), tensors)] for i, (k, v) in pairs)]
    fields = _fields(value)
    if fields is not None:
        return ["object", {key: _pack(entry, _place(name, key), tensors) for key, entry in fields.items()}]
    if isinstance(value, list | tuple):
        mark = "tuple" if isinstance(value, tuple) else "list"
        return [mark, *(_pack(entry, _place(name, i), tensors) for i, entry in enumerate(value))]
    raise TypeError(f"`{name}` must be made of numbers, arrays and plain containers, got {type(value).__name__}.")


def _keep(copy: Tensor, name: str, tensors: dict[str, Tensor], tree: Tree) -> Tree:
    if name in tensors:
        raise ValueError(f"`{name}` must be the name of one array, got two.")
    tensors[name] = copy
    return tree


def _unpack(tree: Tree, tensors: Mapping[str, Tensor], kind: Any, name: str) -> Any:
    if tree is not None:
        kind = _without_none(kind)
    mark: str
    content: list[Any]
    mark, *content = tree if isinstance(tree, list) else [""]
    if dataclasses.is_dataclass(kind) and mark != "object":
        raise ValueError(f"{name!r} is no {getattr(kind, '__name__', kind)}")
    if not isinstance(tree, list):
        return tree
    inner = get_args(kind)
    match mark:
        case "number":
            return np.dtype(content[0]).type(_unpack(content[1], tensors, Any, name))
        case "float":
            return float(content[0])
        case "array":
            return tensors[name].numpy().astype(content[0], copy=False)
        case "tensor":
            return tensors[name]
        case "generator":
            return _generator(_unpack(content[0], tensors, Any, name))
        case "dict":
            key_kind, value_kind = inner or (Any, Any)
            keys = [_unpack(key, {}, key_kind, "") for key, _ in content]
            named = zip(keys, content, strict=True)
            values = [_unpack(v, tensors, value_kind, _place(name, k, i)) for i, (k, (_, v)) in enumerate(named)]
            return dict(zip(keys, values, strict=True))
        case "list" | "tuple":
            kinds = _kinds_of_entries(inner, len(content))
            entries = [_unpack(e, tensors, kinds[i], _place(name, i)) for i, e in enumerate(content)]
            return tuple(entries) if mark == "tuple" else entries
        case "object":
            return _object(content[0], tensors, kind, name)
    raise ValueError(f"{mark!r} is not known")


def _without_none(kind: Any) -> Any:
    """What an optional annotation allows besides None; any other annotation as it is."""
    others = [one for one in get_args(kind) if one is not NoneType]
    return others[0] if isinstance(kind, UnionType) and len(others) == 1 else kind


def _kinds_of_entries(inner: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """Annotation of each entry of a list or tuple, from what stands in its brackets."""
    if len(inner) == count and Ellipsis not in inner:
        return inner
    return (inner[0] if inner else Any,) * count


def _place(name: str, key: object, number: int = 0) -> str:
    """Name of a value inside another one: by its key, or by its number where that is no word."""
    word = key if isinstance(key, str | int) else number
    return f"{name}.{word}" if name else str(word)


def _fields(value: Any) -> dict[str, Any] | None:
    """What a dataclass or named tuple is made of, without what its copies go without; None for other things."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    kept: dict[str, Any] = value.__getstate__()  # type: ignore[assignment]
    return {field.name: kept[field.name] for field in dataclasses.fields(value) if field.name in kept}


def _object(parts: Mapping[str, Tree], tensors: Mapping[str, Tensor], kind: Any, name: str) -> Any:
    hints = get_type_hints(kind)
    values = {key: _unpack(tree, tensors, hints[key], _place(name, key)) for key, tree in parts.items()}
    if issubclass(kind, tuple):
        return kind(**values)
    has_own_idea = "__getstate__" in vars(kind)  # of which fields its copies have
    missing = [field.name for field in dataclasses.fields(kind) if field.name not in values]
    if missing and not has_own_idea:
        raise ValueError(f"{kind.__name__} has no {missing[0]}")
    thing = object.__new__(kind)
    vars(thing).update(values)
    return thing


def _generator(state: Any) -> np.random.Generator:
    if (kind := state["bit_generator"]) not in BIT_GENERATORS:
        raise ValueError(f"{kind!r} is no bit generator of NumPy")
    made = getattr(np.random, kind)(0)
    made.state = state
    return np.random.Generator(made)
