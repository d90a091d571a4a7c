"""Evaluation of all networks, under any number of on/off settings of their seeds, in one fused forward.

Settings that agree on the first slots share that part of the forward: streams are stacked along the batch axis and
split where the settings first differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kasmina_env.hosts import execution_order
from kasmina_env.layers import merge_networks, split_networks, widen
from kasmina_env.population.forward import slot_function
from kasmina_env.population.noise import seen_by_all
from kasmina_env.population.plan import make_plan
from kasmina_env.population.stack import at_least_float32
from kasmina_env.population.state import BoolArray, Cell, FloatArray, Networks, Part, Setting
from kasmina_env.tasks import Split

CHUNK = 64  # samples of one stream at a time: what fits the cache is faster


@dataclass(frozen=True)
class Stream:
    """One way through a slot: which stream it comes from, and whether the slot's seeds are on there."""

    parent: int
    is_on: bool | Tensor  # for all networks, or [N] where networks differ


def plan_streams(off: BoolArray, has_seed: BoolArray, order: Sequence[int]) -> tuple[list[list[Stream]], list[int]]:
    """Fold settings into streams that split where settings first differ.

    Args:
        off: Seeds switched off, ``[M, N, S]``.
        has_seed: Where there is anything to switch, ``[N, S]``.
        order: Slots as features pass them, S indices.

    Returns:
        For each slot its streams, and for each setting the stream behind all slots that computes it.
    """
    num_settings, _, num_slots = off.shape
    stream_of = [0] * num_settings
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
    slot: Callable[[Tensor], Tensor], streams: Sequence[Stream], num_networks: int, batch: int
) -> Callable[[Tensor], Tensor]:
    """A slot that takes the parents' features, stacked along the batch, to its streams'."""
    needed = sorted({stream.parent for stream in streams if stream.is_on is not False})

    def run(x: Tensor) -> Tensor:
        parents = x.split(batch)
        if len(needed) == len(parents):
            blended = dict(zip(needed, slot(x).split(batch), strict=True))
        elif needed:
            joined = torch.cat([parents[p] for p in needed])
            blended = dict(zip(needed, slot(joined).split(batch), strict=True))
        parts = []
        for stream in streams:
            if stream.is_on is False:
                parts.append(parents[stream.parent])
            elif stream.is_on is True:
                parts.append(blended[stream.parent])
            else:
                on = stream.is_on.to(x.device).unsqueeze(1)  # [N, 1]
                pair = (blended[stream.parent], parents[stream.parent])
                parts.append(_select(on, *pair, num_networks))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    return run


def _select(on: Tensor, yes: Tensor, no: Tensor, num_networks: int) -> Tensor:
    split_yes, split_no = (split_networks(x, num_networks) for x in (yes, no))
    return merge_networks(torch.where(on, split_yes, split_no))


def _views(setting: Setting, part: Part, cell: Cell, count: int) -> list[Tensor]:
    # contiguous: each layer would copy a slice of a row, in every chunk
    return [p.contiguous() for p in setting.template(part).unflatten(cell.weights.parameters[:count])]


@torch.no_grad()
def evaluate(networks: Networks, data: Split, alpha: FloatArray, off: BoolArray) -> tuple[Tensor, Tensor]:
    """Mean loss and quality of every network under every setting, on data that all networks share.

    Args:
        networks: Hosts and seeds; seeds in TRAINING change nothing.
        data: n samples.
        alpha: Amplitudes ``[N, S]``.
        off: Seeds switched off, ``[M, N, S]``.

    Returns:
        Loss ``[M, N]`` and quality ``[M, N]``, on the device.
    """
    setting, num_networks = networks.setting, len(networks)
    plan = make_plan(networks, alpha, partial(_views, setting), with_training=False)
    order = execution_order(setting.host.slots)
    # at alpha = 0 a seed is off as it is
    levels, stream_of = plan_streams(off, networks.has_seed & ~networks.in_training & (alpha > 0), order)
    num_streams = max(stream_of) + 1
    hosts = networks.hosts.parameters
    totals = hosts.new_zeros(2, num_streams, num_networks, dtype=at_least_float32(hosts.dtype))
    parameters = [p.contiguous() for p in setting.host_template.unflatten(hosts)]
    grow = [slot_function(slot, num_networks) for slot in plan]
    for start in range(0, len(data), CHUNK):
        y = data.y[start : start + CHUNK]
        slots = [_branch(run, streams, num_networks, len(y)) for run, streams in zip(grow, levels, strict=True)]
        wide = widen(seen_by_all(networks, data, start, CHUNK))
        logits = setting.host_template.call(parameters, wide, slots)
        repeated = y.expand(num_streams, *y.shape).flatten(0, 1).unsqueeze(1)
        labels = repeated.expand(-1, num_networks, *y.shape[1:])
        for total, part in zip(totals, setting.measured(logits, labels), strict=True):
            total += part.unflatten(0, (num_streams, -1)).sum(dim=1)
    loss, quality = totals[:, stream_of] / len(data)
    return loss, quality
