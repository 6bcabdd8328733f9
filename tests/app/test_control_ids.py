"""Ids in control verbs: a prefix is enough, as long as it belongs to one id only."""

from __future__ import annotations

import pytest

from pandacea.app.control.ids import expand_id
from pandacea.errors import Refused

ONE, TWO = "0xbfae" + "1" * 60, "0xbfaf" + "2" * 60


def test_the_beginning_of_an_id_is_enough() -> None:
    """In any case, and the whole as well."""
    assert expand_id("0xBFAE", [ONE, TWO]) == ONE
    assert expand_id(TWO, [ONE, TWO]) == TWO


def test_what_several_begin_with_is_not_guessed() -> None:
    """What is decided on must be the one that was meant."""
    with pytest.raises(Refused, match="2 ids begin with 0xbfa0; say more") as caught:
        expand_id("0xbfa0", ["0xbfa0" + "1" * 60, "0xbfa0" + "2" * 60])
    assert "0xbfa0111111" in str(caught.value)


def test_what_is_too_short_or_unknown_is_left_as_it_is() -> None:
    """The answer then names it as it was typed."""
    assert expand_id("0x", [ONE]) == "0x"
    assert expand_id("0x1234567", [ONE]) == "0x1234567"
