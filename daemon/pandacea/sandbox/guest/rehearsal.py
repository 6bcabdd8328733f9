"""`syft` scripts name a data set instead of taking a variable: keep what they need, at no cost to scripts that never import it."""

from __future__ import annotations

from typing import Any


def offer(entry: dict[str, Any], descriptor: int) -> None:
    """Remember a private table for a script that asks syft for its file."""
    del entry, descriptor
