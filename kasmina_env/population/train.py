"""Training: a few minibatches for all networks at once, and the health of their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kasmina_env.population.forward import slot_function
from kasmina_env.population.optim import clip_rows, update_
from kasmina_env.population.plan import make_plan
from kasmina_env.population.stack import Stack, Template
from kasmina_env.population.state import Cells, Kind, Setting
from kasmina_env.tasks import classify

VANISHING = 1e-7  # root mean square of a tensor's gradient below which it counts as vanishing
EXPLODING = 1e3  # and above which it counts as exploding


@dataclass(frozen=True)
class GradientHealth:
    """Of one step's minibatches, before clipping; on the device. Slots without a seed are NaN: never measured."""

    host_norm: Tensor  # [N] root mean square over minibatches of the Euclidean norm
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


def _trainee(template: Template, stack: Stack, learning_rate: Tensor) -> _Trainee:
    # The leaves share memory with the flat parameters, so updating those updates them.
    leaves = [p.detach().requires_grad_() for p in template.unflatten(stack.parameters)]
    squares = torch.zeros_like(stack.parameters)
    return _Trainee(template, stack, leaves, learning_rate, squares)


def _update(setting: Setting, trainee: _Trainee, gradients: Sequence[Tensor]) -> None:
    gradient = torch.cat([g.reshape(len(trainee.stack), -1) for g in gradients], dim=1)
    trainee.squares.addcmul_(gradient, gradient)
    clipped = clip_rows(gradient, setting.optimizer.clip_norm)
    update_(setting.optimizer, trainee.stack, clipped, trainee.learning_rate)


def train(
    setting: Setting,
    hosts: Stack,
    cells: Cells,
    x: Sequence[Tensor],
    y: Sequence[Tensor],
    alpha: Tensor,
    learning_rate: Tensor,
) -> tuple[Tensor, GradientHealth]:
    """Train every network on its own minibatches.

    Args:
        setting: Of the population.
        hosts: Stack of N; updated in place.
        cells: Their seeds; updated in place.
        x: K wide minibatches, each ``[B, N*C, ...]``.
        y: K times labels ``[B, N]``.
        alpha: Amplitudes ``[N, S]`` on the device, constant for these minibatches.
        learning_rate: ``[N, 1]``.

    Returns:
        Mean loss of each network over the minibatches ``[N]``, and the health of the gradients.
    """
    host = _trainee(setting.host_template, hosts, learning_rate)
    seeds = {
        kind: _trainee(
            setting.seed_template(kind.slot, kind.blueprint, kind.operator),
            cell.weights,
            learning_rate[cell.device_rows],
        )
        for kind, cell in cells.items()
    }
    plan = make_plan(setting, cells, alpha, lambda kind, _: seeds[kind].leaves, with_training=True)
    slots = [slot_function(here, setting.num_networks) for here in plan]
    trainees = [host, *seeds.values()]
    leaves = [leaf for trainee in trainees for leaf in trainee.leaves]
    losses = []
    for inputs, labels in zip(x, y, strict=True):
        logits = host.template.call(host.leaves, inputs, slots)
        per_sample, _ = classify(logits.unflatten(1, (setting.num_networks, -1)), labels)
        loss = per_sample.mean(dim=0)  # [N]
        gradients = iter(torch.autograd.grad(loss.sum(), leaves))
        losses.append(loss.detach())
        with torch.no_grad():
            for trainee in trainees:
                _update(setting, trainee, [next(gradients) for _ in trainee.leaves])
    with torch.no_grad():
        health = _health(setting, host, cells, seeds, len(losses))
    return torch.stack(losses).mean(dim=0), health


def _health(
    setting: Setting, host: _Trainee, cells: Cells, seeds: dict[Kind, _Trainee], num_batches: int
) -> GradientHealth:
    measured = host.squares.new_full((3, setting.num_networks, setting.num_slots), float("nan"))
    for kind, trainee in seeds.items():
        sums = trainee.squares.split(trainee.template.sizes, dim=1)
        mean_squares = torch.stack([part.mean(dim=1) for part in sums], dim=1)  # [R, tensors]
        rms = (mean_squares / num_batches).sqrt()
        norm = (trainee.squares.sum(dim=1) / num_batches).sqrt()
        vanishing = (rms < VANISHING).to(rms.dtype).mean(dim=1)
        # `rms < EXPLODING` is False for NaN as well
        exploding = (~(rms < EXPLODING)).to(rms.dtype).mean(dim=1)
        index = cells[kind].device_rows
        measured[:, index, kind.slot] = torch.stack([norm, vanishing, exploding])
    host_norm = (host.squares.sum(dim=1) / num_batches).sqrt()
    return GradientHealth(host_norm, *measured)
