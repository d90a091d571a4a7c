"""Episodes of a policy as a Minari dataset, for learning offline."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from kasmina_env.comparison.players import Player, Source, find_player
from kasmina_env.controllers.policy import OnStep
from kasmina_env.envs.infos import Infos
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.lifecycle.arrays import IntArray
from kasmina_env.settings.presets import PRESETS

if TYPE_CHECKING:
    from minari import MinariDataset
    from minari.data_collector import EpisodeBuffer


def check_new_dataset(dataset_id: str) -> None:
    """Raise ``ValueError`` if an id is none that Minari takes, or names a dataset that exists."""
    from minari.dataset.minari_dataset import DATASET_ID_RE
    from minari.storage import get_dataset_path

    if not DATASET_ID_RE.fullmatch(dataset_id):
        raise ValueError(f"`dataset_id` must be like kasmina/digits/fixed-v0, got {dataset_id!r}. Correct it.")
    if get_dataset_path(dataset_id).exists():
        raise ValueError(f"`dataset_id` must be new, got {dataset_id!r}, which exists. Name another version.")


def record_dataset(
    dataset_id: str,
    source: Source,
    num_episodes: int,
    first_seed: int = 0,
    num_envs: int = 64,
    on_step: OnStep | None = None,
    **metadata: Any,
) -> MinariDataset:
    """Play episodes with a policy and keep them as a Minari dataset.

    Observations and actions are flat. Infos are those of every reset and step, so ``infos["action_mask"]`` has the
    legal actions. `recover_environment` of the dataset makes the environment.

    Args:
        dataset_id: New id, such as "kasmina/digits/fixed-v0". `MINARI_DATASETS_PATH` says where it lies.
        source: The policy and the problem it plays.
        num_episodes: Number of episodes.
        first_seed: Seed of the first episode. Those of the others follow.
        num_envs: Number of episodes played side by side.
        on_step: Callback for progress bars.
        **metadata: Further arguments of `minari.create_dataset_from_buffers`, such as `author`.

    Raises:
        ValueError: If the id is not new.
    """
    from minari import create_dataset_from_buffers

    check_new_dataset(dataset_id)
    player = find_player(source.name, source.preset, **source.settings)
    seeds = first_seed + np.arange(num_episodes)
    batches = [_play(player, seeds[start : start + num_envs], on_step) for start in range(0, num_episodes, num_envs)]
    facts = {"algorithm_name": source.name, "description": f"Episodes of {source.name} on {source.preset}."}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one for every fact that is not given
        return create_dataset_from_buffers(
            dataset_id, [episode for batch in batches for episode in batch], _spec_of(player), **{**facts, **metadata}
        )


def _spec_of(player: Player) -> EnvSpec:
    """Specification of the environment that a player played, by which Gymnasium makes it again."""
    spec, problem = copy.deepcopy(gymnasium.spec(player.problem.id)), player.problem
    usual = asdict(PRESETS.get(problem.id).config())
    spec.kwargs.update({key: value for key, value in asdict(problem.config).items() if value != usual[key]})
    return spec


def _play(player: Player, seeds: IntArray, on_step: OnStep | None) -> list[EpisodeBuffer]:
    """Episodes of some seeds, played side by side."""
    from minari.data_collector import EpisodeBuffer

    options = None if player.planted is None else {"planted": player.planted.tolist()}
    with closing(KasminaVectorEnv(len(seeds), player.problem)) as env:
        observation, infos = env.reset(seed=seeds.tolist(), options=options)
        player.policy.begin(seeds, env.episodes)
        seen, taken, is_open = [(observation, infos)], [], np.ones(len(seeds), dtype=bool)
        while is_open.any():
            actions = player.policy.act(observation, env.action_masks())
            observation, reward, terminated, _, infos = env.step(actions)
            seen.append((observation, infos))
            taken.append((actions, reward, terminated))
            is_open &= ~terminated
            if on_step is not None:
                on_step(len(seeds))
    action, rewards, terminations = (np.stack(column) for column in zip(*taken, strict=True))  # [T, N] each
    lengths = terminations.argmax(axis=0) + 1
    return [
        EpisodeBuffer(
            seed=int(seed),
            options=options,
            observations=np.stack([seen_then[row] for seen_then, _ in seen[: steps + 1]]),
            actions=action[:steps, row],
            rewards=rewards[:steps, row],
            terminations=terminations[:steps, row],
            truncations=np.zeros(steps, dtype=bool),
            infos=_infos_of([known for _, known in seen[: steps + 1]], row),
        )
        for row, (seed, steps) in enumerate(zip(seeds, lengths, strict=True))
    ]


def _infos_of(infos: Sequence[Infos], row: int) -> dict[str, Any]:
    """Infos of one row over time that a reset has too, ``[T + 1, ...]`` each."""
    found = {}
    for key, value in infos[0].items():
        if not key.startswith("_"):
            column = [known[key] for known in infos]
            is_nested = isinstance(value, dict)
            found[key] = _infos_of(column, row) if is_nested else np.stack([entry[row] for entry in column])
    return found
