"""`contracts/test/LeaseAgreement.tree` is the specification: one test for each of its branches, and no other."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.contracts.agreement import ROOT

TREE = ROOT / "contracts" / "test" / "LeaseAgreement.tree"
BESIDE = {"test_tree.py", "test_artifacts.py", "test_law.py", "test_gas.py", "test_static_analysis.py"}
"""Tests of other things than single functions."""


def slug(text: str) -> str:
    """`approveLease` -> `approve_lease`; `it reverts with UnknownLease` -> `it_reverts_with_unknown_lease`."""
    return "_".join(re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text.replace("'", "")).lower()))


def branches(text: str) -> Iterator[tuple[str, str]]:
    """Each leaf as (file, test)."""
    path: list[str] = []
    lines = [line for line in text.splitlines() if line.strip()]
    for line, following in zip(lines, [*lines[1:], "x"], strict=True):
        mark = re.match(r"[│├└─ ]*", line)
        assert mark is not None
        following_mark = re.match(r"[│├└─ ]*", following)
        assert following_mark is not None
        path[len(mark[0]) // 4 :] = [line[mark.end() :]]
        if following_mark.end() <= mark.end():
            assert path[-1].startswith("it "), f"a branch must end in what it does: {line}"
            yield f"test_{slug(path[0])}.py", "test_" + "_".join(slug(node) for node in path[1:])


def functions_in(folder: Path) -> Iterator[tuple[str, str]]:
    """Each test function as (file, name)."""
    for file in folder.glob("test_*.py"):
        if file.name not in BESIDE:
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    yield file.name, node.name


def test_the_tests_follow_the_tree_one_for_one() -> None:
    """A branch without a test, a test without a branch, and either of them twice, are named here."""
    wanted = Counter(branches(TREE.read_text(encoding="utf-8")))
    found = Counter(functions_in(Path(__file__).parent))
    assert (sorted((wanted - found).elements()), sorted((found - wanted).elements())) == ([], [])


def test_every_function_of_the_contract_has_branches() -> None:
    """What can change something is in the tree by its own name, or belongs to the inherited ownership."""
    from pandacea_sdk.protocol.contract import lease_agreement

    roots = {line for line in TREE.read_text(encoding="utf-8").splitlines() if line and line[0] not in "│├└ "}
    writing = {
        item["name"]
        for item in lease_agreement().abi
        if item["type"] == "function" and item["stateMutability"] in {"payable", "nonpayable"}
    }
    assert writing - roots == {"acceptOwnership", "renounceOwnership", "transferOwnership"}
    assert "ownership" in roots
