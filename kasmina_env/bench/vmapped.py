"""The same training as PyTorch's own way to train many networks at once: stacked weights under `torch.func.vmap`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from kasmina_env.bench.workload import LivelyEnv


class VmappedTraining:
    """Networks of one architecture, a host with its seeds, trained and evaluated side by side.

    Args:
        env: Filled environment whose network, data and settings are taken.
        num_networks: N.
        is_compiled: Whether `torch.compile` makes the training step.
    """

    def __init__(self, env: LivelyEnv, num_networks: int, is_compiled: bool = False) -> None:
        core = env.single.episodes.local
        self.config, self.splits, data = core.problem.config, core.data.splits, core.data
        self.evaluated = (data.watched, data.scored)
        self.num_networks = num_networks
        network = env.single.network().train()
        self.networks = [deepcopy(network) for _ in range(num_networks)]
        self.parameters, self.buffers = stack_module_state(self.networks)
        # In turn off: weights of the seed are what they are, and it acts with amplitude 0, as in the other rivals.
        self.num_off = len(network.slots)
        self.base = deepcopy(network).to("meta")
        self.moments = [{k: torch.zeros_like(v) for k, v in self.parameters.items()} for _ in range(2)]
        self.count = 0
        self.groups = {
            name: name.split(".")[:2][-1] if name.startswith("slots") else "host" for name in self.parameters
        }
        self.gradients = vmap(grad_and_value(self._loss), in_dims=(0, 0, 0, 0), randomness="error")
        if is_compiled:
            self.gradients = torch.compile(self.gradients)
        self.rng = np.random.default_rng(0)

    def _loss(self, parameters: Any, buffers: Any, x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(self.base, (parameters, buffers), (x,))
        return F.cross_entropy(logits.flatten(0, -2), y.flatten())

    def step(self) -> list[float]:
        """Train on the minibatches of one step, then evaluate as a step does; losses of the first network."""
        config, train, losses = self.config, self.splits["train"], []
        shape = (config.batches_per_step, self.num_networks, config.batch_size)
        for index in torch.from_numpy(self.rng.integers(len(train), size=shape)):
            gradients, loss = self.gradients(self.parameters, self.buffers, train.x[index], train.y[index])
            self._update(gradients)
            losses.append(float(loss[0].detach()))
        return [*losses, *self.evaluate()]

    @torch.no_grad()
    def _update(self, gradients: dict[str, Tensor]) -> None:
        """Clip host and seeds apart, each network by itself, and take a step of Adam."""
        norms: dict[str, Tensor] = {}
        for name, gradient in gradients.items():
            square = gradient.flatten(1).square().sum(1)
            group = self.groups[name]
            norms[group] = norms[group] + square if group in norms else square
        self.count += 1
        first, second = 1 - 0.9**self.count, 1 - 0.999**self.count
        for name, gradient in gradients.items():
            scale = (self.config.clip_norm / norms[self.groups[name]].sqrt().clamp(min=1e-6)).clamp(max=1.0)
            gradient = gradient * scale.view(-1, *[1] * (gradient.ndim - 1))
            mean, square = (moments[name] for moments in self.moments)
            mean.lerp_(gradient, 0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            change = mean / first / ((square / second).sqrt() + 1e-8)
            self.parameters[name] = self.parameters[name] - self.config.learning_rate * change

    @torch.no_grad()
    def evaluate(self) -> list[float]:
        """Loss on the controller's samples as often as there are seeds and once more, and on those of the score."""
        watched, scored = self.evaluated
        forward = vmap(self._loss, in_dims=(0, 0, None, None))
        runs = [watched] * (1 + self.num_off) + [scored]
        return [float(forward(self.parameters, self.buffers, data.x, data.y)[0]) for data in runs]
