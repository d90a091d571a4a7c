"""How much a calibration measures; in a file without PyTorch, so that the command line can show it at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        schedules: Schedules to screen; a fifth of them are random, the others vary what, where and when.
        screening: Seeds to screen each schedule on; for a family, instances with one seed each.
        kept: Best schedules to measure further, staged and instant each.
        random: Random schedules to measure, whatever they are worth.
        seeds: Seeds for each instance; schedules are chosen on one half and measured on the other, in turn.
        instances: Instances of a family, from its train split.
    """

    schedules: int = 240
    screening: int = 6
    kept: int = 16
    random: int = 16
    seeds: int = 32
    instances: int = 16

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 4 if name == "seeds" else 1
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}. Measure more.")


USUAL_SIZES = Sizes()
