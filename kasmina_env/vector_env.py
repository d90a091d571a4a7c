"""N environments as one population: `gymnasium.make_vec` finds this through ``vector_entry_point``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike

from kasmina_env import shell
from kasmina_env.alpha import BoolArray, FloatArray, IntArray
from kasmina_env.core import CoreSnapshot
from kasmina_env.observation import Float32Array
from kasmina_env.population import GrownNetwork
from kasmina_env.render import render_text
from kasmina_env.shell import ActionForm, Infos


class KasminaVectorEnv(VectorEnv[Float32Array, ArrayLike, FloatArray]):
    """N episodes that train and grow side by side as one wide network.

    What an episode is, its actions, observations, rewards and infos: see `kasmina_env.env.KasminaEnv`; row i follows
    the single environment with seed ``s + i``, floats up to rounding. Infos are arrays with Gymnasium's ``_key`` masks.

    Args:
        num_envs: N.
        preset: Registered id.
        action_space: "flat" or "factored".
        autoreset_mode: What happens to a row whose episode is over: SAME_STEP (default; the last observation and info are
            in ``infos["final_obs"]`` and ``infos["final_info"]``), NEXT_STEP, or DISABLED (reset rows with
            ``reset(options={"reset_mask": ...})``).
        max_episode_steps: Truncate after so many steps; the horizon itself is termination.
        render_mode: "ansi" or None.
        device: Where the networks train.
        dtype: "float32" or "float64".
        **settings: Any field of `kasmina_env.config.EnvConfig`; an unknown one raises.
    """

    def __init__(
        self,
        num_envs: int,
        preset: str,
        *,
        action_space: ActionForm = "flat",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        **settings: Any,
    ) -> None:
        shell.check_choice("action_space", action_space, ("flat", "factored"))
        shell.check_choice("render_mode", render_mode, (None, *shell.RENDER_MODES))
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": list(shell.RENDER_MODES), "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.core = shell.make_core(preset, num_envs, device, dtype, settings)
        self._form: ActionForm = action_space
        self._max_episode_steps = max_episode_steps
        self.single_observation_space = shell.observation_space(self.core)
        self.single_action_space = shell.action_space(self.core, action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._is_over = np.ones(num_envs, dtype=bool)

    # ── names and masks ──────────────────────────────────────────────────────────────────────

    @property
    def observation_names(self) -> tuple[str, ...]:
        """One name per entry of an observation."""
        return self.core.observations.names

    @property
    def action_names(self) -> tuple[str, ...]:
        """One name per flat action."""
        return self.core.actions.names

    def action_masks(self) -> BoolArray:
        """Legal actions, ``[num_envs, num_actions]``; in the factored form the heads' masks, concatenated."""
        return shell.masks(self.core, self._form)

    # ── episodes ─────────────────────────────────────────────────────────────────────────────

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, Infos]:
        """Start fresh hosts in all rows, or in those of ``options["reset_mask"]``.

        Args:
            seed: Integer s gives row i the seed s + i; or one seed (or None) per row.
            options: ``{"reset_mask": bool [num_envs]}`` or nothing.
        """
        unknown = set(options or {}) - {"reset_mask"}
        if unknown:
            raise ValueError(f"`options` must have only the key 'reset_mask', got {sorted(unknown)}. Remove them.")
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), dtype=bool)
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"`reset_mask` must be {self.num_envs} booleans with at least one True, got {mask.tolist()}. Correct it."
            )
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else seed
        for row, row_seed in enumerate(seeds or ()):
            if row_seed is not None and mask[row]:
                self.core.seeders[row] = np.random.default_rng(row_seed)
        if seeds is None and not self.core.is_reset:
            self.core.seeders = list(self.np_random.spawn(self.num_envs))
        self.core.reset(np.flatnonzero(mask) if self.core.is_reset else np.arange(self.num_envs))
        self._is_over[mask] = False
        return self.core.observe(), shell.with_masks(shell.step_infos(self.core), mask)

    def step(self, actions: ArrayLike) -> tuple[Float32Array, FloatArray, BoolArray, BoolArray, Infos]:
        """One decision for every row; see the class for what happens to rows whose episode is over."""
        resets = self._is_over.copy()
        if resets.any() and self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise ResetNeeded(f"`reset` must be called for rows {np.flatnonzero(resets).tolist()}, which are over.")
        chosen = np.where(resets, 0, shell.flat_actions(self.core, self._form, actions))
        result = self.core.step(chosen)
        truncated = np.zeros(self.num_envs, dtype=bool)
        if self._max_episode_steps is not None:
            truncated = ~result.is_over & (self.core.view.step >= self._max_episode_steps)
        infos = shell.step_infos(self.core, result.terms)
        done = (result.is_over | truncated) & ~resets
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            return self._finish_same_step(result.reward, result.is_over, truncated, infos, done)
        final = shell.with_masks(shell.terminal_infos(self.core, infos), done) if done.any() else {}
        if resets.any():
            self.core.reset(np.flatnonzero(resets))
            infos = _choose(resets, shell.step_infos(self.core), infos)
        self._is_over = done
        infos = {**final, **shell.with_masks(infos, np.ones(self.num_envs, dtype=bool))}
        reward = np.where(resets, 0.0, result.reward)
        return self.core.observe(), reward, result.is_over & ~resets, truncated & ~resets, infos

    def _finish_same_step(
        self, reward: FloatArray, terminated: BoolArray, truncated: BoolArray, infos: Infos, done: BoolArray
    ) -> tuple[Float32Array, FloatArray, BoolArray, BoolArray, Infos]:
        if not done.any():
            present = np.ones(self.num_envs, dtype=bool)
            return self.core.observe(), reward, terminated, truncated, shell.with_masks(infos, present)
        last = self.core.observe()
        final_obs = np.empty(self.num_envs, dtype=object)
        for row in np.flatnonzero(done):
            final_obs[row] = last[row]
        final_info = shell.with_masks(shell.terminal_infos(self.core, infos), done)
        self.core.reset(np.flatnonzero(done))
        infos = shell.with_masks(_choose(done, shell.step_infos(self.core), infos), np.ones(self.num_envs, dtype=bool))
        infos |= {"final_obs": final_obs, "_final_obs": done, "final_info": final_info, "_final_info": done}
        return self.core.observe(), reward, terminated, truncated, infos

    # ── whole episodes as values ─────────────────────────────────────────────────────────────

    def snapshot(self) -> CoreSnapshot:
        """Copy all rows with everything their future depends on."""
        return self.core.snapshot(np.arange(self.num_envs))

    def restore(self, saved: CoreSnapshot) -> None:
        """Go back to a snapshot: training goes on bit for bit."""
        self.core.restore(saved, np.arange(self.num_envs))
        self._is_over = self.core.view.is_over.copy()

    def copy_rows(
        self, source: Sequence[int] | IntArray, target: Sequence[int] | IntArray, rng_seeds: Sequence[int] | None = None
    ) -> None:
        """Fork episodes: row ``target[i]`` becomes a copy of row ``source[i]``.

        Args:
            source: Rows to copy; may repeat.
            target: Different rows to overwrite.
            rng_seeds: New random streams for the targets, to part them; otherwise equal actions give equal futures.
        """
        self.core.restore(self.core.snapshot(np.asarray(source)), np.asarray(target))
        self._is_over[np.asarray(target)] = self._is_over[np.asarray(source)]
        if rng_seeds is not None:
            self.core.reseed(np.asarray(target), rng_seeds)

    def network(self, row: int, committed: bool = False) -> GrownNetwork:
        """The network of a row as an ordinary `torch.nn.Module`; see `KasminaEnv.network`."""
        return self.core.network(row, committed)

    def render(self) -> tuple[str, ...] | None:
        """One text panel per row."""
        if self.render_mode is None:
            return None
        return tuple(render_text(self.core, row) for row in range(self.num_envs))


def _choose(where: BoolArray, yes: Infos, no: Infos) -> Infos:
    """Infos of some rows from one dictionary, of the others from another with the same keys."""
    return {
        key: _choose(where, value, no[key]) if isinstance(value, dict) else np.where(where, value, no[key])
        for key, value in yes.items()
    }
