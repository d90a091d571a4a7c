"""Growing a neural network while it trains, as a Gymnasium environment.

Importing this registers the environments and imports nothing heavy; the rest is imported when it is first used.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from kasmina_env.settings.config import make_config
from kasmina_env.settings.presets import PRESETS, Preset

if TYPE_CHECKING:
    from kasmina_env.controllers.policy import Policy, register_policy
    from kasmina_env.envs.env import KasminaEnv
    from kasmina_env.envs.sb3 import KasminaVecEnv
    from kasmina_env.envs.vector_env import KasminaVectorEnv
    from kasmina_env.episode.core import FAILURES
    from kasmina_env.episode.problem import Problem, make_problem
    from kasmina_env.episode.reward import register_reward
    from kasmina_env.networks.blueprints import register_blueprint
    from kasmina_env.networks.hosts import register_host
    from kasmina_env.networks.network_file import load_network, save_network
    from kasmina_env.population import Population
    from kasmina_env.tasks import register_task, settings_from_arrays, task_from_arrays

__version__ = "0.1.0"
__all__ = [
    "FAILURES",
    "PRESETS",
    "KasminaEnv",
    "KasminaVecEnv",
    "KasminaVectorEnv",
    "Policy",
    "Population",
    "Problem",
    "load_network",
    "make_problem",
    "register_blueprint",
    "register_environment",
    "register_host",
    "register_policy",
    "register_reward",
    "register_task",
    "save_network",
    "settings_from_arrays",
    "task_from_arrays",
]

_LAZY = {
    "FAILURES": "kasmina_env.episode.core",
    "KasminaEnv": "kasmina_env.envs.env",
    "KasminaVecEnv": "kasmina_env.envs.sb3",
    "KasminaVectorEnv": "kasmina_env.envs.vector_env",
    "Policy": "kasmina_env.controllers.policy",
    "Population": "kasmina_env.population",
    "Problem": "kasmina_env.episode.problem",
    "load_network": "kasmina_env.networks.network_file",
    "make_problem": "kasmina_env.episode.problem",
    "register_blueprint": "kasmina_env.networks.blueprints",
    "register_host": "kasmina_env.networks.hosts",
    "register_policy": "kasmina_env.controllers.policy",
    "register_reward": "kasmina_env.episode.reward",
    "register_task": "kasmina_env.tasks",
    "save_network": "kasmina_env.networks.network_file",
    "settings_from_arrays": "kasmina_env.tasks",
    "task_from_arrays": "kasmina_env.tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def register_environment(env_id: str, description: str, **settings: Any) -> None:
    """Register an environment of your own, for `gymnasium.make` and for every command.

    Args:
        env_id: New Gymnasium id, such as "Mine/Flowers-v0".
        description: One line for people.
        **settings: Fields of `kasmina_env.settings.config.EnvConfig`; `settings_from_arrays` has some for your data.

    Raises:
        ValueError: If the id is taken, or a setting is unknown or breaks its rule; nothing is registered then.
    """
    import gymnasium

    if env_id in PRESETS or env_id in gymnasium.registry:
        raise ValueError(f"`env_id` must be new, got {env_id!r}, which is registered. Choose another name or version.")
    make_config({}, settings)
    _add_to_gymnasium(env_id)
    PRESETS.register(env_id, Preset(env_id, description, settings))


def _add_to_gymnasium(env_id: str) -> None:
    import gymnasium

    gymnasium.register(
        id=env_id,
        entry_point="kasmina_env.envs.env:KasminaEnv",
        vector_entry_point="kasmina_env.envs.vector_env:KasminaVectorEnv",
        kwargs={"preset": env_id},
    )


if find_spec("gymnasium") is not None:  # a network that was taken home does without
    for _env_id in PRESETS:
        _add_to_gymnasium(_env_id)
