"""What becomes public about a product."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pandacea.domain.product import LiveOutput, Policy, Rehearsal, Release, Rules, rounded_rows


def test_a_product_without_stated_rules_gets_the_strictest() -> None:
    """Secure by default: approved code, held results, nothing live, no messages that quote rows."""
    rules = Rules()
    assert (rules.policy, rules.release, rules.live_output, rules.rehearsal) == (
        Policy.APPROVED_CODE,
        Release.HOLD,
        LiveOutput.NONE,
        Rehearsal.LEASE,
    )
    assert rules.show_messages is False


@given(st.integers(min_value=10, max_value=10**9))
def test_a_published_row_count_has_two_digits(rows: int) -> None:
    """One patient more or less does not show; the size does, to the ten below a hundred and within one part in ten above."""
    shown = rounded_rows(rows)
    assert shown is not None
    assert len(str(shown).rstrip("0")) <= 2
    assert abs(shown - rows) <= max(rows / 10, 9)
