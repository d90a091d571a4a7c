"""How much a calibration measures; in a file without PyTorch, so that the command line can show it at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass

LEAST_SEEDS = 4  # two halves, with a variance each
LEAST_INSTANCES = 2  # what suits one is learned from the others
MOST = 100_000


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        schedules: Schedules to screen; a fifth of them are random, the others vary what, where and when. A quarter as
            many rules are screened.
        screening: Seeds to screen each schedule on; for a family, instances with one seed each.
        kept: Best schedules to measure further, staged and instant each.
        random: Random schedules to measure, whatever they are worth.
        varied: Schedules, and rules, to vary in each dimension of a decision.
        starts: Steps at which their starts are held.
        seeds: Seeds of each schedule; each instance of a family gets its share, at least 4. Schedules are chosen on one
            half of the seeds and measured on the other, in turn.
        instances: Instances of a family, from its train split.
    """

    schedules: int = 120
    screening: int = 6
    kept: int = 8
    random: int = 8
    varied: int = 3
    starts: int = 4
    seeds: int = 48
    instances: int = 16

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = {"seeds": LEAST_SEEDS, "instances": LEAST_INSTANCES}.get(name, 1)
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}. Measure more.")
            if value > MOST:
                raise ValueError(f"`{name}` must be at most {MOST}, got {value}. Measure less.")

    def seeds_of_each(self, num_instances: int) -> int:
        """Number of seeds of each schedule in each instance."""
        return max(self.seeds // num_instances, LEAST_SEEDS)

    @property
    def rules(self) -> int:
        """Number of rules to screen."""
        return -(-self.schedules // 4)


USUAL_SIZES = Sizes()
