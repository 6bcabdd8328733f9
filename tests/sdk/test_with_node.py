"""The Spender's client with the node itself: routes, signatures and journeys are real, only chain and box stand in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pandacea.domain.ids import AssetId
from pandacea.domain.product import Mock, Rehearsal
from pandacea_sdk.client import PandaceaClient
from pandacea_sdk.errors import PandaceaError
from tests.api.served import ServedNode, served
from tests.fakes import LEASE_ID

INPUTS = [{"asset_id": "a", "variable_name": "table"}]
STRANGER = "7a" * 32


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ServedNode]:
    with served(tmp_path) as made:
        yield made


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text("print('hello')\n", encoding="utf-8")
    return path


def rehearses(node: ServedNode, folder: Path, who: Rehearsal) -> None:
    """Who may rehearse on asset `a`, which has mock rows."""
    catalogue = node.world.catalogue
    table = folder / "mock.arrow"
    table.write_bytes(b"mock")
    asset = replace(catalogue.product.assets[AssetId("a")], mock=Mock("0" * 64, folder / "mock.csv", table))
    rules = replace(catalogue.product.rules, rehearsal=who)
    catalogue.product = replace(catalogue.product, rules=rules, assets={**catalogue.product.assets, AssetId("a"): asset})


def test_a_result_is_read_and_verified_by_another_client_with_the_key(node: ServedNode, script: Path) -> None:
    """All that the second one knows is the id."""
    with PandaceaClient(node.url, key="11" * 32) as asked, PandaceaClient(node.url, key="11" * 32) as reads:
        made = asked.execute_computation(LEASE_ID, script, INPUTS)
        answer = reads.result(made["computation_id"])
        assert (answer["result_hash"], answer["results"]["output"]) == (made["result_hash"], "hello\n")
        assert reads.verify(answer).result_hash == made["result_hash"]


def test_nobody_rehearses_without_a_lease(node: ServedNode, script: Path, tmp_path: Path) -> None:
    """A key alone runs nothing here, said before anything runs; whoever has the lease gets an answer that nobody signed."""
    rehearses(node, tmp_path, Rehearsal.LEASE)
    with PandaceaClient(node.url, key=STRANGER) as stranger, pytest.raises(PandaceaError) as caught:
        stranger.execute_computation(LEASE_ID, script, INPUTS, mode="mock")
    assert caught.value.code == "unknown-spender"
    assert node.world.sandbox.jobs == []
    with PandaceaClient(node.url, key="11" * 32) as spender:
        answer = spender.execute_computation(LEASE_ID, script, INPUTS, params={"rounds": 1}, mode="mock")
    assert (answer["success"], answer["mode"], answer["results"]["output"]) == (True, "mock", "hello\n")
    assert {"manifest", "receipt", "result_hash"}.isdisjoint(answer)
    assert [table.path.name for table in node.world.sandbox.jobs[0].inputs] == ["mock.arrow"]
