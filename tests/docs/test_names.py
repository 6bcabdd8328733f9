"""Rules of names: a search for an operation finds it, a public class has a name of its own, a docstring is a sentence."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from tests.prerequisites import ROOT

CODE: Final = ("daemon", "benchmarks", "examples", "tests")
VAGUE: Final = frozenset({"look", "tell", "take", "again", "one", "of", "ask", "show"})
"""Verbs and particles that a search finds everywhere: `fetch_job`, `from_url` or `retry_message` are found where they are meant."""
SHORTEST: Final = 4
"""Words of a docstring."""

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def trees() -> dict[Path, ast.Module]:
    """Every module of ours, parsed, by its path in the repository."""
    files = [path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def definitions() -> Iterator[tuple[str, Definition]]:
    """List what modules and public classes define, with its place; what a function or a private class defines is its own business."""
    for path, tree in trees().items():
        waiting: list[ast.stmt] = list(tree.body)
        for node in waiting:
            if isinstance(node, Definition):
                yield f"{path}:{node.lineno}", node
            if isinstance(node, ast.If | ast.Try) or (isinstance(node, ast.ClassDef) and not node.name.startswith("_")):
                waiting += node.body


def test_no_function_has_a_name_that_a_search_finds_everywhere() -> None:
    """Public functions and methods are named verb_noun, or by a word that stands for one thing."""
    vague = [f"{place} {node.name}" for place, node in definitions() if node.name in VAGUE]
    assert vague == []


def test_no_two_public_classes_share_a_name() -> None:
    """One idea, one word: who searches for a class finds one."""
    places = defaultdict(list)
    for path, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{path}:{node.lineno}")
    shared = {name: found for name, found in places.items() if len(found) > 1}
    assert shared == {}


def test_no_docstring_is_shorter_than_a_sentence() -> None:
    """A docstring that only repeats the name says less than none."""
    short = []
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, Definition | ast.Module):
                text = ast.get_docstring(node)
                if text is not None and len(text.split()) < SHORTEST:
                    short.append(f"{path}:{getattr(node, 'lineno', 1)} {text}")
    assert short == []
