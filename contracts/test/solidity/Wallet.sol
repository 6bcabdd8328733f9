// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

/// @title A contract account (ERC-1271) that accepts its owner's signatures, or misbehaves when asked
/// @dev For tests only: anybody may set its mood.
contract Wallet {
    enum Mood {
        Honest,
        Refuse,
        Revert,
        Burn,
        Flood,
        Long,
        Short,
        Dirty
    }

    bytes4 private constant MAGIC = 0x1626ba7e;

    address public owner;
    Mood public mood;

    error Told();

    constructor(address owner_) {
        owner = owner_;
    }

    function behave(Mood mood_) external {
        mood = mood_;
    }

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        if (mood == Mood.Revert) revert Told();
        if (mood == Mood.Burn) while (true) {}
        if (mood == Mood.Refuse) return 0xffffffff;
        uint256 length = mood == Mood.Flood ? 1 << 20 : mood == Mood.Long ? 1 << 17 : mood == Mood.Short ? 4 : 32;
        uint256 dirt = mood == Mood.Dirty ? 1 : 0;
        if (mood != Mood.Honest) {
            assembly {
                mstore(0, or(shl(224, 0x1626ba7e), dirt))
                return(0, length)
            }
        }
        (bytes32 r, bytes32 s, uint8 v) = (bytes32(signature[:32]), bytes32(signature[32:64]), uint8(signature[64]));
        address signer = ecrecover(hash, v, r, s);
        return signer != address(0) && signer == owner ? MAGIC : bytes4(0xffffffff);
    }
}
