// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

/// @dev What is used of forge's cheatcodes.
interface Cheats {
    function addr(uint256 key) external pure returns (address);

    function deal(address account, uint256 balance) external;

    /// @dev Unlike `block.timestamp`, which the compiler may keep over a `warp`.
    function getBlockTimestamp() external view returns (uint256);

    function parseJsonBytes(string calldata json, string calldata key) external pure returns (bytes memory);

    function prank(address caller) external;

    function readFile(string calldata path) external view returns (string memory);

    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);

    function warp(uint256 time) external;
}

Cheats constant VM = Cheats(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D);
