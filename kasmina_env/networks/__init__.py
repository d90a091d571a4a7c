"""Layers, blending, blueprints, hosts, their costs, grown networks and their files."""
