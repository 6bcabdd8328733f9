"""Shared by all commands: a handler, and mostly the option --config."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pandacea.config import Config

Handler = Callable[[argparse.Namespace], int]
"""Runs one parsed command and returns its exit status."""
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001  # argparse has no public name for it
"""Where commands are added, as `add_subparsers` returns it."""


def add_command(parent: Commands, name: str, handler: Handler, summary: str, *, config: bool = True) -> argparse.ArgumentParser:
    """Add a command below `parent`; `config`: it takes --config."""
    added = parent.add_parser(name, help=summary, description=summary)
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
