"""The engine: N networks that train and grow side by side as one wide network."""

from kasmina_env.population.engine import ENGINES
from kasmina_env.population.optim import Optimizer
from kasmina_env.population.population import Population, Snapshot
from kasmina_env.population.state import Conditions, Networks
from kasmina_env.population.train import GradientHealth

__all__ = [
    "ENGINES",
    "Conditions",
    "GradientHealth",
    "Networks",
    "Optimizer",
    "Population",
    "Snapshot",
]
