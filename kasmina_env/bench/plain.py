"""The same training as that of one environment, as anybody would write it in plain PyTorch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kasmina_env.bench.workload import LivelyEnv


class PlainTraining:
    """A network with its seeds, trained and evaluated by hand.

    Args:
        env: Filled environment whose network, data and settings are taken.
    """

    def __init__(self, env: LivelyEnv) -> None:
        core = env.single.episodes.local
        config, data = core.problem.config, core.data
        self.config, self.splits = config, data.splits
        self.watched, self.scored = data.watched, data.scored
        self.network = env.single.network().train()
        self.parts = [self.network.network, *(part for slot in self.network.slots for part in slot.children())]
        make = torch.optim.Adam if config.optimizer == "adam" else torch.optim.SGD
        self.optimizer = make(self.network.parameters(), lr=config.learning_rate)
        self.rng = np.random.default_rng(0)

    def step(self) -> list[float]:
        """Train on the minibatches of one step, then evaluate as a step does; losses."""
        train, config = self.splits["train"], self.config
        losses = []
        for index in self.rng.integers(len(train), size=(config.batches_per_step, config.batch_size)):
            chosen = torch.from_numpy(index).to(train.x.device, non_blocking=True)
            self.optimizer.zero_grad()
            loss = _loss(self.network(train.x[chosen]), train.y[chosen])
            loss.backward()
            for part in self.parts:
                nn.utils.clip_grad_norm_(part.parameters(), config.clip_norm)
            self.optimizer.step()
            losses.append(loss.item())
        return [*losses, *self.evaluate()]

    @torch.no_grad()
    def evaluate(self) -> list[float]:
        """Loss on what the controller sees, with all seeds and without each; and on what the score is measured on."""
        losses = [_loss(self.network(self.watched.x), self.watched.y)]
        for i, slot in enumerate(self.network.slots):
            self.network.slots[i] = nn.Identity()
            losses.append(_loss(self.network(self.watched.x), self.watched.y))
            self.network.slots[i] = slot
        losses.append(_loss(self.network(self.scored.x), self.scored.y))
        return [loss.item() for loss in losses]


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten())
