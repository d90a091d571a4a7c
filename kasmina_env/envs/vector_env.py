"""N environments as one population: `gymnasium.make_vec` finds this through ``vector_entry_point``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from kasmina_env.envs import spaces as shell
from kasmina_env.envs.render import render
from kasmina_env.envs.spaces import ActionForm, Infos
from kasmina_env.episode.core import CoreSnapshot
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array, FloatArray, IntArray
from kasmina_env.networks.grown import GrownNetwork


class KasminaVectorEnv(VectorEnv[Float32Array, ArrayLike, NDArray[Any]]):
    """N episodes that train and grow side by side as one wide network.

    What an episode is, its actions, observations, rewards and infos: see `KasminaEnv`; row i follows the single
    environment with seed ``s + i``, floats up to rounding. Infos are arrays with Gymnasium's ``_key`` masks.

    Args:
        num_envs: N.
        preset: Registered id.
        action_space: "flat" or "factored".
        autoreset_mode: What happens to a row whose episode is over: SAME_STEP (default; the last observation and
            info are in ``infos["final_obs"]`` and ``infos["final_info"]``), NEXT_STEP, or DISABLED (reset rows with
            ``reset(options={"reset_mask": ...})``).
        max_episode_steps: Truncate after so many steps; the horizon itself is termination.
        render_mode: "ansi", "rgb_array" or None.
        device: Where the networks train, such as "cuda"; by default the environment variable KASMINA_DEVICE names it,
            and without one it is the CPU.
        devices: Several, such as ``["cuda:0", "cuda:1"]``, over which to spread the rows in place of `device`; each
            has a thread of its own.
        num_workers: Processes over which to spread the rows on the CPU, each of one thread; 1 is this process.
            `kasmina bench` tells whether it pays: from 0.9 to 1.5 times on two cores. A script that uses them keeps
            what it does under ``if __name__ == "__main__":``, as with any processes of Python.
        dtype: "float32" or "float64".
        **settings: Any field of `kasmina_env.settings.config.EnvConfig`; an unknown one raises.
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
        device: str | None = None,
        dtype: str = "float32",
        devices: Sequence[str] = (),
        num_workers: int = 1,
        **settings: Any,
    ) -> None:
        shell.check_choice("action_space", action_space, ("flat", "factored"))
        shell.check_choice("render_mode", render_mode, (None, *shell.RENDER_MODES))
        shell.check_count("num_envs", num_envs)
        shell.check_count("max_episode_steps", max_episode_steps, can_be_none=True)
        known = {**{mode.value: mode for mode in AutoresetMode}, **AutoresetMode.__members__}
        shell.check_choice("autoreset_mode", autoreset_mode, (*AutoresetMode, *known))
        self.autoreset_mode = known.get(str(autoreset_mode), autoreset_mode)
        self.metadata = {"render_modes": list(shell.RENDER_MODES), "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.core = shell.make_core(preset, num_envs, device, dtype, settings, devices, num_workers)
        self._form: ActionForm = action_space
        self._max_episode_steps = max_episode_steps
        self.single_observation_space = shell.observation_space(self.core)
        self.single_action_space = shell.action_space(self.core, action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

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
        """Start fresh hosts in all rows, or in those of ``options["reset_mask"]`` (the first reset is of all rows).

        Args:
            seed: Integer s gives row i the seed s + i; or one seed (or None) per row.
            options: "reset_mask", bool ``[num_envs]``; "instance", the number of a family's instance, or one (or None)
                per row; "split", whether instances that are not named are drawn from those to "train" (default) or
                "test" on, now and in the episodes that follow.
        """
        instances, is_test = shell.read_options(self.core, options, others=("reset_mask",))
        mask = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), dtype=bool)
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"`reset_mask` must be {self.num_envs} booleans not all False, got {mask.tolist()}. Correct it."
            )
        if not self.core.is_reset:
            mask = np.ones(self.num_envs, dtype=bool)
            self.core.seeders = list(self.np_random.spawn(self.num_envs))
        self._seed_rows(seed, mask)
        self.core.is_test[mask] = is_test
        self.core.reset(np.flatnonzero(mask), None if instances is None else instances[mask])
        return self.core.observe(), shell.with_masks(shell.step_infos(self.core), mask)

    def _seed_rows(self, seed: int | Sequence[int | None] | None, mask: BoolArray) -> None:
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + row for row in range(self.num_envs)]
        seeds = [None] * self.num_envs if seed is None else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"`seed` must be an integer or {self.num_envs} of them, got {len(seeds)}. Correct it.")
        for row in np.flatnonzero(mask):
            if seeds[row] is not None:
                self.core.seeders[row] = np.random.default_rng(seeds[row])

    @property
    def _is_over(self) -> BoolArray:
        """Rows whose episode has ended, by itself or by the time limit, and that were not reset since."""
        view = self.core.view
        if self._max_episode_steps is None:
            return view.is_over
        return np.asarray(view.is_over | (view.step >= self._max_episode_steps))

    def step(self, actions: ArrayLike) -> tuple[Float32Array, FloatArray, BoolArray, BoolArray, Infos]:
        """One decision for every row; see the class for what happens to rows whose episode is over."""
        was_over = self._is_over
        if was_over.any() and self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise ResetNeeded(f"`reset` must be called for rows {np.flatnonzero(was_over).tolist()}, which are over.")
        result = self.core.step(np.where(was_over, 0, shell.flat_actions(self.core, self._form, actions)))
        terminated = result.is_over & ~was_over
        done = self._is_over & ~was_over
        infos = shell.step_infos(self.core, result.terms)
        extras = shell.with_masks(shell.terminal_infos(self.core), terminated) if terminated.any() else {}
        resets = was_over
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            extras, resets = self._finals({**shell.with_masks(infos, done), **extras}, done), done
        if resets.any():
            self.core.reset(np.flatnonzero(resets))
            infos = _choose(resets, shell.step_infos(self.core), infos)
        infos = {**shell.with_masks(infos, np.ones(self.num_envs, dtype=bool)), **extras}
        reward = np.where(was_over, 0.0, result.reward)
        return self.core.observe(), reward, terminated, done & ~terminated, infos

    def _finals(self, final_info: Infos, done: BoolArray) -> Infos:
        """Last observations and infos of the rows that are about to be reset in the same step."""
        if not done.any():
            return {}
        final_obs = np.empty(self.num_envs, dtype=object)
        last = self.core.observe()
        for row in np.flatnonzero(done):
            final_obs[row] = last[row]
        masks = {"_final_obs": done.copy(), "_final_info": done.copy()}
        return {"final_obs": final_obs, "final_info": final_info, **masks}

    # ── whole episodes as values ─────────────────────────────────────────────────────────────

    def snapshot(self) -> CoreSnapshot:
        """Copy all rows with everything their future depends on."""
        return self.core.snapshot(np.arange(self.num_envs))

    def restore(self, saved: CoreSnapshot) -> None:
        """Go back to a snapshot: training goes on bit for bit."""
        self.core.restore(saved, np.arange(self.num_envs))

    def copy_rows(
        self, source: Sequence[int] | IntArray, target: Sequence[int] | IntArray, rng_seeds: Sequence[int] | None = None
    ) -> None:
        """Fork episodes: row ``target[i]`` becomes a copy of row ``source[i]``.

        Args:
            source: Rows to copy; may repeat.
            target: Different rows to overwrite.
            rng_seeds: New random streams for the targets, to part them; otherwise equal actions give equal futures,
                floats up to rounding.
        """
        if rng_seeds is not None and len(rng_seeds) != len(target):
            raise ValueError(
                f"`rng_seeds` must be {len(target)} seeds, got {len(rng_seeds)}. Name one for each target."
            )
        self.core.restore(self.core.snapshot(np.asarray(source)), np.asarray(target))
        if rng_seeds is not None:
            self.core.reseed(np.asarray(target), rng_seeds)

    def network(self, row: int, committed: bool = False) -> GrownNetwork:
        """The network of a row as an ordinary `torch.nn.Module`; see `KasminaEnv.network`."""
        return self.core.network(row, committed)

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes of `num_workers`."""
        self.core.close()

    def render(self) -> tuple[Any, ...] | None:
        """One text panel ("ansi") or picture ("rgb_array") per row."""
        if self.render_mode is None:
            return None
        return tuple(render(self.core, row, self.render_mode) for row in range(self.num_envs))


def _choose(where: BoolArray, yes: Infos, no: Infos) -> Infos:
    """Infos of some rows from one dictionary, of the others from another with the same keys."""
    return {
        key: _choose(where, value, no[key]) if isinstance(value, dict) else np.where(where, value, no[key])
        for key, value in yes.items()
    }
