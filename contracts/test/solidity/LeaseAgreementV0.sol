// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

/// @title The first version's shape: a struct of nine fields, a flag that says it exists, a counter; no result, nobody ever paid
/// @dev For tests of the node against old deployments and as the baseline of the gas table. It keeps the storage of the earliest
/// deployments and drops what else they spent (a reentrancy lock, error strings), so that the comparison flatters the old, not
/// the new. Never deploy it for real.
contract LeaseAgreementV0 {
    struct Lease {
        address spender;
        address earner;
        bytes32 dataProductId;
        uint256 price;
        uint256 maxPrice;
        bool isApproved;
        bool isExecuted;
        bool isDisputed;
        uint256 createdAt;
    }

    event LeaseCreated(bytes32 indexed leaseId, address indexed spender, address indexed earner, uint256 price);
    event LeaseApproved(bytes32 indexed leaseId);
    event LeaseExecuted(bytes32 indexed leaseId);

    error Refused();

    mapping(bytes32 leaseId => bool) public leaseExists;
    mapping(bytes32 leaseId => Lease) private _leases;
    uint256 private _counter;

    function createLease(address earner, bytes32 dataProductId, uint256 maxPrice) external payable {
        if (earner == address(0) || msg.value == 0 || msg.value > maxPrice) revert Refused();
        bytes32 leaseId = keccak256(abi.encodePacked(msg.sender, earner, dataProductId, block.timestamp, ++_counter));
        leaseExists[leaseId] = true;
        _leases[leaseId] = Lease(msg.sender, earner, dataProductId, msg.value, maxPrice, false, false, false, block.timestamp);
        emit LeaseCreated(leaseId, msg.sender, earner, msg.value);
    }

    function approveLease(bytes32 leaseId) external {
        Lease storage lease = _leases[leaseId];
        if (!leaseExists[leaseId] || msg.sender != lease.earner || lease.isApproved) revert Refused();
        lease.isApproved = true;
        emit LeaseApproved(leaseId);
    }

    /// @dev By anyone, as it was.
    function executeLease(bytes32 leaseId) external {
        Lease storage lease = _leases[leaseId];
        if (!lease.isApproved || lease.isExecuted || lease.isDisputed) revert Refused();
        lease.isExecuted = true;
        emit LeaseExecuted(leaseId);
    }

    /// @dev Silently, as in the earliest deployments.
    function raiseDispute(bytes32 leaseId, string calldata) external {
        Lease storage lease = _leases[leaseId];
        if (msg.sender != lease.spender || !lease.isApproved) revert Refused();
        lease.isDisputed = true;
    }

    function getLease(bytes32 leaseId) external view returns (Lease memory) {
        return _leases[leaseId];
    }
}
