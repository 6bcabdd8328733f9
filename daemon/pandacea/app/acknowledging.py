"""`pandacea leases acknowledge`: show what the operator is about to vouch for, ask, and only then have it written."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from typing import Any

from pandacea.app.control import server
from pandacea.app.render import render_answer
from pandacea.config import Config


async def acknowledge_lease(
    config: Config, lease_id: str, *, yes: bool, say: Callable[[str], None], ask: Callable[[str], str]
) -> dict[str, Any] | None:
    """Vouch for one lease's approval, through the running node or without one. None: the answer was no, nothing was written.

    Raises:
        Refused: it is not known, not approved, proved already, or changed since it was shown.
        Unavailable: the contract was never followed here, or the database does not answer.
    """
    seen = await server.call_node(config, "leases show", {"id": lease_id})
    say(render_answer("leases show", seen))
    if not yes and ask("Did you approve this lease, with these terms? [y/N] ").strip().lower() not in {"y", "yes"}:
        say("Nothing was written.")
        return None
    return await server.call_node(
        config, "leases acknowledge", {"id": lease_id, "terms": seen["terms"], "by": f"operator {_account()}"}
    )


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account without a name, as in many containers
        return f"uid {os.getuid()}"
