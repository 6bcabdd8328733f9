// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

import {Commitment} from "./types/Commitment.sol";
import {LeaseView} from "./types/LeaseView.sol";
import {Receipt} from "./types/Receipt.sol";
import {Status} from "./types/Status.sol";

/// @title An agreement that pays for work delivered, refunds work that was not, and cannot trap money.
/// @notice A Spender pays a price for a number of computations on an Earner's data product until an expiry. The price is held
/// here until the lease is final; then it is credited, and whoever has credit withdraws it. All times are Unix seconds and all
/// amounts wei. "Until" includes the second it names; "after" begins with the next one.
interface ILeaseAgreement {
    // ------------------------------------------------------------------------------------------------ events of a lease

    /// @notice A lease was created and its price is held.
    /// @param leaseId the id, which commits to all terms
    /// @param spender who pays
    /// @param earner who works
    /// @param price wei held
    event LeaseCreated(bytes32 indexed leaseId, address indexed spender, address indexed earner, uint256 price);

    /// @notice What was leased; follows LeaseCreated in the same transaction. The arbiter is the one of the last ArbiterChanged.
    /// @param leaseId the lease
    /// @param dataProductId keccak256 of the product id
    /// @param expiresAt the second from which no computation is accepted
    /// @param maxComputations how many results may be committed
    event LeaseTerms(bytes32 indexed leaseId, bytes32 indexed dataProductId, uint64 expiresAt, uint32 maxComputations);

    /// @notice The Earner agreed to the terms the id stands for.
    /// @param leaseId the lease
    event LeaseApproved(bytes32 indexed leaseId);

    /// @notice The Earner stands by this result of this computation.
    /// @param leaseId the lease
    /// @param computationId the computation
    /// @param resultHash sha-256 of its manifest
    event ResultCommitted(bytes32 indexed leaseId, bytes32 indexed computationId, bytes32 resultHash);

    /// @notice One of the results of `commitResults` was not committed; the others were.
    /// @param leaseId the lease that was named
    /// @param computationId the computation that was named
    /// @param reason the selector of the error with which `commitResult` would have reverted
    event CommitmentRefused(bytes32 indexed leaseId, bytes32 indexed computationId, bytes4 reason);

    /// @notice The work is done; the Spender has the dispute window to object.
    /// @param leaseId the lease
    event LeaseExecuted(bytes32 indexed leaseId);

    /// @notice The lease is off and the Spender has the whole price back, and the stake of an open dispute.
    /// @param leaseId the lease
    event LeaseCancelled(bytes32 indexed leaseId);

    /// @notice The Earner has the price.
    /// @param leaseId the lease
    /// @param earner who was credited
    /// @param reputationReward always 0; kept for readers of the first version
    event LeaseFinalized(bytes32 indexed leaseId, address indexed earner, uint256 reputationReward);

    /// @notice The Spender objects, and has put up a stake.
    /// @param leaseId the lease
    /// @param spender who objects
    /// @param earner whose work it is
    /// @param reason the Spender's words
    /// @param stakeAmount wei put up
    event DisputeRaised(
        bytes32 indexed leaseId,
        address indexed spender,
        address indexed earner,
        string reason,
        uint256 stakeAmount
    );

    /// @notice The matter is closed.
    /// @param leaseId the lease
    /// @param isDisputeValid whether the Spender was right
    /// @param stakeAmount wei of the stake that was held, 0 when none was
    event DisputeResolved(bytes32 indexed leaseId, bool isDisputeValid, uint256 stakeAmount);

    /// @notice No verdict came in time; follows DisputeResolved(leaseId, false, ...) in the same transaction.
    /// @param leaseId the lease
    /// @param spenderAmount wei credited to the Spender, the stake included
    /// @param earnerAmount wei credited to the Earner
    event DisputeSplit(bytes32 indexed leaseId, uint256 spenderAmount, uint256 earnerAmount);

    /// @notice Two results were signed for one computation; follows DisputeResolved(leaseId, true, ...) in the same transaction.
    /// @param leaseId the lease
    /// @param computationId the computation with two results
    /// @param firstResultHash one of them
    /// @param secondResultHash the other
    event EquivocationProven(
        bytes32 indexed leaseId,
        bytes32 indexed computationId,
        bytes32 firstResultHash,
        bytes32 secondResultHash
    );

    // ------------------------------------------------------------------------------------------------ events of accounts

