// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

import {ILeaseAgreement} from "src/ILeaseAgreement.sol";
import {LeaseView} from "src/types/LeaseView.sol";

import {VM} from "./Cheats.sol";
import {Handler} from "./Handler.sol";
import {Held} from "./Oracle.sol";

/// @title What holds after every step of anybody
/// @dev Each step is compared with the oracle in the handler; here is what must be true between steps. The contract under test is
/// deployed from the artifact that everybody deploys.
contract InvariantsTest {
    Handler internal handler;
    ILeaseAgreement internal agreement;

    function setUp() public {
        string memory artifact = VM.readFile("../../daemon/pandacea_sdk/protocol/abi/LeaseAgreement.json");
        address owner = address(0xB0B);
        address judge = address(0x7D6E);
        bytes memory code = bytes.concat(VM.parseJsonBytes(artifact, ".bytecode"), abi.encode(owner, judge));
        address made;
        assembly {
            made := create(0, add(code, 0x20), mload(code))
        }
        require(made != address(0), "not deployed");
        VM.warp(1_800_000_000);
        agreement = ILeaseAgreement(made);
        handler = new Handler(agreement, owner, judge);
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_MoneyIsWhereTheLawSays() public view {
        require(address(agreement).balance == handler.total(), "held, credited and forced make the balance");
        for (uint256 i; i < 7; ++i) {
            address person = handler.person(i);
            require(agreement.creditOf(person) == handler.credit(person), "credit");
        }
    }

    function invariant_LeasesStandWhereTheLawSays() public view {
        uint256 there = handler.count();
        for (uint256 i = there > 12 ? there - 12 : 0; i < there; ++i) {
            (bytes32 id, Held memory one) = handler.lease(i);
            LeaseView memory found = agreement.getLease(id);
            require(found.status == one.status && found.committed == one.committed, "status");
            require(found.spender == one.spender && found.earner == one.earner && found.arbiter == one.judge, "parties");
            require(found.price == one.price && found.stake == one.price / 10, "price");
            require(found.createdAt == one.created && found.approvedAt == one.approved, "began");
            require(found.executedAt == one.executed && found.disputedAt == one.disputed, "went on");
            require(found.expiresAt == one.expires && found.maxComputations == one.computations, "terms");
        }
    }

    /// @dev forge calls it after each run.
    function afterInvariant() public {
        handler.leaveAll();
    }
}
