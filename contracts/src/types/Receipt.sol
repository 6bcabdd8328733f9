// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

/// @notice What the Earner or the operator signs (EIP-712) for one computation's result.
struct Receipt {
    bytes32 leaseId;
    bytes32 computationId;
    bytes32 requestHash;
    bytes32 productVersion;
    bytes32 resultHash;
}
