"""`pandacea doctor`: check keys, data, chain, server and sandbox of this machine, beside a running node or without one."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Final

from pandacea.api.server import check_binding, check_free
from pandacea.app import factories
from pandacea.app.commands.tables import open_tables
from pandacea.catalogue.product_checks import check_product
from pandacea.catalogue.products_file import PRODUCTS_FILE, read_products
from pandacea.chain.contract_versions import detect_contract_version
from pandacea.chain.finality import REBUILD_REMEDY, FinalityViolatedError, check_finality
from pandacea.chain.profiles import describe_missing_tags
from pandacea.chain.sending.obstacles import find_obstacles
from pandacea.chain.source import find_tags
from pandacea.clock import SystemClock
from pandacea.config import Config
from pandacea.domain.finding import Finding, FindingState
from pandacea.domain.ids import Address
from pandacea.errors import BadConfig, Broken, DaemonError
from pandacea.flows.settlement.report import report_settlement
from pandacea.sandbox.diagnose import diagnose_sandbox as examine_sandbox
from pandacea.store.unit_of_work import SqlDatabase
from pandacea_sdk.protocol.redaction import redact_url

_DOCTOR: Final = "doctor"
_TABLES: Final = "doctor-tables"
"""State folders of the sandboxes that the checks make."""

Check = Callable[[], Awaitable[str]]


async def run_checks(config: Config) -> list[Finding]:
    """Run every check, one after another, and return what each found."""
    earner, privacy, chain = config.earner, config.privacy, config.blockchain
    products = privacy.data_dir / PRODUCTS_FILE
    checks: list[tuple[str, str, Check, str]] = [
        (
            "keys",
            "keystore",
            lambda: _keystore(config),
            f"make one: `pandacea keys create {earner.keystore} --passphrase-file FILE`",
        ),
        (
            "data",
            "data folder",
            lambda: _data_folder(config),
            f"correct privacy.data_dir, or run `mkdir -m 700 {privacy.data_dir}`",
        ),
        (
            "data",
            "products and data",
            lambda: _products(config),
            f"correct {products}, or offer a table: `pandacea products add FILE`",
        ),
        (
            "chain",
            "chain endpoints",
            lambda: _chain(config),
            f"start the endpoint or correct blockchain.rpc_url; it is asked with: `curl {redact_url(chain.rpc_url[0].url)}`",
        ),
        (
            "server",
            "server address",
            lambda: _address(config),
            f"see who has the port: `ss -ltnp 'sport = :{config.server.port}'`, and correct the section server of the configuration",
        ),
    ]
    *before, address = [await _finding(*check) for check in checks]
    return [*before, await _settlement_finding(config), address, *await _sandbox(config)]


async def _finding(group: str, name: str, check: Check, remedy: str) -> Finding:
    try:
        return Finding(group, name, FindingState.OK, await check())
    except Broken as problem:
        return Finding(group, name, FindingState.FAIL, problem.problem, problem.remedy or remedy)
    except DaemonError as problem:
        return Finding(group, name, FindingState.FAIL, problem.detail, remedy)


async def _settlement_finding(config: Config) -> Finding:
    """The node runs without being paid, so nothing here keeps it from starting."""
    found = await _finding("chain", "settlement", lambda: _settlement(config), "see `How you are paid` in docs/operating.md")
    return found if found.ok else replace(found, state=FindingState.WEAKER)


async def _sandbox(config: Config) -> list[Finding]:
    """Run the sandbox's self-test in sandboxes of its own, beside a running node."""
    try:
        return await examine_sandbox(config.privacy.sandbox, *factories.sandbox_settings(config, purpose=_DOCTOR, pool=0))
    finally:
        shutil.rmtree(config.store.state_dir / _DOCTOR, ignore_errors=True)  # a leftover here does no harm


async def _data_folder(config: Config) -> str:
    factories.require_data_folder(config)
    return f"{config.privacy.data_dir}"


async def _address(config: Config) -> str:
    """Return that the server's address is free, or served by the node of this very configuration."""
    listener = factories.listener_of(config.server, config.store.upload_mb)
    check_binding(listener)
    try:
        await check_free(listener)
    except BadConfig:
        if not await factories.node_is_running(config.store.state_dir):
            raise
        return f"{listener.host}:{listener.port}, served by the node that runs here"
    return f"{listener.host}:{listener.port} is free"


async def _keystore(config: Config) -> str:
    return f"opens; its address is {factories.unlock_signer(config).address}"


async def _products(config: Config) -> str:
    if not config.privacy.data_dir.is_dir():
        return "not looked for: the data folder is not there"
    products = read_products(config.privacy.data_dir)
    if not products:
        return f"none stated in {config.privacy.data_dir}: nothing will be served"
    named = ", ".join(f"{product.product_id} ({len(product.files)} assets)" for product in products)
    async with AsyncExitStack() as stack:
        try:
            stack.callback(shutil.rmtree, config.store.state_dir / _TABLES, ignore_errors=True)
            tables = await open_tables(config, stack, purpose=_TABLES)
        except DaemonError as problem:  # the sandbox has checks of its own
            return f"{named}; their files were not read, for want of a sandbox: {problem.detail}"
        checked = [await check_product(product, config.privacy.data_dir, tables) for product in products]
    if troubles := [f"{one.product_id} will not be offered: {one.detail}" for one in checked if one is not None]:
        raise BadConfig(" ".join(troubles))
    return f"{named}; every file was read"


async def _settlement(config: Config) -> str:
    """Return that delivered results are committed and paid, or raise what keeps them from it."""
    contract, earner = factories.resolve_contract(config), Address(config.earner.address)
    sender = factories.unlock_signer(config).address
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(factories.open_database(config))
        follower = await stack.enter_async_context(factories.open_follower(config, contract, db, Address(sender)))
        endpoint = await follower.endpoints.pick_endpoint()
        version = await detect_contract_version(endpoint, contract.address, earner)
        posting = factories.posting_of(config)
        found = await find_obstacles(endpoint, contract.address, version, earner, Address(sender), posting)
        report = await report_settlement(SqlDatabase(db), SystemClock())
    if found or report.describe():
        raise Broken(" ".join([*found, report.describe() or ""]).strip(), remedy="")
    return f"{sender} may commit and can pay for it; {report.waiting} results wait for their commitment to be final"


async def _chain(config: Config) -> str:
    contract = factories.resolve_contract(config)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(factories.open_database(config))
        follower = await stack.enter_async_context(factories.open_follower(config, contract, db, Address(config.earner.address)))
        await follower.endpoints.verify_all()
        endpoint = await follower.endpoints.pick_endpoint()
        if await follower.load_from_database() and (view := follower.lease_cache.chain_view) is not None:
            try:
                await check_finality(endpoint, view)
            except FinalityViolatedError as violation:
                raise Broken(violation.contradiction, remedy=REBUILD_REMEDY) from violation
        safe, finalized = await find_tags(endpoint)
        confidence = factories.confidence_of(config)
        if missing := describe_missing_tags(confidence, contract.chain_id, has_safe=safe, has_finalized=finalized):
            problem, remedy = missing.split(". ", 1)
            raise Broken(f"at {endpoint.name} {problem}", remedy=remedy[0].lower() + remedy[1:])
        header = await endpoint.get_header("latest")
        return f"chain {follower.endpoints.chain_id}, contract {contract.address}, head {int(header.number, 16)}"
