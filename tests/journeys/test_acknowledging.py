"""A lease whose approval the chain cannot prove: refused with the reason, acknowledged by the operator, then served."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from eth_account import Account

from pandacea.devchain import CHAIN_ID
from pandacea_sdk.chain.rpc import JsonRpcClient
from pandacea_sdk.chain.sender import TransactionSender
from pandacea_sdk.errors import PandaceaError
from pandacea_sdk.protocol.contract import lease_agreement
from tests.journeys.conftest import INPUTS, System, pandacea, system
from tests.prerequisites import ROOT, free_port

SCRIPT = ROOT / "examples" / "federated_learning_script.py"


async def relayed(built: System) -> str:
    """A lease approved through a relay: the Earner made a contract its operator, and a stranger called that contract.

    Returns the lease's id.
    """
    lease_id = await built.create_lease()
    # Code that passes its call data on to the LeaseAgreement, and the eleven bytes that deploy it.
    runtime = bytes.fromhex("366000600037600060003660006000" + "73" + built.contract[2:] + "5af100")
    creation = bytes.fromhex(f"60{len(runtime):02x}80600b6000396000f3") + runtime
    async with JsonRpcClient(built.rpc_url) as rpc:
        chain_id = await rpc.call_for_quantity("eth_chainId")
        stranger = Account.from_key(built.accounts[3]["private_key"])
        sender = TransactionSender(rpc, stranger, lease_agreement(), chain_id, timeout=30)
        relay = (await sender.send("deploy", None, creation)).contract_address
        assert relay is not None
        async with built.earner() as earner:
            await earner.set_operator(relay)
        receipt = await sender.send("approve", relay, lease_agreement().encode_call("approveLease", lease_id))
        assert [event.name for event in receipt.events] == ["LeaseApproved"]
    return lease_id


def refusal(built: System, lease_id: str) -> PandaceaError:
    """What the Spender hears, once the node has looked at the approval."""
    client = built.client()
    heard: list[PandaceaError] = []

    def looked() -> bool:
        with pytest.raises(PandaceaError) as caught:
            client.execute_computation(lease_id, SCRIPT, INPUTS)
        heard.append(caught.value)
        return caught.value.code == "approval-unproven"

    built.until(looked, "the node does not look at the approval")
    return heard[-1]


def test_the_operator_acknowledges_while_the_node_runs(tmp_path: Path) -> None:
    """The Spender is told whom to ask; the operator sees the terms and the reason, says yes, and the lease runs at once."""
    with system(tmp_path, "bubblewrap") as built:
        built.start()
        lease_id = asyncio.run(relayed(built))
        config = ("--config", str(tmp_path / "config.yaml"))
        assert "pandacea leases acknowledge" in str(refusal(built, lease_id))

        no = pandacea("leases", "acknowledge", lease_id, *config, said="n\n")
        assert no.returncode == 1
        assert "Nothing was written." in no.stdout
        for shown in (lease_id, built.accounts[2]["address"].lower(), "weather (0x", "0.001 ether", "computations 20", "a relay"):
            assert shown in no.stdout
        nobody = pandacea("leases", "acknowledge", lease_id, *config, said="")
        assert nobody.returncode == 1, "no answer does not count as yes"
        assert refusal(built, lease_id).code == "approval-unproven"

        yes = pandacea("leases", "acknowledge", lease_id, *config, said="y\n")
        assert yes.returncode == 0, yes.stderr
        answer = built.client().execute_computation(lease_id, SCRIPT, INPUTS)
        assert answer["success"]
        assert "lease.acknowledged" in built.log()

        for wanted in ((), (lease_id,)):
            reread = pandacea("leases", "reread", *wanted, *config)
            assert reread.returncode == 0, reread.stderr
            assert "Nothing changed" in reread.stdout

        again = pandacea("leases", "acknowledge", lease_id, *config, "--yes")
        assert again.returncode == 1
        assert "counts already" in again.stderr
        unknown = pandacea("leases", "acknowledge", "0x" + "12" * 32, *config, "--yes")
        assert unknown.returncode == 1
        assert "was seen on the chain" in unknown.stderr
        waiting = built.lease(approve=False)
        unapproved = pandacea("leases", "acknowledge", waiting, *config, "--yes")
        assert unapproved.returncode == 1
        assert "Traceback" not in no.stderr + again.stderr + unknown.stderr + unapproved.stderr


def test_the_operator_acknowledges_with_node_and_endpoint_down(tmp_path: Path) -> None:
    """The database knows the leases: they are shown and acknowledged without any endpoint, and the next start serves them."""
    with system(tmp_path, "bubblewrap") as built:
        built.start()
        lease_id = asyncio.run(relayed(built))
        refusal(built, lease_id)
        built.stop()
        nowhere = {"rpc_url": f"http://127.0.0.1:{free_port()}", "contract_address": built.contract, "chain_id": CHAIN_ID}
        silent = dict(built.config, blockchain=nowhere)
        (tmp_path / "silent.yaml").write_text(json.dumps(silent))
        config = ("--config", str(tmp_path / "silent.yaml"))
        before = pandacea("leases", "--json", *config)
        assert before.returncode == 0, before.stderr
        (row,) = json.loads(before.stdout)
        assert (row["lease_id"], row["approval"]) == (lease_id, "unproven")
        done = pandacea("leases", "acknowledge", lease_id, "--yes", "--json", *config)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["approval"] == "acknowledged"
        assert "spender" in done.stderr, "the terms are shown beside the JSON"
        built.start()
        assert built.client().lease(lease_id)["may_run"]