    /// @notice An Earner gave its day-to-day powers to somebody.
    /// @param earner whose powers
    /// @param operator who has them now; the zero address: nobody
    event OperatorChanged(address indexed earner, address indexed operator);

    /// @notice Leases created from now on go to this arbiter; older ones keep theirs.
    /// @param arbiterId a number that grows by one with each appointment
    /// @param arbiter who decides
    event ArbiterChanged(uint32 indexed arbiterId, address indexed arbiter);

    /// @notice An account may withdraw more, because of this lease.
    /// @param leaseId the lease
    /// @param account whose credit grew
    /// @param amount by how many wei
    event Credited(bytes32 indexed leaseId, address indexed account, uint256 amount);

    /// @notice An account took its credit out.
    /// @param account whose credit it was
    /// @param to who received it
    /// @param amount wei
    event Withdrawn(address indexed account, address indexed to, uint256 amount);

    // ------------------------------------------------------------------------------------------------ errors

    /// @notice No lease has this id.
    /// @param leaseId the id
    error UnknownLease(bytes32 leaseId);

    /// @notice The lease stands at `status`, from which this step does not lead anywhere.
    /// @param leaseId the lease
    /// @param status where it stands
    error WrongStatus(bytes32 leaseId, Status status);

    /// @notice Only the Spender may do this.
    /// @param leaseId the lease
    /// @param caller who tried
    error NotSpender(bytes32 leaseId, address caller);

    /// @notice Only the Earner or the operator may do this.
    /// @param leaseId the lease
    /// @param caller who tried
    error NotEarnerOrOperator(bytes32 leaseId, address caller);

    /// @notice Only the Spender or the Earner may do this.
    /// @param leaseId the lease
    /// @param caller who tried
    error NotParty(bytes32 leaseId, address caller);

    /// @notice Only the arbiter fixed at creation may do this.
    /// @param leaseId the lease
    /// @param caller who tried
    error NotArbiter(bytes32 leaseId, address caller);

    /// @notice Too early.
    /// @param leaseId the lease
    /// @param after_ possible only after this second
    error TooEarly(bytes32 leaseId, uint256 after_);

    /// @notice Too late.
    /// @param leaseId the lease
    /// @param until possible until this second
    error TooLate(bytes32 leaseId, uint256 until);

    /// @notice More was sent than the Spender meant to pay.
    /// @param price wei sent
    /// @param maxPrice wei meant at most
    error PriceAboveMax(uint256 price, uint256 maxPrice);

    /// @notice The price does not fit 96 bits.
    /// @param price wei sent
    error PriceTooLarge(uint256 price);

    /// @notice The expiry is not in the future, or is more than 730 days away.
    /// @param expiresAt the expiry asked for
    error BadExpiry(uint64 expiresAt);

    /// @notice A lease is for one computation at least.
    error NoComputations();

    /// @notice The zero address cannot be a party, an arbiter or a recipient.
    error ZeroAddress();

    /// @notice Neither the Earner nor the operator signed this approval.
    /// @param leaseId the lease
    error ApprovalNotSigned(bytes32 leaseId);

    /// @notice Nothing was delivered under this lease.
    /// @param leaseId the lease
    error NothingCommitted(bytes32 leaseId);

    /// @notice Something was delivered: the way out for the Spender is a dispute.
    /// @param leaseId the lease
    /// @param committed how many results
    error SomethingCommitted(bytes32 leaseId, uint32 committed);

    /// @notice The lease still has computations and has not expired.
    /// @param leaseId the lease
    /// @param committed how many results it has
    /// @param maxComputations how many it may have
    error ComputationsLeft(bytes32 leaseId, uint32 committed, uint32 maxComputations);

    /// @notice All computations of the lease have their result.
    /// @param leaseId the lease
    /// @param maxComputations how many that are
    error AllCommitted(bytes32 leaseId, uint32 maxComputations);

    /// @notice This computation has its result already.
    /// @param leaseId the lease
    /// @param computationId the computation
    /// @param resultHash the result that stands
    error AlreadyCommitted(bytes32 leaseId, bytes32 computationId, bytes32 resultHash);

    /// @notice Zero stands for "no result".
    error ZeroResultHash();

    /// @notice A dispute is raised with exactly the stake.
    /// @param leaseId the lease
    /// @param sent wei sent
    /// @param stake wei asked for
    error WrongStake(bytes32 leaseId, uint256 sent, uint256 stake);

