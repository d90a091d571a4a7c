"""Values as plain JSON beside named tensors: what comes back is what was there, and nothing else is built."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch

from kasmina_env.networks.tensor_tree import Packed, pack, unpack
from tests.episodes import digest


class Key(NamedTuple):
    slot: int
    name: str


@dataclass(frozen=True)
class Inner:
    values: np.ndarray
    number: float


@dataclass(frozen=True)
class Outer:
    parts: dict[Key, Inner]
    pair: tuple[Inner, np.random.Generator]
    many: tuple[Inner, ...]
    note: str | None = None
    spare: Inner | None = None


INNER = Inner(np.arange(6.0).reshape(2, 3).T, float("inf"))
PLAIN = [
    *(None, True, 3, 2**100, 0.1, "text", float("nan"), -0.0, np.float32(0.1), np.int64(-3), np.bool_(True)),
    *([1, [2, (3,)]], {"a": {"b": [1.5]}}, {3: 4, "3": 5}, (), np.zeros((0, 3)), np.array(2.5), np.array([True])),
    *(torch.ones(2, dtype=torch.bfloat16), torch.zeros(()), [np.uint8([1]), {"x": torch.arange(3)}]),
]


def through_json(value, kind=None):
    packed = pack(value, "v")
    read = Packed(json.loads(json.dumps(packed.tree, allow_nan=False)), packed.tensors)
    return unpack(read, *(() if kind is None else (kind,)), name="v")


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_come_back_bit_for_bit_and_of_the_same_type(value):
    again = through_json(value)
    assert repr(again) == repr(value)
    assert type(again) is type(value)


def test_nested_states_come_back_bit_for_bit():
    value = Outer({Key(1, "a"): INNER, Key(2, "a"): INNER}, (INNER, np.random.default_rng(3)), (INNER, INNER))
    again = through_json(value, Outer)
    assert digest(again.many, again.pair, again.parts[Key(2, "a")]) == digest(value.many, value.pair, INNER)
    assert again.parts.keys() == value.parts.keys()
    assert again.pair[1].random() == np.random.default_rng(3).random()


def test_an_optional_part_is_there_or_not():
    one, none = (through_json(Outer({}, (INNER, np.random.default_rng(0)), (), None, x), Outer) for x in (INNER, None))
    assert digest(one.spare) == digest(INNER)
    assert none.spare is None


def test_what_was_packed_is_a_copy():
    array, tensor = np.zeros(3), torch.zeros(3)
    packed = pack([array, tensor])
    array += 1
    tensor += 1
    assert [value.tolist() for value in unpack(packed)] == [[0.0] * 3] * 2


@pytest.mark.parametrize("value", [object(), {1, 2}, len, torch.nn.Linear(1, 1)])
def test_other_things_are_not_packed(value):
    with pytest.raises(TypeError, match=r"`v\.0` must be made of numbers, arrays and plain containers"):
        pack([value], "v")


@pytest.mark.parametrize(
    "tree, words",
    [
        (["object", {"values": ["array", "int64"]}], "there is no 'v.values'"),
        (["object", {"number": 1.0}], "Inner has no values"),
        (["object", {"__class__": 3}], "there is no '__class__'"),
        (["list", 1], "'v' is no Inner"),
        (3, "'v' is no Inner"),
    ],
)
def test_another_tree_is_refused(tree, words):
    with pytest.raises(ValueError, match=words):
        unpack(Packed(tree, {}), Inner, "v")


@pytest.mark.parametrize("tree", [["generator", {"bit_generator": "os"}], ["call", "os.system"], ["object", {}]])
def test_nothing_else_is_built(tree):
    with pytest.raises(ValueError):  # noqa: PT011 - the words are those of Python
        unpack(Packed(tree, {}))
