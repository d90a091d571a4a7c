"""Hosts of different shapes side by side: a smaller one is the larger one with weights that are absent, zero for good.

A 1x1 convolution is a 3x3 one whose outer weights are absent, a narrow layer a wide one without its last channels. So
the networks of a population may differ in shape, hidden from whoever watches, and still run in the same kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch.nn import Module

from kasmina_env.lifecycle.arrays import FloatArray
from kasmina_env.networks.layers import GroupNorm
from kasmina_env.population.stack import Template


def weight_scale(whole: Template, part: Template) -> FloatArray:
    """What initial weights are multiplied by so that `whole` starts, and with absent weights kept at 0 stays, `part`.

    Args:
        whole: The larger architecture, P parameters.
        part: One with the same layers, none of them larger: leading channels, the middle of kernels.

    Returns:
        ``[P]``: 0 where `part` has no weight, elsewhere the ratio of the ranges from which the two are drawn.

    Raises:
        ValueError: If `part` does not fit into `whole`.
    """
    if part.names != whole.names or _group_sizes(part.module) != _group_sizes(whole.module):
        raise ValueError(
            "`part` must have the layers and norm groups of `whole`, got others. Change the host settings."
        )
    scales = []
    for name, shape, inner, width, inner_width in zip(
        whole.names, whole.shapes, part.shapes, _widths(whole), _widths(part), strict=True
    ):
        if len(inner) != len(shape) or any(a > b for a, b in zip(inner, shape, strict=True)):
            raise ValueError(f"`part` must fit into {name!r} of shape {shape}, got {inner}. Change its settings.")
        scale = np.zeros(shape)
        is_kernel = [len(shape) == 4 and axis >= 2 for axis in range(len(shape))]
        starts = [(b - a) // 2 * centred for a, b, centred in zip(inner, shape, is_kernel, strict=True)]
        place = tuple(slice(start, start + size) for start, size in zip(starts, inner, strict=True))
        scale[place] = inner_width / width if width else 1.0
        scales.append(scale.ravel())
    return np.concatenate(scales)


def weight_scales(whole: Template, parts: Sequence[Template]) -> FloatArray:
    """`weight_scale` of several variants, ``[V, P]``."""
    return np.stack([weight_scale(whole, part) for part in parts])


def _widths(template: Template) -> list[float]:
    """Range from which each parameter is drawn."""
    starts = np.cumsum([0, *template.sizes[:-1]])
    return [float(template.high[i] - template.low[i]) for i in starts]


def _group_sizes(module: Module) -> list[int]:
    """Channels in a group of every group norm: groups that are cut would mix with absent channels."""
    return [norm.weight.shape[1] // norm.num_groups for norm in module.modules() if isinstance(norm, GroupNorm)]
