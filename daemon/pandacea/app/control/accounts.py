"""Accounts of this machine, as the audit log and acknowledgements name them."""

from __future__ import annotations

import pwd


def name_operator(uid: int) -> str:
    """Return `operator NAME`, or `operator uid N` for an account without a name, as in many containers."""
    try:
        return f"operator {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"operator uid {uid}"
