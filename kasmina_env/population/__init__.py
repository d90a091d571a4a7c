"""The engine: N networks that train and grow side by side as one wide network."""

from kasmina_env.population.optim import Optimizer
from kasmina_env.population.population import Population, Snapshot
from kasmina_env.population.sharded import AnyPopulation, ShardedPopulation, ShardedSnapshot, place_population
from kasmina_env.population.state import Conditions
from kasmina_env.population.train import GradientHealth
from kasmina_env.population.worker import WorkerPopulation

__all__ = [
    "AnyPopulation",
    "Conditions",
    "GradientHealth",
    "Optimizer",
    "Population",
    "ShardedPopulation",
    "ShardedSnapshot",
    "Snapshot",
    "WorkerPopulation",
    "place_population",
]
