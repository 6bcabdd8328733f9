"""The policy of automatic approvals against a small model: a list of conditions, each of which must hold."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pandacea.domain.auto_approval import (
    APPROVE_GAS,
    CLOSE_GAS,
    COMMIT_GAS,
    ApprovalPolicy,
    ApprovalQuestion,
    ApprovalRule,
    decide_approval,
)
from pandacea.domain.ids import Address

SPENDERS = [Address("0x" + f"{number:02x}" * 20) for number in range(3)]
NOW = 1_800_000_000
NEAR = st.integers(-2, 2)
"""Around each limit, where a comparison may be off by one."""


def gas_of(computations: int) -> int:
    """As a person would add it up: one approval, the results one by one, the end."""
    return 140_000 + 60_000 * computations


@st.composite
def cases(draw: st.DrawFn) -> tuple[ApprovalQuestion, ApprovalPolicy]:
    computations, fee, factor = draw(st.integers(1, 5)), draw(st.integers(0, 10**10)), draw(st.integers(1, 9))
    least = factor * gas_of(computations) * fee
    asking = draw(st.none() | st.sampled_from((0, least, max(0, least + draw(NEAR)))))
    policy = ApprovalPolicy(
        factor,
        draw(st.integers(0, 9)),
        draw(st.integers(0, 3)),
        draw(st.integers(0, 3)),
        draw(st.frozensets(st.sampled_from(SPENDERS))),
    )
    question = ApprovalQuestion(
        draw(st.sampled_from(SPENDERS)),
        asking,
        max(0, least + draw(NEAR)),
        computations,
        draw(st.none() | st.integers(NOW - 1, NOW + 10)),
        NOW,
        fee,
        draw(st.integers(0, 4)),
        draw(st.integers(0, 4)),
    )
    return question, policy


@given(cases())
def test_a_lease_is_approved_when_each_condition_holds(case: tuple[ApprovalQuestion, ApprovalPolicy]) -> None:
    """No order, no exceptions: all of them; else the reason says which does not hold."""
    asked, policy = case
    conditions = {
        "no product": asked.asking_price is not None,
        "product's is": asked.asking_price is None or asked.price >= asked.asking_price,
        "gas of its life": 0 < asked.price >= policy.min_price_per_gas * gas_of(asked.max_computations) * asked.fee_per_gas,
        "min_remaining": asked.expires_at is not None and asked.expires_at >= NOW + policy.min_remaining_seconds,
        "approval.spenders": not policy.spenders or asked.spender in policy.spenders,
        "per_spender_per_day": asked.approved_of_spender < policy.per_spender_per_day,
        "per_day": asked.approved < policy.per_day,
    }
    decision = decide_approval(asked, policy)
    if all(conditions.values()):
        assert decision.rule is (ApprovalRule.LISTED if policy.spenders else ApprovalRule.ANYONE)
    else:
        assert decision.rule is None
        assert any(words in decision.reason for words, holds in conditions.items() if not holds), decision.reason


def test_the_gas_of_a_life_is_what_the_page_says_at_least() -> None:
    """The constants are above the measured calls."""
    page = (Path(__file__).parents[2] / "docs" / "gas.md").read_text()
    measured = {name: int(gas.replace(",", "")) for name, gas in re.findall(r"^\| ([^|]+?) \| ([0-9,]+) \|", page, re.MULTILINE)}
    assert measured["approveLease by the operator"] <= APPROVE_GAS
    assert measured["commitResult by the operator"] <= COMMIT_GAS
    assert measured["executeLease"] + measured["finalizeLease, first credit"] <= CLOSE_GAS
