"""Evaluation of all networks, under any number of on/off settings of their seeds, in one fused forward.

Settings that agree on the first slots share that part of the forward: streams are stacked along the batch axis and
split where the settings first differ.
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
from kasmina_env.population.forward import slot_function
from kasmina_env.population.noise import seen_by_all
from kasmina_env.population.plan import make_plan
from kasmina_env.population.state import Cell, Networks, Part, Setting
from kasmina_env.population.wide_features import Lanes
from kasmina_env.tasks import Split

# Samples of one stream times networks at a time. Fewer than these and launches cost more than arithmetic; with 50
# networks or more on a CPU any size between 25 and 100 samples took the same time. A limit bounds memory.
CHUNK, CHUNK_ON_GPU, SMALLEST_CHUNK, LARGEST_CHUNK = 64 * 100, 1024 * 100, 25, 100


@dataclass(frozen=True)
class Stream:
    """One version of the features behind a slot: its parent stream, and whether the slot's seeds are on."""

    parent: int
    is_on: bool | Tensor  # for all networks, or [N] where networks differ


def plan_streams(
    off: BoolArray, has_seed: BoolArray, order: Sequence[int], sources: Sequence[int]
) -> tuple[list[list[Stream]], list[int]]:
    """Fold settings into streams that split where settings first differ.

    Args:
        off: Seeds switched off, ``[M, N, S]``.
        has_seed: Mask of seeds that can be switched off ``[N, S]``.
        order: Indices of the S slots in the order of the forward.
        sources: Index of the data of each of M settings.

    Returns:
        The streams of each slot, and for each setting the index of its stream behind the last slot.
    """
    num_settings, _, num_slots = off.shape
    stream_of = list(sources)
    levels: list[list[Stream]] = [[] for _ in range(num_slots)]
    for slot in order:
        level = levels[slot]
        seen: dict[tuple[int, bytes], int] = {}
        for setting in range(num_settings):
            off_here = off[setting, :, slot] & has_seed[:, slot]
            key = (stream_of[setting], off_here.tobytes())
            if key not in seen:
                seen[key] = len(level)
                is_mixed = off_here.any() and (off_here != has_seed[:, slot]).any()
                is_on = torch.from_numpy(~off_here) if is_mixed else not off_here.any()
                level.append(Stream(stream_of[setting], is_on))
            stream_of[setting] = seen[key]
    return levels, stream_of


def _branch(
    slot: Callable[[Tensor], Tensor], streams: Sequence[Stream], lanes: Lanes, batch: int
) -> Callable[[Tensor], Tensor]:
    """Function of a slot from the features of parent streams to those of its streams, stacked along the batch."""
    needed = sorted({stream.parent for stream in streams if stream.is_on is not False})
    axis = lanes.batch_axis

    def run(x: Tensor) -> Tensor:
        parents = x.split(batch, dim=axis)
        if len(needed) == len(parents):
            blended = dict(zip(needed, slot(x).split(batch, dim=axis), strict=True))
        elif needed:
            joined = torch.cat([parents[p] for p in needed], dim=axis)
            blended = dict(zip(needed, slot(joined).split(batch, dim=axis), strict=True))
        parts = []
        for stream in streams:
            if stream.is_on is False:
                parts.append(parents[stream.parent])
            elif stream.is_on is True:
                parts.append(blended[stream.parent])
            else:
                on = lanes.spread(stream.is_on.to(x.device, non_blocking=True).unsqueeze(1))
                yes, no = lanes.open(blended[stream.parent]), lanes.open(parents[stream.parent])
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
    """Mean loss and quality of every network under settings of their own for each data, which all networks share.

    Args:
        networks: Hosts and seeds; seeds in TRAINING change nothing.
        data: D splits of n samples each.
        alpha: Amplitudes ``[N, S]``.
        off: Seeds switched off ``[M, N, S]``, for each of the D splits.

    Returns:
        For each of the D splits loss ``[M, N]`` and quality ``[M, N]``, on the device.
    """
    setting, num_networks = networks.setting, len(networks)
    plan = make_plan(networks, alpha, partial(_working_copies, setting), with_training=False)
    order = execution_order(setting.host.slots)
    sources = [source for source, settings in enumerate(off) for _ in settings]
    # at alpha = 0 a seed is off already
    can_switch = networks.has_seed & ~networks.in_training & (alpha > 0)
    levels, stream_of = plan_streams(np.concatenate(off), can_switch, order, sources)
    num_streams = max(stream_of) + 1
    source_of = dict(zip(stream_of, sources, strict=True))
    parameters = [p.contiguous() for p in setting.host_template.unflatten(networks.hosts.parameters)]
    grow = [slot_function(slot) for slot in plan]
    figures = []
    chunk = CHUNK if setting.device.type == "cpu" else CHUNK_ON_GPU
    size = min(max(chunk // num_networks, SMALLEST_CHUNK), LARGEST_CHUNK)
    for start in range(0, len(data[0]), size):
        labels_of = [split.y[start : start + size] for split in data]
        batch = len(labels_of[0])
        slots = [_branch(*slot, batch) for slot in zip(grow, levels, setting.lanes, strict=True)]
        wide = widen(torch.cat([seen_by_all(networks, split, start, size) for split in data]))
        logits = setting.host_template.call(parameters, wide, slots)
        y = torch.cat([labels_of[source_of[stream]] for stream in range(num_streams)])
        labels = y.unsqueeze(1).expand(-1, num_networks, *y.shape[1:])
        figures.append(torch.stack(setting.loss_and_quality(logits, labels)).unflatten(1, (num_streams, batch)))
    # one sum over all samples: the size of chunks must not change the last digit
    means = torch.cat(figures, dim=2).mean(dim=2)  # [2, streams, N]
    parts = means[:, setting.index(stream_of)].split([len(settings) for settings in off], dim=1)
    return [(loss, quality.clamp(0, 1)) for loss, quality in parts]
