"""A short soak in every run; `make soak` is the long one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chain.anvil import ANVIL
from tests.chain.conftest import NO_ANVIL
from tests.journeys.conftest import ENVIRONMENT
from tests.prerequisites import skip_or_fail
from tests.soak.lies import soak_with_lies
from tests.soak.soak import soak

SECONDS = max(20.0, 40.0 * float(os.environ.get("PANDACEA_TEST_SCALE", "1")))
SEED = int(os.environ.get("PANDACEA_TEST_SEED", "20261124"))


@pytest.mark.timeout(SECONDS + 240)
async def test_a_node_in_trouble_ends_up_where_the_chain_is(tmp_path: Path) -> None:
    """The node's leases equal a rebuild's and the contract's; it is ready soon after the last fault; it does not grow."""
    if not ANVIL.exists():
        skip_or_fail(NO_ANVIL)
    if not (ENVIRONMENT / "bin" / "python").exists():
        skip_or_fail(f"no sandbox environment in {ENVIRONMENT}; run: make setup")
    report = await soak(SEED, SECONDS, tmp_path / "node", ENVIRONMENT, print)
    assert not report.differences, f"seed {SEED}: {report.differences[:5]}"
    assert report.kills, f"seed {SEED}: {report}"
    assert report.reorgs, f"seed {SEED}: {report}"
    assert report.leases > SECONDS / 8, f"seed {SEED}: {report}"


@pytest.mark.parametrize("liars", [1, 2])
@pytest.mark.timeout(SECONDS + 240)
async def test_leases_are_right_once_an_endpoint_is_honest(tmp_path: Path, liars: int) -> None:
    """Logs left out at any reading by one endpoint or both: nothing denied is usable meanwhile, and at the end no lease is wrong."""
    if not ANVIL.exists():
        skip_or_fail(NO_ANVIL)
    report = await soak_with_lies(SEED, 15.0, liars, tmp_path, print)
    assert report.logs_left_out, f"seed {SEED}: {report}"
    assert not report.unsafe, f"seed {SEED}: {report}"
    assert not report.differences, f"seed {SEED}: {report}"
