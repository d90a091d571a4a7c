"""Training: a few minibatches for all networks at once, and the health of their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kasmina_env.lifecycle.arrays import FloatArray
from kasmina_env.networks.hosts import execution_order
from kasmina_env.population.arrangement import arrange
from kasmina_env.population.forward import slot_function
from kasmina_env.population.optim import Updates
from kasmina_env.population.stack import Stack, Template
from kasmina_env.population.state import GATE, Networks, Part, Setting

VANISHING = 1e-7  # root mean square of a tensor's gradient below which it counts as vanishing
EXPLODING = 1e3  # and above which it counts as exploding


@dataclass(frozen=True)
class GradientHealth:
    """Gradient statistics of one step's minibatches, before clipping, on the device. Slots without a seed are NaN.

    The gate of a seed is not counted.
    """

    host_norm: Tensor  # [N] root mean square over minibatches of the Euclidean norm
    segment_norm: Tensor  # [N, S] the same for the host's segment before each slot
    seed_norm: Tensor  # [N, S]
    vanishing: Tensor  # [N, S] share of the seed's tensors whose gradient has vanished
    exploding: Tensor  # [N, S] share of the seed's tensors whose gradient explodes or is not finite


@dataclass(frozen=True)
class _Trainee:
    """A stack in training: contiguous leaves, and its part of the flat gradient.

    Leaves are working copies. Only in a stack of one network every tensor is contiguous already, and where nothing is
    recorded leaves are views.
    """

    template: Template
    stack: Stack
    leaves: list[Tensor]  # each [R, *shape]
    gradient: Tensor  # [R, P]
    squares: Tensor  # [R, P] sum over minibatches
    has_copies: bool

    def collect(self, found: Sequence[Tensor]) -> None:
        """Write the gradients of the leaves into `gradient`."""
        torch.cat([part.flatten(1) for part in found], dim=1, out=self.gradient)

    def sum_squares(self) -> Tensor:
        """Squares of the gradient, summed over each tensor ``[R, T]``."""
        return torch.stack([part.sum(dim=1) for part in self.squares.split(self.template.sizes, dim=1)], dim=1)

    def update(self) -> None:
        """Subtract the update that the optimiser left in `gradient`."""
        if not self.has_copies:
            self.stack.parameters.sub_(self.gradient)
            return
        for leaf, part in zip(self.leaves, self.template.unflatten(self.gradient), strict=True):
            leaf.sub_(part)

    def put_back(self) -> None:
        """Write working copies back into the stack."""
        if self.has_copies:
            torch.cat([leaf.flatten(1) for leaf in self.leaves], dim=1, out=self.stack.parameters)


def _leaves(template: Template, stack: Stack, has_copies: bool) -> list[Tensor]:
    parameters = [p.detach() for p in template.unflatten(stack.parameters)]
    if has_copies:
        parameters = [p.clone(memory_format=torch.contiguous_format) for p in parameters]
    return [p.requires_grad_() for p in parameters]


def train(
    networks: Networks,
    x: Sequence[Tensor],
    y: Sequence[Tensor],
    alpha: FloatArray,
    host_rate: FloatArray,
    seed_rate: FloatArray,
) -> tuple[Tensor, GradientHealth]:
    """Train every network on its own minibatches, in place.

    Args:
        networks: Hosts and seeds.
        x: Wide inputs of K minibatches.
        y: Labels of K minibatches, each ``[B, N]`` or ``[B, N, T]``.
        alpha: Amplitudes ``[N, S]``, constant for these minibatches.
        host_rate, seed_rate: Learning rates ``[N]``.

    Returns:
        Mean loss of each network over the minibatches ``[N]``, and the health of the gradients.
    """
    setting = networks.setting
    networks.sort_cells()
    parts = sorted(networks.cells)  # an order without history: a recording is found more often
    cells = [networks.cells[part] for part in parts]
    stacks = [networks.hosts, *(cell.weights for cell in cells)]
    templates = [setting.host_template, *map(setting.template, parts)]
    rates = [setting.column(host_rate), *(setting.column(seed_rate[cell.rows]) for cell in cells)]
    updates = Updates(setting.optimizer, stacks, rates, len(x))
    gradient = updates.gradient
    squares = torch.zeros_like(gradient)
    copied = [setting.recordings.graphs is not None or len(stack) > 1 for stack in stacks]
    host, *seeds = trainees = [
        _Trainee(template, stack, _leaves(template, stack, is_copied), part, square, is_copied)
        for template, stack, is_copied, part, square in zip(
            templates, stacks, copied, updates.by_stack(gradient), updates.by_stack(squares), strict=True
        )
    ]
    seed_of = dict(zip(parts, seeds, strict=True))
    arrangement = arrange(networks, alpha, lambda part, cell, count: seed_of[part].leaves, with_training=True)
    slots = [slot_function(slot) for slot in arrangement]
    leaves = [leaf for trainee in trainees for leaf in trainee.leaves]
    absent = setting.absent(networks.conditions.variant)

    def step(inputs: Tensor, labels: Tensor, *factors: Tensor) -> Tensor:
        logits = host.template.call(host.leaves, inputs, slots)
        per_sample, _ = setting.loss_and_quality(logits, labels)
        loss = per_sample.mean(dim=0)  # [N]
        found = iter(torch.autograd.grad(loss, leaves, torch.ones_like(loss), materialize_grads=True))
        with torch.no_grad():
            for trainee in trainees:
                trainee.collect([next(found) for _ in trainee.leaves])
            if absent is not None:
                host.gradient.masked_fill_(absent, 0.0)
            squares.addcmul_(gradient, gradient)
            updates.clip_()
            updates.turn_(*factors)
            for trainee in trainees:
                trainee.update()
        return loss.detach()

    calls = [(inputs, labels, *factors) for inputs, labels, factors in zip(x, y, updates.factors, strict=True)]
    grown = [slot for slot in arrangement if slot is not None]
    kernels = (tuple(parts), tuple(slot and slot.structure for slot in arrangement))
    state = [*leaves, *updates.moments, squares, *(tensor for slot in grown for tensor in slot.numbers)]
    losses = setting.recordings.repeat(step, calls, kernels, state if absent is None else [*state, absent])
    with torch.no_grad():
        updates.finish()
        for trainee in trainees:
            trainee.put_back()
        sums = {part: seed.sum_squares() for part, seed in seed_of.items()}
        health = measure_health(networks, host.sum_squares(), sums, len(losses))
    return torch.stack(losses).mean(dim=0), health


def measure_health(networks: Networks, host: Tensor, seeds: Mapping[Part, Tensor], num_batches: int) -> GradientHealth:
    """Health of gradients.

    Args:
        networks: Networks after the step.
        host: Squared gradients of each host's T tensors, summed within a tensor and over minibatches ``[N, T]``.
        seeds: Squared gradients of the seeds of each part, summed alike ``[R, T]``.
        num_batches: Number of minibatches.
    """
    shape = (3, len(networks), networks.setting.num_slots)
    measured = host.new_full(shape, float("nan"))
    for part, sums in seeds.items():
        if part.name == GATE:
            continue
        cell = networks.cells[part]
        sizes = networks.setting.template(part).sizes
        means = [total / (size * num_batches) for total, size in zip(sums.unbind(dim=1), sizes, strict=True)]
        rms = torch.stack(means, dim=1).sqrt()
        # NaN if weights are not finite: behind a normalisation layer their gradients may still be finite
        norm = (sums.sum(dim=1) / num_batches).sqrt() + 0.0 * cell.weights.parameters.sum(dim=1)
        vanishing = (rms < VANISHING).to(rms.dtype).mean(dim=1)
        # `rms < EXPLODING` is False for NaN as well
        exploding = (~(rms < EXPLODING)).to(rms.dtype).mean(dim=1)
        measured[:, networks.setting.index(cell.rows), part.slot] = torch.stack([norm, vanishing, exploding])
    host_norm = (host.sum(dim=1) / num_batches).sqrt()
    return GradientHealth(host_norm, _segment_norms(networks.setting, host, num_batches), *measured)


def _segment_norms(setting: Setting, host: Tensor, num_batches: int) -> Tensor:
    order = execution_order(setting.host.slots)
    segment = [int(name.split(".")[1]) for name in setting.host_template.names]  # "segments.I. ..."
    sizes = [segment.count(i) for i in range(len(order) + 1)]
    norms = [(part.sum(dim=1) / num_batches).sqrt() for part in host.split(sizes, dim=1)]
    return torch.stack([norms[order.index(slot)] for slot in range(len(order))], dim=1)
