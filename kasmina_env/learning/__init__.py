"""Training of controllers with stable-baselines3."""
