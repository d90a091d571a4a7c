"""The workers that the options --workers and --cluster of a command ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kasmina_env.cli.checks import check_at_least, check_at_most, check_installed
from kasmina_env.settings.machine import MOST_WORKERS

if TYPE_CHECKING:
    from kasmina_env.envs.workers import Workers


def find_workers(workers: int | None, cluster: str | None, most: int | None = None) -> Workers:
    """The workers of a command; joins the cluster, if one is named.

    Args:
        workers: Number that was asked for.
        cluster: See `kasmina_env.episode.ray_actor.join_cluster`; None for this machine without Ray.
        most: Largest number of Ray actors that make sense on CPUs; used where no number was asked for.
    """
    check_at_least("workers", 1 if workers is None else workers, 1, "1 trains all networks in one.")
    check_at_most("workers", workers or 1, MOST_WORKERS, "Use fewer.")
    if cluster is not None:
        check_installed("ray")

    from kasmina_env.envs.workers import Workers
    from kasmina_env.episode.ray_actor import count_places, join_cluster
    from kasmina_env.population.device import find_device

    if cluster is None:
        return Workers(workers or 1)
    join_cluster(cluster)
    device = find_device(is_here=False).type
    room = count_places(device)
    usual = min(room, most) if most is not None and device == "cpu" else room
    return Workers(workers or max(1, usual), "ray")
