"""The engine for CPUs: networks one after the other, each in cache through its whole step, in kernels numba compiles.

Only `kasmina_env.population.engine` imports it, and only where numba is installed.
"""

from kasmina_env.population.fused.engine import FusedEngine
from kasmina_env.population.fused.tracer import UnsupportedError
from kasmina_env.population.fused.warm_up import warm_up

__all__ = ["FusedEngine", "UnsupportedError", "warm_up"]
