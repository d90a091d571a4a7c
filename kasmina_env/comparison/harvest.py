"""Taking a network home: play episodes with a controller, keep the committed network of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kasmina_env import __version__
from kasmina_env.comparison.players import Source, find_player
from kasmina_env.controllers.policy import HELD_OUT, OnStep, instances_in_turn, play
from kasmina_env.controllers.schedule import schedule_in_words
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.data import make_task
from kasmina_env.networks.grown import GrownNetwork
from kasmina_env.tasks import Criterion, Split


@dataclass(frozen=True)
class Harvest:
    """A committed network, what is known about it, and the data it is tested on."""

    network: GrownNetwork
    facts: dict[str, Any]  # plain JSON values
    test: Split


def harvest(source: Source, num_episodes: int, seed: int | None = None, on_step: OnStep | None = None) -> Harvest:
    """Play episodes, and keep the committed network of the best score, or that of one seed.

    Args:
        source: Controller and its problem.
        num_episodes: Number of held-out episodes, the first of a comparison, played side by side.
        seed: Seed of a single episode to play instead. In a family a comparison gives it the same instance.
        on_step: For progress bars.

    Raises:
        ValueError: If no network lived to the end of its episode.
    """
    seeds = HELD_OUT + np.arange(num_episodes) if seed is None else np.array([seed])
    player = find_player(source.name, source.preset, **source.settings)
    problem = player.problem
    env = KasminaVectorEnv(len(seeds), problem)
    episodes = play(env, player.policy, seeds, on_step, instances_in_turn(problem, seeds), player.planted)
    scores = np.where(np.isnan(episodes.curves[:, -1]), -np.inf, episodes.scores)
    best = int(np.argmax(scores))
    network, test = env.network(best, committed=True).cpu(), env.episodes.test_data(best)
    test = test.to(torch.device("cpu"), test.x.dtype)
    if np.isneginf(scores[best]) or not all(tensor.isfinite().all() for tensor in network.parameters()):
        raise ValueError(f"`run` must grow a network that lives, got none in {len(seeds)} episodes. Play others.")
    facts = {
        "id": source.preset,
        "settings": dict(source.settings),
        "policy": source.name,
        "seed": int(seeds[best]),
        "instance": int(episodes.instances[best]),
        "episodes_played": len(seeds),
        "score": float(episodes.scores[best]),
        "test_accuracy": quality(network, test, make_task(problem).criterion),
        "return": float(episodes.returns[best]),
        "schedule": schedule_in_words(episodes.actions[best], problem.actions),
        "kasmina_env": __version__,
    }
    return Harvest(network, facts, test)


@torch.no_grad()
def quality(network: GrownNetwork, data: Split, criterion: Criterion) -> float:
    """Mean quality of an ordinary network on a split, as the task measures it (for classification: accuracy)."""
    _, found = criterion(network(data.x).unsqueeze(-2), data.y.unsqueeze(1))
    return float(found.double().mean().clamp(0, 1))
