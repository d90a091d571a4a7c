"""Layers, blending, blueprints, hosts, their costs, and grown networks with their files."""
