"""N environments as one population: `gymnasium.make_vec` finds this through ``vector_entry_point``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from kasmina_env.envs import arguments, spaces
from kasmina_env.envs.env import check_snapshot
from kasmina_env.envs.infos import Infos, choose, ending_infos, step_infos, with_masks
from kasmina_env.envs.pictures import look_at
from kasmina_env.envs.render import RENDER_FPS, RENDER_MODES, render
from kasmina_env.envs.saving import load_snapshot, save_snapshot
from kasmina_env.envs.spaces import ActionForm, ObservationForm
from kasmina_env.envs.streams import EnvSnapshot, RowStreams
from kasmina_env.episode.episodes import Placement
from kasmina_env.episode.lasting import SNAPSHOT_EVERY
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.report import Report
from kasmina_env.lifecycle.arrays import BoolArray, FloatArray, IntArray
from kasmina_env.networks.grown import GrownNetwork
from kasmina_env.settings.machine import MOST_ENVS

RESET_MODES = {**{mode.value: mode for mode in AutoresetMode}, **AutoresetMode.__members__}


class KasminaVectorEnv(VectorEnv[Any, ArrayLike, NDArray[Any]]):
    """N episodes that train and grow side by side as one wide network.

    Episodes, actions, observations, rewards and infos are those of `KasminaEnv`; row i follows the single environment
    with seed ``s + i``, up to rounding of floats. Infos are arrays with Gymnasium's ``_key`` masks.

    Args:
        num_envs: N.
        preset: Registered id, or a problem made by `make_problem`.
        action_space: "flat" or "factored".
        observation: "flat" or "dict".
        autoreset_mode: Time at which a finished row starts its next episode: NEXT_STEP (default, as in Gymnasium's own
            vectors), SAME_STEP (the last observation and info are in ``infos["final_obs"]`` and
            ``infos["final_info"]``), or DISABLED (reset rows with ``reset(options={"reset_mask": ...})``).
        max_episode_steps: Number of steps after which an episode is truncated. At the horizon it is terminated.
        render_mode: "ansi", "rgb_array" or None.
        device: Device of the networks, such as "cuda"; default: the environment variable KASMINA_DEVICE, or the CPU
            if that is unset.
        devices: Devices over which to spread the rows, instead of `device`, such as ``["cuda:0", "cuda:1"]``. Each has
            its own thread.
        num_workers: Number of single-threaded processes over which to spread the rows on the CPU; 1 is this process.
            `kasmina bench` measures whether more are faster. A script that uses them keeps its code under
            ``if __name__ == "__main__":``, as `multiprocessing` requires.
        placement: "local", or "ray" to spread the rows over `num_workers` Ray actors on one or several machines, each
            with a CPU, and with a GPU if `device` is "cuda". Without `ray.init` the cluster is the one that Ray finds.
        snapshot_every: Steps between snapshots from which the rows of a lost actor go on elsewhere, bit for bit.
        dtype: "float32" or "float64".
        engine: Engine of the networks: "auto", "torch" or "fused"; default: the environment variable KASMINA_ENGINE, or
            "auto" if that is unset. ``infos["engine"]`` is the index into `kasmina_env.ENGINES` of the running engine.
            `engine_reason` says why "auto" chose "torch".
        **settings: Fields of `kasmina_env.settings.config.EnvConfig`; an unknown one raises ``TypeError``.
    """

    def __init__(
        self,
        num_envs: int,
        preset: str | Problem,
        *,
        action_space: ActionForm = "flat",
        observation: ObservationForm = "flat",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        devices: Sequence[str] = (),
        num_workers: int = 1,
        placement: Placement = "local",
        snapshot_every: int = SNAPSHOT_EVERY,
        engine: str | None = None,
        **settings: Any,
    ) -> None:
        self.closed = True  # until there is something to close: `__del__` reads it even if an argument was refused
        arguments.check_settings("KasminaVectorEnv.__init__", settings)
        arguments.check_choice("action_space", action_space, ("flat", "factored"))
        arguments.check_choice("observation", observation, ("flat", "dict"))
        arguments.check_choice("render_mode", render_mode, (None, *RENDER_MODES))
        arguments.check_count("num_envs", num_envs, MOST_ENVS)
        arguments.check_count("max_episode_steps", max_episode_steps, can_be_none=True)
        arguments.check_choice("autoreset_mode", autoreset_mode, (*AutoresetMode, *RESET_MODES))
        self.autoreset_mode = RESET_MODES.get(str(autoreset_mode), autoreset_mode)
        self.metadata = {
            "render_modes": list(RENDER_MODES),
            "render_fps": RENDER_FPS,
            "autoreset_mode": self.autoreset_mode,
        }
        self.render_mode = render_mode
        self.num_envs = num_envs
        self.episodes = arguments.make_episodes(
            preset, num_envs, device, dtype, settings, devices, num_workers, engine, placement, snapshot_every
        )
        self.closed = False
        self.problem: Problem = self.episodes.problem
        self._form, self._observation, self._limit = action_space, observation, max_episode_steps
        self._streams = RowStreams(num_envs)
        self.single_observation_space = spaces.observation_space(self.problem, observation, action_space)
        self.single_action_space = spaces.action_space(self.problem, action_space)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    # ── names and masks ──────────────────────────────────────────────────────────────────────

    @property
    def observation_names(self) -> tuple[str, ...]:
        """One name per entry of an observation."""
        return self.problem.observations.names

    @property
    def action_names(self) -> tuple[str, ...]:
        """One name per flat action."""
        return self.problem.actions.names

    @property
    def engine_reason(self) -> str:
        """Reason why "auto" chose "torch"; empty otherwise."""
        return self.episodes.engine_reason()

    def action_masks(self) -> BoolArray:
        """Mask of legal actions ``[num_envs, num_actions]``; in the factored form all heads' masks, joined."""
        return spaces.masks(self.problem, self.episodes.report, self._form).copy()

    # ── episodes ─────────────────────────────────────────────────────────────────────────────

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, Infos]:
        """Start fresh hosts in all rows, or in those of ``options["reset_mask"]`` (the first reset is of all rows).

        Args:
            seed: Integer s, which gives row i the seed s + i, or one seed or None per row.
            options: "reset_mask": bool ``[num_envs]``. "instance": number of a family's instance, or one or None per
                row. "split": "train" (default) or "test", the instances to draw from if none is named, now and in
                later episodes. "planted": flat GERMINATE actions, carried out in these rows before the first step.
        """
        arguments.check_open(self.episodes)
        instances, is_test, planted = arguments.read_options(self.problem, self.num_envs, options, ("reset_mask",))
        mask = arguments.read_mask((options or {}).get("reset_mask"), self.num_envs)
        seeds = arguments.read_seeds(seed, self.num_envs)
        if arguments.is_integer(seed):
            super().reset(seed=seeds[0])
        if not self.episodes.is_reset:
            mask = np.ones(self.num_envs, dtype=bool)
            self._streams.generators = list(self.np_random.spawn(self.num_envs))
        rows = np.flatnonzero(mask)
        for row in rows:
            if seeds[row] is not None:
                self._streams.generators[row] = np.random.default_rng(seeds[row])
        self._streams.is_test[mask] = is_test
        report = self._start(rows, instances, planted)
        infos = step_infos(self.problem, report, self._form)
        return self._observe(report), with_masks(infos, mask)

    def _start(self, rows: IntArray, wanted: IntArray | None, planted: IntArray = arguments.NOTHING_PLANTED) -> Report:
        rng_seeds, numbers = self._streams.draw(self.problem, rows, None if wanted is None else wanted[rows])
        return self.episodes.reset(rows, rng_seeds, numbers, planted)

    def _is_done(self, report: Report) -> BoolArray:
        """Whether the current episode has ended, by itself or at the time limit ``[num_envs]``."""
        if self._limit is None:
            return report.is_over
        return np.asarray(report.is_over | (report.step >= self._limit))

    def step(self, actions: ArrayLike) -> tuple[Any, FloatArray, BoolArray, BoolArray, Infos]:
        """Carry out one action in every row. `autoreset_mode` decides what happens to finished rows."""
        arguments.check_open(self.episodes)
        was_done = self._is_done(self.episodes.report)
        if was_done.any() and self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            raise ResetNeeded(f"The episodes of rows {np.flatnonzero(was_done).tolist()} are over. Call `reset()`.")
        chosen = spaces.flat_actions(self.problem, self.num_envs, self._form, actions)
        report = self.episodes.step(np.where(was_done, 0, chosen), self._limit)
        terminated, done = report.is_over & ~was_done, self._is_done(report) & ~was_done
        infos = step_infos(self.problem, report, self._form)
        extras = with_masks(ending_infos(report, report.ending), done) if done.any() else {}
        reward, resets = np.where(was_done, 0.0, report.reward), was_done
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            extras, resets = self._finals(report, {**with_masks(infos, done), **extras}, done), done
        if resets.any():
            report = self._start(np.flatnonzero(resets), None)
            infos = choose(resets, step_infos(self.problem, report, self._form), infos)
        infos = {**with_masks(infos, np.ones(self.num_envs, dtype=bool)), **extras}
        return self._observe(report), reward, terminated, done & ~terminated, infos

    def _finals(self, report: Report, final_info: Infos, done: BoolArray) -> Infos:
        """Last observations and infos of the rows that are about to be reset in the same step."""
        if not done.any():
            return {}
        final_obs = np.empty(self.num_envs, dtype=object)
        for row in np.flatnonzero(done):
            final_obs[row] = self._observe_row(report, int(row))
        masks = {"_final_obs": done.copy(), "_final_info": done.copy()}
        return {"final_obs": final_obs, "final_info": final_info, **masks}

    def _observe(self, report: Report) -> Any:
        if self._observation == "flat":
            return report.observation.copy()
        mask = spaces.masks(self.problem, report, self._form).astype(np.int8)
        return {"observations": report.observation.copy(), "action_mask": mask}

    def _observe_row(self, report: Report, row: int) -> Any:
        observed = self._observe(report)
        return {key: value[row] for key, value in observed.items()} if isinstance(observed, dict) else observed[row]

    # ── whole episodes as values ─────────────────────────────────────────────────────────────

    def snapshot(self, rows: Sequence[int] | IntArray | None = None) -> EnvSnapshot:
        """Copy the episodes and random streams of some rows, or of all."""
        arguments.check_open(self.episodes)
        chosen = np.arange(self.num_envs) if rows is None else arguments.read_rows("rows", rows, self.num_envs)
        return self._streams.snapshot(self.episodes.snapshot(chosen), chosen)

    def restore(self, saved: EnvSnapshot, rows: Sequence[int] | IntArray | None = None) -> None:
        """Go back to a snapshot in the given distinct rows, or in all. Training continues bit for bit."""
        arguments.check_open(self.episodes)
        check_snapshot(saved)
        chosen = np.arange(self.num_envs)
        if rows is not None:
            chosen = arguments.read_rows("rows", rows, self.num_envs, is_different=True)
        self.episodes.restore(saved.episodes, chosen)
        self._streams.restore(saved, chosen)

    def save(self, path: Path | str, overwrite: bool = False) -> None:
        """Write the episodes and random streams of all rows to a file.

        Args:
            path: File name that ends in ``.safetensors``.
            overwrite: Whether to replace a file that exists.
        """
        save_snapshot(path, self.problem, self.snapshot(), overwrite)

    def load(self, path: Path | str) -> None:
        """Continue from a file that an equal environment with as many rows saved, in any process.

        With another number of processes or devices, floats are equal up to rounding.
        """
        self.restore(load_snapshot(path, self.problem, self.num_envs, self.episodes.dtype))

    def copy_rows(
        self, source: Sequence[int] | IntArray, target: Sequence[int] | IntArray, rng_seeds: Sequence[int] | None = None
    ) -> None:
        """Fork episodes: row ``target[i]`` becomes a copy of row ``source[i]``.

        Args:
            source: Rows to copy; may repeat.
            target: Distinct rows to overwrite, one per source.
            rng_seeds: Seeds of new random streams, one per target. Without them equal actions give equal futures, up
                to rounding of floats.
        """
        origin = arguments.read_rows("source", source, self.num_envs)
        goal = arguments.read_rows("target", target, self.num_envs, is_different=True)
        if len(origin) != len(goal):
            raise ValueError(f"`target` must be {len(origin)} rows, one for each source, got {len(goal)}.")
        seeds = None
        if rng_seeds is not None:
            seeds = arguments.read_rng_seeds(rng_seeds, len(goal))
        self.restore(self.snapshot(origin), goal)
        if seeds is not None:
            self.episodes.reseed(goal, seeds)
            for row, seed in zip(goal, seeds.tolist(), strict=True):
                self._streams.generators[row] = np.random.default_rng(seed)

    def network(self, row: int, committed: bool = False) -> GrownNetwork:
        """The network of a row as an ordinary `torch.nn.Module`; see `KasminaEnv.network`."""
        arguments.check_open(self.episodes)
        (number,) = arguments.read_rows("row", [row], self.num_envs).tolist()
        return self.episodes.network(number, committed)

    def close_extras(self, **kwargs: Any) -> None:
        """Stop threads, processes and actors."""
        self.episodes.close()

    def render(self) -> tuple[Any, ...] | None:
        """One text panel ("ansi") or picture ("rgb_array") per row."""
        if self.render_mode is None:
            return None
        arguments.check_open(self.episodes)
        state, episodes = self.episodes.state(), self.episodes
        looks = [look_at(episodes, row) for row in range(self.num_envs)]
        return tuple(render(self.problem, state, row, self.render_mode, look) for row, look in enumerate(looks))