    /// @notice The reason is too long.
    /// @param length bytes of UTF-8 sent
    /// @param max bytes of UTF-8 allowed
    error ReasonTooLong(uint256 length, uint256 max);

    /// @notice The two receipts are about different computations, or about the same result.
    error NoEquivocation();

    /// @notice The receipt is not signed by the Earner, nor by who was operator during the lease.
    /// @param leaseId the lease
    /// @param resultHash the result of the receipt
    error NotSigned(bytes32 leaseId, bytes32 resultHash);

    /// @notice There is no credit.
    /// @param account whose
    error NothingToWithdraw(address account);

    /// @notice The recipient refused the ether; `withdrawTo` another one.
    /// @param to the recipient
    /// @param amount wei
    error WithdrawalFailed(address to, uint256 amount);

    // ------------------------------------------------------------------------------------------------ the life of a lease

    /// @notice Lease one computation on a product for the next 30 days, at the price of the ether sent.
    /// @param earner who works
    /// @param dataProductId keccak256 of the product id
    /// @param maxPrice the most wei the Spender means to pay; refused above it
    /// @return leaseId the lease's id, as the long form derives it
    function createLease(address earner, bytes32 dataProductId, uint256 maxPrice) external payable returns (bytes32 leaseId);

    /// @notice Lease computations on a product, at the price of the ether sent. The caller becomes the Spender.
    /// @dev leaseId = keccak256(abi.encode(chainid, this, spender, earner, dataProductId, price, expiresAt, maxComputations,
    /// arbiter, nonceOf[spender]++)), every value in a word of its own: whoever signs an approval of the id signs the terms.
    /// @param earner who works
    /// @param dataProductId keccak256 of the product id
    /// @param maxPrice the most wei the Spender means to pay; refused above it
    /// @param expiresAt no computation is accepted from then on; in the future, and at most 730 days away
    /// @param maxComputations how many results may be committed, at least 1
    /// @return leaseId the lease's id
    function createLease(
        address earner,
        bytes32 dataProductId,
        uint256 maxPrice,
        uint64 expiresAt,
        uint32 maxComputations
    ) external payable returns (bytes32 leaseId);

    /// @notice Agree to a lease. Earner or operator, until 7 days after creation and before the expiry.
    /// @param leaseId the lease
    function approveLease(bytes32 leaseId) external;

    /// @notice Agree to a lease with a signature that anyone may bring, in the same time. The Earner's or the operator's key
    /// signs Approval(bytes32 leaseId,uint256 deadline) (EIP-712); an Earner that is a contract is asked (ERC-1271).
    /// @param leaseId the lease
    /// @param deadline the signature counts until this second
    /// @param signature 65 bytes r, s, v of a key, or what the Earner's contract accepts
    function approveLeaseBySignature(bytes32 leaseId, uint256 deadline, bytes calldata signature) external;

    /// @notice Publish what a computation returned. Earner or operator, from approval until 1 day after the expiry, once per
    /// computation; a dispute or the execution does not stop it, for it moves no money.
    /// @param leaseId the lease
    /// @param computationId the computation
    /// @param resultHash sha-256 of its manifest; not zero
    function commitResult(bytes32 leaseId, bytes32 computationId, bytes32 resultHash) external;

    /// @notice Publish the results of several computations, of any leases whose Earner or operator the caller is. One that
    /// `commitResult` would refuse is left out with CommitmentRefused and does not stop the others.
    /// @param commitments what to commit, in this order
    /// @return accepted how many were committed
    function commitResults(Commitment[] calldata commitments) external returns (uint256 accepted);

    /// @notice Call the work done. Earner or operator, when something is committed and either nothing is left to do or the
    /// expiry has come; from 1 day after the expiry anyone, when something is committed.
    /// @param leaseId the lease
    function executeLease(bytes32 leaseId) external;

    /// @notice Pay the Earner. The Spender at once after execution; either side after the 7 days of the dispute window.
    /// @param leaseId the lease
    function finalizeLease(bytes32 leaseId) external;

    /// @notice Undo the lease and refund it whole. The Spender before approval; the Earner at any time before it is final;
    /// the Spender later than 1 day after the expiry when nothing was committed.
    /// @param leaseId the lease
    function cancelLease(bytes32 leaseId) external;

    // ------------------------------------------------------------------------------------------------ disputes

