"""Registration of the environments with Gymnasium."""

from __future__ import annotations

from typing import Any


def register_with_gymnasium() -> None:
    """Register all environments, if Gymnasium is installed. Exported networks do not need it."""
    from kasmina_env.settings.presets import PRESETS

    try:
        import gymnasium  # noqa: F401
    except ModuleNotFoundError:
        return
    for env_id in PRESETS:
        _add_to_gymnasium(env_id)


def register_environment(env_id: str, description: str, **settings: Any) -> None:
    """Register an environment of your own, for `gymnasium.make` and for every command.

    Args:
        env_id: New Gymnasium id, such as "Mine/Flowers-v0".
        description: One line for people.
        **settings: Fields of `kasmina_env.settings.config.EnvConfig`; `settings_from_arrays` makes those of your data.

    Raises:
        ValueError: If the id is taken, or a setting is unknown or breaks its rule; nothing is registered then.
    """
    import gymnasium

    from kasmina_env.settings.config import make_config
    from kasmina_env.settings.presets import PRESETS, Preset

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
