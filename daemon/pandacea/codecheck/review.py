"""Review a script for the Earner in a small process with limits, never in the node."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from pandacea.codecheck.limited_child import LimitedChild
from pandacea.domain.code_review import ReviewWarning

CHILD: Final = Path(__file__).with_name("review_child.py")
NOT_REVIEWED: Final = ReviewWarning(
    1, "it could not be reviewed within the limits of time and memory; read it to its end or refuse it"
)


class ChildCodeReviewer:
    """Lists what a person should look at in a script, by way of a child process."""

    def __init__(self, python: str = sys.executable) -> None:
        """`python`: the interpreter whose grammar reads the scripts."""
        self._child = LimitedChild(CHILD, python)

    async def review_code(self, code: str) -> list[ReviewWarning]:
        """Return the warnings of `domain.code_review`, or one that says why there are none.

        Raises:
            Unavailable: the child could not be started, or failed by itself.
        """
        out = await self._child.run_over(code)
        found = json.loads(out) if out else None
        return [NOT_REVIEWED] if found is None else [ReviewWarning(line, reason) for line, reason in found]
