"""Reviews a script for the Earner in a small process with limits, never in the node."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Final

from pandacea.catalogue.children import run_limited_child
from pandacea.domain.review import Warning_

CHILD: Final = Path(__file__).with_name("review_child.py")
AT_ONCE: Final = 2
NOT_REVIEWED: Final = Warning_(1, "it could not be reviewed within the limits of time and memory; read it to its end or refuse it")


class ChildReviewer:
    """Lists what a person should look at in a script, by way of a child process; at most two children at once."""

    def __init__(self, python: str = sys.executable) -> None:
        """`python`: the interpreter whose grammar reads the scripts."""
        self._python = python
        self._places = asyncio.Semaphore(AT_ONCE)

    async def review(self, code: str) -> list[Warning_]:
        """Return the warnings of `domain.review`, or one that says why there are none.

        Raises:
            Unavailable: the child could not be started, or failed by itself.
        """
        async with self._places:
            out = await run_limited_child(self._python, CHILD, code.encode())
        found = json.loads(out) if out else None
        return [NOT_REVIEWED] if found is None else [Warning_(line, why) for line, why in found]
