// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

import {Status} from "src/types/Status.sol";

struct Held {
    address spender;
    address earner;
    address judge;
    uint256 price;
    uint256 created;
    uint256 approved;
    uint256 approvedInCall;
    uint256 executed;
    uint256 disputed;
    uint256 expires;
    uint256 computations;
    uint256 committed;
    Status status;
}

/// @title The law as docs/contract.md tells it, written down again
/// @dev Nothing here was taken from the contract's source: each function answers whether the page allows a step, and does it in
/// accounts of its own.
abstract contract Oracle {
    uint256 internal constant DAY = 86_400;

    mapping(bytes32 leaseId => Held) internal held;
    mapping(bytes32 leaseId => mapping(bytes32 computation => bytes32)) internal results;
    mapping(address account => uint256) public credit;
    mapping(address earner => address) internal operators;
    /// @dev The number of the call that replaced an operator last.
    mapping(address earner => mapping(address operator => uint256)) internal replacedInCall;
    bytes32[] public ids;
    address internal judge;
    bool internal paused;
    uint256 internal callNumber;
    uint256 public forced;

    function forEarner(Held storage lease, address who) internal view returns (bool) {
        return who == lease.earner || (who != address(0) && who == operators[lease.earner]);
    }

    function isLive(Held storage lease) internal view returns (bool) {
        return lease.status == Status.Approved || lease.status == Status.Executed || lease.status == Status.Disputed;
    }

    function isFinal(Held storage lease) internal view returns (bool) {
        return lease.status >= Status.Finalized;
    }

    function heldWei(Held storage lease) internal view returns (uint256) {
        if (lease.status == Status.None || isFinal(lease)) return 0;
        return lease.price + (lease.status == Status.Disputed ? lease.price / 10 : 0);
    }

    function mayApprove(Held storage lease) internal view returns (bool) {
        return
            !paused &&
            lease.status == Status.Created &&
            block.timestamp <= lease.created + 7 * DAY &&
            block.timestamp < lease.expires;
    }

    function mayCommit(bytes32 id, address who, bytes32 computation, bytes32 result) internal view returns (bool) {
        Held storage lease = held[id];
        return
            isLive(lease) &&
            forEarner(lease, who) &&
            block.timestamp <= lease.expires + DAY &&
            result != 0 &&
            results[id][computation] == 0 &&
            lease.committed < lease.computations;
    }

    function mayExecute(Held storage lease, address who) internal view returns (bool) {
        if (lease.status != Status.Approved || lease.committed == 0) return false;
        if (block.timestamp > lease.expires + DAY) return true;
        return forEarner(lease, who) && (lease.committed == lease.computations || block.timestamp >= lease.expires);
    }

    function mayFinalize(Held storage lease, address who) internal view returns (bool) {
        if (lease.status != Status.Executed) return false;
        return who == lease.spender || (who == lease.earner && block.timestamp > lease.executed + 7 * DAY);
    }

    function mayCancel(Held storage lease, address who) internal view returns (bool) {
        if (lease.status != Status.Created && !isLive(lease)) return false;
        if (who == lease.earner) return true;
        if (who != lease.spender) return false;
        return lease.status == Status.Created || (lease.committed == 0 && block.timestamp > lease.expires + DAY);
    }

    function mayDispute(Held storage lease, address who, uint256 value) internal view returns (bool) {
        bool inTime = lease.status == Status.Approved ||
            (lease.status == Status.Executed && block.timestamp <= lease.executed + 7 * DAY);
        return inTime && who == lease.spender && value == lease.price / 10;
    }

    function countsAsSigned(Held storage lease, address signer) internal view returns (bool) {
        if (lease.status < Status.Approved) return false;
        return forEarner(lease, signer) || replacedInCall[lease.earner][signer] > lease.approvedInCall;
    }

    function approved(Held storage lease) internal {
        (lease.status, lease.approved, lease.approvedInCall) = (Status.Approved, block.timestamp, callNumber);
    }

    function committed(bytes32 id, bytes32 computation, bytes32 result) internal {
        results[id][computation] = result;
        ++held[id].committed;
    }

    function cancelled(Held storage lease) internal {
        credit[lease.spender] += heldWei(lease);
        lease.status = Status.Cancelled;
    }

    function refunded(Held storage lease) internal {
        credit[lease.spender] += heldWei(lease);
        lease.status = Status.Refunded;
    }

    function settled(Held storage lease, uint256 ofEarner) internal {
        credit[lease.spender] += heldWei(lease) - ofEarner;
        credit[lease.earner] += ofEarner;
        lease.status = Status.Settled;
    }
}
