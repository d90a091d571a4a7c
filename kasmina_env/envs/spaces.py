"""What the Gymnasium shells share: spaces, decoding of actions, and infos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from kasmina_env.episode.core import Core
from kasmina_env.episode.reward import param_growth
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.population.device import find_device
from kasmina_env.settings.presets import PRESETS
from kasmina_env.settings.registry import unknown_name_message

ActionForm = Literal["flat", "factored"]
DTYPES = {"float32": torch.float32, "float64": torch.float64}
RENDER_MODES = ("ansi", "rgb_array")
Infos = dict[str, Any]  # key to array [N], or to such a dictionary


def make_core(
    preset: str,
    num_networks: int,
    device: str | None,
    dtype: str,
    settings: Mapping[str, Any],
    devices: Sequence[str] = (),
    num_workers: int = 1,
) -> Core:
    """The core of a preset with overridden settings; every argument is checked."""
    if dtype not in DTYPES:
        raise ValueError(unknown_name_message("dtype", dtype, tuple(DTYPES)))
    check_count("num_workers", num_workers)
    where = [find_device(name) for name in devices or (device,)]
    if num_workers > 1 and (num_workers > num_networks or devices or where[0].type != "cpu"):
        raise ValueError(
            f"`num_workers` must be 1 on devices other than one CPU, and at most the {num_networks} networks, got "
            f"{num_workers}. Use fewer."
        )
    problem = PRESETS.get(preset).config(**settings)
    return Core(problem, num_networks, where[0], DTYPES[dtype], where if devices else (), num_workers)


def check_choice(name: str, value: object, known: tuple[object, ...]) -> None:
    """Raise one clear sentence if a value is not among the known ones."""
    if value not in known:
        raise ValueError(unknown_name_message(name, value, tuple(str(k) for k in known)))


def check_count(name: str, value: object, can_be_none: bool = False) -> None:
    """Raise one clear sentence if a value is not a positive integer."""
    is_count = isinstance(value, int | np.integer) and _is_integer(value) and value >= 1
    if not is_count and not (can_be_none and value is None):
        rule = "be an integer of at least 1" + (", or None" if can_be_none else "")
        raise ValueError(f"`{name}` must {rule}, got {value!r}. Change it.")


def read_options(
    core: Core, options: Mapping[str, Any] | None, others: tuple[str, ...] = ()
) -> tuple[IntArray | None, bool]:
    """What `reset` shall be about: the instances asked for ``[N]``, -1 where none is, and whether it is a test.

    Args:
        core: The episodes.
        options: "instance", a number or one for each network (None: drawn), and "split", "train" or "test".
        others: Keys that the caller reads itself.
    """
    given = dict(options or {})
    unknown = sorted(set(given) - {"instance", "split", *others})
    if unknown:
        known = ", ".join(("instance", "split", *others))
        raise ValueError(f"`options` must have only the keys {known}, got {', '.join(map(str, unknown))}. Remove them.")
    allowed = core.instances.split(given["split"]) if "split" in given else np.arange(len(core.instances))
    is_test, wanted = given.get("split") == "test", given.get("instance")
    if wanted is None:
        return None, is_test
    entries = [wanted] * core.num_networks if np.ndim(wanted) == 0 else list(wanted)
    is_known = all(entry is None or (_is_integer(entry) and entry in allowed) for entry in entries)
    if len(entries) != core.num_networks or not is_known:
        raise ValueError(
            f"`instance` must be a number from {allowed[0]} to {allowed[-1]}, or one for each of {core.num_networks} "
            f"networks, got {wanted!r}. Name instances that exist{' in that split' * ('split' in given)}."
        )
    return np.array([-1 if entry is None else entry for entry in entries]), is_test


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def observation_space(core: Core) -> spaces.Space[Any]:
    """Bounds of one observation ``[F]``."""
    return spaces.Box(core.observations.low, core.observations.high, dtype=np.float32)


def action_space(core: Core, form: ActionForm) -> spaces.Space[Any]:
    """One flat choice, or one choice per head."""
    if form == "flat":
        return spaces.Discrete(int(core.actions.num_actions))
    return spaces.MultiDiscrete(list(core.actions.num_choices))


def flat_actions(core: Core, form: ActionForm, actions: ArrayLike) -> IntArray:
    """Decode the actions of N networks to flat ones ``[N]``, -1 for a factored combination that means nothing.

    A flat -1 is such a combination that a caller decoded before; all else outside the space raises.
    """
    array, n = np.asarray(actions), core.num_networks
    sizes = np.array([core.actions.num_actions] if form == "flat" else core.actions.num_choices)
    is_whole = array.dtype.kind in "iu" and array.size == n * len(sizes)
    table = array.reshape(n, len(sizes)).astype(np.int64) if is_whole else np.full((1, 1), sizes.max())
    if ((table < (-1 if form == "flat" else 0)) | (table >= sizes)).any():
        raise ValueError(
            f"`action` must be {n} times {len(sizes)} integers below {sizes.tolist()}, got {array.tolist()}. "
            "Take one from the action space."
        )
    return table[:, 0] if form == "flat" else core.actions.flatten(table)


def masks(core: Core, form: ActionForm) -> BoolArray:
    """Masks of the N networks in the given form; True = allowed."""
    return core.action_masks() if form == "flat" else core.factored_masks()


def step_infos(core: Core, terms: Mapping[str, FloatArray] | None = None) -> Infos:
    """Infos of every reset and step, arrays over the N networks.

    Args:
        core: The episodes.
        terms: Terms of the reward; left out: zeros, as at reset.
    """
    view = core.view
    zero = np.zeros(core.num_networks)
    return {
        "step": view.step,
        "score": view.score,
        "quality": view.quality,
        "inner_valid_accuracy": view.accuracy,
        "train_loss": view.train_loss,
        # an episode that is over leaves the committed network
        "param_growth": np.where(view.is_over, core.committed_growth(), param_growth(view, core.costs)),
        "num_fossilized": view.num_fossilized,
        "num_alive": view.num_alive,
        "action_legal": view.is_legal,
        "failure": np.where(view.is_dead, "non_finite", "").astype(object),
        "reward_terms": {name: zero if terms is None else terms[name] for name in core.reward.terms},
    }


def terminal_infos(core: Core) -> Infos:
    """What the infos of a step that terminates an episode have besides."""
    view = core.view
    actions = np.empty(core.num_networks, dtype=object)
    actions[:] = [log[:step].tolist() for log, step in zip(view.actions, view.step, strict=True)]
    return {
        "test_accuracy": core.test_accuracy,
        "committed_score": view.score,
        "compute": view.compute_spent,
        "actions": actions,
        "instance": view.instance,
        "is_success": ~view.is_dead & (view.score >= core.config.success_score),
    }


def plain_info(infos: Infos, row: int) -> dict[str, Any]:
    """What is meant for one network, as plain Python values and without Gymnasium's masks."""
    return {key: _plain(value, row) for key, value in infos.items() if _is_meant(infos, key, row)}


def _is_meant(infos: Infos, key: str, row: int) -> bool:
    return not key.startswith("_") and (f"_{key}" not in infos or bool(infos[f"_{key}"][row]))


def _plain(value: NDArray[Any] | Infos, row: int) -> Any:
    if isinstance(value, dict):
        return plain_info(value, row)
    entry = value[row]
    return entry.item() if isinstance(entry, np.generic) else entry


def with_masks(infos: Infos, is_present: BoolArray) -> Infos:
    """Copies, for the caller to keep, with Gymnasium's ``_key`` masks that say which networks a key is meant for."""
    masked: Infos = {}
    for key, value in infos.items():
        masked[key] = with_masks(value, is_present) if isinstance(value, dict) else value.copy()
        masked[f"_{key}"] = is_present.copy()
    return masked
