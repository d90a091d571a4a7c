"""Arms: controllers that play the same held-out episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kasmina_env.comparison.episode_log import EpisodeLog, log_of
from kasmina_env.comparison.players import Player, Swapped, find_player
from kasmina_env.comparison.validation import NUM_SAMPLES
from kasmina_env.controllers.halving import NUM_ROWS_OF_WORKER
from kasmina_env.controllers.policy import (
    CONTROLS,
    FIRST_SEEDS,
    HELD_OUT,
    OnStep,
    Played,
    instances_in_turn,
    play,
)
from kasmina_env.envs.workers import ALONE, Workers
from kasmina_env.episode.problem import Problem, make_problem
from kasmina_env.lifecycle.arrays import FloatArray
from kasmina_env.population import ENGINES


@dataclass(frozen=True)
class Arm:
    """Episodes of one controller. A learned one may have several runs, each on the same episodes."""

    name: str
    runs: list[Played]
    logs: list[list[EpisodeLog]] = field(default_factory=list)  # of the first episodes of each run

    def column(self, field: str) -> FloatArray:
        """A field of all episodes, ``[runs, episodes]``."""
        return np.stack([getattr(run, field) for run in self.runs])


def compare_arms(
    preset: str,
    players: Mapping[str, Sequence[str]],
    num_episodes: int,
    num_envs: int = 64,
    on_step: OnStep | None = None,
    split: str = "test",
    without: Sequence[str] = (),
    workers: Workers = ALONE,
    **settings: Any,
) -> list[Arm]:
    """Play the same episodes with every policy; in families, the instances of the split in turn.

    Args:
        preset: Registered id.
        players: Runs of each arm, by its name. A run is the name of a control, or the folder of a training run.
        num_episodes: Number of episodes of each run.
        num_envs: Number of episodes played side by side; more if that is too few for the workers.
        on_step: Callback for progress bars.
        split: "test" for held-out seeds and test instances; "train" for choosing training settings.
        without: Groups of features, names in `kasmina_env.settings.config.SIGNALS`. For each of them every learned arm
            plays once more, with their values taken from another episode.
        workers: Workers over which to spread the episodes.
        **settings: Fields of `EnvConfig` that differ from the preset.
    """
    learned = [name for name in players if _is_learned(name)]
    if without and not learned:
        raise ValueError(
            f"`without` must be left out where no learned policy plays, got {', '.join(without)}. Add one."
        )
    if without and num_episodes < 2:
        raise ValueError("`without` must have another episode to take values from, got 1 episode. Play at least 2.")
    seeds = FIRST_SEEDS[split] + np.arange(num_episodes)
    problem = make_problem(preset, **settings)
    instances = instances_in_turn(problem, seeds, split)
    found = {name: [find_player(run, preset, **settings) for run in runs] for name, runs in players.items()}
    for name, runs in found.items():
        for player in runs:
            if _decisions_of(player.problem) != _decisions_of(problem):
                raise ValueError(
                    f"`{name}` must decide among the actions of {preset} at each of its {problem.horizon} steps, but "
                    "brings settings that differ. Leave it out."
                )

    for group in without:
        for name in learned:
            found[f"{name} without {group}"] = [_swapped(player, group) for player in found[name]]
    num_rows = min(max(num_envs, NUM_ROWS_OF_WORKER * workers.number), num_episodes)

    def played(player: Player) -> tuple[Played, list[EpisodeLog]]:
        with closing(workers.make_env(num_rows, player.problem)) as env:
            run = play(env, player.policy, seeds, on_step, instances, player.planted)
            return run, _logs_of(run, player, ENGINES[int(env.episodes.report.engine[0])], env.num_envs)

    arms = {name: [played(player) for player in runs] for name, runs in found.items()}
    return [Arm(name, *map(list, zip(*runs, strict=True))) for name, runs in arms.items()]


def num_runs(players: Mapping[str, Sequence[str]], without: Sequence[str] = ()) -> int:
    """Number of runs that `compare_arms` plays: those of learned arms come again for each group left out."""
    learned = [len(runs) for name, runs in players.items() if _is_learned(name)]
    return sum(map(len, players.values())) + len(without) * sum(learned)


def _logs_of(run: Played, player: Player, engine: str, num_networks: int) -> list[EpisodeLog]:
    """Logs of the first episodes of a run."""
    logs = []
    for episode in range(min(NUM_SAMPLES, len(run))):
        actions = run.actions[episode][run.actions[episode] >= 0]
        log = log_of(
            problem=player.problem,
            engine=engine,
            num_networks=num_networks,
            seed=run.seeds[episode],
            instance=run.instances[episode],
            planted=() if player.planted is None else player.planted,
            actions=actions,
            scores=run.curves[episode][: len(actions) + 1],
        )
        logs.append(log)
    return logs


def _decisions_of(problem: Problem) -> tuple[int, tuple[str, ...]]:
    """Number of decisions in an episode, and names of the actions to choose from."""
    return problem.horizon, problem.actions.names


def kind_of(arms: Sequence[Arm]) -> str:
    """The word "held-out" or "training" for the episodes of a comparison."""
    return "held-out" if arms[0].runs[0].seeds[0] >= HELD_OUT else "training"


def is_learned(arm: Arm) -> bool:
    """Whether an arm is a learned controller: a training run, or one that comes with the package."""
    return _is_learned(arm.name)


def _is_learned(name: str) -> bool:
    return name not in CONTROLS or CONTROLS.get(name).is_learned


def _swapped(player: Player, group: str) -> Player:
    return replace(player, policy=Swapped(player.policy, player.problem.observations.columns(group)))
