"""Training: a few minibatches for all networks at once, and the health of their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kasmina_env.hosts import execution_order
from kasmina_env.population.forward import slot_function
from kasmina_env.population.optim import Optimizer, clip_rows, update_
from kasmina_env.population.plan import make_plan
from kasmina_env.population.stack import Stack, Template
from kasmina_env.population.state import GATE, FloatArray, Networks, Part

VANISHING = 1e-7  # root mean square of a tensor's gradient below which it counts as vanishing
EXPLODING = 1e3  # and above which it counts as exploding


@dataclass(frozen=True)
class GradientHealth:
    """Of one step's minibatches, before clipping; on the device. Slots without a seed are NaN: never measured.

    A seed here is what its blueprint made; its gate is not counted.
    """

    host_norm: Tensor  # [N] root mean square over minibatches of the Euclidean norm
    segment_norm: Tensor  # [N, S] the same of the host's segment each slot stands behind
    seed_norm: Tensor  # [N, S]
    vanishing: Tensor  # [N, S] share of the seed's tensors whose gradient has vanished
    exploding: Tensor  # [N, S] share of the seed's tensors whose gradient explodes or is not finite


@dataclass(frozen=True)
class _Trainee:
    """A stack in training: its leaves, and the sum of squared gradients so far."""

    template: Template
    stack: Stack
    leaves: list[Tensor]
    learning_rate: Tensor  # [R, 1]
    squares: Tensor  # [R, P]
    present: Tensor | None = None  # [R, P] weights that are not absent; None: all


def _trainee(template: Template, stack: Stack, learning_rate: Tensor, present: Tensor | None = None) -> _Trainee:
    # The leaves share memory with the flat parameters, so updating those updates them.
    leaves = [p.detach().requires_grad_() for p in template.unflatten(stack.parameters)]
    return _Trainee(template, stack, leaves, learning_rate, torch.zeros_like(stack.parameters), present)


def _update(optimizer: Optimizer, trainee: _Trainee, gradients: Sequence[Tensor]) -> None:
    gradient = torch.cat([g.reshape(len(trainee.stack), -1) for g in gradients], dim=1)
    if trainee.present is not None:
        gradient = torch.where(trainee.present, gradient, 0.0)
    trainee.squares.addcmul_(gradient, gradient)
    update_(optimizer, trainee.stack, clip_rows(gradient, optimizer.clip_norm), trainee.learning_rate)


def train(
    networks: Networks,
    x: Sequence[Tensor],
    y: Sequence[Tensor],
    alpha: FloatArray,
    learning_rate: FloatArray,
) -> tuple[Tensor, GradientHealth]:
    """Train every network on its own minibatches, in place.

    Args:
        networks: Hosts and seeds.
        x: K wide minibatches, each ``[B, N*C, ...]``.
        y: K times labels ``[B, N]`` or ``[B, N, T]``.
        alpha: Amplitudes ``[N, S]``, constant for these minibatches.
        learning_rate: ``[N]``.

    Returns:
        Mean loss of each network over the minibatches ``[N]``, and the health of the gradients.
    """
    setting = networks.setting
    networks.sort_cells()
    present = setting.present(networks.conditions.variant)
    host = _trainee(setting.host_template, networks.hosts, setting.column(learning_rate), present)
    seeds = {
        part: _trainee(setting.template(part), cell.weights, setting.column(learning_rate[cell.rows]))
        for part, cell in networks.cells.items()
    }
    plan = make_plan(networks, alpha, lambda part, cell, count: seeds[part].leaves, with_training=True)
    slots = [slot_function(slot, len(networks)) for slot in plan]
    trainees = [host, *seeds.values()]
    leaves = [leaf for trainee in trainees for leaf in trainee.leaves]
    losses = []
    for inputs, labels in zip(x, y, strict=True):
        logits = host.template.call(host.leaves, inputs, slots)
        per_sample, _ = setting.measure(logits.unflatten(-1, (len(networks), -1)), labels)
        loss = per_sample.mean(dim=0)  # [N]
        gradients = iter(torch.autograd.grad(loss.sum(), leaves, materialize_grads=True))
        losses.append(loss.detach())
        with torch.no_grad():
            for trainee in trainees:
                _update(setting.optimizer, trainee, [next(gradients) for _ in trainee.leaves])
    with torch.no_grad():
        health = _health(networks, host, seeds, len(losses))
    return torch.stack(losses).mean(dim=0), health


def _health(networks: Networks, host: _Trainee, seeds: dict[Part, _Trainee], num_batches: int) -> GradientHealth:
    shape = (3, len(networks), networks.setting.num_slots)
    measured = host.squares.new_full(shape, float("nan"))
    for part, trainee in seeds.items():
        if part.name == GATE:
            continue
        sums = trainee.squares.split(trainee.template.sizes, dim=1)
        mean_squares = torch.stack([tensor.mean(dim=1) for tensor in sums], dim=1)  # [R, tensors]
        rms = (mean_squares / num_batches).sqrt()
        # NaN where weights are not finite: behind a norm their gradients may still be
        norm = (trainee.squares.sum(dim=1) / num_batches).sqrt() + 0.0 * trainee.stack.parameters.sum(dim=1)
        vanishing = (rms < VANISHING).to(rms.dtype).mean(dim=1)
        # `rms < EXPLODING` is False for NaN as well
        exploding = (~(rms < EXPLODING)).to(rms.dtype).mean(dim=1)
        rows = networks.setting.index(networks.cells[part].rows)
        measured[:, rows, part.slot] = torch.stack([norm, vanishing, exploding])
    host_norm = (host.squares.sum(dim=1) / num_batches).sqrt()
    return GradientHealth(host_norm, _segment_norms(networks, host, num_batches), *measured)


def _segment_norms(networks: Networks, host: _Trainee, num_batches: int) -> Tensor:
    order = execution_order(networks.setting.host.slots)
    sizes = [0] * (len(order) + 1)
    for name, size in zip(host.template.names, host.template.sizes, strict=True):
        sizes[int(name.split(".")[1])] += size  # "segments.I. ..."
    norms = [(part.sum(dim=1) / num_batches).sqrt() for part in host.squares.split(sizes, dim=1)]
    return torch.stack([norms[order.index(slot)] for slot in range(len(order))], dim=1)
