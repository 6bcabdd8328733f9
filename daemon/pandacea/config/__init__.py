"""Configuration: config.yaml < credentials < environment -> frozen sections. The only reader of `os.environ` in the node."""

from pandacea.config.load import docker_host, load, service_manager
from pandacea.config.sections import Config

__all__ = ["Config", "docker_host", "load", "service_manager"]
