"""createLease: what may be agreed, and how the id stands for it."""

from __future__ import annotations

from pandacea_sdk.protocol.contract import ContractEvent, derive_lease_id
from tests.contracts.agreement import CREATE, CREATE_SHORT, DAY, ETHER, PRODUCT, ZERO, Agreement, Refusal


def test_given_the_contract_is_paused_it_reverts_with_enforced_pause(agreement: Agreement) -> None:
    """Both forms are closed."""
    agreement.send("pause", by=agreement.owner)
    expiry = agreement.now + DAY
    assert agreement.refused(CREATE, agreement.earner, PRODUCT, 1, expiry, 1, by=agreement.spender) == Refusal("EnforcedPause", {})
    assert agreement.refused(CREATE_SHORT, agreement.earner, PRODUCT, 1, by=agreement.spender) == Refusal("EnforcedPause", {})


def test_when_the_earner_is_zero_it_reverts_with_zero_address(agreement: Agreement) -> None:
    """Nobody could ever approve it."""
    expiry = agreement.now + DAY
    assert agreement.refused(CREATE, ZERO, PRODUCT, 1, expiry, 1, by=agreement.spender) == Refusal("ZeroAddress", {})


def test_when_more_is_sent_than_the_most_meant_to_pay_it_reverts_with_price_above_max(agreement: Agreement) -> None:
    """One wei above is refused, with both figures."""
    refusal = agreement.refused(CREATE, agreement.earner, PRODUCT, 99, agreement.now + DAY, 1, by=agreement.spender, value=100)
    assert refusal == Refusal("PriceAboveMax", {"price": 100, "maxPrice": 99})


def test_when_the_price_does_not_fit_96_bits_it_reverts_with_price_too_large(agreement: Agreement) -> None:
    """A price is never cut: 2^96 - 1 is the largest."""
    expiry = agreement.now + DAY
    refusal = agreement.refused(CREATE, agreement.earner, PRODUCT, 2**128, expiry, 1, by=agreement.spender, value=2**96)
    assert refusal == Refusal("PriceTooLarge", {"price": 2**96})
    lease = agreement.create(price=2**96 - 1)
    assert agreement.lease(lease)["price"] == 2**96 - 1


def test_when_the_expiry_is_this_very_second_it_reverts_with_bad_expiry(agreement: Agreement) -> None:
    """It would be over when it begins."""
    now = agreement.now
    refusal = agreement.refused(CREATE, agreement.earner, PRODUCT, 1, now, 1, by=agreement.spender)
    assert refusal == Refusal("BadExpiry", {"expiresAt": now})


def test_when_the_expiry_is_730_days_away_it_creates_a_lease(agreement: Agreement) -> None:
    """The longest lease, to the second."""
    expiry = agreement.now + 730 * DAY
    assert agreement.lease(agreement.create(expires_at=expiry))["expiresAt"] == expiry


def test_when_the_expiry_is_more_than_730_days_away_it_reverts_with_bad_expiry(agreement: Agreement) -> None:
    """Money is never held for ages by a slip of the pen, and a time is never cut to its field."""
    for expiry in (agreement.now + 730 * DAY + 1, 2**40, 2**64 - 1):
        refusal = agreement.refused(CREATE, agreement.earner, PRODUCT, 1, expiry, 1, by=agreement.spender)
        assert refusal == Refusal("BadExpiry", {"expiresAt": expiry})


def test_when_there_are_no_computations_it_reverts_with_no_computations(agreement: Agreement) -> None:
    """Nothing could be delivered."""
    refusal = agreement.refused(CREATE, agreement.earner, PRODUCT, 1, agreement.now + DAY, 0, by=agreement.spender)
    assert refusal == Refusal("NoComputations", {})


def test_when_the_price_is_zero_it_creates_a_lease(agreement: Agreement) -> None:
    """Open data may be free."""
    assert agreement.lease(agreement.create(price=0))["price"] == 0


def test_when_the_price_is_the_most_meant_to_pay_it_creates_a_lease(agreement: Agreement) -> None:
    """The cap is included."""
    done = agreement.send(CREATE, agreement.earner, PRODUCT, 100, agreement.now + DAY, 1, by=agreement.spender, value=100)
    assert done.event("LeaseCreated")["price"] == 100


