"""How Python runs while the node serves: nothing may hold the event loop for long, nor keep the database's thread from its turn."""

from __future__ import annotations

import gc
import sys
from typing import Final

SWITCH_SECONDS: Final = 0.0005
"""How long a thread waits for the interpreter's lock before it asks for it. Python's own 5 ms would be the price of each visit to the
database's thread while the event loop is busy, and a transaction pays several, with other writers waiting behind it."""


RECURSION_LIMIT: Final = 1000
"""Python's own recursion limit. web3's py_ecc raises it to 100,000 when it is imported, which is more than a thread's stack holds: a few
kilobytes of `[` in any JSON would then end the process instead of raising RecursionError."""


def limit_recursion() -> None:
    """Call once, when everything is imported and before anything of a stranger's is read."""
    sys.setrecursionlimit(RECURSION_LIMIT)


def tune_interpreter() -> None:
    """Call once, when everything is loaded and opened, before serving.

    Modules and adapters live as long as the node: full collections need not walk them, which held the event loop for 80 ms.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
