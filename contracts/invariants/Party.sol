// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

import {ILeaseAgreement} from "src/ILeaseAgreement.sol";

/// @title A party that is a contract, and does what it likes when it is paid
contract Party {
    enum Mood {
        Accept,
        Refuse,
        WithdrawAgain,
        CancelAnother
    }

    Mood public mood;
    bytes32 public target;
    /// @notice Whether the last call from within a payment went through.
    bool public entered;

    function behave(Mood mood_, bytes32 target_) external {
        (mood, target, entered) = (mood_, target_, false);
    }

    receive() external payable {
        if (mood == Mood.Refuse) revert();
        if (mood == Mood.WithdrawAgain) {
            try ILeaseAgreement(msg.sender).withdraw() {
                entered = true;
            } catch {}
        }
        if (mood == Mood.CancelAnother) {
            try ILeaseAgreement(msg.sender).cancelLease(target) {
                entered = true;
            } catch {}
        }
    }
}

/// @title Ether that comes by force
contract Bomb {
    constructor(address payable target) payable {
        selfdestruct(target);
    }
}
