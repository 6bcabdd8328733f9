"""Pandacea: compute-to-data you can trust. The Earner's node."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("pandacea")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+source"
