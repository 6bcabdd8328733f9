"""docs/architecture.md shows the tree that is there, and the directions that are checked."""

from __future__ import annotations

import re
import tomllib

from tests.prerequisites import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PLAIN = {"__init__", "__main__", "py"}
"""Files that every package has, and the marker of typed ones."""


def shown(package: str) -> set[str]:
    """The names that the page's tree has below a package: `name/` for a folder, `name` for a module."""
    tree = PAGE.split(f"    daemon/{package}/\n", 1)[1]
    names = set()
    for line in tree.splitlines():
        if not line.startswith("      "):
            break
        if (found := re.match(r" {6}(\w+/?) ", line)) is not None:
            names.add(found[1])
    return names


def there(package: str) -> set[str]:
    """The folders and modules of a package."""
    folder = ROOT / "daemon" / package
    folders = {f"{one.name}/" for one in folder.iterdir() if (one / "__init__.py").exists()}
    return folders | {one.stem for one in folder.glob("*.py") if one.stem not in PLAIN}


def test_the_tree_of_the_page_is_the_tree_of_the_source() -> None:
    """Neither a room that is not shown, nor one that is gone."""
    for package in ("pandacea", "pandacea_sdk"):
        assert (sorted(there(package) - shown(package)), sorted(shown(package) - there(package))) == ([], [])


def test_the_directions_of_the_page_are_those_that_are_checked() -> None:
    """The layers of `Imports look down only`, in the same order and groups."""
    linted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract for contract in linted if contract["name"] == "Imports look down only")["layers"]
    drawn = PAGE.split("only `app` knows two adapters):\n", 1)[1].strip("\n").split("\n\n", 1)[0]
    groups = [sorted(re.findall(r"\w+", group)) for group in " ".join(drawn.split()).split(">")]
    assert groups == [sorted(re.findall(r"\w+", layer)) for layer in layers]


def test_no_folder_has_more_than_about_twenty_files() -> None:
    """A room that one can overlook: 24 modules at most."""
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in (ROOT / "daemon").rglob("*")
        if folder.is_dir() and (count := len([one for one in folder.glob("*.py") if one.stem != "__init__"])) > 24
    }
    assert crowded == {}
