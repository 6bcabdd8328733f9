"""What anyone can read."""

from __future__ import annotations

import pytest
from eth_tester.exceptions import TransactionFailed

from pandacea_sdk.protocol.contract import ContractAbi, lease_agreement_v0
from pandacea_sdk.protocol.ids import LeaseStatus
from tests.contracts.agreement import ETHER, NO_LEASE, PRODUCT, Agreement, word

HEAD = ("spender", "earner", "dataProductId", "price", "maxPrice", "isApproved", "isExecuted", "isDisputed")


def usable_to_a_reader_of_the_first_version(agreement: Agreement, lease: str) -> bool:
    """The first version's rule, on nothing but the common head of its struct: approved, not executed, not disputed."""
    v0: ContractAbi = lease_agreement_v0()
    checked = agreement.w3.to_checksum_address(agreement.address)
    data = bytes(agreement.w3.eth.call({"to": checked, "data": v0.encode_call("getLease", lease)}))
    head = v0.decode_result("getLease", data)
    assert [head[name] for name in HEAD[:5]] == [agreement.spender, agreement.earner, PRODUCT, ETHER, ETHER]
    return bool(head["isApproved"] and not head["isExecuted"] and not head["isDisputed"])


def test_given_there_is_no_such_lease_it_says_so(agreement: Agreement) -> None:
    """`leaseExists` says no, getLease reverts, a result is zero."""
    assert agreement.view("leaseExists", NO_LEASE) is False
    assert int(agreement.view("committedResult", NO_LEASE, word(1)), 16) == 0
    with pytest.raises(TransactionFailed):
        agreement.lease(NO_LEASE)


@pytest.mark.parametrize("status", [status.value for status in LeaseStatus])
def test_given_a_lease_in_each_status_it_reads_as_the_first_versions_head_and_then_more(agreement: Agreement, status: str) -> None:
    """To a reader of the first version a lease is usable exactly while it is approved and nothing ended it."""
    lease = agreement.in_status(status)
    assert agreement.view("leaseExists", lease) is True
    assert tuple(agreement.lease(lease))[: len(HEAD)] == HEAD
    assert usable_to_a_reader_of_the_first_version(agreement, lease) is (status == "approved")
    assert agreement.lease(lease)["isFinalized"] is (status in {"finalized", "cancelled", "refunded", "settled"})
