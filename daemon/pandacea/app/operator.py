"""What the operator asks of a node that is not running: is everything here, and which leases does it believe?"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

from pandacea.app import parts
from pandacea.app.reading import open_tables
from pandacea.catalogue.checking import check_product
from pandacea.catalogue.products_file import read as read_products
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.errors import BadConfig, PandaceaError
from pandacea.sandbox.examine import examine as examine_sandbox

_DOCTOR: Final = "doctor"
_TABLES: Final = "doctor-tables"
"""Folders of the boxes that these commands make."""

Check = Callable[[], Awaitable[str]]


async def examine(config: Config) -> list[dict[str, Any]]:
    """Check keys, data, chain and sandbox one by one: `{"check", "ok", "detail"}` a row."""
    rows = []
    checks: dict[str, Check] = {
        "keystore": lambda: _keystore(config),
        "products and data": lambda: _products(config),
        "chain endpoints": lambda: _chain(config),
    }
    for name, check in checks.items():
        try:
            rows.append({"check": name, "ok": True, "detail": await check()})
        except PandaceaError as problem:
            rows.append({"check": name, "ok": False, "detail": problem.detail})
    return rows + await _sandbox(config)


async def _sandbox(config: Config) -> list[dict[str, Any]]:
    """Try every promise of the sandbox in real boxes of their own, beside a running node."""
    try:
        return await examine_sandbox(config.privacy.sandbox, *parts.sandbox_settings(config, purpose=_DOCTOR, pool=0))
    finally:
        shutil.rmtree(config.store.state_dir / _DOCTOR, ignore_errors=True)  # a leftover here disturbs nobody


async def _keystore(config: Config) -> str:
    return f"opens; its address is {parts.signer(config).address}"


async def _products(config: Config) -> str:
    products = read_products(config.privacy.data_dir)
    if not products:
        return f"none stated in {config.privacy.data_dir}: nothing will be served"
    named = ", ".join(f"{product.product_id} ({len(product.files)} assets)" for product in products)
    async with AsyncExitStack() as stack:
        try:
            stack.callback(shutil.rmtree, config.store.state_dir / _TABLES, ignore_errors=True)
            tables = await open_tables(config, stack, purpose=_TABLES)
        except PandaceaError as problem:  # the sandbox has rows of its own
            return f"{named}; their files were not read, for want of a sandbox: {problem.detail}"
        checked = [await check_product(product, config.privacy.data_dir, tables) for product in products]
    if troubles := [f"{one.product_id} will not be offered: {one.detail}" for one in checked if one is not None]:
        raise BadConfig(" ".join(troubles))
    return f"{named}; every file was read"


async def _chain(config: Config) -> str:
    contract = parts.contract_of(config)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(parts.database(config))
        follower = await stack.enter_async_context(parts.follower(config, contract, db, Address(config.earner.address)))
        await follower.endpoints.verify_all()
        endpoint = await follower.endpoints.pick()
        header = await endpoint.header("latest")
        return f"chain {follower.endpoints.chain_id}, contract {contract.address}, head {int(header.number, 16)}"
