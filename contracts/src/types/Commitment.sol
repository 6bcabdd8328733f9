// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

/// @notice What a computation of a lease returned, to be committed with others.
struct Commitment {
    bytes32 leaseId;
    bytes32 computationId;
    bytes32 resultHash; // sha-256 of the manifest; never zero
}
