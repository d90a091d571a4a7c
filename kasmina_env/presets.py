"""The registered problems, as data. Numbers come from `kasmina compare` and searches; see the README."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kasmina_env.config import EnvConfig, make_config
from kasmina_env.registry import Registry


@dataclass(frozen=True)
class Preset:
    """A registered problem.

    Attributes:
        id: Gymnasium id.
        description: One line for people.
        settings: Fields of `EnvConfig`.
    """

    id: str
    description: str
    settings: Mapping[str, Any]

    def config(self, **overrides: Any) -> EnvConfig:
        """The preset's settings with some of them overridden, validated."""
        return make_config(self.settings, overrides)


PRESETS: Registry[Preset] = Registry("id")

_ALL = (
    Preset(
        "Kasmina/Spirals-v0",
        "An MLP too narrow for three interleaved spirals; the fast one for tests",
        {
            "task": "spirals",
            "host": "mlp",
            "host_settings": {"in_features": 2, "num_classes": 3, "width": 6, "depth": 2},
            "horizon": 24,
            "batches_per_step": 8,
            "learning_rate": 0.02,
            "blueprints": ("layer_norm", "lora", "mlp_small", "mlp"),
            "tempos": (3, 5),
            "success_score": 0.7,
        },
    ),
    Preset(
        "Kasmina/Digits-v0",
        "A CNN that cannot see shape until a seed gives it spatial reach, on 1 797 real digits",
        {
            "task": "digits",
            "host": "cnn",
            "host_settings": {"in_channels": 1, "image_size": 8, "num_classes": 10, "width": 8},
            "horizon": 30,
            "batches_per_step": 4,
            "learning_rate": 0.02,
            "blueprints": ("norm", "attention", "pointwise", "depthwise", "conv_light"),
            "tempos": (3, 8),
            "success_score": 0.7,
        },
    ),
)

for _preset in _ALL:
    PRESETS.register(_preset.id, _preset)
