// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

import {Status} from "./Status.sol";

/// @notice A lease in storage: four slots, and no step but creation writes more than one of them.
struct Lease {
    // slot 0: who pays, and what is held
    address spender;
    uint96 price;
    // slot 1: who works, and until when (24 bits free)
    address earner;
    uint40 expiresAt;
    uint32 maxComputations;
    // slot 2: what is leased
    bytes32 dataProductId;
    // slot 3: where it stands; the only slot written after creation
    uint32 arbiterId;
    Status status;
    uint32 committed;
    uint40 createdAt;
    uint40 approvedAt;
    uint40 executedAt;
    uint40 disputedAt;
    uint24 operatorEpoch; // of the Earner, when the lease was approved
}
