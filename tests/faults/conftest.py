"""The anvil of the chain's tests, and the length of the crash test."""

from __future__ import annotations

import os

from tests.chain.conftest import agreement, anvil, deep

STATEMENTS = int(200 * float(os.environ.get("PANDACEA_TEST_SCALE", "1")))
"""Statements that the crash test kills at, one after the other."""

__all__ = ["STATEMENTS", "agreement", "anvil", "deep"]
