"""Logs of episodes: all that is needed to replay one, and the scores to check the replay against."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kasmina_env import __version__
from kasmina_env.envs.env import KasminaEnv
from kasmina_env.episode.problem import problem_of
from kasmina_env.population import ENGINES
from kasmina_env.settings.config import EnvConfig, check_nested, freeze, make_config
from kasmina_env.settings.documents import read_document, write_document

KIND, SCHEMA = "kasmina_env episode", 1


@dataclass(frozen=True)
class EpisodeLog:
    """One finished episode.

    Attributes:
        id: Registered id.
        config: All settings of the problem.
        engine: Engine that trained the network.
        seed: Seed of the reset.
        instance: Number of the instance.
        planted: Flat GERMINATE actions carried out before the first step.
        actions: Flat action of each step.
        names: Names of these actions, for people.
        scores: Score after the reset and after each step; the last is that of the committed network.
        versions: Releases of the packages that played it.
    """

    id: str
    config: Mapping[str, Any]
    engine: str
    seed: int
    instance: int
    planted: tuple[int, ...]
    actions: tuple[int, ...]
    names: tuple[str, ...]
    scores: tuple[float, ...]
    versions: Mapping[str, Any]


def present_versions() -> dict[str, str]:
    """Releases of the packages on which the figures of an episode depend."""
    return {"kasmina_env": __version__, "torch": torch.__version__}


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
    check_nested("log", EpisodeLog, values)
    if len(values["scores"]) != len(values["actions"]) + 1:
        raise ValueError(f"`{path}` must have one score more than actions, got {len(values['scores'])} scores.")
    return EpisodeLog(**values)


def replay(
    log: EpisodeLog, on_step: Callable[[KasminaEnv], None] = lambda env: None, engine: str | None = None
) -> tuple[float, ...]:
    """Play an episode again and return its scores.

    Args:
        log: Episode to play.
        on_step: Callback after the reset and after each step.
        engine: Engine of the network; by default the one that played it.

    Raises:
        ValueError: If the problem cannot be made here, or an action is not in its table.
    """
    config = make_config({}, log.config)
    env = KasminaEnv(problem_of(log.id, config), engine=engine or log.engine, render_mode="ansi")
    options = {"instance": log.instance, "planted": list(log.planted)}
    scores = [env.reset(seed=log.seed, options=options)[1]["score"]]
    on_step(env)
    for action in log.actions:
        _, _, is_over, _, info = env.step(action)
        scores.append(info["score"])
        on_step(env)
        if is_over:
            break
    env.close()
    return tuple(scores)


def first_difference(log: EpisodeLog, scores: tuple[float, ...], tolerance: float = 1e-6) -> str:
    """Sentence about the first difference of scores from those of a log; empty if there is none."""
    for step, (wanted, found) in enumerate(zip(log.scores, scores, strict=False)):
        if not abs(wanted - found) <= tolerance:
            return f"The score after step {step} is {found:.6f}, and {wanted:.6f} in the log."
    if len(scores) != len(log.scores):
        return f"The episode has {len(scores) - 1} steps, and {len(log.scores) - 1} in the log."
    return ""


def log_of(
    env_id: str,
    config: EnvConfig,
    engine: int,
    seed: int,
    infos: Mapping[str, Any],
    planted: Any,
    scores: Any,
    names: tuple[str, ...],
) -> EpisodeLog:
    """The log of an episode that has just ended.

    Args:
        env_id: Registered id.
        config: Settings of the problem.
        engine: Index of the engine in `ENGINES`.
        seed: Seed of the reset.
        infos: Infos of its last step, of one environment.
        planted: Flat actions carried out before the first step, or None.
        scores: Scores after the reset and after each step.
        names: Names of all flat actions.
    """
    actions = tuple(int(action) for action in infos["actions"][: len(scores) - 1])
    return EpisodeLog(
        id=env_id,
        config=json.loads(json.dumps(asdict(config))),
        engine=ENGINES[engine],
        seed=seed,
        instance=int(infos["instance"]),
        planted=tuple(int(action) for action in (() if planted is None else planted)),
        actions=actions,
        names=tuple(names[action] for action in actions),
        scores=tuple(float(score) for score in scores),
        versions=present_versions(),
    )
