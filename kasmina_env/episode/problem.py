"""The decision problem: all of an environment that stays fixed over episodes. Holds no data and no device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from kasmina_env.episode.actions import ActionTable, make_action_table
from kasmina_env.episode.observation import ObservationTable, make_observation_table
from kasmina_env.episode.reward import REWARDS, Reward, governed
from kasmina_env.lifecycle.arrays import IntArray
from kasmina_env.networks.blueprints import BLUEPRINTS
from kasmina_env.networks.costs import Costs, measure_costs
from kasmina_env.networks.hosts import HOSTS, Host, check_host
from kasmina_env.settings.config import EnvConfig, Operator, check_nested
from kasmina_env.settings.instances import Instances, make_instances
from kasmina_env.settings.presets import PRESETS
from kasmina_env.tasks.changes import CHANGES, UNCHANGED, Change

BuiltT = TypeVar("BuiltT")


@dataclass(frozen=True, eq=False)
class Problem:
    """Names, menus and costs of an environment. I instances.

    Attributes:
        id: Registered id.
        config: All settings.
        host: Specification of the host network.
        instances: Instances to draw episodes from.
        variants: Distinct hosts of the instances; empty if all instances use `host`.
        variant_of: Index into `variants` for each instance ``[I]``.
        changes: Distinct changes of the data over all instances; entry 0 means unchanged.
        change_at: Index into `changes` for each instance and step ``[I, T + 1]``.
        actions: Flat actions.
        observations: Entries of an observation.
        reward: Reward terms.
    """

    id: str
    config: EnvConfig
    host: Host
    instances: Instances
    variants: tuple[Host, ...]
    variant_of: IntArray
    changes: tuple[Change, ...]
    change_at: IntArray
    actions: ActionTable
    observations: ObservationTable
    reward: Reward

    def __reduce__(self) -> tuple[Any, ...]:
        # Features and reward terms are functions, which are not pickled: another process builds its own problem.
        return problem_of, (self.id, self.config)

    @property
    def horizon(self) -> int:
        """Steps of an episode."""
        return self.config.horizon

    @cached_property
    def slot_names(self) -> tuple[str, ...]:
        """Names of the host's S slots."""
        return tuple(slot.name for slot in self.host.slots)

    @property
    def num_slots(self) -> int:
        """S."""
        return len(self.host.slots)

    @property
    def is_family(self) -> bool:
        """Whether there is more than one instance."""
        return len(self.instances) > 1

    @cached_property
    def costs(self) -> Costs:
        """Parameters and compute of the host and of all seeds."""
        return measure_costs(self.host, self.config.blueprints, tuple(Operator))


def make_problem(id: str, **settings: Any) -> Problem:
    """The problem of a registered id.

    Args:
        id: Registered id.
        **settings: Fields of `kasmina_env.settings.config.EnvConfig` that differ from the preset.

    Raises:
        UnknownNameError: If the id, or a name among the settings, is not registered.
        ValueError: If a setting breaks its rule.
    """
    return problem_of(id, PRESETS.get(id).config(**settings))


def problem_of(id: str, config: EnvConfig) -> Problem:
    """The problem of these settings; checks that names and menus fit each other."""
    host = _make_host(config)
    instances = make_instances(config)
    variants, variant_of = _make_variants(config, instances)
    changes, change_at = _make_changes(config, instances)
    slot_names = tuple(slot.name for slot in host.slots)
    reward = REWARDS.get(config.reward)
    return Problem(
        id=id,
        config=config,
        host=host,
        instances=instances,
        variants=variants,
        variant_of=variant_of,
        changes=changes,
        change_at=change_at,
        actions=make_action_table(config, slot_names),
        observations=make_observation_table(config, instances, slot_names),
        reward=governed(reward) if config.governor else reward,
    )


def build(make: Callable[..., BuiltT], setting: str, values: Mapping[str, Any]) -> BuiltT:
    """Check names and types of keyword settings, then call a registered function with them."""
    check_nested(setting, make, values)
    return make(**values)


def _make_host(config: EnvConfig) -> Host:
    """The host; checks that it accepts all blueprints of the menu."""
    host = build(HOSTS.get(config.host), "host_settings", config.host_settings)
    check_host(host)
    for name in config.blueprints:
        if host.topology not in BLUEPRINTS.get(name).topologies:
            fitting = [n for n in BLUEPRINTS if host.topology in BLUEPRINTS.get(n).topologies]
            raise ValueError(
                f"`blueprints` must accept {host.topology} features, got {name!r}. Choose from {', '.join(fitting)}."
            )
    return host


def _make_changes(config: EnvConfig, instances: Instances) -> tuple[tuple[Change, ...], IntArray]:
    """Distinct changes over all instances, and their index for each instance and step ``[I, T + 1]``."""
    changes = [UNCHANGED]
    change_at = np.zeros((len(instances), config.horizon + 1), dtype=np.int64)
    for i, events in enumerate(instances.events):
        for step, name, amount in events:
            CHANGES.get(name)
            change = Change(name, amount) if name != UNCHANGED.name else UNCHANGED
            changes += [] if change in changes else [change]
            change_at[i, step:] = changes.index(change)
    return tuple(changes), change_at


def _make_variants(config: EnvConfig, instances: Instances) -> tuple[tuple[Host, ...], IntArray]:
    """Distinct hosts, and their index for each instance ``[I]``. No hosts if no instance has settings of its own."""
    settings = [{**config.host_settings, **own} for own in instances.host_settings]
    written = [repr(sorted(values.items())) for values in settings]  # hosts themselves need not be hashable
    different, make = dict(zip(written, settings, strict=True)), HOSTS.get(config.host)
    # The settings of the problem itself have been checked.
    hosts = tuple(build(make, "instances", values) for values in different.values())
    for host in hosts:
        check_host(host)
    return hosts if any(instances.host_settings) else (), np.array([list(different).index(key) for key in written])
