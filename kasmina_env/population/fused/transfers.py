"""What is copied between networks, which lie in tensors of many, and the memory in which each is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kasmina_env.lifecycle.arrays import IntArray
from kasmina_env.population.fused.driver import FLOAT, READ, WRITE
from kasmina_env.population.fused.layout import Block
from kasmina_env.population.stack import Stack

Float32Array = NDArray[np.float32]


class Transfers:
    """What is copied between networks and the memory they are computed in: ``[address, place, size, directions]``."""

    def __init__(self, num_networks: int) -> None:
        self._num_networks = num_networks
        self._rows: list[IntArray] = []
        self._moves: list[IntArray] = []
        self._kept: list[Any] = []  # what addresses point to

    def add(self, rows: IntArray, values: Tensor | NDArray[Any], place: int, size: int, directions: int) -> None:
        """Rows of contiguous values belong to networks."""
        address = values.data_ptr() if isinstance(values, Tensor) else values.ctypes.data
        assert values.is_contiguous() if isinstance(values, Tensor) else values.flags.c_contiguous
        self._kept.append(values)
        self.add_addresses(rows, address + FLOAT * size * np.arange(len(rows)), place, size, directions)

    def add_addresses(self, rows: IntArray, addresses: IntArray, place: int, size: int, directions: int) -> None:
        moves = np.empty((len(rows), 4), dtype=np.int64)
        moves[:, 0], moves[:, 1:] = addresses, (place, size, directions)
        self._rows.append(rows)
        self._moves.append(moves)

    def add_stack(self, rows: IntArray, stack: Stack, block: Block, rate: Float32Array) -> Float32Array:
        """All of a stack that is trained; returns where the sums of squared gradients ``[R, T]`` will be."""
        size, squares = sum(block.sizes), np.zeros((len(rows), len(block.sizes)), dtype=np.float32)
        self.add(rows, stack.parameters, block.weights, size, READ | WRITE)
        for moment, place in zip(stack.moments, block.moments, strict=True):
            self.add(rows, moment, place, size, READ | WRITE)
        self.add(rows, stack.steps, block.steps, 1, READ | WRITE)
        self.add(rows, rate, block.rate, 1, READ)
        self.add_addresses(
            rows, np.zeros(len(rows), dtype=np.int64), block.gradient, block.norm + 1 - block.gradient, 0
        )
        self.add(rows, squares, block.squares, len(block.sizes), WRITE)
        return squares

    def finish(self) -> tuple[IntArray, IntArray]:
        """All of them, network by network, and where those of each begin ``[N + 1]``."""
        rows = np.concatenate(self._rows)
        moves = np.concatenate(self._moves)[np.argsort(rows, kind="stable")]
        return moves, np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=self._num_networks))])
