// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

/// @title The first version's struct with each field in a slot of its own, and nothing else
/// @dev A second, lower baseline for the gas table: no flag, no counter, no check that the id is new. No version was so frugal.
contract OneSlotPerField {
    struct Lease {
        address spender;
        uint256 earner; // an address, in a slot of its own
        bytes32 dataProductId;
        uint256 price;
        uint256 maxPrice;
        uint256 isApproved;
        uint256 isExecuted;
        uint256 isDisputed;
        uint256 createdAt;
    }

    event LeaseCreated(bytes32 indexed leaseId, address indexed spender, address indexed earner, uint256 price);
    event LeaseApproved(bytes32 indexed leaseId);

    error Refused();

    mapping(bytes32 leaseId => Lease) private _leases;

    function createLease(address earner, bytes32 dataProductId, uint256 maxPrice) external payable {
        if (earner == address(0) || msg.value > maxPrice) revert Refused();
        bytes32 leaseId = keccak256(abi.encodePacked(msg.sender, earner, dataProductId, block.timestamp));
        _leases[leaseId] = Lease(
            msg.sender,
            uint160(earner),
            dataProductId,
            msg.value,
            maxPrice,
            0,
            0,
            0,
            block.timestamp
        );
        emit LeaseCreated(leaseId, msg.sender, earner, msg.value);
    }

    function approveLease(bytes32 leaseId) external {
        Lease storage lease = _leases[leaseId];
        if (uint160(msg.sender) != lease.earner || lease.isApproved != 0) revert Refused();
        lease.isApproved = 1;
        emit LeaseApproved(leaseId);
    }
}
