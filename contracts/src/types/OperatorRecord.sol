// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

/// @notice Who acts for an Earner, in one slot. The epoch grows by one with each `setOperator`, so that "before" and "after" an
/// approval do not depend on the seconds of blocks.
struct OperatorRecord {
    address operator;
    uint24 epoch;
}
