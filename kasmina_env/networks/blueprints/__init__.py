"""Blueprints: kinds of seeds. A new one is one file here with one decorated builder."""

from kasmina_env.networks.blueprints.base import (
    BLUEPRINTS,
    Blueprint,
    Builder,
    build_seed,
    register_blueprint,
)
from kasmina_env.networks.layers import Topology
from kasmina_env.settings.registry import import_members

__all__ = [
    "BLUEPRINTS",
    "Blueprint",
    "Builder",
    "Topology",
    "build_seed",
    "register_blueprint",
]

import_members(__name__, __path__)
