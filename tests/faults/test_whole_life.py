"""A lease's whole life, from its creation to the Earner's wallet: what everybody has, to the wei, before and after each step."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_account.signers.local import LocalAccount

from pandacea import keys
from pandacea.domain.ids import Address, LeaseId
from pandacea.flows.settlement.close_leases import ClosePorts, close_leases
from pandacea.flows.settlement.commit_results import Posting
from tests.chain.anvil import EARNER, OPERATOR, SPENDER, AnvilAgreement, encode_call
from tests.faults.settling import SettlingNode, settling_node, write_config

PRICE = 3 * 10**15
WEEK = 7 * 86_400
PASSPHRASE = "a passphrase of the test"


@dataclass
class Balances:
    """What each side has, in wei: in its wallet, gas that it paid added back, and as credit in the contract."""

    spender: int
    earner: int
    operator: int
    contract: int
    spender_credit: int
    earner_credit: int

    def since(self, before: Balances) -> dict[str, int]:
        """What changed; what did not is left out."""
        return {name: value - getattr(before, name) for name, value in vars(self).items() if value != getattr(before, name)}


async def _balances(agreement: AnvilAgreement) -> Balances:
    async def wallet(account: LocalAccount) -> int:
        held = int(await agreement.chain.call_method("eth_getBalance", account.address, "latest"), 16)
        return held + await _gas_paid(agreement, account)

    contract = int(await agreement.chain.call_method("eth_getBalance", agreement.address, "latest"), 16)
    credit = [await agreement.credit_of(account.address) for account in (SPENDER, EARNER)]
    return Balances(await wallet(SPENDER), await wallet(EARNER), await wallet(OPERATOR), contract, *credit)


async def _gas_paid(agreement: AnvilAgreement, account: LocalAccount) -> int:
    """Wei that the chain took of an account for gas, from every receipt."""
    chain, paid = agreement.chain, 0
    for number in range(await chain.head_number() + 1):
        block = await chain.call_method("eth_getBlockByNumber", hex(number), True)
        for transaction in block["transactions"]:
            if transaction["from"].lower() == account.address.lower():
                receipt = await chain.call_method("eth_getTransactionReceipt", transaction["hash"])
                paid += int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    return paid


class Earner:
    """The Earner's machine: the node's parts with the operator's key, and a configuration for commands."""

    def __init__(self, node: SettlingNode, folder: Path) -> None:
        self.node = node
        self.config, self.keystore, self.passphrase = write_config(node, folder), folder / "earner.json", folder / "passphrase"
        self.passphrase.touch(mode=0o600)
        self.passphrase.write_text(PASSPHRASE + "\n")
        keys.import_key(self.keystore, bytes(EARNER.key), PASSPHRASE)

    async def withdraw(self) -> str:
        """Type `pandacea withdraw` with the Earner's key; return what it prints."""
        words = ("withdraw", "--config", self.config, "--keystore", self.keystore, "--passphrase-file", self.passphrase)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "pandacea",
            *map(str, words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, wrong = await process.communicate()
        assert process.returncode == 0, wrong.decode()
        await self.node.node.wait_for_head()
        return said.decode()

    async def settle_deep(self) -> None:
        """Settle, and mine until it is final and folded into the rows."""
        await self.node.settle()
        await self.node.finish()
        await self.node.chain.mine_blocks(8)
        await self.node.finish()

    async def close(self) -> None:
        """Run the loop that executes and finalizes."""
        node, owner = self.node, Address(EARNER.address.lower())
        await close_leases(ClosePorts(node.database, node.sender, node.leases, Posting.PRICED, owner, node.sender.address))
        await node.let_mine()
        await node.node.wait_for_head()

    async def status(self, lease: str) -> str:
        """How the followed chain shows a lease."""
        return str((await self.node.node.read_rows())[lease].lease.status.value)


@pytest.mark.timeout(600)  # three commands, each a process that opens a keystore
async def test_from_the_spenders_wallet_to_the_earners(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Only creation and withdrawal move ether, only finalization gives credit; the operator pays gas and touches nothing."""
    async with settling_node(agreement, tmp_path) as node:
        earner = Earner(node, tmp_path)
        start = before = await _balances(agreement)

        async def changes() -> dict[str, int]:
            nonlocal before
            now = await _balances(agreement)
            changed, before = now.since(before), now
            return changed

        lease = LeaseId(await agreement.create(price=PRICE, most=1))
        assert await changes() == {"spender": -PRICE, "contract": PRICE}
        await node.node.wait_for_head()
        await node.sender.call_lease("approveLease", lease)
        await node.let_mine()
        await node.node.wait_for_head()
        assert (await earner.status(lease), await changes()) == ("approved", {})
        await node.release(lease, "the run")
        await earner.settle_deep()
        assert (await node.committed(lease, "the run"), await changes()) == (True, {})
        await earner.close()
        assert (await earner.status(lease), await changes()) == ("executed", {})
        await earner.settle_deep()
        said = await earner.withdraw()
        assert "cannot be finalized yet" in said
        assert (await earner.status(lease), await changes()) == ("executed", {})
        await node.chain.call_method("evm_increaseTime", WEEK + 60)
        await node.chain.mine_blocks(1)
        said = await earner.withdraw()
        assert f"{lease} is finalized" in said
        assert "0.003 ether withdrawn" in said
        assert (await earner.status(lease), await changes()) == ("finalized", {"earner": PRICE, "contract": -PRICE})
        assert (await earner.withdraw(), await changes()) == ("The contract holds nothing for the Earner yet.\n", {})
        assert before.since(start) == {"spender": -PRICE, "earner": PRICE}


async def test_what_the_spender_finalized_is_withdrawn(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Finalized by its Spender at once: credit of the Earner until `pandacea withdraw` takes it; of nobody else."""
    async with settling_node(agreement, tmp_path) as node:
        earner = Earner(node, tmp_path)
        lease = await agreement.create(price=PRICE, most=1)
        await agreement.approve(lease)
        await agreement.commit(lease, "0x" + "22" * 32)
        await agreement.execute(lease)
        before = await _balances(agreement)
        await agreement.chain.send_transaction(SPENDER, agreement.address, encode_call("finalizeLease(bytes32)", lease))
        credited = await _balances(agreement)
        assert credited.since(before) == {"earner_credit": PRICE}
        await node.node.wait_for_head()
        assert "0.003 ether withdrawn" in await earner.withdraw()
        taken = await _balances(agreement)
        assert taken.since(credited) == {"earner": PRICE, "earner_credit": -PRICE, "contract": -PRICE}
