"""From an approved lease to trained weights, through every real part, on both sandboxes."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from pandacea_sdk.chain import LeaseChain
from tests.journeys.conftest import INPUTS, system
from tests.prerequisites import ROOT

SCRIPT = ROOT / "examples" / "federated_learning_script.py"


def test_an_approved_lease_becomes_trained_weights(tmp_path: Path, sandbox: str) -> None:
    """The weights come back, every byte of them vouched for, and their hash stands on the chain."""
    with system(tmp_path, sandbox, settlement={"post_results": True}) as built:
        built.start()
        lease_id = built.lease()
        client = built.client(rpc_url=built.rpc_url, contract=built.contract)
        answer = client.execute_computation(lease_id, SCRIPT, INPUTS, params={"epochs": 30})
        assert answer["success"], answer
        assert "trained on 200 rows x 2 features, 30 epochs" in answer["results"]["output"]
        weights = client.decode_artifact(answer["results"]["artifacts"]["model_weights.pth"])
        assert weights.startswith(b"PK"), "a torch checkpoint is a zip archive"
        metrics = json.loads(client.decode_artifact(answer["results"]["artifacts"]["metrics.json"]))
        assert metrics["rows"] == 200
        verified = client.verify(answer)
        assert verified.signer == built.accounts[1]["address"].lower()
        assert answer["manifest"]["sandbox"]["kind"] == sandbox
        committed = asyncio.run(_committed(built.rpc_url, built.contract, lease_id, answer["computation_id"]))
        assert committed == answer["result_hash"]
        assert built.stop() == 0


async def _committed(rpc_url: str, contract: str, lease_id: str, computation_id: str) -> str | None:
    async with LeaseChain(rpc_url, contract) as chain:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if found := await chain.committed_result(lease_id, computation_id):
                return found
            await asyncio.sleep(0.1)
    return None
