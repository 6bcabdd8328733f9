// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

import {Status} from "./Status.sol";

/// @notice A lease as `getLease` tells it. The first eight fields are those of the first version, in its order, so that a
/// reader of old deployments reads this one too; `isApproved` is false again once the Spender has the money back.
struct LeaseView {
    address spender;
    address earner;
    bytes32 dataProductId;
    uint256 price;
    uint256 maxPrice; // always the price: the cap only matters in the transaction that pays
    bool isApproved;
    bool isExecuted;
    bool isDisputed; // a dispute was raised, whatever came of it
    bool isFinalized; // the status is final
    uint256 createdAt;
    uint256 approvedAt;
    uint256 executedAt;
    uint256 disputedAt;
    uint256 expiresAt;
    uint256 maxComputations;
    uint256 committed;
    uint256 stake; // what a dispute costs to raise
    address arbiter;
    Status status;
}
