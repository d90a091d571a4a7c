"""The controls beside every learned result, by name; and how to find any policy by what a user calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kasmina_env.controllers.lookahead import Lookahead, Oracle
from kasmina_env.controllers.per_context import PerContext, load_contexts
from kasmina_env.controllers.policy import Names, Policy, instances_of, make_env, names_of, preset_of
from kasmina_env.controllers.schedule import Fixed, Plan, actions_of, load_schedule, plan_of
from kasmina_env.controllers.scripted import Given, Plateau, Random, Wait
from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.lifecycle.arrays import IntArray
from kasmina_env.settings.configs import config_path, slug
from kasmina_env.settings.documents import read_document
from kasmina_env.settings.registry import Registry

INSTANT = {"instant": True}


@dataclass(frozen=True)
class Control:
    """A policy by name.

    Attributes:
        make: From the environment it is going to play in.
        meaning: One line for people.
        settings: Of that environment, where they differ from the problem's.
        is_bound: Foresees the very episode it plays: an upper reference, never a competitor.
    """

    make: Callable[[KasminaVectorEnv], Policy]
    meaning: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_bound: bool = False


def shipped_schedule(env: KasminaVectorEnv) -> IntArray:
    """The best fixed schedule of an environment's id, flat actions ``[T]``."""
    preset = preset_of(env)
    path = config_path(f"{slug(preset)}.schedule.json", f"Make it with `kasmina search {preset}`.", True)
    return load_schedule(path, names_of(env))


def _best_plan(env: KasminaVectorEnv) -> Plan:
    return plan_of(shipped_schedule(env), names_of(env))


def _known_plans(env: KasminaVectorEnv) -> list[Plan]:
    """What a search in an episode begins with: the best schedules known, and doing nothing."""
    names = names_of(env)
    contexts = () if instances_of(env, "train") is None else _contexts(env).schedules
    plans = [_best_plan(env), *(plan_of(actions, names) for actions in contexts), ()]
    return list(dict.fromkeys(plans))


def _contexts(env: KasminaVectorEnv) -> PerContext:
    preset = preset_of(env)
    path = config_path(
        f"{slug(preset)}.per_context.json", f"Make it with `kasmina search {preset} --per-context`.", True
    )
    return load_contexts(path, names_of(env))


def _fixed(env: KasminaVectorEnv) -> Policy:
    return Fixed(names_of(env), shipped_schedule(env))


def _per_context(env: KasminaVectorEnv) -> Policy:
    return _fixed(env) if instances_of(env, "train") is None else _contexts(env)  # without a family, one context


def _at_once(actions: IntArray, names: Names) -> IntArray:
    """A schedule inserted at alpha 1, flat actions ``[T]``."""
    return actions_of(plan_of(actions, names), names, min_training_steps=0, instant=True)


def _instant(env: KasminaVectorEnv) -> Policy:
    names = names_of(env)
    return Fixed(names, _at_once(shipped_schedule(env), names))


def _instant_per_context(env: KasminaVectorEnv) -> Policy:
    if instances_of(env, "train") is None:
        return _instant(env)
    names, staged = names_of(env), _contexts(env)
    return PerContext(names, staged.contexts, np.stack([_at_once(actions, names) for actions in staged.schedules]))


CONTROLS: Registry[Control] = Registry("policy")
CONTROLS.register("wait", Control(lambda env: Wait(), "lets the host train as it is"))
CONTROLS.register("random", Control(lambda env: Random(), "a legal action at random"))
CONTROLS.register("plateau", Control(lambda env: Plateau(names_of(env)), "grows when progress stalls"))
CONTROLS.register("fixed", Control(_fixed, "the best schedule that `kasmina search` found"))
CONTROLS.register("per_context", Control(_per_context, "the best schedule for each visible context"))
CONTROLS.register("instant", Control(_instant, "the best schedule, inserted at alpha 1", INSTANT))
CONTROLS.register(
    "instant_per_context",
    Control(_instant_per_context, "the best schedule for each visible context, inserted at alpha 1", INSTANT),
)
CONTROLS.register(
    "static_final",
    Control(lambda env: Given(env, _best_plan(env)), "the best schedule's architecture from the start", INSTANT),
)
CONTROLS.register(
    "lookahead",
    Control(lambda env: Lookahead(env, _known_plans(env)), "tries every action in copies", is_bound=True),
)
CONTROLS.register(
    "oracle",
    Control(lambda env: Oracle(env, _known_plans(env)), "a schedule searched on the very episode", is_bound=True),
)


def settings_of(name: str) -> Mapping[str, Any]:
    """Settings that a policy plays with where they differ from the problem's, by what a user calls it."""
    return CONTROLS.get(name).settings if name in CONTROLS else {}


def find_policy(name: str, env: KasminaVectorEnv) -> Policy:
    """A control by name, a schedule by its file, or a learned policy by the folder of its training run.

    Args:
        name: One of these; the file may hold a schedule for each context.
        env: Where it is going to play, made with the settings of `settings_of`.
    """
    path, names = Path(name), names_of(env)
    if name not in CONTROLS and not path.exists() and len(path.parts) > 1:
        raise FileNotFoundError(f"`{name}` must be a control, or a file or folder that exists, got none. Correct it.")
    if name in CONTROLS or not path.exists():
        return CONTROLS.get(name).make(env)
    if path.is_file():
        is_family = "contexts" in read_document(path)
        return load_contexts(path, names) if is_family else Fixed(names, load_schedule(path, names))
    from kasmina_env.learning.train import load_learned  # brings stable-baselines3, which a control does without

    return load_learned(path, env)


def make_player(name: str, preset: str, num_envs: int, **settings: Any) -> tuple[KasminaVectorEnv, Policy]:
    """A policy by what a user calls it, and the environment it plays in."""
    env = make_env(preset, num_envs, **{**settings, **settings_of(name)})
    return env, find_policy(name, env)


@dataclass(frozen=True)
class Source:
    """A controller, and the problem it plays.

    Attributes:
        name: As the user named it.
        preset: Registered id.
        settings: Fields of `kasmina_env.settings.config.EnvConfig` that differ from the preset.
    """

    name: str
    preset: str
    settings: Mapping[str, Any]


def find_source(name: str, preset: str | None) -> Source:
    """What a user means by the folder of a training run, the file of a schedule, or the name of a control.

    Args:
        name: One of these.
        preset: Registered id, for a control; the other two have their own.
    """
    path, settings, own = Path(name), dict(settings_of(name)), preset
    if name not in CONTROLS and path.is_dir():
        from kasmina_env.learning.training_config import (
            recipe_of,  # brings stable-baselines3, which a control does without
        )

        recipe = recipe_of(path)
        own, settings = recipe.preset, dict(recipe.settings)
    elif name not in CONTROLS and path.is_file():
        own = read_document(path, "id")["id"]
    if preset not in (None, own):
        raise ValueError(f"`env-id` must be {own} for {name}, got {preset}. Leave it out.")
    return Source(name, own or "Kasmina/Digits-v0", settings)
