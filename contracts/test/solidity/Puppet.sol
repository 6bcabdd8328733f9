// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

/// @title A party that is a contract: does as it is told, and may misbehave when it is paid
/// @dev For tests only.
contract Puppet {
    enum Mood {
        Accept,
        Refuse,
        Burn,
        Reenter
    }

    Mood public mood;
    /// @notice Whether the last call made from `receive` went through.
    bool public entered;
    address private _target;
    bytes private _data;

    error Told();

    function behave(Mood mood_, address target, bytes calldata data) external {
        mood = mood_;
        _target = target;
        _data = data;
    }

    function act(address target, bytes calldata data) external payable {
        (bool done, bytes memory answer) = target.call{value: msg.value}(data);
        if (!done) {
            assembly {
                revert(add(answer, 0x20), mload(answer))
            }
        }
    }

    receive() external payable {
        if (mood == Mood.Refuse) revert Told();
        if (mood == Mood.Burn) while (true) {}
        if (mood == Mood.Reenter) (entered, ) = _target.call(_data);
    }
}
