"""The same open sandboxes as in tests/sandbox."""

from __future__ import annotations

from tests.sandbox.conftest import environment, image, laboratory, people

__all__ = ["environment", "image", "laboratory", "people"]
