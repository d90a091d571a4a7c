"""Evaluation of all networks, under any number of on/off choices of their seeds, in one forward.

Choices that agree on the first slots share that part of the forward: versions are stacked along the batch axis and
split where the choices first differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from kasmina_env.lifecycle.arrays import BoolArray, FloatArray
from kasmina_env.networks.hosts import execution_order
from kasmina_env.networks.layers import widen
from kasmina_env.population.arrangement import arrange
from kasmina_env.population.forward import slot_function
from kasmina_env.population.noise import seen_by_all
from kasmina_env.population.state import Cell, Networks, Part, Setting
from kasmina_env.population.wide_features import Lanes
from kasmina_env.tasks import Split

# Samples of one version times networks at a time. Fewer than these and launches cost more than arithmetic; with 50
# networks or more on a CPU any size between 25 and 100 samples took the same time. A limit bounds memory.
CHUNK, CHUNK_ON_GPU, SMALLEST_CHUNK, LARGEST_CHUNK = 64 * 100, 1024 * 100, 25, 100


@dataclass(frozen=True)
class Version:
    """One version of the features behind a slot: its parent version, and whether the slot's seeds are on."""

    parent: int
    is_on: bool | Tensor  # for all networks, or [N] where networks differ


def make_versions(
    off: BoolArray, has_seed: BoolArray, order: Sequence[int], sources: Sequence[int]
) -> tuple[list[list[Version]], list[int]]:
    """Fold choices into versions that split where choices first differ.

    Args:
        off: Seeds switched off, ``[M, N, S]``.
        has_seed: Mask of seeds that can be switched off ``[N, S]``.
        order: Indices of the S slots in the order of the forward.
        sources: Index of the data of each of M choices.

    Returns:
        The versions of each slot, and for each choice the index of its version behind the last slot.
    """
    num_choices, _, num_slots = off.shape
    version_of = list(sources)
    levels: list[list[Version]] = [[] for _ in range(num_slots)]
    for slot in order:
        level = levels[slot]
        seen: dict[tuple[int, bytes], int] = {}
        for choice in range(num_choices):
            off_here = off[choice, :, slot] & has_seed[:, slot]
            key = (version_of[choice], off_here.tobytes())
            if key not in seen:
                seen[key] = len(level)
                is_mixed = off_here.any() and (off_here != has_seed[:, slot]).any()
                is_on = torch.from_numpy(~off_here) if is_mixed else not off_here.any()
                level.append(Version(version_of[choice], is_on))
            version_of[choice] = seen[key]
    return levels, version_of


def _branch(
    slot: Callable[[Tensor], Tensor], versions: Sequence[Version], lanes: Lanes, batch: int
) -> Callable[[Tensor], Tensor]:
    """Function of a slot from the features of parent versions to those of its versions, stacked along the batch."""
    needed = sorted({version.parent for version in versions if version.is_on is not False})
    axis = lanes.batch_axis

    def run(x: Tensor) -> Tensor:
        parents = x.split(batch, dim=axis)
        if len(needed) == len(parents):
            blended = dict(zip(needed, slot(x).split(batch, dim=axis), strict=True))
        elif needed:
            joined = torch.cat([parents[p] for p in needed], dim=axis)
            blended = dict(zip(needed, slot(joined).split(batch, dim=axis), strict=True))
        parts = []
        for version in versions:
            if version.is_on is False:
                parts.append(parents[version.parent])
            elif version.is_on is True:
                parts.append(blended[version.parent])
            else:
                on = lanes.spread(version.is_on.to(x.device, non_blocking=True).unsqueeze(1))
                yes, no = lanes.open(blended[version.parent]), lanes.open(parents[version.parent])
                parts.append(lanes.close(torch.where(on, yes, no)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=axis)

    return run


def _working_copies(setting: Setting, part: Part, cell: Cell, count: int) -> list[Tensor]:
    # contiguous: each layer would copy a slice of a row, in every chunk
    return [p.contiguous() for p in setting.template(part).unflatten(cell.weights.parameters[:count])]


@torch.no_grad()
def evaluate(
    networks: Networks, data: Sequence[Split], alpha: FloatArray, off: Sequence[BoolArray]
) -> list[tuple[Tensor, Tensor]]:
    """Mean loss and quality of every network under choices of their own for each data, which all networks share.

    Args:
        networks: Hosts and seeds; seeds in TRAINING change nothing.
        data: D splits of n samples each.
        alpha: Amplitudes ``[N, S]``.
        off: Seeds switched off ``[M, N, S]``, for each of the D splits.

    Returns:
        For each of the D splits loss ``[M, N]`` and quality ``[M, N]``, on the device.
    """
    setting, num_networks = networks.setting, len(networks)
    arrangement = arrange(networks, alpha, partial(_working_copies, setting), with_training=False)
    order = execution_order(setting.host.slots)
    sources = [source for source, choices in enumerate(off) for _ in choices]
    # at alpha = 0 a seed is off already
    can_switch = networks.has_seed & ~networks.in_training & (alpha > 0)
    levels, version_of = make_versions(np.concatenate(off), can_switch, order, sources)
    num_versions = max(version_of) + 1
    source_of = dict(zip(version_of, sources, strict=True))
    parameters = [p.contiguous() for p in setting.host_template.unflatten(networks.hosts.parameters)]
    grow = [slot_function(slot) for slot in arrangement]
    figures = []
    chunk = CHUNK if setting.device.type == "cpu" else CHUNK_ON_GPU
    size = min(max(chunk // num_networks, SMALLEST_CHUNK), LARGEST_CHUNK)
    for start in range(0, len(data[0]), size):
        labels_of = [split.y[start : start + size] for split in data]
        batch = len(labels_of[0])
        slots = [_branch(*slot, batch) for slot in zip(grow, levels, setting.lanes, strict=True)]
        wide = widen(torch.cat([seen_by_all(networks, split, start, size) for split in data]))
        logits = setting.host_template.call(parameters, wide, slots)
        y = torch.cat([labels_of[source_of[version]] for version in range(num_versions)])
        labels = y.unsqueeze(1).expand(-1, num_networks, *y.shape[1:])
        figures.append(torch.stack(setting.loss_and_quality(logits, labels)).unflatten(1, (num_versions, batch)))
    # one sum over all samples: the size of chunks must not change the last digit
    means = torch.cat(figures, dim=2).mean(dim=2)  # [2, versions, N]
    parts = means[:, setting.index(version_of)].split([len(choices) for choices in off], dim=1)
    return [(loss, quality.clamp(0, 1)) for loss, quality in parts]
