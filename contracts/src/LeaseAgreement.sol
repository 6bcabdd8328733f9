// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.36;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {Pausable} from "@openzeppelin/contracts/utils/Pausable.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

import {ILeaseAgreement} from "./ILeaseAgreement.sol";
import {Commitment} from "./types/Commitment.sol";
import {Lease} from "./types/Lease.sol";
import {LeaseView} from "./types/LeaseView.sol";
import {OperatorRecord} from "./types/OperatorRecord.sol";
import {Receipt} from "./types/Receipt.sol";
import {Status} from "./types/Status.sol";

/// @title LeaseAgreement
/// @dev Three rules keep money safe here. A lease's price (and stake) is held from the step that brings it until the one step
/// that makes the status final, which credits all of it. Ether leaves in one place, `_withdraw`, after the credit is zeroed.
/// Nobody is called but the withdrawing account, and, without any power to change state, a contract that is asked whether it
/// signed an approval (ERC-1271). There are no immutables, so every deployment has the same runtime code and
/// its hash can be compared.
contract LeaseAgreement is ILeaseAgreement, Ownable2Step, Pausable, ReentrancyGuardTransient {
    uint256 private constant APPROVAL_PERIOD = 7 days;
    uint256 private constant COMMIT_GRACE = 1 days;
    uint256 private constant DISPUTE_WINDOW = 7 days;
    uint256 private constant ARBITRATION_PERIOD = 30 days;
    uint256 private constant DEFAULT_TERM = 30 days;
    uint256 private constant MAX_TERM = 730 days;
    uint256 private constant STAKE_DIVISOR = 10;
    uint256 private constant MAX_REASON_BYTES = 256;
    /// @dev EIP-5267: name, version, chainId, verifyingContract.
    bytes1 private constant DOMAIN_FIELDS = hex"0f";
    string private constant DOMAIN_NAME = "Pandacea LeaseAgreement";
    string private constant DOMAIN_VERSION = "1";
    bytes32 private constant APPROVAL_TYPEHASH = keccak256("Approval(bytes32 leaseId,uint256 deadline)");
    bytes32 private constant RECEIPT_TYPEHASH =
        keccak256(
            "Receipt(bytes32 leaseId,bytes32 computationId,bytes32 requestHash,bytes32 productVersion,bytes32 resultHash)"
        );

    /// @dev Shares a slot with Ownable2Step's pending owner and Pausable's flag, so that creation reads one slot for both.
    uint32 private _arbiterId;
    mapping(uint32 arbiterId => address) private _arbiters;
    mapping(bytes32 leaseId => Lease) private _leases;
    mapping(bytes32 leaseId => mapping(bytes32 computationId => bytes32)) private _results;
    /// @dev The epoch of the Earner that began when this operator was replaced last; 0: it never was.
    mapping(address earner => mapping(address operator => uint256)) private _replacedIn;

    /// @inheritdoc ILeaseAgreement
    mapping(address account => uint256) public creditOf;
    mapping(address earner => OperatorRecord) private _operators;
    /// @inheritdoc ILeaseAgreement
    mapping(address spender => uint256) public nonceOf;

    /// @param owner_ may pause and appoint arbiters; never touches money
    /// @param arbiter_ decides the disputes of the first leases
    constructor(address owner_, address arbiter_) Ownable(owner_) {
        _appoint(arbiter_);
    }

    // ------------------------------------------------------------------------------------------------ the life of a lease

    /// @inheritdoc ILeaseAgreement
    function createLease(address earner, bytes32 dataProductId, uint256 maxPrice) external payable returns (bytes32) {
        return _create(earner, dataProductId, maxPrice, uint64(block.timestamp + DEFAULT_TERM), 1);
    }

    /// @inheritdoc ILeaseAgreement
    function createLease(
        address earner,
        bytes32 dataProductId,
        uint256 maxPrice,
        uint64 expiresAt,
        uint32 maxComputations
    ) external payable returns (bytes32) {
        return _create(earner, dataProductId, maxPrice, expiresAt, maxComputations);
    }

    /// @inheritdoc ILeaseAgreement
    function approveLease(bytes32 leaseId) external whenNotPaused {
        Lease storage lease = _at(leaseId, Status.Created);
        address earner = lease.earner;
        _onlyEarnerOrOperator(leaseId, earner);
        _approve(leaseId, lease, earner);
    }

    /// @inheritdoc ILeaseAgreement
    function approveLeaseBySignature(bytes32 leaseId, uint256 deadline, bytes calldata signature) external whenNotPaused {
        Lease storage lease = _at(leaseId, Status.Created);
        address earner = lease.earner;
        _notAfter(leaseId, deadline);
        bytes32 digest = _digest(keccak256(abi.encode(APPROVAL_TYPEHASH, leaseId, deadline)));
        (address signer, ECDSA.RecoverError err, ) = ECDSA.tryRecoverCalldata(digest, signature);
        bool signed = err == ECDSA.RecoverError.NoError && (signer == earner || signer == _operators[earner].operator);
        if (!signed && !SignatureChecker.isValidERC1271SignatureNowCalldata(earner, digest, signature)) {
            revert ApprovalNotSigned(leaseId);
        }
        _approve(leaseId, lease, earner);
    }

    /// @inheritdoc ILeaseAgreement
    function commitResult(bytes32 leaseId, bytes32 computationId, bytes32 resultHash) external {
        // Check
        Lease storage lease = _live(leaseId);
        _onlyEarnerOrOperator(leaseId, lease.earner);
        _notAfter(leaseId, lease.expiresAt + COMMIT_GRACE);
        if (resultHash == 0) revert ZeroResultHash();
        mapping(bytes32 => bytes32) storage results = _results[leaseId];
        bytes32 known = results[computationId];
        if (known != 0) revert AlreadyCommitted(leaseId, computationId, known);
        uint32 committed = lease.committed;
        if (committed == lease.maxComputations) revert AllCommitted(leaseId, committed);
        // Effect
        unchecked {
            lease.committed = committed + 1; // at most maxComputations
        }
        results[computationId] = resultHash;
        emit ResultCommitted(leaseId, computationId, resultHash);
    }

    /// @inheritdoc ILeaseAgreement
    function commitResults(Commitment[] calldata commitments) external returns (uint256 accepted) {
        for (uint256 i; i < commitments.length; ++i) {
            Commitment calldata one = commitments[i];
            bytes4 reason = _commitRefusal(one);
            if (reason != 0) {
                emit CommitmentRefused(one.leaseId, one.computationId, reason);
                continue;
            }
            unchecked {
                ++_leases[one.leaseId].committed; // at most maxComputations
                ++accepted; // at most commitments.length
            }
            _results[one.leaseId][one.computationId] = one.resultHash;
            emit ResultCommitted(one.leaseId, one.computationId, one.resultHash);
        }
    }

    /// @inheritdoc ILeaseAgreement
    function executeLease(bytes32 leaseId) external {
        // Check
        Lease storage lease = _at(leaseId, Status.Approved);
        uint256 expiresAt = lease.expiresAt;
        uint32 committed = lease.committed;
        if (committed == 0) revert NothingCommitted(leaseId);
        if (block.timestamp <= expiresAt + COMMIT_GRACE) {
            _onlyEarnerOrOperator(leaseId, lease.earner);
            if (block.timestamp < expiresAt && committed != lease.maxComputations) {
                revert ComputationsLeft(leaseId, committed, lease.maxComputations);
            }
        }
        // Effect
        lease.status = Status.Executed;
        lease.executedAt = uint40(block.timestamp);
        emit LeaseExecuted(leaseId);
    }

    /// @inheritdoc ILeaseAgreement
    function finalizeLease(bytes32 leaseId) external {
        // Check
        Lease storage lease = _at(leaseId, Status.Executed);
        address earner = lease.earner;
        if (msg.sender != lease.spender) {
            if (msg.sender != earner) revert NotParty(leaseId, msg.sender);
            _onlyAfter(leaseId, lease.executedAt + DISPUTE_WINDOW);
        }
        // Effect
        lease.status = Status.Finalized;
        _credit(leaseId, earner, lease.price);
        emit LeaseFinalized(leaseId, earner, 0);
    }

    /// @inheritdoc ILeaseAgreement
    function cancelLease(bytes32 leaseId) external {
        // Check
        Lease storage lease = _known(leaseId);
        Status status = lease.status;
        if (status >= Status.Finalized) revert WrongStatus(leaseId, status);
        address spender = lease.spender;
        if (msg.sender != lease.earner) {
            if (msg.sender != spender) revert NotParty(leaseId, msg.sender);
            if (status != Status.Created) {
                uint32 committed = lease.committed;
                if (committed != 0) revert SomethingCommitted(leaseId, committed);
                _onlyAfter(leaseId, lease.expiresAt + COMMIT_GRACE);
            }
        }
        // Effect
        uint256 amount = lease.price + _heldStake(lease);
        lease.status = Status.Cancelled;
        _credit(leaseId, spender, amount);
        emit LeaseCancelled(leaseId);
    }

    // ------------------------------------------------------------------------------------------------ disputes

    /// @inheritdoc ILeaseAgreement
    function raiseDispute(bytes32 leaseId, string calldata reason) external payable {
        // Check
        Lease storage lease = _known(leaseId);
        Status status = lease.status;
        if (status != Status.Approved && status != Status.Executed) revert WrongStatus(leaseId, status);
        if (msg.sender != lease.spender) revert NotSpender(leaseId, msg.sender);
        if (status == Status.Executed) _notAfter(leaseId, lease.executedAt + DISPUTE_WINDOW);
        uint256 stake = _stake(lease);
        if (msg.value != stake) revert WrongStake(leaseId, msg.value, stake);
        if (bytes(reason).length > MAX_REASON_BYTES) revert ReasonTooLong(bytes(reason).length, MAX_REASON_BYTES);
        // Effect
        lease.status = Status.Disputed;
        lease.disputedAt = uint40(block.timestamp);
        emit DisputeRaised(leaseId, msg.sender, lease.earner, reason, stake);
    }

    /// @inheritdoc ILeaseAgreement
    function resolveDispute(bytes32 leaseId, bool isDisputeValid) external {
        // Check
        Lease storage lease = _at(leaseId, Status.Disputed);
        if (msg.sender != _arbiters[lease.arbiterId]) revert NotArbiter(leaseId, msg.sender);
        _notAfter(leaseId, lease.disputedAt + ARBITRATION_PERIOD);
        // Effect
        uint256 stake = _stake(lease);
        lease.status = isDisputeValid ? Status.Refunded : Status.Settled;
        _credit(leaseId, isDisputeValid ? lease.spender : lease.earner, lease.price + stake);
        emit DisputeResolved(leaseId, isDisputeValid, stake);
    }

    /// @inheritdoc ILeaseAgreement
    function splitDispute(bytes32 leaseId) external {
        // Check
        Lease storage lease = _at(leaseId, Status.Disputed);
        _onlyAfter(leaseId, lease.disputedAt + ARBITRATION_PERIOD);
        // Effect
        uint256 price = lease.price;
        uint256 stake = _stake(lease);
        uint256 earnerAmount = lease.committed == 0 ? 0 : price / 2; // nothing delivered, nothing paid
        uint256 spenderAmount = price - earnerAmount + stake;
        lease.status = Status.Settled;
        _credit(leaseId, lease.spender, spenderAmount);
        _credit(leaseId, lease.earner, earnerAmount);
        emit DisputeResolved(leaseId, false, stake);
        emit DisputeSplit(leaseId, spenderAmount, earnerAmount);
    }

    /// @inheritdoc ILeaseAgreement
    function proveEquivocation(
        Receipt calldata first,
        bytes calldata firstSignature,
        Receipt calldata second,
        bytes calldata secondSignature
    ) external {
        // Check
        bytes32 leaseId = first.leaseId;
        Lease storage lease = _live(leaseId);
        if (
            second.leaseId != leaseId ||
            second.computationId != first.computationId ||
            second.resultHash == first.resultHash
        ) revert NoEquivocation();
        if (!_isSigned(lease, first, firstSignature)) revert NotSigned(leaseId, first.resultHash);
        if (!_isSigned(lease, second, secondSignature)) revert NotSigned(leaseId, second.resultHash);
        // Effect
        uint256 stake = _heldStake(lease);
        lease.status = Status.Refunded;
        _credit(leaseId, lease.spender, lease.price + stake);
        emit DisputeResolved(leaseId, true, stake);
        emit EquivocationProven(leaseId, first.computationId, first.resultHash, second.resultHash);
    }

    // ------------------------------------------------------------------------------------------------ accounts

    /// @inheritdoc ILeaseAgreement
    function setOperator(address operator) external {
        OperatorRecord storage record = _operators[msg.sender];
        address replaced = record.operator;
        uint24 epoch = record.epoch + 1;
        if (replaced != address(0)) _replacedIn[msg.sender][replaced] = epoch;
        record.operator = operator;
        record.epoch = epoch;
        emit OperatorChanged(msg.sender, operator);
    }

    /// @inheritdoc ILeaseAgreement
    function withdraw() external {
        _withdraw(msg.sender);
    }

    /// @inheritdoc ILeaseAgreement
    function withdrawTo(address to) external {
        if (to == address(0)) revert ZeroAddress();
        _withdraw(to);
    }

    // ------------------------------------------------------------------------------------------------ owner

    /// @inheritdoc ILeaseAgreement
    function setArbiter(address arbiter) external onlyOwner {
        _appoint(arbiter);
    }

    /// @inheritdoc ILeaseAgreement
    function pause() external onlyOwner {
        _pause();
    }

    /// @inheritdoc ILeaseAgreement
    function unpause() external onlyOwner {
        _unpause();
    }

    // ------------------------------------------------------------------------------------------------ views

    /// @inheritdoc ILeaseAgreement
    function leaseExists(bytes32 leaseId) external view returns (bool) {
        return _leases[leaseId].status != Status.None;
    }

    /// @inheritdoc ILeaseAgreement
    function getLease(bytes32 leaseId) external view returns (LeaseView memory) {
        Lease storage lease = _known(leaseId);
        Status status = lease.status;
        bool refunded = status == Status.Cancelled || status == Status.Refunded;
        return
            LeaseView({
                spender: lease.spender,
                earner: lease.earner,
                dataProductId: lease.dataProductId,
                price: lease.price,
                maxPrice: lease.price,
                isApproved: lease.approvedAt != 0 && !refunded,
                isExecuted: lease.executedAt != 0,
                isDisputed: lease.disputedAt != 0,
                isFinalized: status >= Status.Finalized,
                createdAt: lease.createdAt,
                approvedAt: lease.approvedAt,
                executedAt: lease.executedAt,
                disputedAt: lease.disputedAt,
                expiresAt: lease.expiresAt,
                maxComputations: lease.maxComputations,
                committed: lease.committed,
                stake: _stake(lease),
                arbiter: _arbiters[lease.arbiterId],
                status: status
            });
    }

    /// @inheritdoc ILeaseAgreement
    function committedResult(bytes32 leaseId, bytes32 computationId) external view returns (bytes32) {
        return _results[leaseId][computationId];
    }

    /// @inheritdoc ILeaseAgreement
    function verifyReceipt(Receipt calldata receipt, bytes calldata signature) external view returns (bool) {
        return _isSigned(_leases[receipt.leaseId], receipt, signature);
    }

    /// @inheritdoc ILeaseAgreement
    function operatorOf(address earner) external view returns (address) {
        return _operators[earner].operator;
    }

    /// @inheritdoc ILeaseAgreement
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
        )
    {
        return (DOMAIN_FIELDS, DOMAIN_NAME, DOMAIN_VERSION, block.chainid, address(this), 0, new uint256[](0));
    }

    /// @inheritdoc ILeaseAgreement
    function currentArbiter() external view returns (address) {
        return _arbiters[_arbiterId];
    }

    // ------------------------------------------------------------------------------------------------ steps

    function _create(
        address earner,
        bytes32 dataProductId,
        uint256 maxPrice,
        uint64 expiresAt,
        uint32 maxComputations
    ) private whenNotPaused returns (bytes32 leaseId) {
        // Check
        if (earner == address(0)) revert ZeroAddress();
        if (msg.value > maxPrice) revert PriceAboveMax(msg.value, maxPrice);
        if (msg.value > type(uint96).max) revert PriceTooLarge(msg.value);
        if (expiresAt <= block.timestamp || expiresAt > block.timestamp + MAX_TERM) revert BadExpiry(expiresAt);
        if (maxComputations == 0) revert NoComputations();
        // Effect
        uint32 arbiterId = _arbiterId;
        address arbiter = _arbiters[arbiterId];
        uint256 nonce;
        unchecked {
            nonce = nonceOf[msg.sender]++; // 2^256 leases do not happen
        }
        leaseId = keccak256(
            abi.encode(
                block.chainid,
                address(this),
                msg.sender,
                earner,
                dataProductId,
                msg.value,
                expiresAt,
                maxComputations,
                arbiter,
                nonce
            )
        );
        Lease storage lease = _leases[leaseId];
        lease.spender = msg.sender;
        lease.price = uint96(msg.value);
        lease.earner = earner;
        lease.expiresAt = uint40(expiresAt);
        lease.maxComputations = maxComputations;
        lease.dataProductId = dataProductId;
        lease.arbiterId = arbiterId;
        lease.status = Status.Created;
        lease.createdAt = uint40(block.timestamp);
        emit LeaseCreated(leaseId, msg.sender, earner, msg.value);
        emit LeaseTerms(leaseId, dataProductId, expiresAt, maxComputations);
    }

    /// @dev The caller has checked who agreed.
    function _approve(bytes32 leaseId, Lease storage lease, address earner) private {
        // Check
        _notAfter(leaseId, lease.createdAt + APPROVAL_PERIOD);
        uint256 expiresAt = lease.expiresAt;
        if (block.timestamp >= expiresAt) revert TooLate(leaseId, expiresAt - 1);
        // Effect
        lease.status = Status.Approved;
        lease.approvedAt = uint40(block.timestamp);
        lease.operatorEpoch = _operators[earner].epoch;
        emit LeaseApproved(leaseId);
    }

    /// @dev The one way a lease's money becomes somebody's; each caller has just made the status final.
    function _credit(bytes32 leaseId, address account, uint256 amount) private {
        creditOf[account] += amount;
        emit Credited(leaseId, account, amount);
    }

    /// @dev The one way ether leaves.
    function _withdraw(address to) private nonReentrant {
        // Check
        uint256 amount = creditOf[msg.sender];
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        // Effect
        creditOf[msg.sender] = 0;
        emit Withdrawn(msg.sender, to, amount);
        // Interaction
        (bool sent, ) = to.call{value: amount}("");
        if (!sent) revert WithdrawalFailed(to, amount);
    }

    function _appoint(address arbiter) private {
        if (arbiter == address(0)) revert ZeroAddress();
        uint32 arbiterId = ++_arbiterId;
        _arbiters[arbiterId] = arbiter;
        emit ArbiterChanged(arbiterId, arbiter);
    }

    // ------------------------------------------------------------------------------------------------ checks

    function _known(bytes32 leaseId) private view returns (Lease storage lease) {
        lease = _leases[leaseId];
        if (lease.status == Status.None) revert UnknownLease(leaseId);
    }

    function _at(bytes32 leaseId, Status status) private view returns (Lease storage lease) {
        lease = _leases[leaseId];
        Status found = lease.status;
        if (found != status) _wrongStatus(leaseId, found);
    }

    /// @dev Approved and not final.
    function _live(bytes32 leaseId) private view returns (Lease storage lease) {
        lease = _leases[leaseId];
        Status found = lease.status;
        if (found < Status.Approved || found > Status.Disputed) _wrongStatus(leaseId, found);
    }

    function _wrongStatus(bytes32 leaseId, Status found) private pure {
        if (found == Status.None) revert UnknownLease(leaseId);
        revert WrongStatus(leaseId, found);
    }

    function _onlyEarnerOrOperator(bytes32 leaseId, address earner) private view {
        if (msg.sender != earner && msg.sender != _operators[earner].operator) revert NotEarnerOrOperator(leaseId, msg.sender);
    }

    /// @dev The selector of the error that `commitResult` would revert with, in its order of checks; 0: it would commit.
    function _commitRefusal(Commitment calldata one) private view returns (bytes4) {
        Lease storage lease = _leases[one.leaseId];
        Status status = lease.status;
        if (status == Status.None) return UnknownLease.selector;
        if (status < Status.Approved || status > Status.Disputed) return WrongStatus.selector;
        address earner = lease.earner;
        if (msg.sender != earner && msg.sender != _operators[earner].operator) return NotEarnerOrOperator.selector;
        if (block.timestamp > lease.expiresAt + COMMIT_GRACE) return TooLate.selector;
        if (one.resultHash == 0) return ZeroResultHash.selector;
        if (_results[one.leaseId][one.computationId] != 0) return AlreadyCommitted.selector;
        if (lease.committed == lease.maxComputations) return AllCommitted.selector;
        return 0;
    }

    function _notAfter(bytes32 leaseId, uint256 until) private view {
        if (block.timestamp > until) revert TooLate(leaseId, until);
    }

    function _onlyAfter(bytes32 leaseId, uint256 after_) private view {
        if (block.timestamp <= after_) revert TooEarly(leaseId, after_);
    }

    function _stake(Lease storage lease) private view returns (uint256) {
        return lease.price / STAKE_DIVISOR;
    }

    /// @dev The stake of an open dispute; 0 when none is open.
    function _heldStake(Lease storage lease) private view returns (uint256) {
        return lease.status == Status.Disputed ? _stake(lease) : 0;
    }

    /// @dev By the Earner, by the operator, or by one that was operator when this lease was approved or later. An operator
    /// replaced before it (a key known to be stolen) signs nothing here, though it be in the same second.
    function _isSigned(Lease storage lease, Receipt calldata receipt, bytes calldata signature) private view returns (bool) {
        if (lease.approvedAt == 0) return false;
        bytes32 digest = _digest(
            keccak256(
                abi.encode(
                    RECEIPT_TYPEHASH,
                    receipt.leaseId,
                    receipt.computationId,
                    receipt.requestHash,
                    receipt.productVersion,
                    receipt.resultHash
                )
            )
        );
        (address signer, ECDSA.RecoverError err, ) = ECDSA.tryRecoverCalldata(digest, signature);
        if (err != ECDSA.RecoverError.NoError) return false;
        address earner = lease.earner;
        return
            signer == earner ||
            signer == _operators[earner].operator ||
            _replacedIn[earner][signer] > lease.operatorEpoch;
    }

    /// @dev What is signed (EIP-712) for a struct with this hash.
    function _digest(bytes32 structHash) private view returns (bytes32) {
        return MessageHashUtils.toTypedDataHash(_domainSeparator(), structHash);
    }

    /// @dev Computed each time: cached, it would be an immutable, and the runtime code would differ between deployments.
    function _domainSeparator() private view returns (bytes32) {
        return
            MessageHashUtils.toDomainSeparator(
                DOMAIN_FIELDS,
                keccak256(bytes(DOMAIN_NAME)),
                keccak256(bytes(DOMAIN_VERSION)),
                block.chainid,
                address(this),
                0
            );
    }
}
