"""Observations: bounds, names and values, all derived from the table of features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kasmina_env.episode.features import FEATURES, GROUPS, Feature, Scene
from kasmina_env.lifecycle.arrays import Float32Array, IntArray
from kasmina_env.settings.config import EnvConfig
from kasmina_env.settings.instances import Instances
from kasmina_env.settings.registry import unknown_name_message


@dataclass(frozen=True, eq=False)
class ObservationTable:
    """Layout of an observation of F entries: features of the network first, then those of each slot."""

    features: tuple[Feature, ...]
    of_entries: tuple[Feature, ...]  # [F] the feature of each entry
    names: tuple[str, ...]
    meanings: tuple[str, ...]  # [F]
    low: Float32Array  # [F]
    high: Float32Array  # [F]

    def column(self, name: str) -> int:
        """Index of an entry. A ``ValueError`` for an unknown name suggests the nearest one."""
        if name not in self.names:
            raise ValueError(unknown_name_message("observation", name, self.names))
        return self.names.index(name)

    def columns(self, group: str) -> IntArray:
        """Indices of the entries of a group of features, a name in `kasmina_env.settings.config.SIGNALS`."""
        return np.flatnonzero([feature.name in GROUPS[group] for feature in self.of_entries])


def make_observation_table(config: EnvConfig, instances: Instances, slot_names: Sequence[str]) -> ObservationTable:
    """Table of the entries that these settings, instances and slots have."""
    hidden = {name for group in config.hidden for name in GROUPS[group]}
    features = tuple(f for f in FEATURES if f.labels(config, instances) != () and f.name not in hidden)
    rows: list[tuple[str, Feature]] = []
    for scope in (None, *slot_names):
        for feature in features:
            if feature.is_per_slot == (scope is not None):
                name = feature.name if scope is None else f"{scope}.{feature.name}"
                labels = feature.labels(config, instances)
                names = [name] if labels is None else [f"{name}{feature.joint}{label}" for label in labels]
                rows += [(entry, feature) for entry in names]
    return ObservationTable(
        features,
        tuple(feature for _, feature in rows),
        tuple(name for name, _ in rows),
        tuple(feature.meaning for _, feature in rows),
        np.array([feature.low for _, feature in rows], dtype=np.float32),
        np.array([feature.high for _, feature in rows], dtype=np.float32),
    )


def observe(table: ObservationTable, scene: Scene) -> Float32Array:
    """Encode a scene: ``[N, F]``, finite and clipped to the table's bounds."""
    n, num_slots = scene.state.lifecycle.stage.shape
    of_network, of_slots = [], []
    for feature in table.features:
        value = np.asarray(feature.value(scene), dtype=np.float32)
        if feature.is_per_slot:
            of_slots.append(value.reshape(n, num_slots, -1))
        else:
            of_network.append(value.reshape(n, -1))
    per_slot = [np.concatenate(of_slots, axis=2).reshape(n, -1)] if of_slots else []
    entries = np.concatenate([*of_network, *per_slot], axis=1)
    return np.asarray(np.clip(entries, table.low, table.high))
