"""Make hostile text safe to show."""

from __future__ import annotations

import unicodedata
from typing import Final

BIDI: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
SHOWN_AS_ESCAPE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str, *, limit: int = 1000, newlines: bool = False) -> str:
    """Return `text` with every control, format, bidi and unassigned character as a visible escape, at most `limit` characters.

    Every hostile text passes through here before a terminal, the console log, an HTML page or MQTT; HTML is escaped on top of it.
    """
    shown = []
    for character in text[:limit]:
        if (newlines and character == "\n") or (character not in BIDI and unicodedata.category(character) not in SHOWN_AS_ESCAPE):
            shown.append(character)
        else:
            shown.append(character.encode("unicode_escape").decode("ascii"))
    if len(text) > limit:
        shown.append(f"… ({len(text) - limit} more)")
    return "".join(shown)
