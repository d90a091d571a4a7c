"""Spaces of observations and actions, and decoding of actions."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike

from kasmina_env.envs.arguments import as_array
from kasmina_env.episode.actions import factored_mask
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.report import Report
from kasmina_env.lifecycle.arrays import BoolArray, IntArray

ActionForm = Literal["flat", "factored"]
ObservationForm = Literal["flat", "dict"]


def observation_space(problem: Problem, form: ObservationForm, actions: ActionForm) -> spaces.Space[Any]:
    """Space of one observation ``[F]``; in the form "dict" together with the action mask."""
    box = spaces.Box(problem.observations.low, problem.observations.high, dtype=np.float32)
    if form == "flat":
        return box
    size = problem.actions.num_actions if actions == "flat" else sum(problem.actions.num_choices)
    return spaces.Dict({"observations": box, "action_mask": spaces.Box(0, 1, (int(size),), dtype=np.int8)})


def action_space(problem: Problem, form: ActionForm) -> spaces.Space[Any]:
    """One flat choice, or one choice per head."""
    if form == "flat":
        return spaces.Discrete(int(problem.actions.num_actions))
    return spaces.MultiDiscrete(list(problem.actions.num_choices))


def flat_actions(problem: Problem, num_rows: int, form: ActionForm, actions: ArrayLike) -> IntArray:
    """Decode the actions of N networks to flat ones ``[N]``; -1 for a factored combination that is not in the table.

    A flat -1 is accepted: it is such a combination, decoded before. Other values outside the space raise.
    """
    table, array = problem.actions, as_array(actions)
    sizes = np.array([table.num_actions] if form == "flat" else table.num_choices)
    is_whole = array.dtype.kind in "iu" and array.size == num_rows * len(sizes)
    choices = array.reshape(num_rows, len(sizes)) if is_whole else np.full((1, 1), sizes.max())
    if ((choices < (-1 if form == "flat" else 0)) | (choices >= sizes)).any():
        raise ValueError(
            f"`action` must be {num_rows} times {len(sizes)} integers below {sizes.tolist()}, got {array.tolist()}. "
            "Take one from the action space."
        )
    choices = choices.astype(np.int64)
    return choices[:, 0] if form == "flat" else table.flatten(choices)


def masks(problem: Problem, report: Report, form: ActionForm) -> BoolArray:
    """Masks of the N networks in the given form; True = allowed."""
    return report.mask if form == "flat" else factored_mask(problem.actions, report.mask)
