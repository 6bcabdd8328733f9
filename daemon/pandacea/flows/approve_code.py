"""Scripts for products that run approved code only: submitted by anyone, decided by the Earner, looked up when a job is submitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pandacea.domain.audit_entries import BY_OPERATOR
from pandacea.domain.code_approval import CodeRecord, CodeState, CodeSubmission
from pandacea.domain.ids import Address
from pandacea.domain.params_schema import BadSchema, check_schema
from pandacea.domain.printable import printable
from pandacea.errors import ProblemError
from pandacea.flows.ports import Catalogue, Clock, CodeChecker, LeaseCache
from pandacea.flows.unit_of_work import Database

MAX_WAITING_PER_ADDRESS: Final = 8
"""Scripts that one address may have waiting."""
MAX_WAITING_STRANGERS: Final = 100
"""Scripts of addresses without a lease that may wait, all together: addresses cost nothing."""
MAX_WAITING: Final = 400
"""Scripts that may wait, all together."""
KEEP_UNDECIDED_SECONDS: Final = 30 * 86_400.0
"""Seconds after which an undecided script is deleted, and a rejected one with its reason."""
KEEP_STRANGERS_SECONDS: Final = 7 * 86_400.0
"""Seconds after which an undecided script of an address without a lease is deleted."""
NOTE_CHARACTERS: Final = 1000
"""Characters of a submitter's note that are kept."""
REASON_CHARACTERS: Final = 500
"""Characters of the Earner's reason that are kept."""


@dataclass(frozen=True, slots=True)
class CodeApprovalPorts:
    """What submitting a script works with."""

    database: Database
    leases: LeaseCache
    catalogue: Catalogue
    checker: CodeChecker
    clock: Clock


async def submit_code(submission: CodeSubmission, submitter: Address, ports: CodeApprovalPorts) -> CodeRecord:
    """Store a script for the Earner to look at; the same script submitted again is the same submission.

    Raises:
        ProblemError: `product-unknown`, `asset-outside-product`, `bad-params-schema`, `too-many-submissions`.
        Refused: what the static check found.
    """
    product = ports.catalogue.find_by_id(submission.product_id)
    if product is None:
        raise ProblemError("product-unknown", "This node offers no product with this id; GET /api/v1/products lists them.")
    outside = sorted(set(submission.inputs.values()) - set(product.assets))
    if outside:
        raise ProblemError("asset-outside-product", f"Not in this product: {', '.join(outside)}. Name assets of the product.")
    try:
        check_schema(submission.params_schema)
    except BadSchema as fault:
        raise ProblemError("bad-params-schema", f"params_schema{fault.pointer}: {fault}") from fault
    known = ports.leases.knows_spender(submitter)
    await ports.checker.check_code(submission.code, submitter if known else "")  # people without a lease are one owner
    columns = product.columns_of(submission.inputs.values())
    code_id = submission.code_id(columns)
    async with ports.database.unit_of_work() as work:
        earlier = await work.code.find_submission(code_id)
        if earlier is not None:
            return earlier
        mine = await work.code.count_pending(submitter=submitter)
        strangers = 0 if known else await work.code.count_pending(known=False)
        if mine >= MAX_WAITING_PER_ADDRESS or strangers >= MAX_WAITING_STRANGERS or await work.code.count_pending() >= MAX_WAITING:
            raise ProblemError(
                "too-many-submissions", "Too many scripts wait for the Earner already; try again when some are decided."
            )
        record = CodeRecord(
            code_id=code_id,
            product_id=submission.product_id,
            code=submission.code,
            code_sha256=submission.code_sha256,
            inputs=dict(submission.inputs),
            uploads=sorted(submission.uploads),
            params_schema=submission.params_schema,
            note=printable(submission.note, limit=NOTE_CHARACTERS, newlines=True),
            submitter=submitter,
            known=known,
            created_at=ports.clock.now(),
            columns=columns,
        )
        await work.code.insert_submission(record)
        await work.commit()
    return record


async def find_submission(code_id: str, database: Database) -> CodeRecord:
    """Return a submission with its state.

    Raises:
        ProblemError: `code-unknown`.
    """
    async with database.read_session() as session:
        found = await session.code.find_submission(code_id)
    if found is None:
        raise ProblemError("code-unknown", "No script with this id was handed in here, or nobody decided on it in time.")
    return found


async def decide_code(
    code_id: str, state: CodeState, reason: str, database: Database, clock: Clock, *, by: str = BY_OPERATOR
) -> CodeRecord:
    """Store the Earner's decision, made by `by`. A later one replaces it, for jobs that are submitted from then on.

    Raises:
        ProblemError: `code-unknown`.
    """
    found = await find_submission(code_id, database)
    shown_reason = printable(reason.strip(), limit=REASON_CHARACTERS)
    async with database.unit_of_work() as work:
        await work.code.record_decision(code_id, state, shown_reason, clock.now())
        members = {"code_id": code_id, "product_id": found.product_id, "code_sha256": found.code_sha256, "reason": shown_reason}
        await work.audit.append_entry(f"code-{state.value}", clock.now(), by, members)
        await work.commit()
    return replace(found, state=state, reason=shown_reason)


async def list_submissions(database: Database, state: CodeState | None = None) -> Sequence[CodeRecord]:
    """Return the submissions, oldest first."""
    async with database.read_session() as session:
        return await session.code.list_submissions(state)
