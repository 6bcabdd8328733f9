"""Request targets: one spelling a path, so that what is signed, routed and logged is the same."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.targets import split_target

BAD = [
    "",
    "*",
    "api",
    "http://localhost:8080/api",
    "//evil.example/api",
    "/a//b",
    "/a/./b",
    "/a/../b",
    "/..",
    "/a/%2e%2e/b",
    "/a/%2E%2E/b",
    "/a%2Fb",
    "/a%5Cb",
    "/a\\b",
    "/a%00b",
    "/a%0Ab",
    "/a%7Fb",
    "/a%41b",
    "/a%7Eb",
    "/a%e4b",
    "/a%E4b",
    "/a%c3%a4",
    "/a%",
    "/a%2",
    "/a%GG",
    "/a b",
    "/a\tb",
    "/ä",
    "/a#b",
    "/a?x=#b",
    "/a?x= y",
    "/a?x=%2",
    '/a"b',
    "/a\x00",
]


@pytest.mark.parametrize("target", BAD)
def test_a_target_that_can_be_read_in_two_ways_is_refused(target: str) -> None:
    """Dot segments, doubled slashes, needless or dangerous escapes, other forms: all refused before anything is looked up."""
    with pytest.raises(ProtocolError) as caught:
        split_target(target)
    assert caught.value.code == "bad-target"


def test_good_targets_are_split_as_they_are() -> None:
    """Nothing is decoded or normalised."""
    assert split_target("/") == ("/", None)
    assert split_target("/a/b/") == ("/a/b/", None)
    assert split_target("/a?") == ("/a", "")
    assert split_target("/a?x=%20y&z=/?") == ("/a", "x=%20y&z=/?")
    assert split_target("/artifacts/model%20%C3%A4.pth") == ("/artifacts/model%20%C3%A4.pth", None)


def test_a_long_target_has_its_own_code() -> None:
    """More than 4,096 characters are `target-too-long`."""
    with pytest.raises(ProtocolError) as caught:
        split_target("/" + "a" * 4096)
    assert caught.value.code == "target-too-long"


@given(st.text(st.characters(exclude_characters="/\\", exclude_categories=("Cc", "Cs")), min_size=1, max_size=30))
def test_every_plain_name_has_a_target(name: str) -> None:
    """A file name quoted the usual way is taken, unless it is a dot segment."""
    if name not in {".", ".."}:
        target = "/artifacts/" + quote(name, safe="")
        assert split_target(target) == (target, None)


@given(st.text(max_size=60))
def test_garbage_is_refused_never_crashed_on(text: str) -> None:
    """Anything else is a ProtocolError."""
    try:
        path, _ = split_target(text)
    except ProtocolError:
        return
    assert path.startswith("/")
