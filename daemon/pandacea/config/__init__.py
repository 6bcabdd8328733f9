"""Configuration: config.yaml < credentials < environment -> frozen sections. The only reader of `os.environ` in the node."""

from pandacea.config.load import load
from pandacea.config.sections import Config

__all__ = ["Config", "load"]
