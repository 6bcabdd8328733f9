"""Messages to the outside, for tests: the published schema, and events put into the outbox."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Final

import jsonschema_rs

from pandacea.flows.messages import Event
from pandacea.flows.ports import Clock
from pandacea.store.unit_of_work import SqlDatabase

SCHEMA: Final = json.loads(files("pandacea_sdk.protocol").joinpath("messages.schema.json").read_text(encoding="utf-8"))
_VALIDATOR: Final = jsonschema_rs.validator_for(SCHEMA)


def check_message(payload: object) -> None:
    """Raise `jsonschema_rs.ValidationError` unless a message has one of the published forms."""
    _VALIDATOR.validate(payload)


def computation_message(number: int, state: str = "completed") -> Event:
    """Build the event of one state of a computation."""
    identity = f"0x{number:064x}"
    data = {"computation_id": identity, "lease_id": "0x" + "1" * 64, "state": state}
    return Event(f"{identity}:{state}:1", "computations", identity, state, data)


async def put_events(database: SqlDatabase, clock: Clock, *events: Event) -> None:
    """Put events into the outbox in one transaction."""
    async with database.unit_of_work() as work:
        for one in events:
            await work.outbox.put_event(one, clock.now())
        await work.commit()
