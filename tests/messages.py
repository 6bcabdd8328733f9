"""The published schema of messages, for tests that read some."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Final

import jsonschema_rs

SCHEMA: Final = json.loads(files("pandacea_sdk.protocol").joinpath("messages.schema.json").read_text(encoding="utf-8"))
_VALIDATOR: Final = jsonschema_rs.validator_for(SCHEMA)


def check_message(payload: object) -> None:
    """Raise `jsonschema_rs.ValidationError` unless a message has one of the published forms."""
    _VALIDATOR.validate(payload)
