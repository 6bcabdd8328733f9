"""The table "What grows" in docs/operating.md states the limits and lifetimes that the code has."""

from __future__ import annotations

import re
from typing import Final

from sqlmodel import SQLModel

import pandacea.store.tables as _tables
from pandacea.api.connection_guard import HttpLimits
from pandacea.api.nonces import MemoryNonces
from pandacea.api.rate_limit import MAX_STREAMS, RateLimits
from pandacea.app import http_api
from pandacea.config.sections import MqttSection, PrivacySection, StoreSection
from pandacea.domain.limits import MIB
from pandacea.files.results import ResultStore
from pandacea.flows import approve_code, outbox, retention
from pandacea.flows.uploads import UploadQuota
from tests.prerequisites import ROOT

TEXT: Final = (ROOT / "docs" / "operating.md").read_text()
SECTION: Final = TEXT[TEXT.index("## What grows") :].split("\n## ")[0].removeprefix("\n")
DAY, HOUR = 86_400, 3600


def find_row(name: str) -> str:
    """Find the row whose first column begins with a name."""
    rows = [line for line in SECTION.splitlines() if line.startswith(f"| {name}")]
    assert len(rows) == 1, name
    return rows[0]


def check_figures(name: str, *figures: float) -> None:
    """Check that a row states these figures, in this order."""
    text = find_row(name).replace(",", "")
    found = [float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", text)]
    assert found == [float(figure) for figure in figures], text


def test_every_table_of_the_database_is_named() -> None:
    """A new table must have a row that says when its rows are deleted."""
    assert _tables.__all__
    missing = [name for name in SQLModel.metadata.tables if f"`{name}`" not in SECTION]
    assert missing == []


def test_every_folder_of_the_state_is_named() -> None:
    """Folders of files have a row as tables have."""
    assert [name for name in ("results/", "uploads/", "tables/") if f"`{name}" not in SECTION] == []


def test_the_figures_are_those_of_the_code() -> None:
    """Each row is compared with the constants and defaults that it documents."""
    store, privacy, edge, shelf, rates = StoreSection(), PrivacySection(), HttpLimits(), ResultStore(ROOT, 0), RateLimits()
    largest = privacy.limits.to_limits().of_rehearsals()
    check_figures(
        "results of leased runs",
        store.results_mb_per_spender,
        store.max_results_mb,
        store.keep_results_seconds / DAY,
        retention.MIN_KEEP_SECONDS / HOUR,
        privacy.hold_seconds / DAY,
    )
    check_figures(
        "rehearsals",
        largest.artifacts_bytes / MIB,
        shelf.max_rehearsal_bytes_per_spender / MIB,
        shelf.max_rehearsal_bytes / MIB,
        rates.rehearsals._burst,
        1 / rates.rehearsals._per_second,
        retention.KEEP_REHEARSALS_SECONDS / 60,
    )
    check_figures("rows of computations that cost nothing", retention.MAX_UNCHARGED_ROWS, store.keep_results_seconds / DAY)
    check_figures("scripts and params", store.keep_scripts_seconds / DAY)
    check_figures("waiting computations", privacy.queue_per_spender, privacy.queue_total, privacy.queue_seconds / HOUR)
    check_figures(
        "uploads",
        UploadQuota().max_spender_files,
        store.uploads_mb_per_spender,
        store.uploads_mb,
        store.keep_uploads_seconds / HOUR,
    )
    check_figures(
        "scripts handed in",
        approve_code.MAX_WAITING_PER_ADDRESS,
        rates.scripts._burst,
        1 / rates.scripts._per_second / HOUR,
        approve_code.MAX_WAITING_STRANGERS,
        approve_code.MAX_WAITING,
        approve_code.KEEP_UNDECIDED_SECONDS / DAY,
        approve_code.KEEP_STRANGERS_SECONDS / DAY,
    )
    check_figures("nonces of Spenders", http_api.SPENDER_RATE[1], http_api.SPENDER_RATE[0], 15)
    check_figures("nonces of strangers", MemoryNonces(lambda: 0.0, 0)._max_rows)
    check_figures("messages", MqttSection().backlog, outbox.KEEP_DELIVERED_SECONDS / HOUR, outbox.KEEP_WAITING_SECONDS / DAY)
    check_figures(
        "connections",
        edge.connections,
        edge.connections_per_peer,
        edge.requests_per_spender,
        MAX_STREAMS,
        edge.idle_seconds,
    )
    check_figures(
        "bodies in memory",
        edge.bodies_per_spender / MIB,
        edge.bodies_bytes / MIB,
        edge.stranger_bodies_per_peer / MIB,
        edge.stranger_bodies_bytes / MIB,
    )
