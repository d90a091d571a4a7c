"""How long a step takes, where the time goes, and beside what: everything measured in turn in one run."""

from kasmina_env.bench.growth import Cost, measure_growth
from kasmina_env.bench.measure import Measured, measure
from kasmina_env.bench.report import Table, as_json, picture, tables

__all__ = ["Cost", "Measured", "Table", "as_json", "measure", "measure_growth", "picture", "tables"]
