"""A real anvil, or a reason why not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tests.chain.anvil import ANVIL, Agreement, Anvil

STATEMENTS = int(200 * float(os.environ.get("PANDACEA_TEST_SCALE", "1")))
"""How many statements the crash test kills at, one after the other."""


def need(there: bool, reason: str) -> None:
    """Skip where a real part is missing; under CI that is a failure."""
    if there:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI=true allows no skip")
    pytest.skip(reason)


@pytest.fixture
async def anvil() -> AsyncIterator[Anvil]:
    """A chain with instant mining; `safe` is the head - 1, `finalized` the head - 2."""
    need(ANVIL.exists(), "anvil is not installed: npm ci in tests/npm")
    async with Anvil() as chain:
        yield chain


@pytest.fixture
async def deep() -> AsyncIterator[Anvil]:
    """The same with finality far away: `safe` is the head - 40, `finalized` the head - 80."""
    need(ANVIL.exists(), "anvil is not installed: npm ci in tests/npm")
    async with Anvil("--slots-in-an-epoch", "40") as chain:
        yield chain


@pytest.fixture
async def agreement(anvil: Anvil) -> Agreement:
    """A v1 LeaseAgreement on it."""
    return await anvil.deploy()
