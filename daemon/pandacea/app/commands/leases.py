"""`pandacea leases`: list the approved leases from the database, beside a running node or without one; acknowledge one of them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from typing import Final

from pandacea.api.lease_members import lease_members, refusal_reason, usage_members
from pandacea.app import factories
from pandacea.app.commands.prompts import Prompt, Write, prompt_yes_no
from pandacea.app.control.accounts import name_operator
from pandacea.app.control.client import call_node, call_running_node
from pandacea.app.render import render_answer
from pandacea.catalogue.products_file import DeclaredProduct, read_products
from pandacea.config import Config
from pandacea.domain.access import CachedLease, ProductFacts, may_run
from pandacea.domain.ids import Address, LeaseId, LeaseKey
from pandacea.errors import DaemonError, Unavailable
from pandacea.flows.settlement.approve_leases import approved_lease, rule_of
from pandacea.flows.settlement.commit_results import COMMIT_GRACE_SECONDS, waiting_by_lease
from pandacea.flows.settlement.report import make_report
from pandacea.flows.settlement.requested_leases import list_requested
from pandacea.flows.unit_of_work import OutboxEntry
from pandacea.store.products import SqlProductStore
from pandacea.store.sent_transactions import SqlSentTransactionStore
from pandacea.store.unit_of_work import SqlDatabase
from pandacea_sdk.protocol.json_types import JsonObject

RUNNING_NODE: Final = "the running node"


async def list_leases(config: Config) -> list[JsonObject]:
    """List every approved lease of this Earner: status, terms, usage, why its approval counts, why it would be refused now.

    What only a running node's memory holds (a lease that another endpoint, or a v0 contract without an event, shows as disputed) is
    asked from it, so that this says what it says.

    Raises:
        Unavailable: the contract has not been followed here yet, on the configured chain.
    """
    earner = Address(config.earner.address)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(factories.open_database(config))
        contract = factories.resolve_contract(config)
        follower = await stack.enter_async_context(factories.open_follower(config, contract, engine, earner))
        if not await follower.load_from_database():
            raise Unavailable(factories.NOT_FOLLOWED)
        running = await call_running_node(config, "leases contested", {})
        if running is not None:
            follower.lease_cache.set_contested(RUNNING_NODE, map(LeaseId, running["contested"]))
        # As the database has it: whether its head is current is for the running node to say (GET /readyz).
        status = replace(follower.lease_cache.chain_status(), not_ready_reason=None)
        offered = await SqlProductStore(engine).list_offered_hashes()
        rows = []
        sent = await SqlSentTransactionStore(engine).list_mined(contract.chain_id)
        rules = {approved_lease(row): rule_of(row) for row in sent}
        waiting = await waiting_by_lease(SqlDatabase(engine))
        async with SqlDatabase(engine).read_session() as session:
            for lease_id in follower.lease_cache.list_ids():
                lease = follower.lease_cache.find_lease(lease_id)
                if lease is None:
                    continue
                usage = usage_members(
                    lease, await session.jobs.count_by_charge(LeaseKey(contract.chain_id, contract.address, lease_id))
                )
                decision = may_run(
                    lease,
                    status,
                    caller=lease.spender,
                    earner=earner,
                    product=_product_facts(lease, offered),
                    assets=(),
                    product_version=None,
                    used=usage["used"],
                    reserved=usage["reserved"],
                    time_limit=config.privacy.limits.time_seconds,
                    clock=time.time(),
                )
                rows.append(
                    {
                        **lease_members(lease),
                        "spender": lease.spender,
                        **usage,
                        "reason": refusal_reason(decision),
                        "approved_by_rule": rules.get(lease_id),
                        **_settlement_members(lease, waiting.get(lease_id, [])),
                    }
                )
    return rows


async def list_requested_leases(config: Config) -> list[JsonObject]:
    """List the leases that wait for the Earner: Spender, product, price and asking price, expiry, until when to decide.

    Raises:
        Unavailable: the contract has not been followed here yet, on the configured chain.
    """
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(factories.open_database(config))
        store = await factories.open_chain_store(config, engine)
        view = await store.find_view()
        assert view is not None  # open_chain_store looked
        products, rows = SqlProductStore(engine), []
        asking = {str(one.product_id): str(one.price) for one in _declared(config)}
        for one in await list_requested(store, view, time.time()):
            product = None if one.data_product_id is None else await products.find_offered_id(one.data_product_id)
            asked = None if product is None else asking.get(product)
            rows.append({**asdict(one), "price_wei": str(one.price_wei), "product_id": product, "asking_wei": asked})
    return rows


def _declared(config: Config) -> Sequence[DeclaredProduct]:
    try:
        return read_products(config.privacy.data_dir)
    except DaemonError:
        return []  # a file that cannot be read has a row of doctor; the leases are shown all the same


async def send_for_lease(config: Config, verb: str, lease_id: str) -> JsonObject:
    """Let the running node approve, refuse or cancel a lease; its id may be shortened.

    Raises:
        Refused: it cannot be done as asked; the reason, the contract's where it gave one.
    """
    return await call_node(config, f"leases {verb}", {"id": lease_id})


def _settlement_members(lease: CachedLease, waiting: Sequence[OutboxEntry]) -> JsonObject:
    """Return how many results are committed, how many are delivered and not, since when and why, and when the price may be taken back."""
    report = make_report(waiting, time.time())
    refundable = report.waiting and not lease.committed_count and lease.expires_at is not None
    return {
        "committed": lease.committed_count,
        "uncommitted": report.waiting,
        "uncommitted_seconds": round(report.oldest_seconds),
        "uncommitted_reason": report.reason,
        "refundable_from": lease.expires_at + COMMIT_GRACE_SECONDS if refundable and lease.expires_at is not None else None,
    }


def _product_facts(lease: CachedLease, offered: set[str]) -> ProductFacts | None:
    if lease.data_product_id is None or lease.data_product_id not in offered:
        return None
    return ProductFacts(lease.data_product_id, frozenset(), "")


_CONFIRM_ACKNOWLEDGE: Final = "Did you approve this lease, with these terms?"


async def acknowledge_lease(config: Config, lease_id: str, *, yes: bool, write: Write, prompt: Prompt) -> JsonObject | None:
    """Show the terms of an approved lease, ask whether the operator approved them, and acknowledge it. None: the answer was no.

    A running node does it; when none runs, this process does.

    Raises:
        Refused: the lease is not known, not approved, proved already, or has changed since it was shown.
        Unavailable: the contract has not been followed here yet, or the database does not answer.
    """
    shown = await call_node(config, "leases show", {"id": lease_id})
    write(render_answer("leases show", shown))
    if not yes and not prompt_yes_no(prompt, write, _CONFIRM_ACKNOWLEDGE, default=False):
        write("Nothing was written.")
        return None
    return await call_node(
        config, "leases acknowledge", {"id": lease_id, "terms": shown["terms"], "by": name_operator(os.getuid())}
    )
