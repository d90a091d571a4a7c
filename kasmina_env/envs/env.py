"""The Gymnasium environment: a population of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray

from kasmina_env.envs import arguments, spaces
from kasmina_env.envs.infos import ENDING, ending_infos, plain_info, step_infos
from kasmina_env.envs.pictures import look_at
from kasmina_env.envs.render import RENDER_FPS, RENDER_MODES, render
from kasmina_env.envs.saving import load_snapshot, save_snapshot
from kasmina_env.envs.spaces import ActionForm, ObservationForm
from kasmina_env.envs.streams import EnvSnapshot, RowStreams
from kasmina_env.episode.problem import Problem
from kasmina_env.episode.report import Report
from kasmina_env.lifecycle.arrays import BoolArray
from kasmina_env.networks.grown import GrownNetwork

ROW = np.zeros(1, dtype=np.int64)


class KasminaEnv(gym.Env[Any, ArrayLike]):
    """Environment in which an episode is one training run of a fresh network. The controller decides what it grows.

    A *host* network is trained by gradient descent. Every few minibatches the controller may let a *seed* (a small
    module, of some *blueprint*) germinate in one of the host's *slots*, choose how and how fast it is blended in,
    and later prune it or fossilize it, which makes it permanent. ``kasmina describe ID`` prints all tables of an id.

    Action: one flat ``Discrete`` whose entries are named by `action_names`, with exact masks from `action_masks`;
    or, with ``action_space="factored"``, a ``MultiDiscrete`` of heads (op, slot, blueprint, operator, tempo, target,
    curve). Every action in the space is accepted: one that is not legal counts as WAIT and sets
    ``info["action_legal"] = False``. ``info["action_mask"]`` is the mask as int8, for ``Discrete.sample(mask=...)``.

    Observation: ``Box(float32)``, entries named by `observation_names`, all finite and clipped to their bounds. It is
    computed from the training data and the inner_valid split; the score is measured on outer_valid.

    Reward: ``score_{t+1} - score_t - rent - operations`` with ``score = quality - param_price * log2(1 + fossilized
    / host parameters)``. At the last step the network is replaced by the committed one (host and fossilized seeds),
    so the sum of ``info["reward_terms"]["score_change"]`` over an episode is exactly the final committed score minus
    the first.

    Episode: terminates after `horizon` steps, or when a loss is no longer finite, unless there is a governor that takes
    the network back (``info["failure"]`` is an index into `kasmina_env.FAILURES`). The info of the last step also has
    "committed_score", "test_accuracy", "is_success", "compute", "actions" (flat, -1 beyond the end) and "instance". If
    a wrapper cuts an episode off, these are measured at the first look-up.

    Args:
        preset: Registered id, or a problem made by `make_problem`.
        action_space: "flat" or "factored".
        observation: "flat", or "dict" for ``{"observations", "action_mask"}``, the form that some libraries need.
        render_mode: "ansi", "rgb_array" or None.
        device: Device of the network, such as "cuda"; default: the environment variable KASMINA_DEVICE, or the CPU
            if that is unset.
        dtype: "float32" or "float64".
        engine: Engine of the network: "auto", "torch" or "fused"; default: the environment variable KASMINA_ENGINE, or
            "auto" if that is unset. ``info["engine"]`` is the index into `kasmina_env.ENGINES` of the running engine.
            `engine_reason` says why "auto" chose "torch".
        **settings: Fields of `kasmina_env.settings.config.EnvConfig`; an unknown one raises ``TypeError``.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}

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
        arguments.check_settings("KasminaEnv.__init__", settings)
        arguments.check_choice("action_space", action_space, ("flat", "factored"))
        arguments.check_choice("observation", observation, ("flat", "dict"))
        arguments.check_choice("render_mode", render_mode, (None, *RENDER_MODES))
        self.render_mode = render_mode
        self.episodes = arguments.make_episodes(preset, 1, device, dtype, settings, engine=engine)
        self.problem: Problem = self.episodes.problem
        self._form, self._observation = action_space, observation
        self._streams = RowStreams(1)
        self.observation_space = spaces.observation_space(self.problem, observation, action_space)
        self.action_space = spaces.action_space(self.problem, action_space)

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
        """Reason why "auto" chose "torch"; empty otherwise."""
        return self.episodes.engine_reason()

    def action_masks(self) -> BoolArray:
        """Mask of legal actions ``[num_actions]``; in the factored form the concatenated masks of all heads."""
        return np.array(spaces.masks(self.problem, self.episodes.report, self._form)[0])

    # ── episodes ─────────────────────────────────────────────────────────────────────────────

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start a fresh host. The same seed gives the same episode, bit for bit, on one machine.

        Args:
            seed: Seed of this episode and of all that follow without a seed.
            options: "instance": number of a family's instance. "split": "train" (default) or "test", the instances to
                draw from if none is named. "planted": flat GERMINATE actions, carried out before the first step.
                Unknown keys raise.
        """
        arguments.check_open(self.episodes)
        instances, is_test, planted = arguments.read_options(self.problem, 1, options)
        (checked,) = arguments.read_seeds(seed, 1)
        super().reset(seed=checked)
        self._streams.generators[0], self._streams.is_test[0] = self.np_random, is_test
        rng_seeds, numbers = self._streams.draw(self.problem, ROW, instances)
        report = self.episodes.reset(ROW, rng_seeds, numbers, planted)
        return self._observe(report), plain_info(step_infos(self.problem, report, self._form), 0)

    def step(self, action: ArrayLike) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Carry out a decision, train for ``batches_per_step`` minibatches, and measure."""
        arguments.check_open(self.episodes)
        if self.episodes.report.is_over[0]:
            raise ResetNeeded("The episode is over. Call `reset()` before the next step.")
        report = self.episodes.step(spaces.flat_actions(self.problem, 1, self._form, action))
        infos = step_infos(self.problem, report, self._form)
        is_over = bool(report.is_over[0])
        if is_over:
            infos |= ending_infos(report, report.ending)
        info = Info(plain_info(infos, 0))
        info.measure = lambda: self._ending_info(report)
        return self._observe(report), float(report.reward[0]), is_over, False, info

    def _ending_info(self, report: Report) -> dict[str, Any]:
        """Final figures of an episode that ends now, by itself or cut off; a ``KeyError`` after a further step."""
        if self.episodes.report is not report:
            raise KeyError("The episode has gone on since.")
        return plain_info(ending_infos(report, self.episodes.ending(0)), 0)

    def _observe(self, report: Report) -> Any:
        observation = report.observation[0].copy()
        if self._observation == "flat":
            return observation
        mask = spaces.masks(self.problem, report, self._form)[0]
        return {"observations": observation, "action_mask": mask.astype(np.int8)}

    # ── whole episodes as values ─────────────────────────────────────────────────────────────

    def snapshot(self) -> EnvSnapshot:
        """Copy the episode and its random streams."""
        arguments.check_open(self.episodes)
        return self._streams.snapshot(self.episodes.snapshot(ROW), ROW)

    def restore(self, saved: EnvSnapshot) -> None:
        """Go back to a snapshot of this or an equal environment. Training continues bit for bit."""
        arguments.check_open(self.episodes)
        check_snapshot(saved)
        self.episodes.restore(saved.episodes, ROW)
        self._streams.restore(saved, ROW)
        if self._np_random is not self._streams.generators[0]:
            self.np_random = self._streams.generators[0]

    def save(self, path: Path | str, overwrite: bool = False) -> None:
        """Write the episode and its random streams to a file.

        Args:
            path: File name that ends in ``.safetensors``.
            overwrite: Whether to replace a file that exists.
        """
        save_snapshot(path, self.problem, self.snapshot(), overwrite)

    def load(self, path: Path | str) -> None:
        """Continue from a file that an equal environment saved, in any process. Training continues bit for bit."""
        self.restore(load_snapshot(path, self.problem, 1, self.episodes.dtype))

    def network(self, committed: bool = False) -> GrownNetwork:
        """The network as an ordinary `torch.nn.Module` with its own copy of the weights, on the device it trained on.

        Args:
            committed: Whether to keep only the host and fossilized seeds; otherwise all seeds are kept at their alpha.
        """
        arguments.check_open(self.episodes)
        return self.episodes.network(0, committed)

    def render(self) -> str | NDArray[np.uint8] | None:
        """A compact text panel ("ansi") or a picture ``[H, W, 3]`` ("rgb_array") of the episode so far."""
        if self.render_mode is None:
            return None
        arguments.check_open(self.episodes)
        state, look = self.episodes.state(), look_at(self.episodes, 0)
        return render(self.problem, state, 0, self.render_mode, look)

    def close(self) -> None:
        """Free the network."""
        self.episodes.close()


class Info(dict[str, Any]):
    """Info of a step. If a wrapper cuts the episode off, its final figures are measured at the first look-up.

    It is made like any dictionary, because wrappers of Gymnasium make one of its type from what they convert.

    Attributes:
        measure: Function that returns the final figures; None in a copy, which has them only if they were looked up.
    """

    measure: Callable[[], dict[str, Any]] | None = None

    def __missing__(self, key: str) -> Any:
        if key not in ENDING or self.measure is None:
            raise KeyError(key)
        self.update(self.measure())
        return self[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def check_snapshot(saved: object) -> None:
    """Raise ``ValueError`` if a value is not a snapshot of an environment."""
    if not isinstance(saved, EnvSnapshot):
        raise ValueError(f"`saved` must be what `snapshot()` returned, got {type(saved).__name__}.")
