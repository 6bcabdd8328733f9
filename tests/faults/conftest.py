"""The same anvil as the chain's tests, and how far the crash test goes."""

from __future__ import annotations

import os

from tests.chain.conftest import agreement, anvil, deep

STATEMENTS = int(200 * float(os.environ.get("PANDACEA_TEST_SCALE", "1")))
"""How many statements the crash test kills at, one after the other."""

__all__ = ["STATEMENTS", "agreement", "anvil", "deep"]
