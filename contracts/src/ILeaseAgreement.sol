// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

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
    event LeaseCreated(bytes32 indexed leaseId, address indexed spender, address indexed earner, uint256 price);
    /// @notice What was leased; follows LeaseCreated in the same transaction.
    event LeaseTerms(bytes32 indexed leaseId, bytes32 indexed dataProductId, uint64 expiresAt, uint32 maxComputations);
    /// @notice The Earner agreed to the terms the id stands for.
    event LeaseApproved(bytes32 indexed leaseId);
    /// @notice The Earner stands by this result of this computation.
    event ResultCommitted(bytes32 indexed leaseId, bytes32 indexed computationId, bytes32 resultHash);
    /// @notice The work is done; the Spender has the dispute window to object.
    event LeaseExecuted(bytes32 indexed leaseId);
    /// @notice The lease is off and the Spender has the whole price back, and the stake of an open dispute.
    event LeaseCancelled(bytes32 indexed leaseId);
    /// @notice The Earner has the price. `reputationReward` is always 0; it is kept for readers of the first version.
    event LeaseFinalized(bytes32 indexed leaseId, address indexed earner, uint256 reputationReward);
    /// @notice The Spender objects, and has put up `stakeAmount`.
    event DisputeRaised(
        bytes32 indexed leaseId,
        address indexed spender,
        address indexed earner,
        string reason,
        uint256 stakeAmount
    );
    /// @notice The matter is closed. `stakeAmount` is the stake that was held, 0 when none was.
    event DisputeResolved(bytes32 indexed leaseId, bool isDisputeValid, uint256 stakeAmount);
    /// @notice No verdict came in time; follows DisputeResolved(leaseId, false, ...) in the same transaction.
    event DisputeSplit(bytes32 indexed leaseId, uint256 spenderAmount, uint256 earnerAmount);
    /// @notice Two results were signed for one computation; follows DisputeResolved(leaseId, true, ...) in the same transaction.
    event EquivocationProven(
        bytes32 indexed leaseId,
        bytes32 indexed computationId,
        bytes32 firstResultHash,
        bytes32 secondResultHash
    );

    // ------------------------------------------------------------------------------------------------ events of accounts

    /// @notice `earner` gave its day-to-day powers to `operator` (the zero address: to nobody).
    event OperatorChanged(address indexed earner, address indexed operator);
    /// @notice Leases created from now on go to `arbiter`; older ones keep theirs.
    event ArbiterChanged(uint32 indexed arbiterId, address indexed arbiter);
    /// @notice `account` may withdraw `amount` more, because of this lease.
    event Credited(bytes32 indexed leaseId, address indexed account, uint256 amount);
    /// @notice `account` took its credit out to `to`.
    event Withdrawn(address indexed account, address indexed to, uint256 amount);

    // ------------------------------------------------------------------------------------------------ errors

    /// @notice No lease has this id.
    error UnknownLease(bytes32 leaseId);
    /// @notice The lease stands at `status`, from which this step does not lead anywhere.
    error WrongStatus(bytes32 leaseId, Status status);
    /// @notice Only the Spender may do this.
    error NotSpender(bytes32 leaseId, address caller);
    /// @notice Only the Earner or the operator may do this.
    error NotEarnerOrOperator(bytes32 leaseId, address caller);
    /// @notice Only the Spender or the Earner may do this.
    error NotParty(bytes32 leaseId, address caller);
    /// @notice Only the arbiter fixed at creation may do this.
    error NotArbiter(bytes32 leaseId, address caller);
    /// @notice Too early: this is possible only after the second `after_`.
    error TooEarly(bytes32 leaseId, uint256 after_);
    /// @notice Too late: this was possible until the second `until`.
    error TooLate(bytes32 leaseId, uint256 until);
    /// @notice More was sent than the Spender meant to pay.
    error PriceAboveMax(uint256 price, uint256 maxPrice);
    /// @notice The price does not fit 96 bits.
    error PriceTooLarge(uint256 price);
    /// @notice The expiry is not in the future, or does not fit 40 bits.
    error BadExpiry(uint64 expiresAt);
    /// @notice A lease is for one computation at least.
    error NoComputations();
    /// @notice The zero address cannot be a party, an arbiter or a recipient.
    error ZeroAddress();
    /// @notice Nothing was delivered under this lease.
    error NothingCommitted(bytes32 leaseId);
    /// @notice Something was delivered: the way out for the Spender is a dispute.
    error SomethingCommitted(bytes32 leaseId, uint32 committed);
    /// @notice The lease still has computations and has not expired.
    error ComputationsLeft(bytes32 leaseId, uint32 committed, uint32 maxComputations);
    /// @notice All computations of the lease have their result.
    error AllCommitted(bytes32 leaseId, uint32 maxComputations);
    /// @notice This computation has its result already.
    error AlreadyCommitted(bytes32 leaseId, bytes32 computationId, bytes32 resultHash);
    /// @notice Zero stands for "no result".
    error ZeroResultHash();
    /// @notice A dispute is raised with exactly the stake.
    error WrongStake(bytes32 leaseId, uint256 sent, uint256 stake);
    /// @notice A reason is at most `MAX_REASON_BYTES` of UTF-8.
    error ReasonTooLong(uint256 length, uint256 max);
    /// @notice The two receipts are about different computations, or about the same result.
    error NoEquivocation();
    /// @notice The receipt is not signed by the Earner, nor by who was operator during the lease.
    error NotSigned(bytes32 leaseId, bytes32 resultHash);
    /// @notice There is no credit.
    error NothingToWithdraw(address account);
    /// @notice The recipient refused the ether; `withdrawTo` another one.
    error WithdrawalFailed(address to, uint256 amount);

    // ------------------------------------------------------------------------------------------------ the life of a lease

    /// @notice Lease one computation on a product for the next 30 days, at the price of the ether sent.
    /// @param maxPrice the most the Spender means to pay; refused above it
    function createLease(address earner, bytes32 dataProductId, uint256 maxPrice) external payable returns (bytes32 leaseId);

    /// @notice Lease computations on a product, at the price of the ether sent. The caller becomes the Spender.
    /// @dev leaseId = keccak256(abi.encode(chainid, this, spender, earner, dataProductId, price, expiresAt, maxComputations,
    /// nonceOf[spender]++)), every value in a word of its own: whoever signs an approval of the id signs the terms.
    /// @param dataProductId keccak256 of the product id
    /// @param expiresAt no computation is accepted from then on; in the future
    /// @param maxComputations at least 1
    function createLease(
        address earner,
        bytes32 dataProductId,
        uint256 maxPrice,
        uint64 expiresAt,
        uint32 maxComputations
    ) external payable returns (bytes32 leaseId);

    /// @notice Agree to a lease. Earner or operator, until 7 days after creation and before the expiry.
    function approveLease(bytes32 leaseId) external;

    /// @notice Publish what a computation returned. Earner or operator, from approval until 1 day after the expiry, once per
    /// computation; a dispute or the execution does not stop it, for it moves no money.
    function commitResult(bytes32 leaseId, bytes32 computationId, bytes32 resultHash) external;

    /// @notice Call the work done. Earner or operator, when something is committed and either nothing is left to do or the
    /// expiry has come; from 1 day after the expiry anyone, when something is committed.
    function executeLease(bytes32 leaseId) external;

    /// @notice Pay the Earner. The Spender at once after execution; either side after the 7 days of the dispute window.
    function finalizeLease(bytes32 leaseId) external;

    /// @notice Undo the lease and refund it whole. The Spender before approval; the Earner at any time before it is final;
    /// the Spender later than 1 day after the expiry when nothing was committed.
    function cancelLease(bytes32 leaseId) external;

    // ------------------------------------------------------------------------------------------------ disputes

    /// @notice Object. The Spender, from approval until 7 days after execution, with a stake of a tenth of the price.
    /// @param reason at most 256 bytes of UTF-8
    function raiseDispute(bytes32 leaseId, string calldata reason) external payable;

    /// @notice Decide. The lease's arbiter, until 30 days after the dispute was raised. Valid: the Spender has price and stake.
    /// Invalid: the Earner has both.
    function resolveDispute(bytes32 leaseId, bool isDisputeValid) external;

    /// @notice Close a dispute nobody decided in 30 days: half the price to each (an odd wei to the Spender), the stake back.
    /// Anyone.
    function splitDispute(bytes32 leaseId) external;

    /// @notice Refund a lease, without an arbiter, whose Earner signed two results for one computation. Anyone, from approval
    /// until the lease is final.
    function proveEquivocation(
        Receipt calldata first,
        bytes calldata firstSignature,
        Receipt calldata second,
        bytes calldata secondSignature
    ) external;

    // ------------------------------------------------------------------------------------------------ accounts

    /// @notice Let `operator` approve, commit, execute and sign receipts for the caller's leases; zero takes it back. Credit
    /// stays with the caller. A replaced operator still answers with its receipts for leases approved until its replacement.
    function setOperator(address operator) external;

    /// @notice Take the caller's credit out to the caller.
    function withdraw() external;

    /// @notice Take the caller's credit out to `to`.
    function withdrawTo(address to) external;

    // ------------------------------------------------------------------------------------------------ owner

    /// @notice Appoint who decides the disputes of leases created from now on.
    function setArbiter(address arbiter) external;

    /// @notice Stop creation and approval, and nothing else.
    function pause() external;

    /// @notice Allow creation and approval again.
    function unpause() external;

    // ------------------------------------------------------------------------------------------------ views

    /// @notice Whether a lease with this id was created.
    function leaseExists(bytes32 leaseId) external view returns (bool);

    /// @notice Everything about a lease; reverts with UnknownLease.
    function getLease(bytes32 leaseId) external view returns (LeaseView memory);

    /// @notice The committed result of a computation, zero when there is none.
    function committedResult(bytes32 leaseId, bytes32 computationId) external view returns (bytes32 resultHash);

    /// @notice Whether the receipt is signed by its lease's Earner, or by who was operator during it. False, not a revert, for
    /// an unknown lease or a malformed signature.
    function verifyReceipt(Receipt calldata receipt, bytes calldata signature) external view returns (bool);

    /// @notice What `account` may withdraw.
    function creditOf(address account) external view returns (uint256);

    /// @notice Who acts for `earner` day to day; zero: nobody.
    function operatorOf(address earner) external view returns (address);

    /// @notice The nonce of the next lease `spender` creates.
    function nonceOf(address spender) external view returns (uint256);

    /// @notice Who decides the disputes of leases created now.
    function currentArbiter() external view returns (address);
}
