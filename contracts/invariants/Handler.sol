// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

import {ILeaseAgreement} from "src/ILeaseAgreement.sol";
import {Commitment} from "src/types/Commitment.sol";
import {Receipt} from "src/types/Receipt.sol";
import {Status} from "src/types/Status.sol";

import {VM} from "./Cheats.sol";
import {Held, Oracle} from "./Oracle.sol";
import {Bomb, Party} from "./Party.sol";

/// @title Anybody does anything, and the contract answers as the oracle does
contract Handler is Oracle {
    uint256 internal constant KEYS = 0xA11CE;
    uint256 internal constant PEOPLE = 6;
    bytes32 internal constant DOMAIN =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 internal constant APPROVAL = keccak256("Approval(bytes32 leaseId,uint256 deadline)");
    bytes32 internal constant RECEIPT =
        keccak256(
            "Receipt(bytes32 leaseId,bytes32 computationId,bytes32 requestHash,bytes32 productVersion,bytes32 resultHash)"
        );

    ILeaseAgreement public immutable agreement;
    Party public immutable party = new Party();
    address public immutable owner;
    address private immutable _test = msg.sender;

    error Differs(string step, bool allowed);

    constructor(ILeaseAgreement agreement_, address owner_, address judge_) {
        (agreement, owner, judge) = (agreement_, owner_, judge_);
    }

    /// @dev Six people with keys, and a contract.
    function person(uint256 number) public view returns (address) {
        uint256 chosen = number % (PEOPLE + 1);
        return chosen == PEOPLE ? address(party) : VM.addr(KEYS + chosen);
    }

    function count() external view returns (uint256) {
        return ids.length;
    }

    function lease(uint256 index) external view returns (bytes32 id, Held memory) {
        return (ids[index], held[ids[index]]);
    }

    function total() external view returns (uint256 wei_) {
        for (uint256 i; i < ids.length; ++i) wei_ += heldWei(held[ids[i]]);
        for (uint256 i; i <= PEOPLE; ++i) wei_ += credit[person(i)];
        return wei_ + forced;
    }

    // ------------------------------------------------------------------------------------------------ steps

    function create(uint256 who, uint256 to, uint256 price, uint256 term, uint256 computations) external {
        address spender = person(who);
        price = price % 4 == 0 ? price % 12 : price % 10 ** 18;
        uint256[6] memory terms = [uint256(0), 1, DAY, 9 * DAY, 730 * DAY, 730 * DAY + 1];
        uint256 expires = block.timestamp + terms[term % 6];
        computations = computations % 4;
        bool allowed = !paused && expires > block.timestamp && expires <= block.timestamp + 730 * DAY && computations > 0;
        _next(spender, price);
        try
            agreement.createLease{value: price}(person(to), "product", price, uint64(expires), uint32(computations))
        returns (bytes32 id) {
            _same("create", allowed, true);
            require(held[id].status == Status.None, "an id twice");
            ids.push(id);
            Held storage made = held[id];
            (made.spender, made.earner, made.judge, made.price) = (spender, person(to), judge, price);
            (made.created, made.expires, made.computations) = (block.timestamp, expires, computations);
            made.status = Status.Created;
        } catch {
            _same("create", allowed, false);
        }
    }

    function approve(uint256 who, uint256 which) external {
        (bytes32 id, Held storage one) = _one(which);
        address caller = _mostly(who, one.earner);
        bool allowed = mayApprove(one) && forEarner(one, caller);
        _next(caller, 0);
        try agreement.approveLease(id) {
            _same("approve", allowed, true);
            approved(one);
        } catch {
            _same("approve", allowed, false);
        }
    }

    function approveBySignature(uint256 who, uint256 which, uint256 key, uint256 ahead) external {
        (bytes32 id, Held storage one) = _one(which);
        uint256 deadline = block.timestamp + (ahead % 3) - 1;
        key = _keyOf(key, one.earner);
        bytes32 digest = _digest(keccak256(abi.encode(APPROVAL, id, deadline)));
        bool allowed = mayApprove(one) && forEarner(one, VM.addr(key)) && block.timestamp <= deadline;
        bytes memory signature = _sign(key, digest);
        _next(person(who), 0);
        try agreement.approveLeaseBySignature(id, deadline, signature) {
            _same("approveBySignature", allowed, true);
            approved(one);
        } catch {
            _same("approveBySignature", allowed, false);
        }
    }

    function commit(uint256 who, uint256 which, uint256 computation, uint256 result) external {
        (bytes32 id, Held storage one) = _one(which);
        address caller = _mostly(who, one.earner);
        bytes32 name = bytes32(computation % 4);
        bytes32 hash = bytes32(result % 3);
        bool allowed = mayCommit(id, caller, name, hash);
        _next(caller, 0);
        try agreement.commitResult(id, name, hash) {
            _same("commit", allowed, true);
            committed(id, name, hash);
        } catch {
            _same("commit", allowed, false);
        }
    }

    function commitMany(uint256 who, uint256 which, uint256 seed) external {
        (, Held storage one) = _one(which);
        address caller = _mostly(who, one.earner);
        Commitment[] memory batch = new Commitment[](seed % 5);
        uint256 expected;
        for (uint256 i; i < batch.length; ++i) {
            (bytes32 id, ) = _one(which / 2 + ((seed >> (8 * i)) % 2) * 4);
            batch[i] = Commitment(id, bytes32((seed >> (16 + i)) % 4), bytes32((seed >> (32 + i)) % 3));
            if (mayCommit(id, caller, batch[i].computationId, batch[i].resultHash)) {
                committed(id, batch[i].computationId, batch[i].resultHash);
                ++expected;
            }
        }
        _next(caller, 0);
        require(agreement.commitResults(batch) == expected, "a batch commits what the law allows");
    }

    function execute(uint256 who, uint256 which) external {
        (bytes32 id, Held storage one) = _one(which);
        address caller = _mostly(who, one.earner);
        bool allowed = mayExecute(one, caller);
        _next(caller, 0);
        try agreement.executeLease(id) {
            _same("execute", allowed, true);
            (one.status, one.executed) = (Status.Executed, block.timestamp);
        } catch {
            _same("execute", allowed, false);
        }
    }

    function finalize(uint256 who, uint256 which) external {
        (bytes32 id, Held storage one) = _one(which);
        address caller = _mostly(who, who % 2 == 0 ? one.spender : one.earner);
        bool allowed = mayFinalize(one, caller);
        _next(caller, 0);
        try agreement.finalizeLease(id) {
            _same("finalize", allowed, true);
            credit[one.earner] += heldWei(one);
            one.status = Status.Finalized;
        } catch {
            _same("finalize", allowed, false);
        }
    }

    function cancel(uint256 who, uint256 which) external {
        (bytes32 id, Held storage one) = _one(which);
        address caller = _mostly(who, who % 5 == 0 ? one.earner : one.spender);
        bool allowed = mayCancel(one, caller);
        _next(caller, 0);
        try agreement.cancelLease(id) {
            _same("cancel", allowed, true);
            cancelled(one);
        } catch {
            _same("cancel", allowed, false);
        }
    }

    function dispute(uint256 who, uint256 which, uint256 off) external {
        (bytes32 id, Held storage one) = _one(which);
        address caller = _mostly(who, one.spender);
        uint256 value = one.price / 10 + (off % 8 == 0 ? 1 : 0);
        bool allowed = mayDispute(one, caller, value);
        _next(caller, value);
        try agreement.raiseDispute{value: value}(id, "why") {
            _same("dispute", allowed, true);
            (one.status, one.disputed) = (Status.Disputed, block.timestamp);
        } catch {
            _same("dispute", allowed, false);
        }
    }

    function resolve(uint256 who, uint256 which, bool valid) external {
        (bytes32 id, Held storage one) = _one(which);
        address caller = _mostly(who, one.judge);
        bool allowed = one.status == Status.Disputed && caller == one.judge && block.timestamp <= one.disputed + 30 * DAY;
        _next(caller, 0);
        try agreement.resolveDispute(id, valid) {
            _same("resolve", allowed, true);
            if (valid) refunded(one);
            else settled(one, heldWei(one));
        } catch {
            _same("resolve", allowed, false);
        }
    }

    function split(uint256 who, uint256 which) external {
        (bytes32 id, Held storage one) = _one(which);
        bool allowed = one.status == Status.Disputed && block.timestamp > one.disputed + 30 * DAY;
        _next(person(who), 0);
        try agreement.splitDispute(id) {
            _same("split", allowed, true);
            settled(one, one.committed == 0 ? 0 : one.price / 2);
        } catch {
            _same("split", allowed, false);
        }
    }

    function prove(uint256 who, uint256 which, uint256 firstKey, uint256 secondKey, uint256 seed) external {
        (bytes32 id, Held storage one) = _one(which);
        (firstKey, secondKey) = (_keyOf(firstKey, one.earner), _keyOf(secondKey, one.earner));
        Receipt memory first = Receipt(id, bytes32(seed % 2), bytes32(seed), 0, bytes32(1 + (seed >> 8) % 2));
        Receipt memory second = Receipt(id, bytes32((seed >> 16) % 8 == 0 ? 1 : seed % 2), 0, bytes32(seed), bytes32(uint256(2)));
        bool differ = first.computationId == second.computationId && first.resultHash != second.resultHash;
        bool signed = countsAsSigned(one, VM.addr(firstKey)) && countsAsSigned(one, VM.addr(secondKey));
        bool allowed = isLive(one) && differ && signed;
        bytes memory firstSignature = _sign(firstKey, _digest(_hash(first)));
        bytes memory secondSignature = _sign(secondKey, _digest(_hash(second)));
        _next(person(who), 0);
        try agreement.proveEquivocation(first, firstSignature, second, secondSignature) {
            _same("prove", allowed, true);
            refunded(one);
        } catch {
            _same("prove", allowed, false);
        }
    }

    function setOperator(uint256 who, uint256 chosen) external {
        address earner = person(who);
        address operator = chosen % 4 == 0 ? address(0) : person(chosen);
        _next(earner, 0);
        agreement.setOperator(operator);
        replacedInCall[earner][operators[earner]] = callNumber;
        operators[earner] = operator;
    }

    function withdraw(uint256 who, uint256 mood, uint256 which) external {
        address payee = who % 2 == 0 ? address(party) : person(who);
        (bytes32 id, Held storage other) = _one(which);
        party.behave(Party.Mood(mood % 4), id);
        bool refuses = payee == address(party) && party.mood() == Party.Mood.Refuse;
        bool alsoCancels = payee == address(party) && party.mood() == Party.Mood.CancelAnother && mayCancel(other, payee);
        bool allowed = credit[payee] > 0 && !refuses;
        uint256 before = payee.balance;
        uint256 amount = credit[payee];
        _next(payee, 0);
        try agreement.withdraw() {
            _same("withdraw", allowed, true);
            require(payee.balance == before + amount, "paid once, and all of it");
            credit[payee] = 0;
            if (alsoCancels) cancelled(other);
            require(payee != address(party) || party.entered() == alsoCancels, "who enters again gets what the law allows");
        } catch {
            _same("withdraw", allowed, false);
        }
    }

    function withdrawTo(uint256 who, uint256 to) external {
        address payee = person(who);
        address[4] memory places = [person(to), address(agreement), address(0), address(this)];
        address place = places[to % 4];
        party.behave(Party.Mood.Accept, 0);
        bool allowed = credit[payee] > 0 && place == places[0];
        uint256 before = place.balance;
        _next(payee, 0);
        try agreement.withdrawTo(place) {
            _same("withdrawTo", allowed, true);
            require(place.balance == before + credit[payee], "paid where it was told");
            credit[payee] = 0;
        } catch {
            _same("withdrawTo", allowed, false);
        }
    }

    function appoint(uint256 who, uint256 chosen) external {
        address caller = _mostly(who, owner);
        _next(caller, 0);
        try agreement.setArbiter(person(chosen)) {
            _same("appoint", caller == owner, true);
            judge = person(chosen);
        } catch {
            _same("appoint", caller == owner, false);
        }
    }

    function pause(uint256 who) external {
        address caller = _mostly(who, owner);
        if (who % 6 != 0 && !paused) return; // mostly off, so that something can begin
        _next(caller, 0);
        (bool done, ) = address(agreement).call(
            paused ? abi.encodeCall(ILeaseAgreement.unpause, ()) : abi.encodeCall(ILeaseAgreement.pause, ())
        );
        _same("pause", caller == owner, done);
        if (done) paused = !paused;
    }

    function force(uint256 amount) external {
        amount %= 1000;
        VM.deal(address(this), amount);
        new Bomb{value: amount}(payable(address(agreement)));
        forced += amount;
    }

    /// @dev To the last second of some lease's period, to the first after it, or for a while.
    function wait(uint256 which, uint256 period, uint256 off) external {
        (, Held storage one) = _one(which);
        if (one.status == Status.None) return;
        uint256[7] memory ends = [
            one.created + 7 * DAY,
            one.expires - 1,
            one.expires,
            one.expires + DAY,
            one.executed + 7 * DAY,
            one.disputed + 30 * DAY,
            block.timestamp + DAY
        ];
        uint256 end = ends[period % 7] + (off % 3 == 0 ? 1 : 0);
        // Seldom as far as two years: what is waited for would be over.
        if (end > block.timestamp && (end < block.timestamp + 40 * DAY || off % 16 == 1)) VM.warp(end);
    }

    // ------------------------------------------------------------------------------------------------ the end

    /// @dev Whatever happened, all money comes out by the parties' own steps; only what was forced in stays.
    function leaveAll() external {
        if (msg.sender != _test) return; // it is no step of a history
        party.behave(Party.Mood.Accept, 0);
        for (uint256 i; i < ids.length; ++i) {
            Held storage one = held[ids[i]];
            if (isFinal(one)) continue;
            VM.warp(_max(VM.getBlockTimestamp(), _max(one.expires + DAY, one.disputed + 30 * DAY) + 1));
            if (one.status == Status.Disputed) {
                agreement.splitDispute(ids[i]);
                settled(one, one.committed == 0 ? 0 : one.price / 2);
                continue;
            }
            if (one.status == Status.Approved && one.committed > 0) agreement.executeLease(ids[i]);
            VM.prank(one.spender);
            if (one.committed > 0) {
                agreement.finalizeLease(ids[i]);
                credit[one.earner] += one.price;
                one.status = Status.Finalized;
            } else {
                agreement.cancelLease(ids[i]);
                cancelled(one);
            }
        }
        for (uint256 i; i <= PEOPLE; ++i) {
            if (credit[person(i)] == 0) continue;
            VM.prank(person(i));
            agreement.withdraw();
            credit[person(i)] = 0;
        }
        require(address(agreement).balance == forced, "only forced ether stays");
    }

    // ------------------------------------------------------------------------------------------------ help

    function _one(uint256 which) private view returns (bytes32 id, Held storage one) {
        // Mostly one of the last four: what is old is mostly over.
        uint256 there = ids.length;
        if (there == 0 || which % 64 == 0) return (bytes32(uint256(0x77)), held[bytes32(uint256(0x77))]);
        id = ids[which % 4 != 0 && there > 4 ? there - 1 - (which / 4) % 4 : which % there];
        return (id, held[id]);
    }

    function _mostly(uint256 who, address right) private view returns (address) {
        if (who % 8 == 0 || right == address(0)) return person(who / 8);
        address operator = operators[right];
        return who % 3 == 0 && operator != address(0) ? operator : right;
    }

    function _keyOf(uint256 seed, address right) private view returns (uint256) {
        if (seed % 4 != 0) {
            for (uint256 i; i < PEOPLE; ++i) {
                if (person(i) == (seed % 3 == 0 ? operators[right] : right)) return KEYS + i;
            }
        }
        return KEYS + (seed / 4) % PEOPLE;
    }

    function _next(address caller, uint256 value) private {
        ++callNumber;
        if (value > 0) VM.deal(caller, caller.balance + value);
        VM.prank(caller);
    }

    function _same(string memory step, bool allowed, bool done) private pure {
        if (allowed != done) revert Differs(step, allowed);
    }

    function _sign(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function _hash(Receipt memory one) private pure returns (bytes32) {
        return keccak256(abi.encode(RECEIPT, one));
    }

    function _digest(bytes32 struct_) private view returns (bytes32) {
        bytes32 domain = keccak256(
            abi.encode(DOMAIN, keccak256("Pandacea LeaseAgreement"), keccak256("1"), block.chainid, address(agreement))
        );
        return keccak256(abi.encodePacked(hex"1901", domain, struct_));
    }

    function _max(uint256 a, uint256 b) private pure returns (uint256) {
        return a > b ? a : b;
    }
}
