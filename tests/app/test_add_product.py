"""`pandacea products add`, its questions: nothing becomes public by a slip, and no answer is given twice."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pandacea.app.commands import add_product
from pandacea.app.commands.add_product import AddProductRequest, equivalent_command
from pandacea.catalogue.products_file import parse_product
from pandacea.cli.main import parser
from pandacea.cli.products import read_add_request
from pandacea.domain.ids import AssetId
from pandacea.domain.table import TableColumn, TableShape
from pandacea.errors import BadConfig

SEEN = TableShape(
    (
        TableColumn("full_name", "string", flags=("its name says that it names people",)),
        TableColumn("age", "int64"),
        TableColumn("ward", "string"),
        TableColumn("outcome", "int64"),
    ),
    None,
)
ANSWERS = {
    "Drop full_name?": ["maybe", "j", "y"],
    "Which column is the outcome": ["targt", "outcome"],
    "age (int64)": ["18", "110..18", "18..110"],
    "ward (string)": ["north, south"],
    "outcome (int64)": [""],
    "Name of": ["Wards"],
    "What is it": [""],
    "Price": ["", "0.02 pounds", "0.02 ether"],
    "policy": ["whatever", "any-code"],
    "release": [""],
    "live_output": [""],
    "rehearsal": [""],
    "Show a Spender": [""],
}


def answering(answers: dict[str, list[str]], asked: list[str]) -> Callable[[str], str]:
    left = {begins: iter(texts) for begins, texts in answers.items()}

    def prompt(question: str) -> str:
        asked.append(question)
        return next(next(texts) for begins, texts in left.items() if question.startswith(begins))

    return prompt


def draft(**wanted: Any) -> tuple[AddProductRequest, dict[str, Any], dict[str, Any], list[str]]:
    said: list[str] = []
    return AddProductRequest(Path("t.csv"), {}, {}, write=said.append, **wanted), {"id": "t"}, {"file": "t.csv"}, said


def test_every_answer_is_looked_at_when_it_is_given(tmp_path: Path) -> None:
    """A mistake costs one question, not the twenty before it; what comes out is what a products.yaml may hold."""
    asked: list[str] = []
    wanted, entry, said, told = draft(prompt=answering(ANSWERS, asked))
    add_product._complete_entry(wanted, entry, said, SEEN)
    assert len(asked) == sum(map(len, ANSWERS.values()))
    assert said["drop"] == ["full_name"]
    assert "keep_flagged" not in said
    assert entry["rules"] == {
        "policy": "any-code",
        "release": "hold",
        "live_output": "none",
        "rehearsal": "lease",
        "show_messages": False,
    }
    assert any("the label 'targt' is not a kept column" in line for line in told)
    (tmp_path / "t.csv").touch()
    stated = parse_product(entry | {"assets": {"t": said}}, tmp_path)
    assert stated.price == 2 * 10**16
    assert stated.assets[AssetId("t")].columns["age"].maximum == 110


def test_the_command_line_that_is_shown_says_the_same(tmp_path: Path) -> None:
    """Typed as it stands, it asks nothing and comes to the same entry."""
    wanted, entry, said, _ = draft(prompt=answering(ANSWERS | {"Drop full_name?": ["no"], "full_name (string)": [""]}, []))
    add_product._complete_entry(wanted, entry, said, SEEN)
    assert said["keep_flagged"] == ["full_name"]
    words = shlex.split(equivalent_command(wanted, entry, said))
    assert words[0] == "pandacea"
    again = read_add_request(parser().parse_args(words[1:]))
    same_entry, same_said = {"id": "t"} | again.entry, {"file": "t.csv"} | again.asset
    add_product._complete_entry(again, same_entry, same_said, SEEN)
    (tmp_path / "t.csv").touch()
    one, two = (parse_product(a | {"assets": {"t": b}}, tmp_path) for a, b in ((entry, said), (same_entry, same_said)))
    assert one == two


def test_a_column_that_stays_is_named(tmp_path: Path) -> None:
    """The word is kept in products.yaml, where the next start asks for it."""
    wanted, entry, said, _ = draft(yes=True, keep_flagged=True)
    add_product._complete_entry(wanted, entry | {"price": "0"}, said, SEEN)
    assert said["keep_flagged"] == ["full_name"]


@pytest.mark.parametrize(
    ("options", "columns", "words"),
    [
        ({"keep_flagged": True}, {}, "no price is stated, and --yes does not decide that"),
        ({}, {}, "these columns may identify people: full_name"),
        ({"keep_flagged": True}, {"agee": {"minimum": 0}}, "--column describes 'agee', which is not a kept column"),
        ({"keep_flagged": True, "label": "targt"}, {}, "the label 'targt' is not a kept column"),
    ],
)
def test_yes_decides_nothing_that_matters(options: dict[str, Any], columns: dict[str, Any], words: str) -> None:
    """What identifies people, what a lease costs, and names that no column has."""
    wanted, entry, said, _ = draft(yes=True, **options)
    with pytest.raises(BadConfig, match=words):
        add_product._complete_entry(wanted, entry, said | {"columns": columns}, SEEN)
