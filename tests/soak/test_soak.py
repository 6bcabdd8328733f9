"""A short soak in every run; `make soak` is the long one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chain.anvil import ANVIL
from tests.chain.conftest import NO_ANVIL
from tests.journeys.conftest import ENVIRONMENT
from tests.prerequisites import skip_or_fail
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
