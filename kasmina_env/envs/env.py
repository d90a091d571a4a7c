"""The Gymnasium environment: a population of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray

from kasmina_env.envs import spaces as translate
from kasmina_env.envs.render import render
from kasmina_env.envs.saving import load_snapshot, save_snapshot
from kasmina_env.envs.spaces import ENDING_KEYS, ActionForm, ObservationForm
from kasmina_env.envs.streams import EnvSnapshot, Streams
from kasmina_env.episode.core import Report
from kasmina_env.episode.problem import Problem
from kasmina_env.lifecycle.arrays import BoolArray
from kasmina_env.networks.grown import GrownNetwork

ROW = np.zeros(1, dtype=np.int64)


class KasminaEnv(gym.Env[Any, ArrayLike]):
    """One episode is one complete training run of a fresh network; the controller decides what it grows.

    A *host* network is trained by gradient descent. Every few minibatches the controller may let a *seed* (a small
    module, of some *blueprint*) germinate in one of the host's *slots*, choose how and how fast it is blended in,
    and later prune it or fossilize it, which makes it permanent. ``kasmina describe ID`` prints all tables of an id.

    Action: one flat ``Discrete`` whose entries are named by `action_names`, with exact masks from `action_masks`;
    or, with ``action_space="factored"``, a ``MultiDiscrete`` of heads (op, slot, blueprint, operator, tempo, target,
    curve). Every action in the space is accepted: one that is not legal counts as WAIT and sets
    ``info["action_legal"] = False``. ``info["action_mask"]`` (int8) is the mask as ``Discrete.sample(mask=...)``
    takes it.

    Observation: ``Box(float32)``, entries named by `observation_names`, all finite and clipped to their bounds. It is
    computed from the training data and the inner_valid split; the score is measured on outer_valid.

    Reward: ``score_{t+1} - score_t - rent - operations`` with ``score = quality - param_price * log2(1 + fossilized
    / host parameters)``. At the last step the network is replaced by the committed one (host and fossilized seeds),
    so the sum of ``info["reward_terms"]["score_change"]`` over an episode is exactly the final committed score minus
    the first.

    Episode: ends (terminated) after `horizon` steps, or when the network is not finite any more (``info["failure"]``
    is an index into `kasmina_env.FAILURES`). The info of the last step has also "committed_score", "test_accuracy",
    "is_success", "compute", "actions" (flat, -1 beyond the end) and "instance"; where a wrapper cuts an episode off
    they are measured when they are looked up.

    Args:
        preset: Registered id, or a problem made by `make_problem`.
        action_space: "flat" or "factored".
        observation: "flat", or "dict" for ``{"observations", "action_mask"}``, as some libraries want it.
        render_mode: "ansi", "rgb_array" or None.
        device: Device of the network, such as "cuda"; by default the environment variable KASMINA_DEVICE names it,
            and without one it is the CPU.
        dtype: "float32" or "float64".
        engine: Engine of the networks: "auto" (default, or what the environment variable KASMINA_ENGINE says), "torch"
            or "fused". ``info["engine"]`` is the one that runs, an index into `kasmina_env.ENGINES`; `engine_reason`
            says why it is "torch" under "auto".
        **settings: Fields of `kasmina_env.settings.config.EnvConfig`; an unknown one raises ``TypeError``.
    """

    metadata = {"render_modes": list(translate.RENDER_MODES), "render_fps": translate.RENDER_FPS}

    def __init__(
        self,
        preset: str | Problem,
        *,
        action_space: ActionForm = "flat",
        observation: ObservationForm = "flat",
        render_mode: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        engine: str | None = None,
        **settings: Any,
    ) -> None:
        translate.check_settings("KasminaEnv.__init__", settings)
        translate.check_choice("action_space", action_space, ("flat", "factored"))
        translate.check_choice("observation", observation, ("flat", "dict"))
        translate.check_choice("render_mode", render_mode, (None, *translate.RENDER_MODES))
        self.render_mode = render_mode
        self.episodes = translate.make_episodes(preset, 1, device, dtype, settings, engine=engine)
        self.problem: Problem = self.episodes.problem
        self._form, self._observation = action_space, observation
        self._streams = Streams(1)
        self.observation_space = translate.observation_space(self.problem, observation, action_space)
        self.action_space = translate.action_space(self.problem, action_space)

    # ── names and masks ──────────────────────────────────────────────────────────────────────

    @property
    def observation_names(self) -> tuple[str, ...]:
        """One name per entry of the observation."""
        return self.problem.observations.names

    @property
    def action_names(self) -> tuple[str, ...]:
        """One name per flat action."""
        return self.problem.actions.names

    @property
    def engine_reason(self) -> str:
        """Why the network trains with "torch" where "auto" would rather have "fused"; empty elsewhere."""
        return self.episodes.engine_reason()

    def action_masks(self) -> BoolArray:
        """Legal actions ``[num_actions]``, True = allowed; in the factored form the heads' masks, concatenated."""
        return np.array(translate.masks(self.problem, self.episodes.report, self._form)[0])

    # ── episodes ─────────────────────────────────────────────────────────────────────────────

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a fresh host. The same seed gives the same episode, bit for bit, on one machine.

        Args:
            seed: Seed of this and, through the environment's own generator, of all following episodes.
            options: "instance", the number of a family's instance; "split", whether instances that are not named are
                drawn from those to "train" (default) or "test" on; "planted", flat GERMINATE actions that are carried
                out before the first step. Unknown keys raise.
        """
        translate.check_open(self.episodes)
        instances, is_test, planted = translate.read_options(self.problem, 1, options)
        (checked,) = translate.read_seeds(seed, 1)
        super().reset(seed=checked)
        self._streams.generators[0], self._streams.is_test[0] = self.np_random, is_test
        rng_seeds, numbers = self._streams.draw(self.problem, ROW, instances)
        report = self.episodes.reset(ROW, rng_seeds, numbers, planted)
        return self._observe(report), translate.plain_info(translate.step_infos(self.problem, report, self._form), 0)

    def step(self, action: ArrayLike) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Carry out a decision, train for ``batches_per_step`` minibatches, and measure."""
        translate.check_open(self.episodes)
        if self.episodes.report.is_over[0]:
            raise ResetNeeded("The episode is over. Call `reset()` before the next step.")
        report = self.episodes.step(translate.flat_actions(self.problem, 1, self._form, action))
        infos = translate.step_infos(self.problem, report, self._form)
        is_over = bool(report.is_over[0])
        if is_over:
            infos |= translate.ending_infos(report, report.ending)
        info = Info(translate.plain_info(infos, 0), lambda: self._ending_info(report))
        return self._observe(report), float(report.reward[0]), is_over, False, info

    def _ending_info(self, report: Report) -> dict[str, Any]:
        """Facts of an episode that ends now, whoever ends it; a ``KeyError`` once it has gone on."""
        if self.episodes.report is not report:
            raise KeyError("The episode has gone on since.")
        return translate.plain_info(translate.ending_infos(report, self.episodes.ending(0)), 0)

    def _observe(self, report: Report) -> Any:
        observation = report.observation[0].copy()
        if self._observation == "flat":
            return observation
        mask = translate.masks(self.problem, report, self._form)[0]
        return {"observations": observation, "action_mask": mask.astype(np.int8)}

    # ── whole episodes as values ─────────────────────────────────────────────────────────────

    def snapshot(self) -> EnvSnapshot:
        """Copy the episode with everything its future depends on."""
        translate.check_open(self.episodes)
        return self._streams.snapshot(self.episodes.snapshot(ROW), ROW)

    def restore(self, saved: EnvSnapshot) -> None:
        """Go back to a snapshot, of this or of an equal environment: training goes on bit for bit."""
        translate.check_open(self.episodes)
        check_snapshot(saved)
        self.episodes.restore(saved.episodes, ROW)
        self._streams.restore(saved, ROW)
        if self._np_random is not self._streams.generators[0]:
            self.np_random = self._streams.generators[0]

    def save(self, path: Path | str, overwrite: bool = False) -> None:
        """Write the episode to a file with everything that it and the following ones depend on.

        Args:
            path: Ends in ``.safetensors``.
            overwrite: Whether to replace a file that exists.
        """
        save_snapshot(path, self.problem, self.snapshot(), overwrite)

    def load(self, path: Path | str) -> None:
        """Go on where an equal environment was saved, in whichever process: training goes on bit for bit."""
        self.restore(load_snapshot(path, self.problem, 1, self.episodes.dtype))

    def network(self, committed: bool = False) -> GrownNetwork:
        """The network as an ordinary `torch.nn.Module` with its own copy of the weights, on the device it trained on.

        Args:
            committed: Host and fossilized seeds only, which is what you keep; otherwise all seeds at their alpha.
        """
        translate.check_open(self.episodes)
        return self.episodes.network(0, committed)

    def render(self) -> str | NDArray[np.uint8] | None:
        """A compact text panel ("ansi") or a picture ``[H, W, 3]`` ("rgb_array") of the episode so far."""
        if self.render_mode is None:
            return None
        translate.check_open(self.episodes)
        return render(self.problem, self.episodes.state(), 0, self.render_mode)

    def close(self) -> None:
        """Free the network."""
        self.episodes.close()


class Info(dict[str, Any]):
    """Info of a step. Facts of the episode's end are measured when looked up, where an outer limit ended it."""

    def __init__(self, known: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> None:
        super().__init__(known)
        self._measure = measure

    def __missing__(self, key: str) -> Any:
        if key not in ENDING_KEYS:
            raise KeyError(key)
        self.update(self._measure())
        return self[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def check_snapshot(saved: object) -> None:
    """Raise one clear sentence for what is no snapshot of an environment."""
    if not isinstance(saved, EnvSnapshot):
        raise ValueError(f"`saved` must be what `snapshot()` returned, got {type(saved).__name__}.")
