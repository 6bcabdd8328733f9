"""A broken supervisor never says that the script began: the run costs nothing, and its output and artifacts leave all the same.

The supervisor is not believed either: what it says of a run is bounded by what the run costs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from pandacea.domain.charge import Charge, charge_at_end
from pandacea.domain.outcome import Failure
from pandacea.sandbox.guest import packets
from tests.sandbox.test_guest_messages import CONVERSATION, ENDED, packet, play

OTHER_ENDS = [ENDED, ENDED | {"exit": 0, "error": None}, ENDED | {"exit": None}]


@pytest.mark.parametrize("ended", OTHER_ENDS)
def test_what_is_not_charged_leaves_nothing(ended: dict[str, object], tmp_path: Path) -> None:
    """As it could be played: a whole conversation without its first message, with each kind of end."""
    sent = [packet(tag, ended if tag == packets.ENDED else body) for tag, body in CONVERSATION[1:]]
    outcome = play(sent, tmp_path / "results")
    assert outcome is not None
    assert charge_at_end(outcome.failure, code_started=outcome.code_started, released=False, failed_runs=0) is Charge.RETURNED
    assert (outcome.output, outcome.artifacts, outcome.script_error) == (b"", (), None)
    assert outcome.failure is not None
    assert list((tmp_path / "results").iterdir()) == []


def test_a_box_that_ends_before_its_script_is_made_again(tmp_path: Path) -> None:
    """A silent end that looks like success is none: the node makes another box."""
    outcome = play([packet(packets.ENDED, ENDED | {"exit": 0, "error": None}), packet(packets.DONE, b"")], tmp_path / "results")
    assert outcome is not None
    assert outcome.failure is Failure.GUEST_DIED
