"""Kernels by layer, forward and backward beside each other. A new layer is one file here."""

from kasmina_env.settings.registry import import_members

import_members(__name__, __path__)
