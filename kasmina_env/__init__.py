"""Growing a neural network while it trains, as a Gymnasium environment.

Importing this registers the environments with Gymnasium. All else is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kasmina_env.envs.registration import register_with_gymnasium

if TYPE_CHECKING:
    from kasmina_env.controllers.policy import Policy, register_policy
    from kasmina_env.envs.env import KasminaEnv
    from kasmina_env.envs.registration import register_environment
    from kasmina_env.envs.sb3 import KasminaVecEnv
    from kasmina_env.envs.vector_env import KasminaVectorEnv
    from kasmina_env.episode.governor import DIVERGENCES
    from kasmina_env.episode.problem import Problem, make_problem
    from kasmina_env.episode.report import FAILURES
    from kasmina_env.episode.reward import register_reward
    from kasmina_env.networks.blueprints import register_blueprint
    from kasmina_env.networks.hosts import register_host
    from kasmina_env.networks.network_file import load_network, save_network
    from kasmina_env.population import ENGINES, Population
    from kasmina_env.settings.presets import PRESETS
    from kasmina_env.tasks import register_task, settings_from_arrays, task_from_arrays

__version__ = "0.1.0"
__all__ = [
    "DIVERGENCES",
    "ENGINES",
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
    "DIVERGENCES": "kasmina_env.episode.governor",
    "ENGINES": "kasmina_env.population",
    "FAILURES": "kasmina_env.episode.report",
    "PRESETS": "kasmina_env.settings.presets",
    "KasminaEnv": "kasmina_env.envs.env",
    "KasminaVecEnv": "kasmina_env.envs.sb3",
    "KasminaVectorEnv": "kasmina_env.envs.vector_env",
    "Policy": "kasmina_env.controllers.policy",
    "Population": "kasmina_env.population",
    "Problem": "kasmina_env.episode.problem",
    "load_network": "kasmina_env.networks.network_file",
    "make_problem": "kasmina_env.episode.problem",
    "register_blueprint": "kasmina_env.networks.blueprints",
    "register_environment": "kasmina_env.envs.registration",
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


register_with_gymnasium()
