"""Registered problems, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kasmina_env.settings.config import EnvConfig, make_config
from kasmina_env.settings.registry import Registry


@dataclass(frozen=True)
class Preset:
    """A registered problem.

    Attributes:
        id: Gymnasium id.
        description: One line for people.
        settings: Fields of `EnvConfig`.
        dataset: Dataset whose files have to be fetched; "" if the data come with the package.
    """

    id: str
    description: str
    settings: Mapping[str, Any]
    dataset: str = ""

    def config(self, **overrides: Any) -> EnvConfig:
        """The preset's settings with some of them overridden, validated."""
        return make_config(self.settings, overrides)


PRESETS: Registry[Preset] = Registry("id")


def changed_settings(id: str, config: EnvConfig) -> dict[str, Any]:
    """Settings of a problem that differ from those of its registered id, as plain JSON values."""
    usual = asdict(PRESETS.get(id).config())
    changed = {name: value for name, value in asdict(config).items() if value != usual[name]}
    plain: dict[str, Any] = json.loads(json.dumps(changed))
    return plain


_HALVED = {"stem": 2, "pooling": "average"}
# A stem halves the pictures, which keeps a step affordable on one core; growing is cheap enough for a second seed.
_PICTURES = {
    "host": "cnn",
    "horizon": 30,
    "batches_per_step": 8,
    "learning_rate": 0.01,
    "blueprints": ("norm", "attention", "pointwise", "depthwise", "conv_light"),
    "tempos": (3, 8),
    "operation_price": 0.01,
}

_ALL = (
    Preset(
        "Kasmina/Spirals-v0",
        "A linear network that cannot follow three interleaved spirals until a seed bends it; the fast one for tests",
        {
            "task": "spirals",
            "task_settings": {"turns": 1.25},
            "host": "mlp",
            "host_settings": {"in_features": 2, "num_classes": 3, "width": 8, "depth": 2, "is_linear": True},
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
            "horizon": 15,
            "batches_per_step": 8,
            "learning_rate": 0.0075,
            "blueprints": ("norm", "attention", "pointwise", "depthwise", "conv_light"),
            "tempos": (2, 4),
            "prune_tempos": (0, 2),
            "min_training_steps": 1,
            "min_prune_age": 1,
            "embargo_steps": 2,
            "operation_price": 0.01,
            "watch_samples": 64,
            "score_samples": 64,
            "success_score": 0.7,
        },
    ),
    Preset(
        "Kasmina/DigitsMix-v0",
        "A family: which stages of the host see shape is hidden; noise, learning rate and prices differ too",
        {
            "task": "digits",
            "host": "cnn",
            "host_settings": {"in_channels": 1, "image_size": 8, "width": 8, "kernels": (3, 3, 3), "group_size": 4},
            "instances": "digits_mix",
            "horizon": 10,
            "batches_per_step": 14,
            "warmup_batches": 14,  # their gradients are what a controller sees first
            "decay": "linear",
            "blueprints": ("pointwise", "depthwise", "conv_light"),
            "operators": ("ADD",),
            "tempos": (1,),
            "prune_tempos": (0,),
            "min_training_steps": 1,
            "min_prune_age": 1,
            "embargo_steps": 2,
            "watch_samples": 64,
            "score_samples": 64,
            "success_score": 0.7,
        },
    ),
    Preset(
        "Kasmina/DigitsService-v0",
        "A mature host in service whose data have shifted: every step counts, so a seed must be brought in with care",
        {
            "task": "digits_shifted",
            "task_settings": {"degrees": 15.0},
            "host": "cnn",
            "host_settings": {"width": 8, "kernels": (3, 1, 3), "slot_blocks": (0, 1)},
            "horizon": 52,
            "batches_per_step": 4,
            "learning_rate": 0.0008,
            "host_factor": 0.02,
            "warmup_batches": 200,
            "objective": "mean",
            "birth_gain": 20 / 3,  # seeds twice as large as the features they join
            "blueprints": ("pointwise", "conv_light"),
            "operators": ("ADD",),
            "tempos": (8, 20),
            "param_price": 0.005,
            "rent_price": 0.0005,
            "operation_price": 0.01,
            "success_score": 0.87,
        },
    ),
    Preset(
        "Kasmina/DigitsDrift-v0",
        "A mature host in service whose data change at hidden steps: mend it, prune if they change back, else keep",
        {
            "task": "digits",
            "host": "cnn",
            "host_settings": {
                "in_channels": 1,
                "image_size": 8,
                "width": 8,
                "kernels": (3, 1, 3),
                "slot_blocks": (1, 2),
            },
            "instances": "digits_drift",
            "horizon": 36,
            "batches_per_step": 4,
            "learning_rate": 0.006,
            "host_factor": 0.02,
            "warmup_batches": 100,
            "warmup_learning_rate": 0.01,
            "objective": "mean",
            "birth_gain": 20 / 3,
            "blueprints": ("conv_light", "conv_heavy"),
            "operators": ("ADD",),
            "tempos": (2, 5),
            "prune_tempos": (0,),
            "min_training_steps": 1,
            "min_prune_age": 1,
            "embargo_steps": 2,
            "param_price": 0.2,
            "rent_price": 0.02,
            "upkeep_price": 0.05,
            "operation_price": 0.01,
            "watch_samples": 128,
            "score_samples": 256,
            "success_score": 0.8,
        },
    ),
    Preset(
        "Kasmina/Text-v0",
        "A character model that sees one character until a seed looks back, on the text of Python's own help",
        {
            "task": "text",
            "task_settings": {"context": 16},
            "host": "transformer",
            "host_settings": {"num_classes": 97, "context": 16, "width": 16, "num_heads": 0},
            "horizon": 30,
            "batches_per_step": 8,
            "batch_size": 16,
            "learning_rate": 0.01,
            "blueprints": ("layer_norm", "lora", "shift", "attention", "mlp_small", "mlp"),
            "tempos": (3, 8),
            "operation_price": 0.003,
            "success_score": 0.42,
        },
    ),
    Preset(
        "Kasmina/FashionMNIST-v0",
        "A CNN that cannot see shape until a seed gives it spatial reach, on 28x28 pictures of clothes",
        {
            **_PICTURES,
            "task": "fashion_mnist",
            "host_settings": {"in_channels": 1, "image_size": 28, "num_classes": 10, "width": 8, **_HALVED},
            "success_score": 0.55,
        },
        dataset="fashion_mnist",
    ),
    Preset(
        "Kasmina/CIFAR10-v0",
        "A CNN that cannot see shape until a seed gives it spatial reach, on 32x32 colour photographs",
        {
            **_PICTURES,
            "task": "cifar10",
            "host_settings": {"in_channels": 3, "image_size": 32, "num_classes": 10, "width": 16, **_HALVED},
            "batches_per_step": 24,
            "batch_size": 64,
            "learning_rate": 0.02,
            "decay": "linear",
            "operation_price": 0.005,
            "success_score": 0.42,
        },
        dataset="cifar10",
    ),
)

for _preset in _ALL:
    PRESETS.register(_preset.id, _preset)
