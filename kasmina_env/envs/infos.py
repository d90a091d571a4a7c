"""Infos of resets and steps, for one environment and for vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kasmina_env.envs.spaces import ActionForm, masks
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.report import Ending, Report
from kasmina_env.lifecycle.arrays import BoolArray

Infos = dict[str, Any]  # key to array [N, ...], or to such a dictionary


def step_infos(problem: Problem, report: Report, form: ActionForm) -> Infos:
    """Infos of every reset and step, arrays over the N networks."""
    return {
        "action_mask": masks(problem, report, form).astype(np.int8),
        "step": report.step,
        "score": report.score,
        "quality": report.quality,
        "inner_valid_accuracy": report.accuracy,
        "train_loss": report.train_loss,
        "param_growth": report.param_growth,
        "num_fossilized": report.num_fossilized,
        "num_alive": report.num_alive,
        "action_legal": report.is_legal,
        "failure": report.failure,
        "num_rollbacks": report.num_rollbacks,
        "divergence": report.divergence,
        "engine": report.engine,
        "reward_terms": dict(zip(problem.reward.terms, report.terms.T, strict=True)),
    }


# Infos that a step has besides where it ends an episode.
ENDING: dict[str, Callable[[Report, Ending], NDArray[Any]]] = {
    "committed_score": lambda report, ending: ending.committed_score,
    "test_accuracy": lambda report, ending: ending.test_accuracy,
    "is_success": lambda report, ending: ending.is_success,
    "compute": lambda report, ending: report.compute,
    "actions": lambda report, ending: report.actions,
    "instance": lambda report, ending: report.instance,
}


def ending_infos(report: Report, ending: Ending) -> Infos:
    """Infos of the end of episodes, arrays over the N networks."""
    return {name: value(report, ending) for name, value in ENDING.items()}


def plain_info(infos: Infos, row: int) -> dict[str, Any]:
    """The infos of one network as plain numbers and arrays, without Gymnasium's masks."""
    return {key: _plain(value, row) for key, value in infos.items() if _is_meant(infos, key, row)}


def _is_meant(infos: Infos, key: str, row: int) -> bool:
    return not key.startswith("_") and (f"_{key}" not in infos or bool(infos[f"_{key}"][row]))


def _plain(value: NDArray[Any] | Infos, row: int) -> Any:
    if isinstance(value, dict):
        return plain_info(value, row)
    entry = value[row]
    return entry.item() if isinstance(entry, np.generic) else entry.copy()


def with_masks(infos: Infos, is_present: BoolArray) -> Infos:
    """Copies of infos with Gymnasium's ``_key`` masks, which mark the networks that have a key."""
    masked: Infos = {}
    for key, value in infos.items():
        masked[key] = with_masks(value, is_present) if isinstance(value, dict) else value.copy()
        masked[f"_{key}"] = is_present.copy()
    return masked


def choose(where: BoolArray, yes: Infos, no: Infos) -> Infos:
    """Infos from `yes` in the rows of `where`, and from `no` in the other rows; both have the same keys."""
    return {
        key: choose(where, value, no[key]) if isinstance(value, dict) else _pick(where, value, no[key])
        for key, value in yes.items()
    }


def _pick(where: BoolArray, yes: NDArray[Any], no: NDArray[Any]) -> NDArray[Any]:
    return np.where(where.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
