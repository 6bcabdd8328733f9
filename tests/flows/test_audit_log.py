"""The audit log: written with what it records, and any tampering is named by its first row."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pandacea.app.commands.audit import check_log, read_receipts
from pandacea.app.factories import ContractConfig
from pandacea.domain.code_approval import CodeState, CodeSubmission
from pandacea.domain.ids import Hash32, ProductId
from pandacea.domain.job import Job
from pandacea.domain.outcome import Outcome
from pandacea.domain.product import Policy, Release, Rules
from pandacea.errors import BadConfig
from pandacea.flows.approve_code import decide_code, submit_code
from pandacea.flows.execute import run_next_job
from pandacea.flows.live_output import record_shown
from pandacea.flows.ports import SandboxEvent, SandboxJob
from pandacea.flows.release import refuse_result, release_result
from pandacea.flows.submit import submit_job
from pandacea.store.database_engine import DatabaseEngine
from pandacea_sdk.protocol.audit import EMPTY_HEAD, AuditRow, SignedHead, chain_entry, find_audit_fault, read_signed_head
from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.manifest import hash_manifest
from pandacea_sdk.protocol.receipt import Receipt
from tests.fakes import CHAIN_ID, CONTRACT, LEASE_ID, SPENDER, cached_lease, product
from tests.flows.conftest import World, caller, computation_request


async def run(world: World, number: int) -> Job:
    """Run computation `number` to its end."""
    world.lease_cache.leases[LEASE_ID] = cached_lease(max_computations=99)
    submitted = await submit_job(computation_request(), caller(number), world.submit)
    assert await run_next_job(world.execute)
    async with world.submit.database.read_session() as session:
        job = await session.jobs.find_job(submitted.job.computation_id)
    assert job is not None
    return job


async def rows_of(world: World) -> list[AuditRow]:
    async with world.submit.database.read_session() as session:
        return await session.audit.list_rows()


async def events(world: World) -> list[tuple[str, str]]:
    return [(row.members()["event"], row.members()["by"]) for row in await rows_of(world)]


async def replace_rows(database: DatabaseEngine, rows: list[AuditRow]) -> None:
    """Write another log in the place of this one, as somebody can who owns the machine."""
    async with database.write_transaction() as tx:
        await remove_guard(tx.connection.exec_driver_sql, database.dialect)
        await tx.connection.execute(text("DELETE FROM audit"))
        for row in rows:
            values = {"seq": row.seq, "entry": row.entry, "previous": row.previous, "hash": row.hash}
            await tx.connection.execute(
                text("INSERT INTO audit (seq, entry, previous, hash) VALUES (:seq, :entry, :previous, :hash)"), values
            )
        await tx.commit()


async def remove_guard(execute: Callable[[str], Awaitable[object]], dialect: str) -> None:
    """Drop the triggers, as only the owner of the database can."""
    if dialect == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            await execute(f"DROP TRIGGER IF EXISTS audit_keeps_{verb}")
    else:
        await execute("DROP TRIGGER IF EXISTS audit_keeps_rows ON audit")


def chain_anew(rows: list[AuditRow]) -> list[AuditRow]:
    """Number and chain entries as an honest node would have."""
    made: list[AuditRow] = []
    for row in rows:
        members = {name: value for name, value in row.members().items() if name not in {"format", "seq"}}
        made.append(chain_entry(len(made) + 1, made[-1].hash if made else EMPTY_HEAD, members))
    return made


def answer_of(job: Job) -> JsonObject:
    """What the Spender keeps of a result."""
    assert job.manifest is not None
    return {"receipt": job.receipt, "manifest": json.loads(job.manifest)}


async def test_a_run_is_written_with_its_signed_result(world: World) -> None:
    """Who ran what on which data, how it ended, what left; the manifest names the head before the row that names its hash."""
    job = await run(world, 1)
    started, ended = await rows_of(world)
    assert await events(world) == [("run-started", SPENDER), ("run-ended", "node")]
    assert started.members()["inputs"] == job.inputs
    assert started.members()["request_hash"] == job.request_hash
    members = ended.members()
    assert (members["state"], members["left"], members["result_hash"]) == ("completed", "result", job.result_hash)
    assert job.manifest is not None
    assert json.loads(job.manifest)["audit_head"] == started.hash == ended.previous
    report = await check_log(world.submit.database, [])
    assert (report.fault, report.rows, report.signed, report.head) == (None, 2, 1, ended.hash)


async def test_decisions_name_who_took_them_and_how(world: World, tmp_path: Path) -> None:
    """Held results released and refused, scripts approved, output that left before the end."""
    world.catalogue.product = product(tmp_path / "a.csv", rules=Rules(policy=Policy.ANY_CODE, release=Release.HOLD))
    released, refused = await run(world, 1), await run(world, 2)
    assert [row.members()["left"] for row in await rows_of(world) if row.members()["event"] == "run-ended"] == ["nothing"] * 2
    before = len(await rows_of(world))
    await release_result(released.computation_id, world.release, by="operator ann")
    await refuse_result(refused.computation_id, "rows of one person", world.release, by="operator bob")
    script = await submit_code(CodeSubmission(ProductId("p"), "print(1)", {}, [], {"type": "object"}, ""), SPENDER, world.approve)
    await decide_code(script.code_id, CodeState.APPROVED, "", world.submit.database, world.clock, by="operator ann")
    assert (await events(world))[before:] == [
        ("result-released", "operator ann"),
        ("result-refused", "operator bob"),
        ("code-approved", "operator ann"),
    ]
    assert (await check_log(world.submit.database, [])).fault is None


async def test_what_leaves_before_the_end_is_written_once(world: World) -> None:
    """The first byte of live output, not each of them."""
    await submit_job(computation_request(), caller(1), world.submit)
    run_job = world.sandbox.run_job

    async def shown(job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        for _ in range(3):
            assert await record_shown(job.computation_id, world.submit.database, world.clock)
        return await run_job(job, on_event)

    world.sandbox.run_job = shown  # type: ignore[method-assign]
    assert await run_next_job(world.execute)
    assert [event for event, _ in await events(world)] == ["run-started", "output-shown", "run-ended"]


async def test_a_transaction_that_fails_leaves_no_row(world: World) -> None:
    """A row is there exactly if what it records is."""
    await run(world, 1)
    async with world.submit.database.unit_of_work() as work:
        await work.audit.append_entry("run-ended", 0.0, "node", {})
    assert len(await rows_of(world)) == 2


@pytest.mark.parametrize("statement", ["UPDATE audit SET entry = '{}' WHERE seq = 1", "DELETE FROM audit WHERE seq = 2"])
async def test_the_database_refuses_to_change_a_row(world: World, database: DatabaseEngine, statement: str) -> None:
    """Triggers: what goes wrong by mistake goes wrong aloud."""
    await run(world, 1)
    async with database.write_transaction() as tx:
        with pytest.raises(DBAPIError, match="only ever added to"):
            await tx.connection.execute(text(statement))
    assert (await check_log(world.submit.database, [])).fault is None


def _change(rows: list[AuditRow]) -> list[AuditRow]:
    return [*rows[:2], replace(rows[2], entry=rows[2].entry.replace("run-started", "run-stopped")), *rows[3:]]


def _cut(rows: list[AuditRow]) -> list[AuditRow]:
    return [*rows[:2], *rows[3:]]


def _reorder(rows: list[AuditRow]) -> list[AuditRow]:
    return [*rows[:2], replace(rows[4], seq=3), replace(rows[3], seq=4), replace(rows[2], seq=5), *rows[5:]]


def _truncate(rows: list[AuditRow]) -> list[AuditRow]:
    return rows[:2]


def _cut_and_chain(rows: list[AuditRow]) -> list[AuditRow]:
    return chain_anew(_cut(rows))


def _change_and_chain(rows: list[AuditRow]) -> list[AuditRow]:
    changed = rows[2].entry.replace(SPENDER, "0x" + "77" * 20)
    return chain_anew([*rows[:2], replace(rows[2], entry=changed), *rows[3:]])


@pytest.mark.parametrize(
    ("tamper", "row", "reason"),
    [
        (_change, 3, "not what was written"),
        (_cut, 3, "it is missing: row 4 stands where row 3 belongs"),
        (_reorder, 3, "does not follow row 2"),
        (_truncate, 3, "no row records it"),
        (_cut_and_chain, 3, "chained anew"),
        (_change_and_chain, 4, "chained anew"),
    ],
)
async def test_tampering_is_named_by_its_first_row(
    world: World, database: DatabaseEngine, tamper: Callable[[list[AuditRow]], list[AuditRow]], row: int, reason: str
) -> None:
    """Changed, cut out, reordered and truncated; chained anew, where the receipts that the node keeps convict it."""
    for number in (1, 2, 3):
        await run(world, number)
    rows = await rows_of(world)
    assert len(rows) == 6
    await replace_rows(database, tamper(rows))
    fault = (await check_log(world.submit.database, [])).fault
    assert fault is not None
    assert fault.seq == row
    assert reason in fault.reason


async def test_a_store_put_back_from_earlier_is_noticed_through_later_receipts(
    world: World, database: DatabaseEngine, tmp_path: Path
) -> None:
    """Log and results are those of earlier, and agree: what a Spender holds since does not."""
    await run(world, 1)
    earlier = await rows_of(world)
    later = await run(world, 2)
    folder = tmp_path / "receipts"
    folder.mkdir()
    (folder / "later.json").write_text(json.dumps(answer_of(later)))
    (folder / "bare.json").write_text(json.dumps(later.receipt))
    given = read_receipts(folder, ContractConfig(CONTRACT, CHAIN_ID, Hash32("0x" + "00" * 32), None))
    assert (await check_log(world.submit.database, given)).fault is None

    await replace_rows(database, earlier)
    async with database.write_transaction() as tx:
        await tx.connection.execute(text("DELETE FROM job WHERE computation_id = :one"), {"one": later.computation_id})
        await tx.commit()
    assert (await check_log(world.submit.database, [])).fault is None
    fault = (await check_log(world.submit.database, given)).fault
    assert fault is not None
    assert fault.seq == 3
    assert "the log is one from before it" in fault.reason


async def test_receipts_that_cannot_be_used_are_named(world: World, tmp_path: Path) -> None:
    """A damaged one, one beside another's manifest, one of another contract: never taken, never passed over."""
    contract = ContractConfig(CONTRACT, CHAIN_ID, Hash32("0x" + "00" * 32), None)
    answer, other = answer_of(await run(world, 1)), answer_of(await run(world, 2))
    file = tmp_path / "one.json"
    for broken in ({**answer["receipt"], "result_hash": "0x" + "00" * 32}, {**answer, "manifest": other["manifest"]}, [1]):
        file.write_text(json.dumps(broken))
        with pytest.raises(BadConfig, match=r"one\.json is no receipt"):
            read_receipts(file, contract)
    file.write_text(json.dumps(answer))
    with pytest.raises(BadConfig, match="not of this node's"):
        read_receipts(file, replace(contract, chain_id=1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadConfig, match="holds no"):
        read_receipts(tmp_path / "empty", contract)


def test_a_log_without_rows_holds_and_contradicts_any_receipt() -> None:
    """A log that was cut down to nothing is no exception."""
    assert find_audit_fault([]) is None
    fault = find_audit_fault([], [SignedHead("one", "0x1", "0x2", "3" * 64)])
    assert fault is not None
    assert fault.seq == 1


def test_a_result_signed_before_the_node_kept_a_log_contradicts_nothing() -> None:
    """A node that is upgraded has receipts whose manifests name no head; a receipt alone, of which that is not known, still counts."""
    signer = KeySigner("01" * 32)
    manifest = {"audit_head": None}
    lease, computation, request, version = ("0x" + digit * 64 for digit in "1234")
    receipt = Receipt(1, "0x" + "c" * 40, lease, computation, request, version, hash_manifest(manifest)).sign(signer)
    old, _, _ = read_signed_head("old", receipt, manifest)
    alone, _, _ = read_signed_head("alone", receipt, None)
    assert find_audit_fault([], [old]) is None
    assert find_audit_fault([], [old, alone]) is not None