def test_when_the_expiry_is_the_next_second_it_creates_a_lease(agreement: Agreement) -> None:
    """The shortest lease lasts one second."""
    now = agreement.now
    assert agreement.lease(agreement.create(expires_at=now + 1))["createdAt"] == now


def test_when_the_same_terms_are_agreed_twice_it_creates_two_leases(agreement: Agreement) -> None:
    """The nonce tells them apart, and each Spender has its own."""
    expiry = agreement.now + DAY
    first, second = agreement.create(expires_at=expiry), agreement.create(expires_at=expiry)
    assert first != second
    assert [agreement.view("nonceOf", who) for who in (agreement.spender, agreement.stranger)] == [2, 0]


def test_when_the_terms_are_right_it_emits_lease_created_and_lease_terms(agreement: Agreement) -> None:
    """Two events and no other, in this order, with all their values."""
    expiry = agreement.now + DAY
    done = agreement.send(CREATE, agreement.earner, PRODUCT, ETHER, expiry, 7, by=agreement.spender, value=ETHER)
    lease = done.event("LeaseCreated")["leaseId"]
    created = {"leaseId": lease, "spender": agreement.spender, "earner": agreement.earner, "price": ETHER}
    terms = {"leaseId": lease, "dataProductId": PRODUCT, "expiresAt": expiry, "maxComputations": 7}
    assert done.events == [ContractEvent("LeaseCreated", created), ContractEvent("LeaseTerms", terms)]


def test_when_the_terms_are_right_it_derives_the_id_from_chain_and_contract_and_terms_and_arbiter_and_nonce(
    agreement: Agreement,
) -> None:
    """The id the Spender computes beforehand is the id the contract gives: whoever signs it signs the terms."""
    for nonce in range(3):
        expiry = agreement.now + DAY
        expected = derive_lease_id(
            chain_id=agreement.w3.eth.chain_id,
            contract=agreement.address,
            spender=agreement.spender,
            earner=agreement.earner,
            data_product_id=PRODUCT,
            price=ETHER,
            expires_at=expiry,
            max_computations=3,
            arbiter=agreement.arbiter,
            nonce=nonce,
        )
        assert agreement.create(expires_at=expiry, computations=3) == expected


def test_when_the_terms_are_right_it_holds_the_price_and_keeps_the_terms_in_four_slots(agreement: Agreement) -> None:
    """Price in the contract, terms readable, and every field where the documents say it lies."""
    now = agreement.now
    lease = agreement.create(expires_at=now + DAY, computations=5)
    assert agreement.balance() == ETHER
    assert agreement.lease(lease) == {
        "spender": agreement.spender,
        "earner": agreement.earner,
        "dataProductId": PRODUCT,
        "price": ETHER,
        "maxPrice": ETHER,
        "isApproved": False,
        "isExecuted": False,
        "isDisputed": False,
        "isFinalized": False,
        "createdAt": now,
        "approvedAt": 0,
        "executedAt": 0,
        "disputedAt": 0,
        "expiresAt": now + DAY,
        "maxComputations": 5,
        "committed": 0,
        "stake": ETHER // 10,
        "arbiter": agreement.arbiter,
        "status": "created",
    }
    base = int.from_bytes(agreement.w3.keccak(bytes.fromhex(lease[2:]) + (3).to_bytes(32, "big")), "big")
    checked = agreement.w3.to_checksum_address(agreement.address)
    slots = [int.from_bytes(agreement.w3.eth.get_storage_at(checked, base + n), "big") for n in range(5)]
    assert slots == [
        ETHER << 160 | int(agreement.spender, 16),
        5 << 200 | (now + DAY) << 160 | int(agreement.earner, 16),
        int(PRODUCT, 16),
        now << 72 | 1 << 32 | 1,  # created at, nothing committed, status 1, arbiter 1
        0,
    ]


def test_when_the_short_form_is_used_it_leases_one_computation_for_30_days(agreement: Agreement) -> None:
    """The first version's call makes a whole lease, with its terms in the open."""
    done = agreement.send(CREATE_SHORT, agreement.earner, PRODUCT, 100, by=agreement.spender, value=100)
    terms = done.event("LeaseTerms")
    assert (terms["expiresAt"], terms["maxComputations"]) == (done.timestamp + 30 * DAY, 1)
