"""Shared by all commands: a handler, and mostly the option --config."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandacea.config import Config

Handler = Callable[[argparse.Namespace], int]


def add_command(parent: Any, name: str, handler: Handler, summary: str, *, config: bool = True) -> argparse.ArgumentParser:
    """Add a command below `parent`; `config`: it takes --config."""
    added: argparse.ArgumentParser = parent.add_parser(name, help=summary, description=summary)
    added.set_defaults(handler=handler)
    if config:
        added.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: ./config.yaml")
    return added


def load_config_quietly(parsed: argparse.Namespace) -> Config:
    """Load the configuration and log warnings only: the command's output is what it prints."""
    from pandacea.config import load_config
    from pandacea.log import configure_logging

    config = load_config(parsed.config)
    configure_logging("warning", config.log.format)
    return config
