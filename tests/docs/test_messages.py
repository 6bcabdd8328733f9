"""docs/messages.md and the schema say the same as the code."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest

from pandacea.domain.chain_view import ChainEvent
from pandacea.domain.ids import Address, BlockNumber, ComputationId, Hash32, LeaseId, Timestamp, Wei
from pandacea.domain.job import JobState
from pandacea.domain.lease import DisputeRaised, LeaseTerms
from pandacea.domain.outcome import Failure
from pandacea.flows.messages import auto_approval_event, commitment_event, lease_event, request_event
from tests.messages import SCHEMA, check_message
from tests.prerequisites import ROOT

LEASE = LeaseId("0x" + "1" * 64)
WORD = Hash32("0x" + "b" * 64)
CONTRACT, SPENDER = Address("0x" + "c" * 40), Address("0x" + "5" * 40)


def seen(event: Any) -> ChainEvent:
    return ChainEvent(BlockNumber(7), WORD, 3, WORD, event)


def test_the_documents_show_the_schema_of_the_package() -> None:
    """One file: the page links to it, the package carries it."""
    shown, carried = ROOT / "docs/messages.schema.json", ROOT / "daemon/pandacea_sdk/protocol/messages.schema.json"
    assert shown.read_bytes() == carried.read_bytes()


def test_every_event_has_the_published_form() -> None:
    """Events of the chain, a lease that waits, a final commitment."""
    terms = LeaseTerms(LEASE, WORD, Timestamp(2**63), 2**200)
    for event in (
        lease_event(seen(terms), 1, CONTRACT),
        request_event(LEASE, SPENDER, None, 10**30, 1_800_000_000),
        auto_approval_event(LEASE, "auto-anyone"),
        commitment_event(LEASE, ComputationId("0x" + "d" * 64), WORD),
    ):
        check_message(event.to_payload(1_700_000_000.5))
        assert event.topic.startswith(f"{event.subject}/{event.subject_id}/")


def test_words_of_a_party_are_left_out() -> None:
    """The reason of a dispute is free text of any length."""
    raised = DisputeRaised(LEASE, SPENDER, CONTRACT, "words of a stranger", Wei(1))
    event = lease_event(seen(raised), 1, CONTRACT)
    check_message(event.to_payload(1.0))
    assert "stranger" not in str(event)


def test_an_event_has_one_id_and_another_event_another() -> None:
    """The same log in the same block is the same event; in another block, or on another chain, it is another."""
    terms = seen(LeaseTerms(LEASE, WORD, Timestamp(1), 1))
    ids = {
        lease_event(one, chain, CONTRACT).id
        for one, chain in ((terms, 1), (terms, 1), (terms._replace(block_hash=Hash32(LEASE)), 1), (terms, 2))
    }
    assert len(ids) == 3


def test_the_schema_knows_every_state_and_form_of_failure() -> None:
    """A new state of a computation belongs into the schema and into the page."""
    data = SCHEMA["$defs"]["computation"]["properties"]["data"]["properties"]
    assert set(data["state"]["enum"]) == {state.value for state in JobState}
    page = (ROOT / "docs/messages.md").read_text(encoding="utf-8")
    assert [state.value for state in JobState if f"`{state.value}`" not in page] == []
    for failure in Failure:
        jsonschema_rs.validate(data["failure"], failure.value)


@pytest.mark.parametrize("payload", [{}, {"state": "away"}, {"id": "evt_1", "type": "computations.completed", "data": {}}])
def test_anything_else_is_not_a_message(payload: dict[str, Any]) -> None:
    """The schema is closed: what is not described is refused."""
    with pytest.raises(jsonschema_rs.ValidationError):
        check_message(payload)
