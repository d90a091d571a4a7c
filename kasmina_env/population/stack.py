"""A stack: R networks of one architecture, parameters and optimiser state flat, one row each.

The hosts of a population are one stack; the seeds of one kind in one slot are another. Everything that is done to
whole networks (initialise, update, clip, snapshot, copy, move) is done to rows of a matrix, once, for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from kasmina_env.networks import layers
from kasmina_env.networks.layers import Layers

RandomStream = np.random.Generator


def homes_of(module: Module) -> list[list[tuple[dict[str, Any], str]]]:
    """For each parameter, everywhere in the module that it is held: more than one place where it is tied."""
    homes: dict[int, list[tuple[dict[str, Any], str]]] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            homes.setdefault(id(parameter), []).append((part._parameters, name))
    return [homes[id(parameter)] for parameter in module.parameters()]


@dataclass(frozen=True)
class Template:
    """An architecture: a wide module without weights, and where each parameter lies in a row of the flat matrix."""

    module: Module  # on the meta device, one network wide
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]  # of one network
    low: NDArray[np.float64]  # [P] bounds of the uniform initialisation
    high: NDArray[np.float64]  # [P]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(int(np.prod(shape)) for shape in self.shapes)

    @property
    def num_parameters(self) -> int:
        return len(self.low)

    def unflatten(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat matrix ``[R, P]``, one for each parameter: ``[R, *shape]``."""
        parts = flat.split(self.sizes, dim=1)
        rows = flat.shape[0]
        return [p.view(rows, *s) for p, s in zip(parts, self.shapes, strict=True)]

    def named(self, flat: Tensor, prefix: str) -> dict[str, Tensor]:
        """The parameters of a single network, ``[1, P]``, by name."""
        return {prefix + name: p[0] for name, p in zip(self.names, self.unflatten(flat), strict=True)}

    def draw(self, stream: RandomStream) -> NDArray[np.float64]:
        """Initial parameters of one network, ``[P]``, from one call to its random stream."""
        return self.low + (self.high - self.low) * stream.random(self.num_parameters)

    @cached_property
    def _homes(self) -> list[list[tuple[dict[str, Any], str]]]:
        return homes_of(self.module)

    def call(self, parameters: Sequence[Tensor], *inputs: object) -> Tensor:
        """Run the R networks whose parameters ``[R, *shape]`` are given on wide inputs.

        The module is only a skeleton, so its parameters are simply set (`torch.func.functional_call` would swap them in
        and out again, which took longer than the small kernels between).
        """
        for homes, parameter in zip(self._homes, parameters, strict=True):
            for held, name in homes:
                held[name] = parameter
        out: Tensor = self.module(*inputs)
        return out


def make_template(build: Callable[[Layers], Module], initial: Mapping[str, float] | None = None) -> Template:
    """Build the wide module and read its parameters' shapes and initial bounds.

    Args:
        build: Makes the module from a namespace of layers.
        initial: Parameter name to constant starting value, in place of the layer's default.
    """
    with torch.device("meta"):
        module = build(layers)
    bounds = layers.bounds_of(module)
    shapes = {name: tuple(p.shape[1:]) for name, p in module.named_parameters()}
    for name, value in (initial or {}).items():
        if name not in shapes:
            raise ValueError(
                f"`initial` must name parameters among {', '.join(shapes)}, got {name!r}. Correct the name."
            )
        bounds[name] = (value, value)
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    low, high = (np.repeat([bounds[name][side] for name in shapes], sizes).astype(np.float64) for side in (0, 1))
    return Template(module, tuple(shapes), tuple(shapes.values()), low, high)


@dataclass(frozen=True)
class Stack:
    """Flat parameters and optimiser state of R networks; updated in place by the optimiser only."""

    parameters: Tensor  # [R, P]
    moments: Tensor  # [M, R, P] running averages of the optimiser (1 for momentum, 2 for Adam), at least in float32
    steps: Tensor  # [R, 1] updates received, at least in float32

    def __len__(self) -> int:
        return self.parameters.shape[0]

    def take(self, index: Tensor) -> Stack:
        """Rows by index, copied."""
        return Stack(self.parameters[index], self.moments[:, index], self.steps[index])

    def to(self, device: torch.device) -> Stack:
        """The same rows on a device."""
        return Stack(self.parameters.to(device), self.moments.to(device), self.steps.to(device))

    def put_(self, index: Tensor, source: Stack) -> None:
        """Overwrite rows by those of another stack."""
        self.parameters[index] = source.parameters
        self.moments[:, index] = source.moments
        self.steps[index] = source.steps


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """What optimiser state, losses and qualities are kept in, whatever the networks compute in.

    In bfloat16 a counter stops at 256 and an average that forgets a thousandth per step forgets nothing.
    """
    return torch.promote_types(dtype, torch.float32)


def new_stack(values: Tensor, num_moments: int) -> Stack:
    """A stack with the given parameters ``[R, P]`` and a clean optimiser."""
    dtype = at_least_float32(values.dtype)
    moments = values.new_zeros(num_moments, *values.shape, dtype=dtype)
    return Stack(values, moments, values.new_zeros(len(values), 1, dtype=dtype))


def concatenate(stacks: Sequence[Stack]) -> Stack:
    """Stacks of one architecture below each other."""
    return Stack(
        torch.cat([s.parameters for s in stacks]),
        torch.cat([s.moments for s in stacks], dim=1),
        torch.cat([s.steps for s in stacks]),
    )
