"""Each test has a chain of its own: making one takes 30 ms."""

from __future__ import annotations

import pytest

from tests.contracts.agreement import Agreement


@pytest.fixture
def agreement() -> Agreement:
    """A fresh LeaseAgreement and its parties."""
    return Agreement()
