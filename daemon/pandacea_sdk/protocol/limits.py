"""Sizes that both sides must agree on. Standard library only: the node's domain imports this."""

from __future__ import annotations

from typing import Final

MIB: Final = 1024 * 1024
"""Bytes."""
MAX_CODE_BYTES: Final = 102_400
"""The largest script: 100 KB of UTF-8."""
MAX_INPUTS: Final = 64
"""Assets that one request may name."""
MAX_UPLOADS: Final = 16
"""Uploads that one request may name."""
MAX_VARIABLE_CHARACTERS: Final = 64
"""Of the name under which a script sees an asset."""
