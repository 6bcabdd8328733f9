"""Whether a requested lease is approved without anybody looking at it: each rule of the operator must hold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pandacea.domain.ids import Address

APPROVE_GAS: Final = 40_000
COMMIT_GAS: Final = 60_000
CLOSE_GAS: Final = 100_000
"""Of executing and finalizing. All three are above the figures of docs/gas.md."""


class ApprovalRule(StrEnum):
    """By which rule a lease was approved."""

    LISTED = "auto-listed"  # its Spender is named in approval.spenders
    ANYONE = "auto-anyone"  # approval.spenders names nobody


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """What the operator allows; limits count every approval that this node sent within 24 hours, those by hand too."""

    min_price_per_gas: float
    min_remaining_seconds: float
    per_spender_per_day: int
    per_day: int
    spenders: frozenset[Address]
    """Empty: anybody."""


@dataclass(frozen=True, slots=True)
class ApprovalQuestion:
    """A requested lease, and what is known when it is decided; amounts in wei, times in Unix seconds."""

    spender: Address
    asking_price: int | None
    """None: the lease is of no product on offer."""
    price: int
    max_computations: int
    expires_at: int | None
    now: float
    fee_per_gas: int
    approved_of_spender: int
    approved: int


@dataclass(frozen=True, slots=True)
class ApprovalDecision:
    """The rule by which a lease is approved, or why it waits for the operator."""

    rule: ApprovalRule | None
    reason: str


def life_gas(max_computations: int) -> int:
    """Return the gas of a lease's whole life: approved, each result committed on its own, executed, finalized."""
    return APPROVE_GAS + COMMIT_GAS * max_computations + CLOSE_GAS


def decide_approval(question: ApprovalQuestion, policy: ApprovalPolicy) -> ApprovalDecision:
    """Decide whether a lease is approved by itself; the first rule that does not hold is the reason why not."""
    gas = life_gas(question.max_computations) * question.fee_per_gas
    remaining = None if question.expires_at is None else question.expires_at - question.now
    if question.asking_price is None:
        reason = "it is of no product on offer"
    elif question.price < question.asking_price:
        reason = f"its price is {question.price} wei, and the product's is {question.asking_price}"
    elif question.price < policy.min_price_per_gas * gas or question.price == 0:
        reason = f"its price is {question.price} wei, less than {policy.min_price_per_gas:g} times the gas of its life ({gas} wei)"
    elif remaining is None or remaining < policy.min_remaining_seconds:
        reason = f"it runs for less than approval.min_remaining_seconds={policy.min_remaining_seconds:g} from now, or has no expiry"
    elif policy.spenders and question.spender not in policy.spenders:
        reason = "its Spender is not in approval.spenders"
    elif question.approved_of_spender >= policy.per_spender_per_day:
        reason = f"{question.approved_of_spender} leases of this Spender were approved within a day (approval.per_spender_per_day)"
    elif question.approved >= policy.per_day:
        reason = f"{question.approved} leases were approved within a day (approval.per_day)"
    else:
        rule = ApprovalRule.LISTED if policy.spenders else ApprovalRule.ANYONE
        return ApprovalDecision(rule, f"every rule of approval.auto holds; {gas} wei of gas at most at today's fee")
    return ApprovalDecision(None, reason)
