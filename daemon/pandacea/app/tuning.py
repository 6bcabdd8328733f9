"""Tunes the Python interpreter for serving: short pauses of the event loop, and a recursion limit that the stack holds."""

from __future__ import annotations

import gc
import sys
from typing import Final

SWITCH_SECONDS: Final = 0.0005
"""Seconds that a thread waits before it asks for the interpreter's lock. With Python's default of 5 ms, each call into the database's
thread would cost that much while the event loop is busy; a transaction makes several calls, with other writers waiting behind it."""

RECURSION_LIMIT: Final = 1000
"""Python's own recursion limit. web3's py_ecc raises it to 100,000 when it is imported, which is more than a thread's stack holds: a few
kilobytes of `[` in any JSON would then end the process instead of raising RecursionError."""


def limit_recursion() -> None:
    """Set Python's own recursion limit. Call once, after all imports and before any input of others is read."""
    sys.setrecursionlimit(RECURSION_LIMIT)


def tune_interpreter() -> None:
    """Shorten the switch interval and freeze what exists. Call once, when everything is loaded and opened, before serving.

    Modules and adapters live as long as the node; without the freeze each full collection walks them, which held the event loop for 80 ms.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
