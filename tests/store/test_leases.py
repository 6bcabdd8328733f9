"""Settled leases in the database: what nobody approved goes after its time, and nothing else."""

from __future__ import annotations

from typing import Any

from sqlmodel import SQLModel

from pandacea.domain.ids import Address, LeaseId
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.deployments import DeploymentScope
from pandacea.store.leases import LeaseTable

LARGE = 2**63 - 1
SCOPE = DeploymentScope(31337, Address("0x" + "c" * 40), id=1)


def row(number: int, *, approved: int | None, seen_at: int) -> dict[str, Any]:
    return {
        "deployment": 1,
        "lease_id": f"0x{number:064x}",
        "spender": "0x" + "1" * 40,
        "earner": "0x" + "2" * 40,
        "price": str(2**256 - 1),
        "created_block": LARGE,
        "status": "created" if approved is None else "approved",
        "data_product_id": None,
        "expires_at": LARGE,
        "max_computations": 2**32 - 1,
        "committed": b"\x00" * 64,
        "approved_block": approved,
        "resolved_for_spender": None if approved is None else False,
        "seen_at": seen_at,
    }


async def test_what_nobody_approved_is_pruned(database: DatabaseEngine) -> None:
    """By the time it was seen; approved leases stay for good."""
    table = SQLModel.metadata.tables["lease"]
    async with database.write_transaction() as tx:
        await tx.connection.execute(table.insert(), [row(1, approved=None, seen_at=10)])
        await tx.connection.execute(table.insert(), [row(2, approved=None, seen_at=20), row(3, approved=5, seen_at=10)])
        assert await LeaseTable(tx.connection, SCOPE).prune_waiting(20) == 1
        await tx.commit()
    ids = [LeaseId(f"0x{number:064x}") for number in range(1000)]
    async with database.read_connection() as connection:
        leases = LeaseTable(connection, SCOPE)
        assert await leases.find_existing(ids) == {ids[2], ids[3]}
        (found,) = await leases.load_approved_page(None, 10)
    assert found.lease_id == ids[3]
    assert found.committed_count == 2, "of 64 bytes of commitments"
