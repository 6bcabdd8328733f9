"""A real anvil, or a reason why not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.chain.anvil import ANVIL, Anvil, AnvilAgreement
from tests.prerequisites import skip_or_fail

NO_ANVIL = "anvil is not installed; run: npm install in tests/npm"


@pytest.fixture
async def anvil() -> AsyncIterator[Anvil]:
    """A chain with instant mining; `safe` is the head - 1, `finalized` the head - 2."""
    if not ANVIL.exists():
        skip_or_fail(NO_ANVIL)
    async with Anvil() as chain:
        yield chain


@pytest.fixture
async def deep() -> AsyncIterator[Anvil]:
    """The same with finality far away: `safe` is the head - 40, `finalized` the head - 80."""
    if not ANVIL.exists():
        skip_or_fail(NO_ANVIL)
    async with Anvil("--slots-in-an-epoch", "40") as chain:
        yield chain


@pytest.fixture
async def agreement(anvil: Anvil) -> AnvilAgreement:
    """A v1 LeaseAgreement on it."""
    return await anvil.deploy_agreement()
