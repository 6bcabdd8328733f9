"""The gas table: its target holds, and the documents show what it prints."""

from __future__ import annotations

from benchmarks.gas import FLOOR_RATIO, STRUCT, V0, V1, measure, table
from tests.contracts.agreement import ROOT


def test_three_steps_cost_less_than_two_did_and_the_document_says_what_they_cost() -> None:
    """Creation, approval and a committed result, beside the first version's creation and approval; first and later times."""
    rows = measure()
    for kind in ("first", "again"):
        assert rows[f"{V1}, {kind}"] < rows[f"{V0}, {kind}"]
    assert rows[f"{V1}, again"] < FLOOR_RATIO * rows[STRUCT]
    single = rows["commitResult by the operator"]
    assert all(gas <= 0.65 * single for row, gas in rows.items() if row.startswith("commitResults"))
    assert table(rows) in (ROOT / "docs" / "gas.md").read_text(encoding="utf-8"), (
        "run `python benchmarks/gas.py --write docs/gas.md`"
    )
