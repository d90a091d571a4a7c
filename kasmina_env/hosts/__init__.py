"""Networks that can grow. A new one is one file with one decorated class, imported here."""

from kasmina_env.hosts.base import HOSTS, Host, SegmentedNetwork, Slot, register_host
from kasmina_env.hosts.cnn import CNNHost
from kasmina_env.hosts.mlp import MLPHost

__all__ = ["HOSTS", "CNNHost", "Host", "MLPHost", "SegmentedNetwork", "Slot", "register_host"]
