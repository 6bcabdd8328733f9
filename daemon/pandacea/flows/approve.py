"""Scripts for products that run approved code only: handed in by anyone, decided by the Earner, asked for at submit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pandacea.domain.code import CodeState, Handed, Submission
from pandacea.domain.ids import Address
from pandacea.domain.printable import printable
from pandacea.domain.schema import BadSchema, check_schema
from pandacea.flows.books import Books
from pandacea.flows.ports import Catalogue, Clock, CodeChecker, LeaseBook
from pandacea.flows.submit import Forbidden

EACH: Final = 8
"""Scripts one address may have waiting."""
STRANGERS: Final = 100
"""Scripts of people without a lease that may wait, all together: addresses cost nothing."""
TOTAL: Final = 400
KEEP_UNDECIDED: Final = 30 * 86_400.0
"""Seconds after which a script nobody decided on is forgotten, and a rejected one with its reason."""
KEEP_STRANGERS: Final = 7 * 86_400.0
"""The same of undecided scripts of people without a lease."""
NOTE_CHARACTERS: Final = 1000
REASON_CHARACTERS: Final = 500


@dataclass(frozen=True, slots=True)
class ApprovePorts:
    """What a submission works with."""

    books: Books
    book: LeaseBook
    catalogue: Catalogue
    checker: CodeChecker
    clock: Clock


async def hand_in(handed: Handed, submitter: Address, ports: ApprovePorts) -> Submission:
    """Keep a script for the Earner to look at; the same script handed in again is the same submission.

    Raises:
        Forbidden: `product-unknown`, `asset-outside-product`, `bad-params-schema`, `too-many-submissions`.
        Refused: what the static check says.
    """
    product = ports.catalogue.by_id(handed.product_id)
    if product is None:
        raise Forbidden("product-unknown", "This node offers no product with this id; GET /api/v1/products lists them.")
    outside = sorted(set(handed.inputs.values()) - set(product.assets))
    if outside:
        raise Forbidden("asset-outside-product", f"Not in this product: {', '.join(outside)}. Name assets of the product.")
    try:
        check_schema(handed.params_schema)
    except BadSchema as fault:
        raise Forbidden("bad-params-schema", f"params_schema{fault.pointer}: {fault}") from fault
    await ports.checker.check(handed.code)
    known = ports.book.knows_spender(submitter)
    columns = product.columns_of(handed.inputs.values())
    code_id = handed.code_id(columns)
    async with ports.books.write() as work:
        earlier = await work.code.get(code_id)
        if earlier is not None:
            return earlier
        mine = await work.code.pending(submitter=submitter)
        strangers = 0 if known else await work.code.pending(known=False)
        if mine >= EACH or strangers >= STRANGERS or await work.code.pending() >= TOTAL:
            raise Forbidden(
                "too-many-submissions", "Too many scripts wait for the Earner already; try again when some are decided."
            )
        submission = Submission(
            code_id=code_id,
            product_id=handed.product_id,
            code=handed.code,
            code_sha256=handed.code_sha256,
            inputs=dict(handed.inputs),
            uploads=sorted(handed.uploads),
            params_schema=handed.params_schema,
            note=printable(handed.note, limit=NOTE_CHARACTERS, newlines=True),
            submitter=submitter,
            known=known,
            created_at=ports.clock.now(),
            columns=columns,
        )
        await work.code.add(submission)
        await work.commit()
    return submission


async def state_of(code_id: str, books: Books) -> Submission:
    """How a submission stands.

    Raises:
        Forbidden: `code-unknown`.
    """
    async with books.read() as view:
        found = await view.code.get(code_id)
    if found is None:
        raise Forbidden("code-unknown", "No script with this id was handed in here, or nobody decided on it in time.")
    return found


async def decide(code_id: str, state: CodeState, reason: str, books: Books, clock: Clock) -> Submission:
    """Write the Earner's word. A later word replaces it, for what is submitted from then on.

    Raises:
        Forbidden: `code-unknown`.
    """
    found = await state_of(code_id, books)
    words = printable(reason.strip(), limit=REASON_CHARACTERS)
    async with books.write() as work:
        await work.code.decide(code_id, state, words, clock.now())
        await work.commit()
    return replace(found, state=state, reason=words)


async def submissions(books: Books, state: CodeState | None = None) -> Sequence[Submission]:
    """What was handed in, oldest first."""
    async with books.read() as view:
        return await view.code.all(state)
