"""Kinds of seeds. A new one is one file with one decorated builder, imported here."""

from kasmina_env.blueprints import attention, convolution, mlp, norm, shift
from kasmina_env.blueprints.base import (
    BLUEPRINTS,
    Blueprint,
    Topology,
    Variant,
    build_seed,
    register_blueprint,
)

__all__ = [
    "BLUEPRINTS",
    "Blueprint",
    "Topology",
    "Variant",
    "attention",
    "build_seed",
    "convolution",
    "mlp",
    "norm",
    "register_blueprint",
    "shift",
]
