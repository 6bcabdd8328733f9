"""Ownership moves in two steps, and no lease depends on the owner."""

from __future__ import annotations

from tests.contracts.agreement import DAY, ETHER, Agreement, Refusal


def test_when_the_owner_offers_it_it_stays_until_the_other_accepts(agreement: Agreement) -> None:
    """A typing error in an address loses nothing."""
    agreement.send("transferOwnership", agreement.other, by=agreement.owner)
    assert agreement.view("owner") == agreement.owner
    refusal = agreement.refused("acceptOwnership", by=agreement.stranger)
    assert refusal == Refusal("OwnableUnauthorizedAccount", {"account": agreement.stranger})
    agreement.send("acceptOwnership", by=agreement.other)
    assert agreement.view("owner") == agreement.other


def test_when_the_owner_is_gone_while_paused_it_still_lets_every_lease_end(agreement: Agreement) -> None:
    """Paid, cancelled, disputed: all the money comes out of a contract that nobody owns any more."""
    created, approved, executed, disputed = (agreement.in_status(s) for s in ("created", "approved", "executed", "disputed"))
    agreement.send("pause", by=agreement.owner)
    agreement.send("renounceOwnership", by=agreement.owner)
    agreement.send("cancelLease", created, by=agreement.spender)
    agreement.send("finalizeLease", executed, by=agreement.spender)
    agreement.at(agreement.now + 60 * DAY)
    agreement.send("cancelLease", approved, by=agreement.spender)
    agreement.send("splitDispute", disputed, by=agreement.stranger)
    agreement.send("withdraw", by=agreement.spender)
    agreement.send("withdraw", by=agreement.earner)
    assert agreement.balance() == 0
    refusal = agreement.refused("createLease(address,bytes32,uint256)", agreement.earner, b"\1" * 32, ETHER, by=agreement.spender)
    assert refusal == Refusal("EnforcedPause", {})
