"""What a computation costs its lease."""

from __future__ import annotations

import pytest

from pandacea.domain.charge import FAILED_RUNS_FREE, Charge, charge_at_end, count_used
from pandacea.domain.outcome import Failure


def test_nothing_is_charged_when_no_user_code_ran() -> None:
    """Engine, data or queue: ours, not the Spender's."""
    for failure in Failure:
        assert charge_at_end(failure, code_started=False, released=False, failed_runs=0) is Charge.RETURNED


def test_the_allowance_pays_for_a_scripts_own_exceptions_first() -> None:
    """Five typing mistakes are free; the sixth is a computation."""
    charges = [
        charge_at_end(Failure.SCRIPT_ERROR, code_started=True, released=False, failed_runs=n) for n in range(FAILED_RUNS_FREE + 1)
    ]
    assert charges == [Charge.ALLOWANCE] * FAILED_RUNS_FREE + [Charge.CHARGED]


@pytest.mark.parametrize("failure", [None, Failure.TIME_LIMIT, Failure.MEMORY_LIMIT, Failure.GUEST_DIED, Failure.CANCELLED])
def test_everything_else_that_ran_is_charged(failure: Failure | None) -> None:
    """The supervisor's death is the script's: otherwise a script that kills it would run for ever for nothing."""
    assert charge_at_end(failure, code_started=True, released=False, failed_runs=0) is Charge.CHARGED


def test_a_run_the_node_ended_costs_nothing_unless_it_showed_something() -> None:
    """Seen independently of the guest; what left of it cannot be taken back, and is paid for."""
    assert charge_at_end(Failure.INTERRUPTED, code_started=True, released=False, failed_runs=0) is Charge.RETURNED
    assert charge_at_end(Failure.INTERRUPTED, code_started=True, released=True, failed_runs=0) is Charge.CHARGED


def test_a_wiped_database_grants_nothing() -> None:
    """The chain's commitments count when the database has forgotten them."""
    assert count_used({}, committed_on_chain=3) == 3
    assert count_used({Charge.CHARGED: 2, Charge.ALLOWANCE: 4, Charge.RETURNED: 7}, committed_on_chain=1) == 2
