// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

/// @notice Where a lease stands. Everything from `Finalized` on is final: the money is credited and nothing changes any more.
enum Status {
    None,
    Created,
    Approved,
    Executed,
    Disputed,
    Finalized,
    Cancelled,
    Refunded,
    Settled
}
