"""Arguments of environments and of their methods: each is checked, and nothing changes before all are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from gymnasium.error import ClosedEnvironmentError
from numpy.typing import NDArray

from kasmina_env.episode.episodes import Episodes, Placement
from kasmina_env.episode.lasting import SNAPSHOT_EVERY
from kasmina_env.episode.problem import Problem, make_problem
from kasmina_env.episode.ray_actor import count_places, join_cluster
from kasmina_env.lifecycle.arrays import BoolArray, IntArray
from kasmina_env.lifecycle.state import Op
from kasmina_env.networks.hosts import count_parameters
from kasmina_env.population import ENGINES
from kasmina_env.population.device import find_device
from kasmina_env.population.engine import check_engine
from kasmina_env.settings.config import SETTINGS
from kasmina_env.settings.machine import MOST_WORKERS
from kasmina_env.settings.registry import unknown_name_message

DTYPES = {"float32": torch.float32, "float64": torch.float64}
MOST_PARAMETERS = 2**34  # of all networks in one place, 64 GiB in float32
NOTHING_PLANTED: IntArray = np.zeros(0, dtype=np.int64)


def check_settings(caller: str, settings: Mapping[str, Any]) -> None:
    """Raise Python's own ``TypeError`` for unknown keywords; wrappers of other libraries rely on it."""
    for name in settings:
        if name not in SETTINGS:
            nearest = difflib.get_close_matches(name, SETTINGS, n=1)
            hint = f". Did you mean {nearest[0]!r}?" if nearest else ""
            raise TypeError(f"{caller}() got an unexpected keyword argument {name!r}{hint}")


def make_episodes(
    preset: str | Problem,
    num_networks: int,
    device: str | None,
    dtype: str,
    settings: Mapping[str, Any],
    devices: Sequence[str] = (),
    num_workers: int = 1,
    engine: str | None = None,
    placement: Placement = "local",
    snapshot_every: int = SNAPSHOT_EVERY,
) -> Episodes:
    """Check every argument and make the episodes of a preset with overridden settings."""
    check_choice("dtype", dtype, tuple(DTYPES))
    check_count("num_workers", num_workers, MOST_WORKERS)
    check_count("snapshot_every", snapshot_every)
    check_choice("placement", placement, get_args(Placement))
    if engine is not None:
        check_choice("engine", engine, ENGINES)
    is_far = placement == "ray"
    where = _find_devices(num_networks, device, devices, num_workers, is_far)
    check_engine(engine, where[0], DTYPES[dtype])
    if isinstance(preset, Problem) and settings:
        raise ValueError(f"Settings must be left out beside a problem, got {', '.join(settings)}.")
    problem = preset if isinstance(preset, Problem) else make_problem(preset, **settings)
    _check_parameters(problem, num_networks, len(devices) or num_workers)
    if is_far:
        _check_room(where[0], num_workers)
    return Episodes(
        problem,
        num_networks,
        where[0],
        DTYPES[dtype],
        where if devices else (),
        num_workers,
        engine,
        placement,
        snapshot_every,
    )


def _find_devices(
    num_networks: int, device: str | None, devices: Sequence[str], num_workers: int, is_far: bool
) -> list[torch.device]:
    """The devices of networks, one for all or those they are spread over; checks that the number of workers fits."""
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        raise ValueError(f"`devices` must be a list of device names, got {devices!r}.")
    if len(devices) > MOST_WORKERS:
        raise ValueError(f"`devices` must be at most {MOST_WORKERS} names, got {len(devices)}. Name fewer.")
    if devices and device is not None:
        raise ValueError(f"`device` must be left out beside `devices`, got {device!r}.")
    if is_far and (devices or num_workers > num_networks):
        raise ValueError(
            f"`num_workers` must be at most the {num_networks} networks in Ray actors, and `devices` left out, got "
            f"{num_workers} and {devices!r}. `device` is that of every actor."
        )
    where = [find_device(name, is_here=not is_far) for name in devices or (device,)]
    if not is_far and num_workers > 1 and (num_workers > num_networks or devices or where[0].type != "cpu"):
        raise ValueError(
            f"`num_workers` must be 1 on devices other than one CPU, and at most the {num_networks} networks, got "
            f"{num_workers}. Use fewer."
        )
    return where


