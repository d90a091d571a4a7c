"""The decision problem without an interface: N episodes reset and stepped together."""
