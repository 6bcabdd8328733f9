"""Names for what JSON is in Python, for the borders where it is read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JsonObject = dict[str, Any]
"""A JSON object: its members by name, each of any JSON type."""
JsonMapping = Mapping[str, Any]
"""A JSON object that is only read."""
