"""Both sides mean the same largest script."""

from __future__ import annotations

from pandacea.domain import limits
from pandacea_sdk.protocol import execute_request


def test_the_largest_script_is_one_number() -> None:
    """The domain may import nothing and the SDK nothing of the node: so the two constants are held together here."""
    assert limits.MAX_CODE_BYTES == execute_request.MAX_CODE_BYTES == 102_400
