"""Gymnasium and stable-baselines3 environments, their spaces, infos and pictures."""
