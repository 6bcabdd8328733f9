"""Shortened ids: a person types the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pandacea.domain.printable import printable
from pandacea.errors import Refused

_SHORTEST_PREFIX: Final = 6
"""Characters of an id, `0x` among them, that are enough to name it."""


def expand_id(prefix: str, ids: Sequence[str]) -> str:
    """Return the one id that begins with `prefix`; `prefix` itself where it is too short, whole, or begins none of them.

    Raises:
        Refused: several ids begin with it.
    """
    found = sorted({known for known in ids if known.startswith(prefix.lower())}) if len(prefix) >= _SHORTEST_PREFIX else []
    if len(found) > 1 and prefix not in found:
        raise Refused(f"{len(found)} ids begin with {printable(prefix, limit=80)}; say more of it, for example {found[0][:20]}.")
    return found[0] if len(found) == 1 else prefix
