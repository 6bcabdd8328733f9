"""What every command has: a handler, and mostly a configuration."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandacea.config import Config

Handler = Callable[[argparse.Namespace], int]


def add_command(parent: Any, name: str, handler: Handler, summary: str, *, config: bool = True) -> argparse.ArgumentParser:
    """One command below `parent`; `config`: it reads a configuration."""
    made: argparse.ArgumentParser = parent.add_parser(name, help=summary, description=summary)
    made.set_defaults(handler=handler)
    if config:
        made.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: ./config.yaml")
    return made


def load_config_quietly(parsed: argparse.Namespace) -> Config:
    """The configuration of a command whose answer is what it prints: the log speaks of trouble only."""
    from pandacea.config import load_config
    from pandacea.log import configure_logging

    config = load_config(parsed.config)
    configure_logging("warning", config.log.format)
    return config
