"""Settings, presets, instances, registries and documents on disk."""
