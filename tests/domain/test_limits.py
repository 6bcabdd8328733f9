"""Both sides mean the same largest script."""

from __future__ import annotations

from pandacea.domain import limits
from pandacea_sdk.protocol import limits as protocol_limits


def test_the_largest_script_is_one_number() -> None:
    """The domain takes it from the protocol, which both sides share."""
    assert limits.MAX_CODE_BYTES == protocol_limits.MAX_CODE_BYTES == 102_400
