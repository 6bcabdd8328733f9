"""withdraw: the one way ether leaves, and what hostile recipients can do with it."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, ETHER, Agreement, Refusal, word
from tests.contracts.puppet import Mood, Puppet


def puppet_with_credit(agreement: Agreement, mood: Mood, data: bytes = b"") -> Puppet:
    """A contract that created a lease and cancelled it, and will misbehave when paid."""
    puppet = Puppet(agreement)
    puppet.create_and_cancel()
    puppet.behave(mood, data)
    return puppet


def test_given_there_is_no_credit_it_reverts_with_nothing_to_withdraw(agreement: Agreement) -> None:
    """Nobody takes from what is held for others."""
    agreement.create()
    for caller in (agreement.spender, agreement.stranger, agreement.owner):
        assert agreement.refused("withdraw", by=caller) == Refusal("NothingToWithdraw", {"account": caller})


def test_given_there_is_credit_it_pays_it_out_once_and_emits_withdrawn(agreement: Agreement) -> None:
    """All of the caller's credit, from several leases, and nothing of anybody else's."""
    agreement.finalized()
    agreement.finalized()
    agreement.cancelled()
    before = agreement.balance(agreement.earner)
    done = agreement.send("withdraw", by=agreement.earner)
    expected = {"account": agreement.earner, "to": agreement.earner, "amount": 2 * ETHER}
    assert done.events == [ContractEvent("Withdrawn", expected)]
    assert before + 2 * ETHER - agreement.balance(agreement.earner) < ETHER // 100  # the fee of the call itself
    assert agreement.refused("withdraw", by=agreement.earner) == Refusal("NothingToWithdraw", {"account": agreement.earner})
    assert (agreement.balance(), agreement.credit(agreement.spender)) == (ETHER, ETHER)


def test_given_the_contract_is_paused_it_pays(agreement: Agreement) -> None:
    """A pause never stops an exit."""
    agreement.finalized()
    agreement.send("pause", by=agreement.owner)
    assert agreement.send("withdraw", by=agreement.earner).event("Withdrawn")["amount"] == ETHER


def test_when_the_recipient_refuses_it_reverts_with_withdrawal_failed_and_keeps_the_credit(agreement: Agreement) -> None:
    """And withdrawTo gets the money out all the same."""
    puppet = puppet_with_credit(agreement, Mood.REFUSE)
    refusal = puppet.act(agreement.abi.encode_call("withdraw"))
    assert refusal == Refusal("WithdrawalFailed", {"to": puppet.address, "amount": ETHER})
    assert agreement.credit(puppet.address) == ETHER
    done = puppet.act(agreement.abi.encode_call("withdrawTo", agreement.other))
    assert not isinstance(done, Refusal)
    assert (agreement.credit(puppet.address), agreement.balance()) == (0, 0)


@pytest.mark.parametrize("mood", [Mood.BURN, Mood.REFUSE])
def test_when_the_recipient_burns_all_gas_it_fails_for_that_recipient_alone(agreement: Agreement, mood: Mood) -> None:
    """A hostile Spender or Earner cannot keep the other side, or anybody else, from being paid."""
    puppet = Puppet(agreement)
    lease = puppet.create()
    agreement.send("approveLease", lease, by=agreement.earner)
    agreement.send("commitResult", lease, word(1), word(2), by=agreement.earner)
    puppet.act(agreement.abi.encode_call("raiseDispute", lease, ""), value=ETHER // 10)
    puppet.behave(mood)
    agreement.at(agreement.now + 31 * DAY)
    agreement.send("splitDispute", lease, by=agreement.earner)
    assert isinstance(puppet.act(agreement.abi.encode_call("withdraw")), Refusal)
    before = agreement.balance()
    agreement.send("withdraw", by=agreement.earner)
    assert before - agreement.balance() == ETHER // 2
    assert agreement.credit(puppet.address) == ETHER // 2 + ETHER // 10 == agreement.balance()


@pytest.mark.parametrize("again", ["withdraw()", "withdrawTo(address)", "createLease(address,bytes32,uint256)"])
def test_when_the_recipient_enters_again_it_pays_once(agreement: Agreement, again: str) -> None:
    """The credit is gone before the ether leaves, and the lock holds the door."""
    agreement.create()  # somebody else's ether is in the contract
    data = {
        "withdraw()": agreement.abi.encode_call("withdraw"),
        "withdrawTo(address)": agreement.abi.encode_call("withdrawTo", agreement.other),
        "createLease(address,bytes32,uint256)": agreement.abi.encode_call(again, agreement.earner, b"\1" * 32, 0)
        if again.startswith("create")
        else b"",
    }[again]
    puppet = puppet_with_credit(agreement, Mood.REENTER, data)
    before = agreement.balance(agreement.other)
    done = puppet.act(agreement.abi.encode_call("withdraw"))
    assert not isinstance(done, Refusal)
    assert agreement.balance(puppet.address) == ETHER
    assert agreement.balance(agreement.other) == before
    assert agreement.balance() == ETHER
    # A free lease made on the way is harmless; taking money twice is what must not work.
    assert puppet.entered is again.startswith("create")


def test_when_the_recipient_gains_credit_on_the_way_it_keeps_that_credit(agreement: Agreement) -> None:
    """Another lease of the recipient ends while it is paid for the first: that money is paid out next, none is trapped."""
    puppet = Puppet(agreement)
    puppet.create_and_cancel()
    second = puppet.create()
    puppet.behave(Mood.REENTER, agreement.abi.encode_call("cancelLease", second))
    assert not isinstance(puppet.act(agreement.abi.encode_call("withdraw")), Refusal)
    assert puppet.entered
    assert (agreement.balance(puppet.address), agreement.balance()) == (ETHER, ETHER)
    puppet.behave(Mood.ACCEPT)
    assert not isinstance(puppet.act(agreement.abi.encode_call("withdraw")), Refusal)
    assert (agreement.balance(puppet.address), agreement.balance()) == (2 * ETHER, 0)
