"""No flow calls another: each ends with its transaction, and the next one starts from the rows. Steps that flows share are functions."""

from __future__ import annotations

import ast
from typing import Final

import pytest

from tests.prerequisites import ROOT

FLOWS: Final = ROOT / "daemon" / "pandacea" / "flows"
ENTRY_POINTS: Final = {
    "approval_proof": {"save_proof", "load_approval", "acknowledge_lease"},
    "approve_code": {"submit_code", "decide_code"},
    "backfill_check": {"check_range", "rebuild_lease", "replace_range_digest"},
    "cancel": {"cancel_job"},
    "close_leases": {"close_leases"},
    "commit_results": {"deliver_commitments"},
    "execute": {"run_next_job"},
    "finish": {"recover_jobs"},
    "follow": {"apply_update", "refresh_leases"},
    "live_output": {"record_shown"},
    "outbox": {"deliver_events", "deliver_webhooks"},
    "rehearse": {"rehearse"},
    "release": {"release_result", "refuse_result", "refuse_expired"},
    "replay": {"replay_computation"},
    "restore": {"begin_generation"},
    "retention": {"apply_retention"},
    "submit": {"submit_job"},
}
"""What `api`, `app`, `chain` and the commands call: each is one flow."""
SCHEDULED: Final = {("retention", "refuse_expired")}
"""Retention is the clock of the results that nobody decided on: it starts that flow and needs nothing of what it did."""


MODULES: Final = {path.stem: path for path in FLOWS.rglob("*.py") if path.stem != "__init__"}


def _imported(module: str) -> set[tuple[str, str]]:
    tree = ast.parse(MODULES[module].read_text())
    return {
        (node.module.rpartition(".")[2], name.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pandacea.flows.") and node.module
        for name in node.names
    }


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_flow_calls_another(module: str) -> None:
    """A flow that called another would have to finish the other's business after a crash, too."""
    called = {(other, name) for other, name in _imported(module) if name in ENTRY_POINTS.get(other, set())}
    assert {name for _, name in called} <= {name for where, name in SCHEDULED if where == module}


def test_every_entry_point_is_there() -> None:
    """The table above names functions that exist."""
    for module, names in ENTRY_POINTS.items():
        tree = ast.parse(MODULES[module].read_text())
        assert names <= {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}, module
