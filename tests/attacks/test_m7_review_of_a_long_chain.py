"""A script built so that its review takes minutes, in the process that holds the node's key."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import pytest

from pandacea.codecheck import limited_child
from pandacea.codecheck.review import NOT_REVIEWED, ChildCodeReviewer
from tests.prerequisites import ROOT

LINKS = 8_000
CHAIN = "".join(f"a{n}=a{n - 1}\n" for n in range(LINKS, 0, -1)) + f"a0=params\nexec(a{LINKS})\n"
"""Each line passes on what the next one assigns: a review that repeats a whole pass for each newly found name takes 8,000 of them."""

ASK = """
import asyncio, json, sys

def hear(event, given):
    if event == "compile" and b"a0=params" in (given[0] or b""):
        sys.stderr.write("parsed here\\n")

sys.addaudithook(hear)
from pandacea.codecheck.review import ChildCodeReviewer
print(json.dumps([one.reason for one in asyncio.run(ChildCodeReviewer().review_code(sys.stdin.read()))]))
"""


async def test_the_chain_is_reviewed_to_its_end() -> None:
    """The longest chain that fits into a script is followed within the child's four seconds of processor time."""
    assert len(CHAIN) < 100 * 1024
    found = await ChildCodeReviewer().review_code(CHAIN)
    assert [(one.line, "params" in one.reason) for one in found] == [(LINKS + 2, True)]


def test_the_script_is_never_parsed_in_the_process_that_asks() -> None:
    """Python reports every compilation of a text to its audit hooks: in the asking process there is none of the script's."""
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        input=CHAIN,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "daemon")},
    )
    assert len(json.loads(done.stdout)) == 1
    assert "parsed here" not in done.stderr
    assert ast.parse(CHAIN)


@pytest.mark.parametrize("bomb", ["(" * 50_000, "x=" + "-" * 99_000 + "1", "{" * 90_000, "[[" * 45_000 + "]]" * 4_000])
async def test_a_script_that_cannot_be_parsed_is_a_warning(bomb: str) -> None:
    """Whatever the text does to the parser, the Earner gets a line to read."""
    found = await ChildCodeReviewer().review_code(bomb)
    assert len(found) >= 1


async def test_a_review_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its deadline the child is killed, and the Earner is told to read for themselves."""
    monkeypatch.setattr(limited_child, "DEADLINE_SECONDS", 0.0)
    assert await ChildCodeReviewer().review_code("print(1)") == [NOT_REVIEWED]
