"""The Gymnasium environment: a population of one."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import ArrayLike, NDArray

from kasmina_env.envs import spaces as shell
from kasmina_env.envs.render import render
from kasmina_env.envs.spaces import ActionForm
from kasmina_env.episode.core import CoreSnapshot
from kasmina_env.lifecycle.arrays import BoolArray, Float32Array
from kasmina_env.networks.grown import GrownNetwork


class KasminaEnv(gym.Env[Float32Array, ArrayLike]):
    """One episode is one complete training run of a fresh network; the controller decides what it grows.

    A *host* network is trained by gradient descent. Every few minibatches the controller may let a *seed* (a small
    module, of some *blueprint*) germinate in one of the host's *slots*, choose how and how fast it is blended in,
    and later prune it or fossilize it, which makes it permanent. ``kasmina describe ID`` prints all tables of an id.

    Action: one flat ``Discrete`` whose entries are named by `action_names`, with exact masks from `action_masks`;
    or, with ``action_space="factored"``, a ``MultiDiscrete`` of heads (op, slot, blueprint, operator, tempo, target,
    curve). Every
    action in the space is accepted: one that is not legal counts as WAIT and sets ``info["action_legal"] = False``.

    Observation: ``Box(float32)``, entries named by `observation_names`, all finite and clipped to their bounds. It is
    computed from the training data and the inner_valid split; the score is measured on outer_valid.

    Reward: ``score_{t+1} - score_t - rent - operations`` with ``score = quality - param_price * log2(1 + fossilized
    / host parameters)``. At the last step the network is replaced by the committed one (host and fossilized seeds),
    so the sum of ``info["reward_terms"]["score_change"]`` over an episode is exactly the final committed score minus
    the first.

    Episode: ends (terminated) after `horizon` steps, or when the network is not finite any more (``info["failure"]``).

    Args:
        preset: Registered id.
        action_space: "flat" or "factored".
        render_mode: "ansi", "rgb_array" or None.
        device: Where the network trains, such as "cuda"; by default the environment variable KASMINA_DEVICE names it,
            and without one it is the CPU.
        dtype: "float32" or "float64".
        **settings: Any field of `kasmina_env.settings.config.EnvConfig`; an unknown one raises.
    """

    metadata = {"render_modes": list(shell.RENDER_MODES), "render_fps": 4}

    def __init__(
        self,
        preset: str,
        *,
        action_space: ActionForm = "flat",
        render_mode: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        **settings: Any,
    ) -> None:
        shell.check_choice("action_space", action_space, ("flat", "factored"))
        shell.check_choice("render_mode", render_mode, (None, *shell.RENDER_MODES))
        self.render_mode = render_mode
        self.core = shell.make_core(preset, 1, device, dtype, settings)
        self._form: ActionForm = action_space
        self.observation_space = shell.observation_space(self.core)
        self.action_space = shell.action_space(self.core, action_space)

    # ── names and masks ──────────────────────────────────────────────────────────────────────

    @property
    def observation_names(self) -> tuple[str, ...]:
        """One name per entry of the observation."""
        return self.core.observations.names

    @property
    def action_names(self) -> tuple[str, ...]:
        """One name per flat action."""
        return self.core.actions.names

    def action_masks(self) -> BoolArray:
        """Legal actions ``[num_actions]``, True = allowed; in the factored form the heads' masks, concatenated."""
        return np.asarray(shell.masks(self.core, self._form)[0])

    # ── episodes ─────────────────────────────────────────────────────────────────────────────

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32Array, dict[str, Any]]:
        """Start a fresh host. The same seed gives the same episode, bit for bit, on one machine.

        Args:
            seed: Of this and, through the environment's own generator, of all following episodes.
            options: ``{"instance": number}`` of a family, or ``{"split": "test"}`` to draw one of those to test on
                (default: one of those to train on); unknown keys raise.
        """
        instances, self.core.is_test[0] = shell.read_options(self.core, options)
        super().reset(seed=seed)
        self.core.seeders[0] = self.np_random
        self.core.reset(np.zeros(1, dtype=np.int64), instances)
        return self.core.observe()[0], shell.plain_info(shell.step_infos(self.core), 0)

    def step(self, action: ArrayLike) -> tuple[Float32Array, float, bool, bool, dict[str, Any]]:
        """Carry out a decision, train for ``batches_per_step`` minibatches, and measure."""
        if self.core.view.is_over[0]:
            raise ResetNeeded("`reset` must be called before the next step, got a step after the episode's end.")
        result = self.core.step(shell.flat_actions(self.core, self._form, action))
        infos = shell.step_infos(self.core, result.terms)
        is_over = bool(result.is_over[0])
        if is_over:
            infos |= shell.terminal_infos(self.core)
        return self.core.observe()[0], float(result.reward[0]), is_over, False, shell.plain_info(infos, 0)

    # ── whole episodes as values ─────────────────────────────────────────────────────────────

    def snapshot(self) -> CoreSnapshot:
        """Copy the episode with everything its future depends on."""
        return self.core.snapshot([0])

    def restore(self, saved: CoreSnapshot) -> None:
        """Go back to a snapshot, of this or of an equal environment: training goes on bit for bit."""
        self.core.restore(saved, [0])

    def network(self, committed: bool = False) -> GrownNetwork:
        """The network as an ordinary `torch.nn.Module` with its own copy of the weights, on the device it trained on.

        Args:
            committed: Host and fossilized seeds only, which is what you keep; otherwise all seeds at their alpha.
        """
        return self.core.network(0, committed)

    def render(self) -> str | NDArray[np.uint8] | None:
        """A compact text panel ("ansi") or a picture ``[H, W, 3]`` ("rgb_array") of the episode so far."""
        return None if self.render_mode is None else render(self.core, 0, self.render_mode)
