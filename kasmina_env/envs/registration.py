"""Registration of the environments with Gymnasium, as soon as somebody imports it.

Importing Gymnasium takes longer than all else that `import kasmina_env` does, and a network that was taken home does
without it. So the ids are registered at once where Gymnasium is there already, and otherwise at the end of its import.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

GYMNASIUM = "gymnasium"


def register_with_gymnasium() -> None:
    """Register all environments, now or when Gymnasium is imported."""
    if GYMNASIUM in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterImport())


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

    from kasmina_env.settings.config import make_config
    from kasmina_env.settings.presets import PRESETS, Preset

    if env_id in PRESETS or env_id in gymnasium.registry:
        raise ValueError(f"`env_id` must be new, got {env_id!r}, which is registered. Choose another name or version.")
    make_config({}, settings)
    _add_to_gymnasium(env_id)
    PRESETS.register(env_id, Preset(env_id, description, settings))


def _register() -> None:
    from kasmina_env.settings.presets import PRESETS

    for env_id in PRESETS:
        _add_to_gymnasium(env_id)


def _add_to_gymnasium(env_id: str) -> None:
    import gymnasium

    gymnasium.register(
        id=env_id,
        entry_point="kasmina_env.envs.env:KasminaEnv",
        vector_entry_point="kasmina_env.envs.vector_env:KasminaVectorEnv",
        kwargs={"preset": env_id},
    )


class _AfterImport:
    """Leaves finding Gymnasium to the other finders, and has the environments registered when it was loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != GYMNASIUM:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_register(module: ModuleType) -> None:
            load(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                _register()

        spec.loader.exec_module = load_and_register  # type: ignore[method-assign]
        return spec
