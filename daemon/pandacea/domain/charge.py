"""What a computation costs its lease: reserved when accepted, charged when user code starts, given back only if none ran."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from pandacea.domain.outcome import Failure

FAILED_RUNS_FREE: Final = 5
"""Runs of a lease that may end in the script's own exception before such a run costs a computation."""


FREE_OUTPUT_BYTES: Final = 300
"""Bytes of output that a run returns for which the allowance pays: enough to mend a script, too little to carry a table away."""


class Charge(StrEnum):
    """How a job counts against its lease's `max_computations`."""

    RESERVED = "reserved"
    CHARGED = "charged"
    ALLOWANCE = "allowance"  # a failed run, paid from the allowance
    RETURNED = "returned"
    FREE = "free"  # a rehearsal on mock rows


class LeaseUse(NamedTuple):
    """How many computations of a lease are used, and how many accepted and not yet charged."""

    used: int
    reserved: int


def count_use(counts: Mapping[Charge, int], committed_on_chain: int) -> LeaseUse:
    """Return the use of a lease whose jobs have these charges."""
    return LeaseUse(count_used(counts, committed_on_chain), counts.get(Charge.RESERVED, 0))


def count_used(counts: Mapping[Charge, int], committed_on_chain: int) -> int:
    """Return the computations used: the larger of what this database and what the chain says, so a wiped database grants nothing."""
    return max(counts.get(Charge.CHARGED, 0), committed_on_chain)


NODE_FAILURES: Final = frozenset({Failure.INTERRUPTED, Failure.SANDBOX_FAILED})
"""Failures in which node, engine or host ended the run, seen independently of the guest."""


def charge_at_end(failure: Failure | None, *, code_started: bool, released: bool, failed_runs: int) -> Charge:
    """Return the charge of a run that ended.

    Args:
        failure: why it failed, or None.
        code_started: the guest acknowledged the first byte of the script.
        released: something of the run left before its end (live output or progress).
        failed_runs: runs of this lease already paid from the allowance.
    """
    if not code_started or (failure in NODE_FAILURES and not released):
        return Charge.RETURNED
    if failure is Failure.SCRIPT_ERROR and failed_runs < FAILED_RUNS_FREE:
        return Charge.ALLOWANCE
    return Charge.CHARGED