def _check_parameters(problem: Problem, num_networks: int, num_places: int) -> None:
    """Raise ``ValueError`` if the networks of one place have more parameters than a machine can hold."""
    each = count_parameters(problem.host)
    most = MOST_PARAMETERS // each * num_places
    if num_networks > most:
        raise ValueError(
            f"`num_envs` must be at most {most} for networks of {each} parameters, got {num_networks}. Make fewer, or "
            "smaller ones."
        )


def _check_room(device: torch.device, num_workers: int) -> None:
    """Join a Ray cluster and raise ``ValueError`` if it can never hold the actors."""
    join_cluster()
    room = count_places(device.type)
    if num_workers > room:
        raise ValueError(
            f"`num_workers` must be at most {room}, the {'GPUs' if device.type == 'cuda' else 'CPUs'} of this Ray "
            f"cluster, got {num_workers}. Use fewer, or a larger cluster."
        )


def check_open(episodes: Episodes) -> None:
    """Raise Gymnasium's own error if the environment is closed."""
    if episodes.is_closed:
        raise ClosedEnvironmentError("The environment is closed. Make a new one.")


def check_choice(name: str, value: object, known: tuple[object, ...]) -> None:
    """Raise ``ValueError`` if a value is not among the known ones."""
    if value not in known:
        raise ValueError(unknown_name_message(name, value, tuple(str(k) for k in known)))


def check_count(name: str, value: object, most: int | None = None, can_be_none: bool = False) -> None:
    """Raise ``ValueError`` if a value is not a positive integer, up to `most` if that is given."""
    is_good = is_integer(value) and value >= 1 and (most is None or value <= most)  # type: ignore[operator]
    if not is_good and not (can_be_none and value is None):
        rule = "be an integer " + ("of at least 1" if most is None else f"from 1 to {most}")
        raise ValueError(f"`{name}` must {rule}{', or None' * can_be_none}, got {value!r}. Change it.")


