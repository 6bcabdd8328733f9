"""Reviews a script for the Earner in a small process with limits, never in the node."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Final

from pandacea.codecheck.limited_child import run_limited_child
from pandacea.domain.code_review import ReviewWarning

CHILD: Final = Path(__file__).with_name("review_child.py")
MAX_CHILDREN: Final = 2
NOT_REVIEWED: Final = ReviewWarning(
    1, "it could not be reviewed within the limits of time and memory; read it to its end or refuse it"
)


class ChildCodeReviewer:
    """Lists what a person should look at in a script, by way of a child process; at most two children at once."""

    def __init__(self, python: str = sys.executable) -> None:
        """`python`: the interpreter whose grammar reads the scripts."""
        self._python = python
        self._slots = asyncio.Semaphore(MAX_CHILDREN)

    async def review_code(self, code: str) -> list[ReviewWarning]:
        """Return the warnings of `domain.review`, or one that says why there are none.

        Raises:
            Unavailable: the child could not be started, or failed by itself.
        """
        async with self._slots:
            out = await run_limited_child(self._python, CHILD, code.encode())
        found = json.loads(out) if out else None
        return [NOT_REVIEWED] if found is None else [ReviewWarning(line, why) for line, why in found]
