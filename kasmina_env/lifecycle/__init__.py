"""The life of a seed: ramps of alpha and the table of transitions, without PyTorch."""
