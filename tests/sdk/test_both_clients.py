"""One client, twice: what a method of the asynchronous client is, the synchronous one's is too."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pandacea_sdk import client as blocking
from pandacea_sdk.async_client import AsyncPandaceaClient
from tests.prerequisites import ROOT


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("blocking_client", ROOT / "tools" / "blocking_client.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


TOOL = load_tool()
PAIRS = [(AsyncPandaceaClient, blocking.PandaceaClient)]
PAIRS += [(getattr(TOOL, asynchronous), getattr(blocking, twin)) for asynchronous, twin in TOOL.TWINS.items()]


def function_of(member: Any) -> Any:
    """The function behind a method, a property or a static method."""
    return member.fget if isinstance(member, property) else getattr(member, "__func__", member)


def surface(cls: type) -> dict[str, Any]:
    """Public members of a class and of its bases."""
    return {name: inspect.getattr_static(cls, name) for name in dir(cls) if not name.startswith("_")}


def test_the_file_is_what_the_tool_writes() -> None:
    """Nobody edits it by hand: run `python tools/blocking_client.py`."""
    assert Path(blocking.__file__).read_text(encoding="utf-8") == TOOL.render_client()


@pytest.mark.parametrize(("asynchronous", "twin"), PAIRS)
def test_both_have_the_same_surface(asynchronous: type, twin: type) -> None:
    """Names, kinds, parameters, defaults, annotations and documentation; a coroutine on one side, its value on the other."""
    here, there = surface(asynchronous), surface(twin)
    assert here.keys() == there.keys()
    for name, static in here.items():
        assert type(static) is type(there[name]), name
        member, other = function_of(static), function_of(there[name])
        assert not inspect.iscoroutinefunction(other), name
        ours, theirs = inspect.signature(member), inspect.signature(other)
        assert [(one.name, one.kind, one.default) for one in ours.parameters.values()] == [
            (one.name, one.kind, one.default) for one in theirs.parameters.values()
        ], name
        for one in ours.parameters.values():
            assert TOOL.blocking_annotation(str(one.annotation)) == str(theirs.parameters[one.name].annotation), (name, one.name)
        assert TOOL.blocking_annotation(ours.return_annotation) == theirs.return_annotation, name
        if name != "close":
            assert (member.__doc__ is None) == (other.__doc__ is None), name


def test_the_two_are_set_up_alike() -> None:
    """Every option is a named, typed parameter of both."""
    ours, theirs = (
        [(one.name, one.kind, one.default, one.annotation) for one in inspect.signature(cls).parameters.values()]
        for cls in (AsyncPandaceaClient, blocking.PandaceaClient)
    )
    assert ours == theirs
