"""A `KasminaVectorEnv` as a stable-baselines3 ``VecEnv``. All rows are stepped together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium import Wrapper
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from kasmina_env.envs.infos import plain_info
from kasmina_env.envs.vector_env import KasminaVectorEnv

PER_ROW = ("network",)  # methods that take the row as their first argument


class KasminaVecEnv(VecEnv):
    """Adapter of a SAME_STEP vector: terminal observations, one plain info per row, float32 rewards.

    Args:
        env: Registered id, or an environment from ``gym.make_vec(id, num_envs=..., autoreset_mode="SameStep")``.
        num_envs: Number of networks, if `env` is an id.
        **settings: Keywords of `KasminaVectorEnv`, if `env` is an id.
    """

    def __init__(self, env: KasminaVectorEnv | str, num_envs: int = 64, **settings: Any) -> None:
        if isinstance(env, str):
            env = KasminaVectorEnv(num_envs, env, **{"autoreset_mode": AutoresetMode.SAME_STEP, **settings})
        if not isinstance(env, KasminaVectorEnv):
            raise ValueError(
                f"`env` must be an unwrapped KasminaVectorEnv, got {type(env).__name__}. Wrap after, not before."
            )
        if env.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"`env` must reset in the same step, got {env.autoreset_mode}. Use AutoresetMode.SAME_STEP."
            )
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> NDArray[np.float32]:
        seeds = None if all(seed is None for seed in self._seeds) else list(self._seeds)
        observations, infos = self.env.reset(seed=seeds, options=self._joined_options())
        self.reset_infos = [plain_info(infos, row) for row in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return observations  # type: ignore[no-any-return]

    def seed(self, seed: int | Sequence[int | None] | None = None) -> Sequence[int | None]:
        """Set the seeds of the next `reset`: one per row, or a single one that gives row i ``seed + i``."""
        if seed is None or isinstance(seed, int | np.integer):
            return super().seed(seed)
        if len(seed) != self.num_envs:
            raise ValueError(f"`seed` must be one number or {self.num_envs}, got {len(seed)}. Give each row one.")
        self._seeds = list(seed)
        return self._seeds

    def _joined_options(self) -> dict[str, Any] | None:
        """Options of the vector, joined from those of each row in `set_options`; None if there are none."""
        keys = {key for options in self._options for key in options}
        columns = {key: [options.get(key) for options in self._options] for key in keys}
        for key, values in columns.items():
            if key != "instance" and any(value != values[0] for value in values):
                raise ValueError(f"`options` must have one {key!r} for all rows, got {values}. Set it for all alike.")
        return {key: values if key == "instance" else values[0] for key, values in columns.items()} or None

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, terminated, truncated, infos = self.env.step(self._actions)
        final_obs, final_info = infos.pop("final_obs", None), infos.pop("final_info", None)
        rows = [plain_info(infos, row) for row in range(self.num_envs)]
        done = terminated | truncated
        for row in np.flatnonzero(done).tolist():
            self.reset_infos[row] = rows[row]
            rows[row] = plain_info(final_info, row)
            rows[row]["terminal_observation"] = final_obs[row]
            rows[row]["TimeLimit.truncated"] = bool(truncated[row] and not terminated[row])
        return observations, rewards.astype(np.float32), done, rows

    def close(self) -> None:
        self.env.close()

    def get_attr(self, attr_name: str, indices: int | Iterable[int] | None = None) -> list[Any]:
        return [getattr(self.env, attr_name)] * len(self._rows(indices))

    def set_attr(self, attr_name: str, value: Any, indices: int | Iterable[int] | None = None) -> None:
        raise AttributeError(
            f"`{attr_name}` must not be set through a VecEnv. Make a new environment with other settings."
        )

    def env_method(
        self, method_name: str, *args: Any, indices: int | Iterable[int] | None = None, **kwargs: Any
    ) -> list[Any]:
        rows = self._rows(indices)
        method = getattr(self.env, method_name)
        if method_name in PER_ROW:
            return [method(row, *args, **kwargs) for row in rows]
        results = method(*args, **kwargs)
        has_rows = isinstance(results, np.ndarray | tuple) and len(results) == self.num_envs
        return [results[row] if has_rows else results for row in rows]

    def env_is_wrapped(
        self, wrapper_class: type[Wrapper[Any, Any, Any, Any]], indices: int | Iterable[int] | None = None
    ) -> list[bool]:
        return [False] * len(self._rows(indices))

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        pictures = self.env.render() if self.env.render_mode == "rgb_array" else None
        return [None] * self.num_envs if pictures is None else list(pictures)

    def _rows(self, indices: int | Iterable[int] | None) -> list[int]:
        return list(self._get_indices(indices))
