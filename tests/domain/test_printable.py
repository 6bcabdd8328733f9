"""Hostile text on its way to a terminal, a log or a page."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from pandacea.domain.printable import printable


@given(st.text(st.characters(), max_size=300))
def test_no_control_format_or_bidi_character_passes(text: str) -> None:
    """Whatever comes in, a terminal cannot be driven by what comes out."""
    shown = printable(text)
    assert all(unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} for character in shown)


def test_escapes_are_visible() -> None:
    """A reader sees that something was there."""
    assert printable("a\x1b[31mb\u202ec") == r"a\x1b[31mb\u202ec"


def test_long_text_says_how_much_is_missing() -> None:
    """Nothing is cut silently."""
    assert printable("x" * 12, limit=10) == "xxxxxxxxxx… (2 more)"