def is_integer(value: object) -> bool:
    """Whether a value is an integer; booleans are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _entries(value: object) -> list[Any] | None:
    """The entries of a list, tuple or array; None for anything else, such as a string."""
    if isinstance(value, np.ndarray):
        return list(value) if value.ndim else None
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else None


def as_array(value: object) -> NDArray[Any]:
    """A value as an array; an array of dtype object if NumPy cannot convert it."""
    try:
        return np.asarray(value)
    except ValueError:  # lists of different lengths
        return np.array([None])


def read_seeds(seed: object, num_rows: int) -> list[int | None]:
    """Seeds of rows: s + i for an integer s, otherwise one seed or None per row."""
    if is_integer(seed):
        seeds: list[Any] = [int(seed) + row for row in range(num_rows)]  # type: ignore[call-overload]
    elif seed is None:
        seeds = [None] * num_rows
    else:
        seeds = _entries(seed) or [seed]
    is_good = all(entry is None or (is_integer(entry) and entry >= 0) for entry in seeds)
    if len(seeds) != num_rows or not is_good:
        rule = "an integer of at least 0" + (f", or {num_rows} of them" if num_rows > 1 else "")
        raise ValueError(f"`seed` must be {rule}, got {seed!r}. Correct it.")
    return [None if entry is None else int(entry) for entry in seeds]


def read_rng_seeds(rng_seeds: object, num_rows: int) -> IntArray:
    """Seeds of the random streams of rows, one for each."""
    seeds = _entries(rng_seeds) or []
    if len(seeds) != num_rows or not all(is_integer(seed) and 0 <= seed < 2**63 for seed in seeds):
        raise ValueError(
            f"`rng_seeds` must be {num_rows} integers from 0 to 2 ** 63 - 1, one for each target, got {rng_seeds!r}."
        )
    return np.array(seeds, dtype=np.int64)


def read_mask(mask: object, num_rows: int) -> BoolArray:
    """Mask of the rows to reset ``[N]``; None means all."""
    if mask is None:
        return np.ones(num_rows, dtype=bool)
    found = as_array(mask)
    if found.dtype != np.bool_ or found.shape != (num_rows,) or not found.any():
        raise ValueError(f"`reset_mask` must be {num_rows} booleans not all False, got {mask!r}. Correct it.")
    return found


def read_rows(name: str, rows: object, num_rows: int, is_different: bool = False) -> IntArray:
    """Row numbers as an array; `is_different` forbids repeats."""
    found = as_array(rows)
    is_good = found.ndim == 1 and found.size > 0 and found.dtype.kind in "iu"
    if not is_good or ((found < 0) | (found >= num_rows)).any():
        raise ValueError(f"`{name}` must be row numbers from 0 to {num_rows - 1}, got {rows!r}. Correct them.")
    if is_different and len(np.unique(found)) != len(found):
        raise ValueError(f"`{name}` must be different rows, got {rows!r}. Name each once.")
    return found.astype(np.int64)


def read_options(
    problem: Problem, num_rows: int, options: object, others: tuple[str, ...] = ()
) -> tuple[IntArray | None, bool, IntArray]:
    """Options of a reset: requested instances ``[N]`` (-1: draw one), whether the split is "test", planted actions.

    Args:
        problem: Problem of the episodes.
        num_rows: N.
        options: "instance": a number, or one per network (None: draw one). "split": "train" or "test". "planted":
            flat GERMINATE actions to carry out before the first step.
        others: Further keys, which the caller reads itself.
    """
    if options is not None and not isinstance(options, Mapping):
        raise ValueError(f"`options` must be a dictionary, got {options!r}.")
    given, known = dict(options or {}), ("instance", "split", "planted", *others)
    unknown = [key for key in given if key not in known]
    if unknown:
        raise ValueError(f"`options` must have only the keys {', '.join(known)}, got {', '.join(map(str, unknown))}.")
    instances = problem.instances
    allowed = instances.split(given["split"]) if "split" in given else np.arange(len(instances))
    wanted = _read_instances(given.get("instance"), num_rows, allowed, "split" in given)
    return wanted, given.get("split") == "test", _read_planted(given.get("planted"), problem)


def _read_instances(wanted: Any, num_rows: int, allowed: IntArray, has_split: bool) -> IntArray | None:
    if wanted is None:
        return None
    listed = _entries(wanted)
    entries = [wanted] * num_rows if listed is None else listed
    is_known = all(entry is None or (is_integer(entry) and entry in allowed) for entry in entries)
    if len(entries) != num_rows or not is_known:
        raise ValueError(
            f"`instance` must be a number from {allowed[0]} to {allowed[-1]}, or one for each of {num_rows} networks, "
            f"got {wanted!r}. Name instances that exist{' in that split' * has_split}."
        )
    return np.array([-1 if entry is None else entry for entry in entries])


def _read_planted(planted: Any, problem: Problem) -> IntArray:
    if planted is None:
        return NOTHING_PLANTED
    found, table = as_array(planted), problem.actions
    is_whole = found.ndim == 1 and (found.size == 0 or found.dtype.kind in "iu")
    is_known = is_whole and ((found >= 0) & (found < table.num_actions)).all()
    if not is_known or (table.op[found.astype(np.int64)] != Op.GERMINATE).any():
        raise ValueError(f"`planted` must be a list of flat GERMINATE actions, got {planted!r}.")
    return found.astype(np.int64)
