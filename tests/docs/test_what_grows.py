"""docs/operating.md says of everything that grows whose it is, how large it may become and when it ends: as the code has it."""

from __future__ import annotations

import re
from typing import Final

from sqlmodel import SQLModel

import pandacea.store.tables as _tables
from pandacea.api.edge_limits import EdgeLimits
from pandacea.api.nonces import MemoryNonces
from pandacea.api.throttle import MAX_STREAMS, Rates
from pandacea.app import listening
from pandacea.config.sections import Privacy, Store
from pandacea.domain.limits import MIB
from pandacea.flows import approve, housekeeping
from pandacea.flows.shelf import Shelf
from pandacea.flows.uploads import Room
from tests.parts import ROOT

TEXT: Final = (ROOT / "docs" / "operating.md").read_text()
SECTION: Final = TEXT[TEXT.index("## What grows") :].split("\n## ")[0].removeprefix("\n")
DAY, HOUR = 86_400, 3600


def row_of(name: str) -> str:
    """The row whose first column begins with a name."""
    rows = [line for line in SECTION.splitlines() if line.startswith(f"| {name}")]
    assert len(rows) == 1, name
    return rows[0]


def says(name: str, *figures: float) -> None:
    """A row states these figures, in this order."""
    text = row_of(name).replace(",", "")
    found = [float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", text)]
    assert found == [float(figure) for figure in figures], text


def test_every_table_of_the_database_is_named() -> None:
    """A table that is added must say when its rows end."""
    assert _tables.__all__
    missing = [name for name in SQLModel.metadata.tables if f"`{name}`" not in SECTION]
    assert missing == []


def test_every_folder_of_the_state_is_named() -> None:
    """Files grow, too."""
    assert [name for name in ("results/", "uploads/", "tables/") if f"`{name}" not in SECTION] == []


def test_the_figures_are_the_codes() -> None:
    """Row by row, owner by owner."""
    store, privacy, edge, shelf, rates = Store(), Privacy(), EdgeLimits(), Shelf(ROOT, 0), Rates()
    largest = privacy.limits.limits().of_rehearsals()
    says(
        "results of leased runs",
        store.results_mb_per_spender,
        store.max_results_mb,
        store.keep_results_seconds / DAY,
        housekeeping.KEEP_AT_LEAST / HOUR,
        privacy.hold_seconds / DAY,
    )
    says(
        "rehearsals",
        largest.artifacts_bytes / MIB,
        shelf.rehearsals_per_spender / MIB,
        shelf.rehearsals / MIB,
        rates.rehearsals._burst,
        1 / rates.rehearsals._per_second,
        housekeeping.KEEP_REHEARSALS / 60,
    )
    says("rows of computations that cost nothing", housekeeping.KEEP_UNCHARGED, store.keep_results_seconds / DAY)
    says("scripts and params", store.keep_scripts_seconds / DAY)
    says("waiting computations", privacy.queue_per_spender, privacy.queue_total, privacy.queue_seconds / HOUR)
    says("uploads", Room().spender_files, store.uploads_mb_per_spender, store.uploads_mb, store.keep_uploads_seconds / HOUR)
    says(
        "scripts handed in",
        approve.EACH,
        rates.scripts._burst,
        1 / rates.scripts._per_second / HOUR,
        approve.STRANGERS,
        approve.TOTAL,
        approve.KEEP_UNDECIDED / DAY,
        approve.KEEP_STRANGERS / DAY,
    )
    says("nonces of Spenders", listening.SPENDER_RATE[1], listening.SPENDER_RATE[0], 15)
    says("nonces of strangers", MemoryNonces(lambda: 0.0, 0)._max_rows)
    says("messages", housekeeping.KEEP_DELIVERED / HOUR)
    says(
        "connections",
        edge.connections,
        edge.connections_per_peer,
        edge.requests_per_spender,
        MAX_STREAMS,
        edge.idle_seconds,
    )
    says(
        "bodies in memory",
        edge.bodies_per_spender / MIB,
        edge.bodies_bytes / MIB,
        edge.stranger_bodies_per_peer / MIB,
        edge.stranger_bodies_bytes / MIB,
    )
