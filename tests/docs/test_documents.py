"""The documents: every relative link has a target, every command shown exists, every decision has its page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pandacea.cli.main import parser
from tests.prerequisites import ROOT

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"^ {4,}(?:\$ )?pandacea ([a-z-]+)", re.MULTILINE)
MAKE = re.compile(r"\bmake ([a-z-]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_has_a_target(document: Path) -> None:
    """The file that a link names exists."""
    missing = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_is_shown_exists(document: Path) -> None:
    """Lines `pandacea ...` and `make ...` name real commands and targets."""
    text = document.read_text()
    commands = next(action for action in parser()._actions if action.dest == "command").choices
    assert commands is not None
    assert [name for name in COMMAND.findall(text) if name not in commands] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = {name for block in re.findall(r"`make [^`]+`|^ {4}make .*$", text, re.MULTILINE) for name in MAKE.findall(block)}
    assert shown <= targets


def test_every_suite_has_its_row() -> None:
    """tests/README.md says of every folder of tests what it proves."""
    rows = {name for line in (ROOT / "tests" / "README.md").read_text().splitlines() for name in re.findall(r"`([a-z]+)`", line)}
    assert {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")} - rows == set()


def test_decisions_are_numbered_once() -> None:
    """Pages are docs/adr/NNNN-title.md; each number is used once and stands in the title."""
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [path.name[:4] for path in records]
    assert len(set(numbers)) == len(numbers)
    for path in records:
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), path.name
