"""`pandacea audit`: read the audit log from the database, beside a running node or without one, and check it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.app import factories
from pandacea.config import Config
from pandacea.errors import BadConfig
from pandacea.flows.unit_of_work import AuditRows, Database
from pandacea.store.unit_of_work import SqlDatabase
from pandacea_sdk.protocol.audit import AuditCheck, AuditFault, AuditRow, SignedHead, read_signed_head
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.problems import ProtocolError

PAGE_ROWS: Final = 1000
"""Rows that are read at a time."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What a check found; `fault` None: the log holds."""

    rows: int
    signed: int
    """Signed results that it was held against."""
    head: str
    fault: AuditFault | None


async def print_rows(config: Config, write: Callable[[JsonObject], None]) -> int:
    """Hand every row's entry, with its hash, to `write`; returns exit status 0."""
    async with _open_database(config) as database, database.read_session() as session:
        async for row in iterate_rows(session.audit):
            write({**row.members(), "hash": row.hash})
    return 0


async def verify_log(config: Config, receipts: Path | None) -> AuditReport:
    """Check the configured database's log against the results that the node keeps and, if given, a file or folder of receipts.

    Raises:
        BadConfig: a receipt cannot be read, or is of another contract.
    """
    given = [] if receipts is None else read_receipts(receipts, factories.resolve_contract(config))
    async with _open_database(config) as database:
        return await check_log(database, given)


async def check_log(database: Database, given: list[SignedHead]) -> AuditReport:
    """Check a log against the results that are kept beside it, and against `given`; all of it as it is at one moment."""
    check = AuditCheck()
    async with database.read_session() as session:
        async for row in iterate_rows(session.audit):
            if (fault := check.add_row(row)) is not None:
                return AuditReport(check.last.seq, 0, check.last.hash, fault)
        kept: list[SignedHead] = []
        for computation_id, receipt, manifest in await session.audit.list_signed():
            try:
                kept.append(_read_kept(computation_id, receipt, manifest))
            except ProtocolError as problem:
                fault = AuditFault(check.last.seq + 1, f"the result kept of {computation_id} is damaged: {problem.detail}")
                return AuditReport(check.last.seq, 0, check.last.hash, fault)
    signed = [*kept, *given]
    return AuditReport(check.last.seq, len(signed), check.last.hash, check.compare_signed(signed))


async def iterate_rows(audit: AuditRows) -> AsyncIterator[AuditRow]:
    """Yield every row in order."""
    after = 0
    while rows := await audit.list_rows(after, PAGE_ROWS):
        for row in rows:
            yield row
        after = rows[-1].seq


def read_receipts(path: Path, contract: factories.ContractConfig) -> list[SignedHead]:
    """Read receipts of this contract from a JSON file, or from each `*.json` of a folder: bare, or in an answer beside its manifest.

    Raises:
        BadConfig: one cannot be read, is not signed by the signer it names, or is of another contract.
    """
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    found = []
    for file in files:
        try:
            answer = json.loads(file.read_text())
            receipt = answer.get("receipt", answer)
            head, signed, _ = read_signed_head(str(file), receipt, answer.get("manifest"))
        except (OSError, ValueError, AttributeError, ProtocolError) as problem:
            raise BadConfig(f"{file} is no receipt that can be used: {problem}") from problem
        if (signed.chain_id, signed.contract) != (contract.chain_id, contract.address):
            raise BadConfig(f"{file} is of contract {signed.contract} on chain {signed.chain_id}, not of this node's.")
        found.append(head)
    if not found:
        raise BadConfig(f"{path} holds no *.json file.")
    return found


def _read_kept(computation_id: str, receipt: object, manifest: str | None) -> SignedHead:
    head, _, _ = read_signed_head(
        f"the result kept of {computation_id}", receipt, None if manifest is None else json.loads(manifest)
    )
    return head


@asynccontextmanager
async def _open_database(config: Config) -> AsyncIterator[SqlDatabase]:
    async with factories.open_database(config) as engine:
        yield SqlDatabase(engine)
