"""A script forges its process's last word to the supervisor and so ends its worker, or the whole node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pandacea_sdk.client import PandaceaClient
from tests.journeys.conftest import FEATURES, INPUTS, LABELS, OPEN_RULES, PRODUCT, System, system

FORGE = """
status = next(c.cell_contents for c in pandacea_progress.__closure__ if hasattr(c.cell_contents, "send"))
status.send(WORD)
status.close()
raise SystemExit(3)
"""
WORDS = {
    "an errno that is a list": rb'E{"type":"x","message":"y","line":1,"errno":[]}',
    "JSON nested sixteen thousand deep": b"E" + b"[" * 16_000,
    "a class name of half a surrogate pair": rb'E{"type":"\ud800","message":"y","line":1}',
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A real node without a service manager: one worker, real sandboxes."""
    with system(tmp_path_factory.mktemp("c1"), "bubblewrap", privacy={"pool_size": 0, "workers": 1}) as built:
        give_mock_rows(built)
        built.start()
        yield built


def give_mock_rows(built: System) -> None:
    """Let holders of a lease rehearse."""
    columns = {FEATURES: ("wind", "sun"), LABELS: ("warmth",)}
    assets = {
        asset: {"columns": {name: {"minimum": -9, "maximum": 9} for name in names}, "mock": {"rows": 10, "seed": 1}}
        for asset, names in columns.items()
    }
    product = {"id": PRODUCT, "name": "Weather", "assets": assets, "rules": OPEN_RULES | {"rehearsal": "lease"}}
    (built.folder / "data" / "products.yaml").write_text(json.dumps({"products": [product]}))


@pytest.mark.parametrize("mode", [None, "mock"])
@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_the_run_ends_as_the_scripts_own_failure_and_the_node_goes_on(
    node: System, word: bytes, mode: str | None, tmp_path: Path
) -> None:
    """The forger pays as for any script that fails; the next Spender's computation runs; the node stays ready, and says so truly."""
    lease = node.lease(spender=2)
    attacker = node.client(2)
    answer = run(attacker, lease, FORGE.replace("WORD", repr(word)), tmp_path, mode)
    assert (answer["success"], answer["error"]["type"]) == (False, "script-error")
    counts = attacker.lease(lease)
    assert (counts["used"], counts["failed_runs"]) == (0, 0 if mode else 1), "the allowance for scripts that fail paid"
    answer = run(node.client(3), node.lease(spender=3), "print(int(features['wind'].sum()))", tmp_path)
    assert (answer["success"], answer["results"]["output"].strip().isdigit()) == (True, True)
    assert node.node is not None
    assert node.node.poll() is None, "the node runs on"
    status, told, _ = node.get("/readyz")
    assert (status, told["workers"]) == (200, "ok")


def run(client: PandaceaClient, lease_id: str, code: str, folder: Path, mode: str | None = None) -> dict[str, Any]:
    """Run a script to its end."""
    path = folder / "script.py"
    path.write_text(code)
    return client.execute_computation(lease_id, path, INPUTS, mode=mode, timeout=30)
