"""Compilation ahead of the first step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import numpy as np

from kasmina_env.population.fused import driver
from kasmina_env.population.fused.kernels import KERNELS

EVERY = 8  # kernels between two lines
_LOG = logging.getLogger(__name__)


def warm_up(progress: Callable[[str], None] = _LOG.warning) -> None:
    """Compile everything, about 20 seconds, or load it from numba's cache, which takes half a second.

    Args:
        progress: Called with a line now and then from the first kernel on that the cache does not have; by default the
            logger of this module, which shows warnings on stderr.
    """
    is_cold = False
    for number, each in enumerate(KERNELS, start=1):
        if is_cold and number % EVERY == 0:
            progress(f"compiling the fused engine, once on this machine: {number} of {len(KERNELS)} kernels")
        is_cold = not each.compile() or is_cold
    _warm_up_driver()


@cache
def _warm_up_driver() -> None:
    """Call the loops once, for no networks."""
    whole, real = np.zeros((1, 4), dtype=np.int64), np.zeros((1, 4))
    row, none = whole[0], np.zeros((1, 0))
    table, one = np.zeros((1, 2), dtype=np.int64), np.zeros(0, dtype=np.float32)
    driver.train(0, 1, 0, whole, real, table, row, whole, row, row, row, (0, 0, 0, 0, 0, 0), none)
    places = (0, 0, 0, 0, 0, 0, 0)
    driver.evaluate(0, 1, 0, whole, real, table, whole, row, whole, row, whole, row, one, row, row, places, real)
