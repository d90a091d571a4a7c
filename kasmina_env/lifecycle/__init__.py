"""The life of a seed: alpha schedules and the table of transitions, without PyTorch."""