    /// @notice Object. The Spender, from approval until 7 days after execution, with a stake of a tenth of the price.
    /// @param leaseId the lease
    /// @param reason at most 256 bytes of UTF-8
    function raiseDispute(bytes32 leaseId, string calldata reason) external payable;

    /// @notice Decide. The lease's arbiter, until 30 days after the dispute was raised.
    /// @param leaseId the lease
    /// @param isDisputeValid true: the Spender has price and stake; false: the Earner has both
    function resolveDispute(bytes32 leaseId, bool isDisputeValid) external;

    /// @notice Close a dispute nobody decided in 30 days: half the price to each (an odd wei to the Spender), the stake back.
    /// Where no result was committed the Spender has the whole price back. Anyone.
    /// @param leaseId the lease
    function splitDispute(bytes32 leaseId) external;

    /// @notice Refund a lease, without an arbiter, whose Earner signed two results for one computation. Anyone, from approval
    /// until the lease is final.
    /// @param first a receipt
    /// @param firstSignature who signed it
    /// @param second another receipt of the same computation, with another result
    /// @param secondSignature who signed that
    function proveEquivocation(
        Receipt calldata first,
        bytes calldata firstSignature,
        Receipt calldata second,
        bytes calldata secondSignature
    ) external;

    // ------------------------------------------------------------------------------------------------ accounts

    /// @notice Let somebody approve, commit, execute and sign receipts for the caller's leases. Credit stays with the caller. A
    /// replaced operator still answers with its receipts for leases approved before its replacement, in the order of calls.
    /// @param operator who; the zero address: nobody
    function setOperator(address operator) external;

    /// @notice Take the caller's credit out to the caller.
    function withdraw() external;

    /// @notice Take the caller's credit out to another address.
    /// @param to who receives it
    function withdrawTo(address to) external;

    // ------------------------------------------------------------------------------------------------ owner

    /// @notice Appoint who decides the disputes of leases created from now on.
    /// @param arbiter who
    function setArbiter(address arbiter) external;

    /// @notice Stop creation and approval, and nothing else.
    function pause() external;

    /// @notice Allow creation and approval again.
    function unpause() external;

    // ------------------------------------------------------------------------------------------------ views

    /// @notice Whether a lease with this id was created.
    /// @param leaseId the id
    /// @return whether there is one
    function leaseExists(bytes32 leaseId) external view returns (bool);

    /// @notice Everything about a lease; reverts with UnknownLease.
    /// @param leaseId the lease
    /// @return the lease
    function getLease(bytes32 leaseId) external view returns (LeaseView memory);

    /// @notice The committed result of a computation.
    /// @param leaseId the lease
    /// @param computationId the computation
    /// @return resultHash sha-256 of its manifest; zero when there is none
    function committedResult(bytes32 leaseId, bytes32 computationId) external view returns (bytes32 resultHash);

    /// @notice Whether the receipt is signed by its lease's Earner, or by who was operator during it.
    /// @param receipt the receipt
    /// @param signature 65 bytes r, s, v
    /// @return whether it is; false, not a revert, for an unknown lease or a malformed signature
    function verifyReceipt(Receipt calldata receipt, bytes calldata signature) external view returns (bool);

    /// @notice The EIP-712 domain of receipts and approvals, as EIP-5267 tells it.
    /// @return fields which of the following count: 0x0f, the first four
    /// @return name "Pandacea LeaseAgreement"
    /// @return version "1"
    /// @return chainId this chain
    /// @return verifyingContract this contract
    /// @return salt zero
    /// @return extensions none
    function eip712Domain()
        external
        view
        returns (
            bytes1 fields,
            string memory name,
            string memory version,
            uint256 chainId,
            address verifyingContract,
            bytes32 salt,
            uint256[] memory extensions
        );

    /// @notice What an account may withdraw.
    /// @param account whose
    /// @return wei
    function creditOf(address account) external view returns (uint256);

    /// @notice Who acts for an Earner day to day.
    /// @param earner for whom
    /// @return the operator; zero: nobody
    function operatorOf(address earner) external view returns (address);

    /// @notice The nonce of the next lease an account creates.
    /// @param spender whose
    /// @return how many leases it created
    function nonceOf(address spender) external view returns (uint256);

    /// @notice Who decides the disputes of leases created now.
    /// @return the arbiter
    function currentArbiter() external view returns (address);
}
