"""Logs of episodes: all that is needed to replay one, and the scores to check the replay against."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kasmina_env import __version__
from kasmina_env.envs.env import KasminaEnv
from kasmina_env.episode.problem import Problem, problem_of
from kasmina_env.population.device import find_device
from kasmina_env.settings.config import SETTINGS, EnvConfig, check_nested, freeze
from kasmina_env.settings.documents import read_document, write_document
from kasmina_env.settings.machine import processor_name, release_of

KIND, SCHEMA = "kasmina_env episode", 2
EXACT = 1e-6  # largest difference of scores where a replay computes every bit again
# Largest difference elsewhere: rounding, which training amplifies. Between both engines, and between 1 and 6 networks
# of the torch engine, 54 episodes of Spirals, Digits and DigitsMix came to 0.047, and to 0.028 in the last score.
ELSEWHERE = 0.1


@dataclass(frozen=True)
class EpisodeLog:
    """One finished episode.

    Attributes:
        id: Registered id.
        config: All settings of the problem.
        engine: Engine that trained the network.
        num_networks: Number of networks that it trained side by side.
        seed: Seed of the reset.
        instance: Number of the instance.
        planted: Flat GERMINATE actions carried out before the first step.
        actions: Flat action of each step as it was carried out: WAIT for one that was not legal.
        names: Names of these actions, for people.
        scores: Score after the reset and after each step; the last is that of the committed network.
        versions: Releases of the packages that played it, and the processor.
    """

    id: str
    config: Mapping[str, Any]
    engine: str
    num_networks: int
    seed: int
    instance: int
    planted: tuple[int, ...]
    actions: tuple[int, ...]
    names: tuple[str, ...]
    scores: tuple[float, ...]
    versions: Mapping[str, Any]


def present_versions() -> dict[str, str]:
    """Releases and processor on which the last digits of an episode depend."""
    device = find_device()
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    releases = {"kasmina_env": __version__, "torch": torch.__version__, "numba": release_of("numba")}
    return {**releases, "processor": processor}


def save_log(path: Path, log: EpisodeLog) -> None:
    """Write a log as JSON. A failed write leaves no file; an existing file is refused."""
    write_document(path, {"kind": KIND, "schema": SCHEMA, **asdict(log)})


def load_log(path: Path) -> EpisodeLog:
    """Read a log.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is no log of this version, or something in it is missing or of another kind.
    """
    names = [field.name for field in dataclasses.fields(EpisodeLog)]
    document = read_document(path, "kind", "schema", *names)
    if (document["kind"], document["schema"]) != (KIND, SCHEMA):
        raise ValueError(f"`{path}` must be the log of an episode by this version. Play it anew with `rollout --log`.")
    values = {name: freeze(document[name]) for name in names}
    if isinstance(values["scores"], tuple):
        values["scores"] = tuple(float(score) if isinstance(score, int) else score for score in values["scores"])
    check_nested("log", EpisodeLog, values)
    if differs := set(values["config"]) ^ set(SETTINGS):
        raise ValueError(
            f"`{path}` must hold the settings of this version, got others in {', '.join(sorted(differs))}. Replay it "
            "with the version that it names."
        )
    if not len(values["actions"]) == len(values["names"]) == len(values["scores"]) - 1:
        raise ValueError(
            f"`{path}` must have a name for each action, and one score more than actions, got "
            f"{len(values['actions'])} actions, {len(values['names'])} names and {len(values['scores'])} scores."
        )
    return EpisodeLog(**values)


@dataclass(frozen=True)
class Replayed:
    """An episode that was played again: T steps."""

    scores: tuple[float, ...]  # [T + 1]
    is_legal: tuple[bool, ...]  # [T]


def replay(
    log: EpisodeLog, on_step: Callable[[KasminaEnv], None] = lambda env: None, engine: str | None = None
) -> Replayed:
    """Play an episode again.

    Args:
        log: Episode to play.
        on_step: Callback after the reset and after each step.
        engine: Engine of the network; by default the one that played it.

    Raises:
        ValueError: If the problem cannot be made here, or its table has other actions.
    """
    problem = problem_of(log.id, EnvConfig(**{name: freeze(value) for name, value in log.config.items()}))
    known = dict(enumerate(problem.actions.names))
    for action, name in zip(log.actions, log.names, strict=True):
        if known.get(action) != name:
            raise ValueError(
                f"`log` must hold actions of its problem, got {name!r} for {known.get(action, f'number {action}')!r}. "
                "Replay it with the version that it names."
            )
    env = KasminaEnv(problem, engine=engine or log.engine, render_mode="ansi")
    options = {"instance": log.instance, "planted": list(log.planted)}
    scores, is_legal = [env.reset(seed=log.seed, options=options)[1]["score"]], []
    on_step(env)
    for action in log.actions:
        _, _, is_over, _, info = env.step(action)
        scores.append(info["score"])
        is_legal.append(bool(info["action_legal"]))
        on_step(env)
        if is_over:
            break
    env.close()
    return Replayed(tuple(scores), tuple(is_legal))


def why_inexact(log: EpisodeLog) -> str:
    """Why a replay here need not compute every bit again, as the end of a sentence; empty if it must."""
    if dict(log.versions) != present_versions():
        return f"it was played with {_in_words(log.versions)}, and now with {_in_words(present_versions())}"
    if log.engine != "fused" and log.num_networks > 1:
        return f"it was one of {log.num_networks} networks side by side, and is played alone"
    return ""


def _in_words(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def tolerance_of(log: EpisodeLog) -> float:
    """Largest difference of scores at which a replay here agrees with a log."""
    return ELSEWHERE if why_inexact(log) else EXACT


def first_difference(log: EpisodeLog, found: Replayed) -> str:
    """Sentence about the first difference of a replay from its log; empty if they agree.

    Every action must be legal again, so that seeds go through the same stages. Scores must be equal where the replay
    computes every bit again, and within `ELSEWHERE` where not.
    """
    tolerance = tolerance_of(log)
    for step, (wanted, score) in enumerate(zip(log.scores, found.scores, strict=False)):
        if step and not found.is_legal[step - 1]:
            return f"The action of step {step}, {log.names[step - 1]}, is not legal there."
        if not abs(wanted - score) <= tolerance:
            return f"The score after step {step} is {score:.6f}, and {wanted:.6f} in the log."
    if len(found.scores) != len(log.scores):
        return f"The episode has {len(found.scores) - 1} steps, and {len(log.scores) - 1} in the log."
    return ""


def log_of(
    problem: Problem,
    engine: str,
    num_networks: int,
    seed: int,
    instance: int,
    planted: Iterable[int],
    actions: Iterable[int],
    scores: Iterable[float],
) -> EpisodeLog:
    """The log of a finished episode.

    Args:
        problem: Problem that was played.
        engine: Engine that trained the network.
        num_networks: Number of networks that it trained side by side.
        seed: Seed of the reset.
        instance: Number of the instance.
        planted: Flat actions carried out before the first step.
        actions: Flat actions as they were carried out.
        scores: Scores after the reset and after each step.
    """
    carried_out = tuple(map(int, actions))
    return EpisodeLog(
        id=problem.id,
        config=json.loads(json.dumps(asdict(problem.config))),
        engine=engine,
        num_networks=num_networks,
        seed=int(seed),
        instance=int(instance),
        planted=tuple(map(int, planted)),
        actions=carried_out,
        names=tuple(problem.actions.names[action] for action in carried_out),
        scores=tuple(map(float, scores)),
        versions=present_versions(),
    )
