"""Compares a node after faults with a rebuild from zero and with the contract itself."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp

from pandacea.domain.approval_proof import COUNTED_PROOFS
from pandacea.domain.ids import Address
from pandacea.domain.lease import FINAL_STATUSES, LeaseStatus
from pandacea.domain.lease_record import LeaseRecord
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.database_engine import DatabaseEngine
from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.signing import sign_request
from tests.chain.anvil import EARNER, KEYS, AnvilAgreement
from tests.chain.node import read_lease_rows, rebuilt_node
from tests.soak.process import NodeProcess
from tests.soak.traffic import ContractLease, get_contract_lease, list_created_leases

SIGNERS: Final = {one.address: one for one in (KeySigner(KEYS[2]), KeySigner(KEYS[3]))}


async def find_differences(node: NodeProcess, agreement: AnvilAgreement, folder: Path) -> list[str]:
    """Find what disagrees, one sentence each.

    Compared for every lease there is: the node's rows with those of a follower that reads the chain from zero, rows with `getLease`,
    what the running node answers its Spenders with the rows, and `pandacea leases` beside it with the same.
    """
    async with rebuilt_node(agreement, folder) as fresh:
        theirs = await fresh.read_rows()
    mine = await read_node_rows(node.database_url, agreement)
    found = [f"rows: {text}" for text in _unequal(mine, theirs)]
    chain = [
        lease
        for lease_id in await list_created_leases(agreement)
        if (lease := await get_contract_lease(agreement, lease_id)) is not None
    ]
    ours = {lease.lease_id: lease for lease in chain if lease.earner == EARNER.address.lower()}
    found += [f"getLease: {text}" for text in _unlike_the_contract(mine, ours)]
    said = await ask_node(node, [held for held in mine.values() if held.lease.approved_block is not None])
    found += [f"answer: {text}" for text in _wrong_answers(mine, said)]
    listed = {row["lease_id"]: row for row in json.loads(await node.command("leases", "--json"))}
    found += [f"pandacea leases: {text}" for text in _wrong_answers(mine, listed)]
    count = (await node.metrics()).get("leases")
    if count != len(said):
        found.append(f"metrics: {count} leases in memory, {len(said)} approved ones in the rows")
    return found


async def read_node_rows(database_url: str, agreement: AnvilAgreement) -> dict[str, LeaseRecord]:
    """Read every lease of a node's database beside the running node."""
    database = await DatabaseEngine.open(database_url)
    try:
        records = SqlChainStore(database, agreement.chain.chain_id, Address(agreement.address))
        assert await records.find_view() is not None, "the node never followed this contract"
        return await read_lease_rows(records)
    finally:
        await database.close()


async def ask_node(node: NodeProcess, leases: Iterable[LeaseRecord]) -> dict[str, dict[str, Any]]:
    """Ask the node for each lease as its Spender (GET /leases/{id}): what the cache answers."""
    said: dict[str, dict[str, Any]] = {}
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for held in leases:
            key = held.lease.key
            path, authority = f"/api/v1/leases/{key.lease_id}", f"127.0.0.1:{node.port}"
            headers = sign_request(
                SIGNERS[held.lease.spender],
                method="GET",
                authority=authority,
                target=path,
                body=None,
                chain_id=key.chain_id,
                created=int(time.time()),
                nonce=secrets.token_urlsafe(16),
            )
            async with session.get(f"http://{authority}{path}", headers=headers) as answer:
                said[key.lease_id] = await answer.json() if answer.status == 200 else {"status": await answer.text()}
    return said


def _unequal(mine: Mapping[str, LeaseRecord], theirs: Mapping[str, LeaseRecord]) -> Iterable[str]:
    for lease_id in sorted(mine.keys() | theirs.keys()):
        if mine.get(lease_id) != theirs.get(lease_id):
            yield f"{lease_id}: the node has {mine.get(lease_id)}, a rebuild from zero {theirs.get(lease_id)}"


def _unlike_the_contract(mine: Mapping[str, LeaseRecord], chain: Mapping[str, ContractLease]) -> Iterable[str]:
    for lease_id in sorted(mine.keys() | chain.keys()):
        held, said = mine.get(lease_id), chain.get(lease_id)
        have = None if held is None else _of_row(held)
        want = None if said is None else (said.spender, said.status, said.committed, said.most, said.expires_at)
        if have != want:
            yield f"{lease_id}: the node has {have}, the contract {want}"


def _of_row(held: LeaseRecord) -> tuple[Any, ...]:
    lease = held.lease
    return lease.spender, lease.status, lease.committed_count, lease.max_computations, lease.expires_at


def _wrong_answers(mine: Mapping[str, LeaseRecord], said: Mapping[str, dict[str, Any]]) -> Iterable[str]:
    for lease_id, held in mine.items():
        lease = held.lease
        if lease.approved_block is None:
            if (waits := said.get(lease_id)) and (waits["status"], lease.status) != ("created", LeaseStatus.CREATED):
                yield f"{lease_id}: nobody approved it, it is {lease.status.value}, and `pandacea leases` says {waits}"
            continue
        want = {
            "status": lease.status.value,
            "data_product_id": lease.data_product_id,
            "expires_at": lease.expires_at,
            "max_computations": lease.max_computations,
            "used": lease.committed_count,
            "approved_block": lease.approved_block,
        }
        answer = said.get(lease_id, {})
        have = {name: answer.get(name) for name in want}
        if have != want:
            yield f"{lease_id}: {have or answer}, and the rows say {want}"
        # Nobody proves what can never be used again.
        elif lease.status not in FINAL_STATUSES and answer["approval"] not in {trust.value for trust in COUNTED_PROOFS}:
            yield f"{lease_id}: its approval is {answer['approval']}"


async def wait_until_caught_up(node: NodeProcess, agreement: AnvilAgreement, seconds: float = 60.0) -> None:
    """Wait until the node has processed the chain's newest block, settled what it can, and proved every approval that counts."""
    end = time.monotonic() + seconds
    while True:
        said = await node.metrics()
        head = await agreement.chain.head_number()
        if said and said["ready"] and said["chain_processed_block"] >= head - 1 and not said["leases_unproven"]:
            return
        assert time.monotonic() < end, f"not caught up with block {head} after {seconds:.0f} s: {said}\n{node.log()}"
        await asyncio.sleep(0.2)
