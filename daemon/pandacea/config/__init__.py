"""Configuration: config.yaml < credentials < environment -> frozen sections. The only reader of `os.environ` in the node."""

from pandacea.config.load import load_config, read_docker_host, read_service_manager
from pandacea.config.sections import Config

__all__ = ["Config", "load_config", "read_docker_host", "read_service_manager"]
