"""One law, two implementations: random histories of several parties, after each step compared with the model.

Sizes: 200 histories of 50 steps; `PANDACEA_TEST_SCALE` multiplies the number of histories.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pandacea.chain.events import decode_event
from pandacea.domain.ids import Address, BlockNumber, LeaseId, LeaseKey
from pandacea.domain.lease import FINAL_STATUSES, Lease, LeaseStatus
from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import CREATE, DAY, NO_LEASE, PRODUCT, ZERO, Refusal, word
from tests.contracts.evm import Evm
from tests.contracts.model import MAX_TERM, Held, Model, ModelRefusal
from tests.lease_fold import apply_event

HISTORIES = max(1, int(200 * float(os.environ.get("PANDACEA_TEST_SCALE", "1"))))
STEPS = 50
ENOUGH = 100
"""From so many histories on, all that can happen is expected to have happened."""
ORDER = list(LeaseStatus)
WEIGHTS = {
    "create": 12,
    "approve": 10,
    "approve_by_signature": 5,
    "commit": 11,
    "commit_each": 6,
    "execute": 10,
    "finalize": 6,
    "cancel": 5,
    "dispute": 8,
    "resolve": 4,
    "split": 4,
    "prove": 4,
    "operator": 4,
    "withdraw": 5,
    "appoint": 1,
    "pause_or_not": 2,
    "wait": 12,
}
"""How often each step is tried, of 109."""
REACHED: set[str] = set()
"""Statuses and refusals that the histories came by: a random test that never gets anywhere would pass, too."""
WANTED = {status.value for status in LeaseStatus} | {
    "AllCommitted",
    "AllCommitted in a batch",
    "AlreadyCommitted",
    "AlreadyCommitted in a batch",
    "ApprovalNotSigned",
    "BadExpiry",
    "ComputationsLeft",
    "EnforcedPause",
    "ExpectedPause",
    "NoComputations",
    "NoEquivocation",
    "NotArbiter",
    "NotEarnerOrOperator",
    "NotParty",
    "NotSigned",
    "NotSpender",
    "NothingCommitted",
    "NothingToWithdraw",
    "OwnableUnauthorizedAccount",
    "SomethingCommitted",
    "TooEarly",
    "TooLate",
    "UnknownLease",
    "WrongStake",
    "WrongStatus",
}


class Law(RuleBasedStateMachine):
    """Two Spenders, two Earners, an operator, two arbiters, the owner and a stranger."""

    @initialize()
    def deploy(self) -> None:
        """A fresh contract for each history."""
        self.evm = Evm()
        owner, first, second, *parties = self.evm.accounts
        self.owner, self.arbiters = owner, [first, second]
        self.spenders, self.earners, self.operators, self.stranger = parties[:2], parties[2:4], parties[4:6], parties[6]
        self.evm.deploy(owner, first)
        self.model = Model(owner, first)
        self.folded: dict[str, Lease | None] = {}
        self.final: dict[str, tuple[int, ...]] = {}
        self.start = {account: self.evm.balance(account) for account in self.evm.accounts}
        self.block = 0
        self.same_second = False

    # ---------------------------------------------------------------------------------------------- what all steps share

    def step(self, law: Callable[[], object], data: bytes, by: str, value: int = 0) -> list[ContractEvent]:
        """Do it in both worlds: refused alike, word for word, or done in both."""
        self.evm.now += 0 if self.same_second else 1  # several blocks a second, as on fast chains
        self.block += 1
        refused = None
        try:
            law()
        except ModelRefusal as answer:
            refused = answer.refusal
        found = self.evm.call(data, by=by, value=value)
        if refused is not None:
            REACHED.add(refused.name)
            assert found == refused
            return []
        assert not isinstance(found, Refusal), found
        self.fold()
        return found

    def fold(self) -> None:
        """Give the logs to the node's decoder, and its events to the node's fold, in a block of their own."""
        key = LeaseKey(self.evm.chain_id, Address(self.evm.address), LeaseId(""))
        for log in self.evm.logs:
            known = decode_event(log.topics, log.data)
            if known is not None:
                self.folded[known.lease_id] = apply_event(self.folded.get(known.lease_id), known, key, BlockNumber(self.block))

    def lease_and_caller(self, right: Callable[[Held], list[str]], *statuses: LeaseStatus) -> tuple[str, str]:
        """A lease, mostly in one of these statuses, seldom one that is not there; a caller, mostly one who may."""
        leases = list(self.model.leases.values())
        if not leases or self.luck.random() < 0.02:
            return NO_LEASE, self.luck.choice(self.evm.accounts)
        fitting = [lease for lease in leases if lease.status in statuses]
        lease = self.luck.choice(fitting if fitting and self.luck.random() < 0.85 else leases)
        return lease.id, self.luck.choice(right(lease) if self.luck.random() < 0.85 else self.evm.accounts)

    def earner_side(self, lease: Held) -> list[str]:
        """List the Earner and the operator."""
        return [lease.earner, self.model.operator.get(lease.earner, lease.earner)]

    # ---------------------------------------------------------------------------------------------- steps

    @rule(seed=st.integers(0, 2**64 - 1))
    def anything(self, seed: int) -> None:
        """One step. Its seed decides which, by whom, on which lease: drawn one by one they would hug their bounds."""
        self.luck = Random(f"{seed}/{self.block}/{self.evm.now}")
        step = self.luck.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        idle = all(lease.status in FINAL_STATUSES for lease in self.model.leases.values())
        if self.luck.random() < 0.7 and (idle or self.model.paused):
            step = self.luck.choice(["pause_or_not", "create"]) if self.model.paused else "create"
        self.same_second = step != "wait" and self.luck.random() < 0.2
        note(f"second {self.evm.now + (not self.same_second)}: {step}")
        getattr(self, step)()

    def create(self) -> None:
        """Terms good and bad."""
        spender, earner = self.luck.choice(self.spenders), self.luck.choice(self.earners)
        price = self.luck.choice([0, 1, 9, 10, 11, 101, self.luck.randrange(10**18)])
        expires_at = self.evm.now + self.luck.choice(
            [0, 1, 2, DAY, 5 * DAY, MAX_TERM + self.luck.choice([0, 2]), *(self.luck.randrange(60 * DAY) for _ in range(5))]
        )
        computations = self.luck.choice([0, 1, 1, 1, 1, 2, 2, 3])
        call = self.evm.abi.encode_call(CREATE, earner, PRODUCT, price, expires_at, computations)
        events = self.step(lambda: self.model.may_create(self.evm.now, expires_at, computations), call, spender, value=price)
        if events:
            created = events[0].values["leaseId"]
            arbiter, now = self.model.arbiter, self.evm.now
            self.model.create(Held(created, spender, earner, arbiter, price, now, expires_at, computations))

    def approve(self) -> None:
        """Mostly by the Earner's side."""
        lease, by = self.lease_and_caller(self.earner_side, LeaseStatus.CREATED)
        self.step(lambda: self.model.approve(self.evm.now, by, lease), self.evm.abi.encode_call("approveLease", lease), by)

    def commit(self) -> None:
        """Some computations more than once."""
        lease, by = self.lease_and_caller(self.earner_side, LeaseStatus.APPROVED, LeaseStatus.DISPUTED)
        values = (lease, word(self.luck.randint(1, 4)), word(self.luck.randint(1, 3)))
        self.step(lambda: self.model.commit(self.evm.now, by, *values), self.evm.abi.encode_call("commitResult", *values), by)

    def approve_by_signature(self) -> None:
        """Signed mostly by the Earner's side, brought by anybody."""
        lease, signer = self.lease_and_caller(self.earner_side, LeaseStatus.CREATED)
        deadline = self.evm.now + self.luck.choice([0, 1, DAY])
        call = self.evm.abi.encode_call("approveLeaseBySignature", lease, deadline, self.evm.sign_approval(lease, deadline, signer))
        by = self.luck.choice(self.evm.accounts)
        self.step(lambda: self.model.approve_by_signature(self.evm.now, signer, lease, deadline), call, by)

    def commit_each(self) -> None:
        """Up to four at once, of any leases, by one caller."""
        batch, by = [], self.stranger
        for _ in range(self.luck.randint(0, 4)):
            lease, by = self.lease_and_caller(self.earner_side, LeaseStatus.APPROVED, LeaseStatus.DISPUTED)
            batch.append((lease, word(self.luck.randint(1, 4)), word(self.luck.randint(1, 3))))
        names: list[str] = []
        call = self.evm.abi.encode_call("commitResults", batch)
        events = self.step(lambda: names.extend(self.model.commit_each(self.evm.now, by, batch)), call, by)
        selectors = [self.evm.abi.error_selector(name) if name else None for name in names]
        assert [event.values.get("reason") for event in events] == selectors
        assert [event.name for event in events] == ["CommitmentRefused" if name else "ResultCommitted" for name in names]
        REACHED.update(f"{name} in a batch" for name in names if name)

    def execute(self) -> None:
        """Mostly by the Earner's side."""
        lease, by = self.lease_and_caller(self.earner_side, LeaseStatus.APPROVED)
        self.step(lambda: self.model.execute(self.evm.now, by, lease), self.evm.abi.encode_call("executeLease", lease), by)

    def finalize(self) -> None:
        """Mostly by a party."""
        lease, by = self.lease_and_caller(lambda one: [one.spender, one.earner], LeaseStatus.EXECUTED)
        self.step(lambda: self.model.finalize(self.evm.now, by, lease), self.evm.abi.encode_call("finalizeLease", lease), by)

    def cancel(self) -> None:
        """Mostly by the Spender, who mostly may not."""
        lease, by = self.lease_and_caller(lambda one: [one.spender] * 4 + [one.earner], *LeaseStatus)
        self.step(lambda: self.model.cancel(self.evm.now, by, lease), self.evm.abi.encode_call("cancelLease", lease), by)

    def dispute(self) -> None:
        """Mostly with the right stake."""
        lease, by = self.lease_and_caller(lambda one: [one.spender], LeaseStatus.APPROVED, LeaseStatus.EXECUTED)
        off = self.luck.choice([0, 0, 0, 0, 1])
        value = self.model.leases[lease].stake + off if lease in self.model.leases else off
        call = self.evm.abi.encode_call("raiseDispute", lease, "why")
        self.step(lambda: self.model.dispute(self.evm.now, by, lease, value), call, by, value)

    def resolve(self) -> None:
        """Mostly by its arbiter."""
        lease, by = self.lease_and_caller(lambda one: [one.arbiter], LeaseStatus.DISPUTED)
        valid = self.luck.random() < 0.5
        call = self.evm.abi.encode_call("resolveDispute", lease, valid)
        self.step(lambda: self.model.resolve(self.evm.now, by, lease, valid), call, by)

    def split(self) -> None:
        """Anyone may split a dispute."""
        lease, by = self.lease_and_caller(lambda _: self.evm.accounts, LeaseStatus.DISPUTED)
        self.step(lambda: self.model.split(self.evm.now, lease), self.evm.abi.encode_call("splitDispute", lease), by)

    def prove(self) -> None:
        """Receipts signed by the Earner, by an operator of any time, or by somebody else."""
        live = (LeaseStatus.APPROVED, LeaseStatus.EXECUTED, LeaseStatus.DISPUTED)
        lease, by = self.lease_and_caller(lambda _: self.evm.accounts, *live)
        earner = self.model.leases[lease].earner if lease in self.model.leases else self.stranger
        signers = (self.luck.choice([earner, *self.operators]), self.luck.choice([earner, *self.operators, self.stranger]))
        hashes = (word(self.luck.randint(1, 3)), word(self.luck.randint(1, 3)))
        receipts = [(lease, word(1), word(91), word(92), result) for result in hashes]
        pairs = [(receipt, self.evm.sign(receipt, signer)) for receipt, signer in zip(receipts, signers, strict=True)]
        call = self.evm.abi.encode_call("proveEquivocation", *pairs[0], *pairs[1])
        self.step(lambda: self.model.prove(lease, signers, hashes), call, by)

    def operator(self) -> None:
        """Appointed, replaced, taken back."""
        by, chosen = self.luck.choice(self.earners), self.luck.choice([*self.operators, None])
        call = self.evm.abi.encode_call("setOperator", chosen or ZERO)
        self.step(lambda: self.model.set_operator(by, chosen), call, by)

    def withdraw(self) -> None:
        """By whoever has credit, and by others."""
        creditors = [who for who, amount in self.model.credit.items() if amount]
        by = self.luck.choice(creditors if creditors and self.luck.random() < 0.8 else self.evm.accounts)
        self.step(lambda: self.model.withdraw(by), self.evm.abi.encode_call("withdraw"), by)

    def appoint(self) -> None:
        """Mostly by the owner."""
        by, arbiter = self.luck.choice([self.owner, self.owner, self.stranger]), self.luck.choice(self.arbiters)
        self.step(lambda: self.model.set_arbiter(by, arbiter), self.evm.abi.encode_call("setArbiter", arbiter), by)

    def pause_or_not(self) -> None:
        """Mostly off, so that something can begin."""
        paused = self.luck.random() < 0.3
        by = self.luck.choice([self.owner, self.owner, self.arbiters[0]])
        self.step(lambda: self.model.pause(by, paused), self.evm.abi.encode_call("pause" if paused else "unpause"), by)

    def wait(self) -> None:
        """To the last second of some lease's period, or the first after it (the next step adds one); else for a while."""
        leases = list(self.model.leases.values())
        if not leases or self.luck.random() < 0.2:
            self.evm.now += self.luck.choice([1, 60, DAY, 7 * DAY])
            return
        lease = self.luck.choice(leases)
        deadlines = [lease.created_at + 7 * DAY, lease.expires_at - 1, lease.expires_at, lease.expires_at + DAY]
        deadlines += [at + period for at, period in ((lease.executed_at, 7 * DAY), (lease.disputed_at, 30 * DAY)) if at]
        ahead = [deadline for deadline in deadlines if deadline > self.evm.now]
        if ahead:
            self.evm.now = (min(ahead) if self.luck.random() < 0.7 else self.luck.choice(ahead)) + self.luck.choice([-1, 0])

    # ---------------------------------------------------------------------------------------------- what must always hold

    @invariant()
    def money_is_where_the_law_says(self) -> None:
        """To the wei: held for leases, stakes and credits; and all that came in is still here or went out."""
        held = sum(lease.held for lease in self.model.leases.values())
        balance = self.evm.balance(self.evm.address)
        assert balance == held + sum(self.model.credit.values())
        assert self.model.paid_in == balance + self.model.paid_out
        assert {who: self.evm.credit(who) for who in self.evm.accounts} == {
            who: self.model.credit[who] for who in self.evm.accounts
        }

    @invariant()
    def every_lease_stands_where_the_law_says(self) -> None:
        """In the contract, in the model and in the node's fold of the events; and final means final."""
        for lease in self.model.leases.values():
            folded = self.folded[lease.id]
            assert folded is not None
            assert LeaseStatus(ORDER[self.evm.status(lease.id) - 1]) is lease.status is folded.status
            assert folded.committed == frozenset(lease.results)
            assert (folded.spender, folded.earner, folded.price) == (lease.spender, lease.earner, lease.price)
            assert (folded.expires_at, folded.max_computations) == (lease.expires_at, lease.max_computations)
            words = self.evm.words(lease.id)
            assert self.final.get(lease.id, words) == words, "a final lease changed"
            if lease.status in FINAL_STATUSES:
                self.final[lease.id] = words
            REACHED.add(lease.status.value)

    @invariant()
    def nobody_but_the_parties_gains(self) -> None:
        """Owner, arbiters, operators and strangers have what they had; all together have lost exactly what is held."""
        bystanders = [self.owner, *self.arbiters, *self.operators, self.stranger]
        assert all(self.evm.balance(who) == self.start[who] for who in bystanders)
        assert all(self.model.credit[who] == 0 for who in bystanders)
        assert sum(self.start.values()) - sum(map(self.evm.balance, self.evm.accounts)) == self.evm.balance(self.evm.address)

    # ---------------------------------------------------------------------------------------------- every way out

    def teardown(self) -> None:
        """Whoever refuses to do anything more (here: each of them in turn, by the history's length), the money comes out."""
        if not hasattr(self, "model"):
            return
        self.same_second = False
        everyone = [*self.spenders, *self.earners, *self.arbiters, self.owner]
        idle = everyone[self.block % len(everyone)]
        for lease in list(self.model.leases.values()):
            for _ in range(4):
                if lease.status not in FINAL_STATUSES:
                    self.way_out(lease, idle)
            assert lease.status in FINAL_STATUSES
        for who in self.evm.accounts:
            if who != idle and self.model.credit[who]:
                self.must(lambda who=who: self.model.withdraw(who), "withdraw", by=who)  # type: ignore[misc]
        assert self.evm.balance(self.evm.address) == self.model.credit[idle]
        self.money_is_where_the_law_says()
        self.every_lease_stands_where_the_law_says()

    def way_out(self, lease: Held, idle: str) -> None:
        """One step towards the end of a lease, by anybody but `idle` and those who act for `idle`."""
        now = self.evm.now
        if lease.status is LeaseStatus.DISPUTED:
            self.evm.now = max(now, lease.disputed_at + 30 * DAY)
            self.must(lambda: self.model.split(self.evm.now, lease.id), "splitDispute", lease.id, by=self.stranger)
        elif lease.status is LeaseStatus.EXECUTED:
            by = lease.spender if idle != lease.spender else lease.earner
            self.evm.now = now if by == lease.spender else max(now, lease.executed_at + 7 * DAY)
            self.must(lambda: self.model.finalize(self.evm.now, by, lease.id), "finalizeLease", lease.id, by=by)
        elif lease.status is LeaseStatus.APPROVED and lease.results:
            self.evm.now = max(now, lease.expires_at + DAY)
            self.must(lambda: self.model.execute(self.evm.now, self.stranger, lease.id), "executeLease", lease.id, by=self.stranger)
        else:
            by = lease.earner if idle == lease.spender else lease.spender
            self.evm.now = max(now, lease.expires_at + DAY)
            self.must(lambda: self.model.cancel(self.evm.now, by, lease.id), "cancelLease", lease.id, by=by)

    def must(self, law: Callable[[], object], function: str, *values: Any, by: str) -> None:
        """A step that both worlds must grant."""
        assert self.step(law, self.evm.abi.encode_call(function, *values), by), f"{function} must be possible"


@pytest.mark.timeout(900)
def test_contract_and_law_never_differ() -> None:
    """Over random histories: same answers, same statuses, same money, and a way out for all of it whoever refuses."""
    _walk(HISTORIES)
    if HISTORIES >= ENOUGH:
        for _ in range(16):  # what chance left out of the first histories comes by in some more
            if REACHED >= WANTED:
                break
            _walk(ENOUGH // 4)
        assert sorted(WANTED - REACHED) == []


def _walk(histories: int) -> None:
    run_state_machine_as_test(
        Law,
        settings=settings(
            max_examples=histories,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
        ),
    )
