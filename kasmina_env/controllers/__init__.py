"""Policies: the protocol and its registry, scripted rules, schedules, search, upper references."""
