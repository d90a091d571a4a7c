"""Hosts: networks that can grow. A new one is one file here with one decorated class."""

from kasmina_env.networks.hosts.base import (
    HOSTS,
    Host,
    SegmentedNetwork,
    Slot,
    check_host,
    count_parameters,
    execution_order,
    make_network,
    register_host,
)
from kasmina_env.networks.hosts.cnn import CNNHost
from kasmina_env.networks.hosts.mlp import MLPHost
from kasmina_env.networks.hosts.transformer import TransformerHost
from kasmina_env.settings.registry import import_members

__all__ = [
    "HOSTS",
    "CNNHost",
    "Host",
    "MLPHost",
    "SegmentedNetwork",
    "Slot",
    "TransformerHost",
    "check_host",
    "count_parameters",
    "execution_order",
    "make_network",
    "register_host",
]

import_members(__name__, __path__)
