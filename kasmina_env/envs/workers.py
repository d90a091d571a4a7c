"""Workers of a command: processes or Ray actors over which it spreads episodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kasmina_env.envs.vector_env import KasminaVectorEnv
from kasmina_env.episode.episodes import Placement
from kasmina_env.episode.problem import Problem


@dataclass(frozen=True)
class Workers:
    """Workers of a command.

    Attributes:
        number: Number of workers; 1 with the placement "local" is this process.
        placement: See `KasminaVectorEnv`.
    """

    number: int = 1
    placement: Placement = "local"

    def make_env(self, num_envs: int, preset: str | Problem, **settings: Any) -> KasminaVectorEnv:
        """An environment whose rows are spread over the workers, or over as many of them as there are rows."""
        number = min(self.number, num_envs)
        return KasminaVectorEnv(num_envs, preset, num_workers=number, placement=self.placement, **settings)


ALONE = Workers()
