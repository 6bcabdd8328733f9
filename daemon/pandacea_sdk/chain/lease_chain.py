"""`LeaseChain`: the contract's calls for Spender, Earner, operator, arbiter and owner, and its views for everybody."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, ParamSpec, Self, TypeVar

from eth_account.signers.local import LocalAccount

from pandacea_sdk.chain.caps import MAX_FEE, MAX_GAS, Caps
from pandacea_sdk.chain.errors import ChainError, RpcUnavailable, WrongDeployment
from pandacea_sdk.chain.lease import OnChainLease
from pandacea_sdk.chain.rpc import JsonRpcClient
from pandacea_sdk.chain.sender import MinedTransaction, TransactionSender, decode_reverts
from pandacea_sdk.credentials import account_from_key
from pandacea_sdk.errors import usage_error
from pandacea_sdk.protocol.contract import (
    BadValueError,
    ContractAbi,
    check_address,
    check_number,
    derive_lease_id,
    hash_product_id,
    lease_agreement,
)
from pandacea_sdk.protocol.deployment import Deployment
from pandacea_sdk.protocol.hashing import hex32, keccak256

P = ParamSpec("P")
T = TypeVar("T")

MINED_WITHIN_SECONDS: Final = 120.0
"""Default time to wait for a transaction to be mined."""
MAX_TERM_SECONDS: Final = 730 * 86_400
"""The longest that a lease may last; the contract refuses more."""
_CREATE: Final = "createLease(address,bytes32,uint256,uint64,uint32)"


class LeaseChain:
    """One contract on one chain, called by one account.

    `async with LeaseChain(rpc_url, address, key=...) as chain: lease = await chain.create_lease(...)`. Every writing method
    returns when its transaction is mined, and raises `ContractReverted` with the contract's own error when it is refused.
    """

    def __init__(
        self,
        rpc_url: str,
        contract: str | Deployment,
        *,
        key: str | LocalAccount | None = None,
        chain_id: int | None = None,
        max_fee: int = MAX_FEE,
        max_gas: int = MAX_GAS,
        max_tip: int | None = None,
        any_code: bool = False,
        mined_within: float = MINED_WITHIN_SECONDS,
        allow_http: bool = False,
    ) -> None:
        """Set the connection up; the endpoint is not contacted before `async with`.

        Args:
            rpc_url: https, or http on this machine.
            contract: address, or a deployment record, whose chain id and code hash are then checked.
            key: a private key in hex, or an account (of a keystore: `credentials.load_account`); without one only views can be called.
            chain_id: of the chain you mean; an endpoint of another is refused. Default: the record's, or without one any.
            max_fee: the most wei that one transaction's gas may cost; the default is 0.01 of the native coin.
            max_gas: the largest gas limit of one transaction.
            max_tip: the most wei per gas on top of the base fee; default: 2 gwei, or the base fee where that is more.
            any_code: accept code other than this version's (with a record: the record's).
            mined_within: seconds to wait for a transaction.
            allow_http: accept plain http to another machine.

        Raises:
            UsageError: the address or the key is malformed. Every method raises it for a malformed id, hash, address or number.
            ValueError: see `JsonRpcClient`.
        """
        self._record = contract if isinstance(contract, Deployment) else None
        self.contract = raise_usage_errors(
            check_address, contract.address if isinstance(contract, Deployment) else contract, "contract"
        )
        self._rpc = JsonRpcClient(rpc_url, allow_http=allow_http)
        self._account: LocalAccount | None = None if key is None else account_from_key(key)
        self._expected_chain = self._record.chain_id if chain_id is None and self._record is not None else chain_id
        if self._record is not None and self._expected_chain != self._record.chain_id:
            raise usage_error(f"chain_id is {chain_id}, but the deployment record is of chain {self._record.chain_id}.")
        self._caps = Caps(max_fee, max_gas, max_tip)
        self._any_code, self._mined_within = any_code, mined_within
        self._abi = lease_agreement()
        self._stack = AsyncExitStack()
        self._sender: TransactionSender | None = None
        self.chain_id = 0

    async def __aenter__(self) -> Self:
        """Connect, and check that chain and code are the expected ones."""
        try:
            await self._stack.enter_async_context(self._rpc)
            self.chain_id = await self._rpc.call_for_quantity("eth_chainId")
            await self._check()
        except BaseException:
            await self._stack.aclose()
            raise
        if self._account is not None:
            self._sender = TransactionSender(
                self._rpc, self._account, self._abi, self.chain_id, timeout=self._mined_within, caps=self._caps
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _check(self) -> None:
        if self._expected_chain not in {None, self.chain_id}:
            whose = "you asked for" if self._record is None else "the record is of"
            raise WrongDeployment(f"the endpoint serves chain {self.chain_id}, but {whose} chain {self._expected_chain}")
        code = await self._rpc.call_for_bytes("eth_getCode", self.contract, "latest")
        if not code:
            raise WrongDeployment(
                f"there is no contract at {self.contract} on chain {self.chain_id}: check the address and the chain"
            )
        expected = self._record.code_hash if self._record is not None else self._abi.runtime_code_hash
        found = hex32(keccak256(code))
        if found != expected and not self._any_code:
            raise WrongDeployment(
                f"the code at {self.contract} has the hash {found}, expected {expected}: another contract or version"
            )

    @property
    def address(self) -> str:
        """The account's address, lower-case hex."""
        if self._account is None:
            raise ChainError("this connection has no key: pass `key` to send transactions")
        return self._account.address.lower()

    # ---------------------------------------------------------------------------------------------- Spender

    async def create_lease(
        self,
        earner: str,
        product_id: str,
        *,
        price: int,
        expires_at: int,
        max_computations: int = 1,
        max_price: int | None = None,
        arbiter: str | None = None,
    ) -> str:
        """Create a lease: pay `price` wei for up to `max_computations` on a product until `expires_at` (Unix seconds). Returns its id.

        With `arbiter` only that one may judge; else whoever is appointed now. The id is recomputed from the terms, so that an endpoint
        cannot substitute another lease's.

        Raises:
            UsageError: a term is malformed, the Earner is this account itself, the expiry is past or more than 730 days away, or the
                arbiter is a side of the lease or another than `arbiter`.
            FeeAboveCap: the endpoint asks for more than `max_fee`, `max_gas` or `max_tip`. In both cases nothing was sent.
        """
        product = hash_product_id(product_id)
        raise_usage_errors(check_number, price, 256, "price")
        self._calldata(_CREATE, earner, product, price if max_price is None else max_price, expires_at, max_computations)
        if earner.lower() == self.address:
            raise usage_error(f"the Earner is {earner}, this account itself: it would pay itself. Give the Earner's address.")
        now = await self.now()
        if not now < expires_at <= now + MAX_TERM_SECONDS:
            raise usage_error(
                f"expires_at is {expires_at}: it must lie after the chain's time, {now}, and at most 730 days later; "
                "it is in Unix seconds, such as await chain.now() + 7 * 86_400."
            )
        judge = await self._check_arbiter(earner, arbiter)
        nonce = await self.view("nonceOf", self.address)
        values = (earner, product, price if max_price is None else max_price, expires_at, max_computations)
        receipt = await self._write(_CREATE, *values, value=price)
        created = receipt.event("LeaseCreated")["leaseId"]
        terms: dict[str, Any] = {
            "chain_id": self.chain_id,
            "contract": self.contract,
            "spender": self.address,
            "earner": earner,
            "data_product_id": product,
            "price": price,
            "expires_at": expires_at,
            "max_computations": max_computations,
            "arbiter": judge,
        }
        # Other leases of this account may have been mined in between, so the nonce may be higher than the one read.
        if created not in {derive_lease_id(**terms, nonce=nonce + ahead) for ahead in range(_NONCES_AHEAD)}:
            raise ChainError(
                f"the endpoint answered with lease {created}, whose id does not follow from these terms with the arbiter {judge}: "
                "do not use it. If the contract's owner replaced the arbiter meanwhile, cancel the lease; it is not approved yet"
            )
        return str(created)

    async def _check_arbiter(self, earner: str, wanted: str | None) -> str:
        if wanted is not None:
            raise_usage_errors(check_address, wanted, "arbiter")
        judge = await self.current_arbiter()
        if wanted is not None and judge != wanted.lower():
            raise usage_error(f"the arbiter of leases created now is {judge}, not {wanted}: ask the contract's owner.")
        if judge in {self.address, earner.lower(), await self.operator_of(earner)}:
            raise usage_error(
                f"the arbiter of leases created now is {judge}, a side of this one, which would judge its own disputes: "
                "use another contract."
            )
        return judge

    async def finalize(self, lease_id: str) -> MinedTransaction:
        """Pay the Earner. The Spender may call it as soon as the lease is executed, the Earner 7 days later."""
        return await self._write("finalizeLease", lease_id)

    async def cancel(self, lease_id: str) -> MinedTransaction:
        """Cancel the lease and refund the Spender."""
        return await self._write("cancelLease", lease_id)

    async def raise_dispute(self, lease_id: str, reason: str) -> MinedTransaction:
        """Raise a dispute, locking the stake that the lease states. `reason`: at most 256 bytes of UTF-8."""
        stake = (await self.lease(lease_id)).stake
        return await self._write("raiseDispute", lease_id, reason, value=stake)

    async def prove_equivocation(
        self, first: Sequence[str], first_signature: str, second: Sequence[str], second_signature: str
    ) -> MinedTransaction:
        """Refund a lease with two receipts that contradict each other.

        A receipt is (lease id, computation id, request hash, product version, result hash), each 32 bytes in hex.
        """
        return await self._write("proveEquivocation", tuple(first), first_signature, tuple(second), second_signature)

    # ---------------------------------------------------------------------------------------------- Earner and operator

    async def approve(self, lease_id: str) -> MinedTransaction:
        """Approve a lease: the Earner agrees to its terms."""
        return await self._write("approveLease", lease_id)

    async def commit_result(self, lease_id: str, computation_id: str, result_hash: str) -> MinedTransaction:
        """Commit the hash of a computation's result. Id and hash are 32 bytes in hex."""
        return await self._write("commitResult", lease_id, computation_id, result_hash)

    async def execute(self, lease_id: str) -> MinedTransaction:
        """Mark a lease as executed: its computations are done."""
        return await self._write("executeLease", lease_id)

    async def set_operator(self, operator: str) -> MinedTransaction:
        """Allow `operator` to approve, commit, execute and sign receipts for this account's leases."""
        return await self._write("setOperator", operator)

    # ---------------------------------------------------------------------------------------------- either side

    async def withdraw(self) -> int:
        """Withdraw this account's credit; returns the amount in wei."""
        return int((await self._write("withdraw")).event("Withdrawn")["amount"])

    async def withdraw_to(self, recipient: str) -> int:
        """Withdraw this account's credit to another address; returns the amount in wei."""
        return int((await self._write("withdrawTo", recipient)).event("Withdrawn")["amount"])

    # ---------------------------------------------------------------------------------------------- arbiter, owner, anyone

    async def resolve(self, lease_id: str, *, valid: bool) -> MinedTransaction:
        """Decide a dispute: valid refunds the Spender with the stake, invalid pays the Earner both."""
        return await self._write("resolveDispute", lease_id, valid)

    async def split(self, lease_id: str) -> MinedTransaction:
        """Close a dispute that the arbiter has not decided within 30 days: half each, or all to the Spender if nothing was committed."""
        return await self._write("splitDispute", lease_id)

    async def set_arbiter(self, arbiter: str) -> MinedTransaction:
        """Appoint the arbiter of leases created from now on (owner)."""
        return await self._write("setArbiter", arbiter)

    async def pause(self) -> MinedTransaction:
        """Stop creation and approval of leases (owner)."""
        return await self._write("pause")

    async def unpause(self) -> MinedTransaction:
        """Allow creation and approval of leases again (owner)."""
        return await self._write("unpause")

    # ---------------------------------------------------------------------------------------------- reading

    async def lease(self, lease_id: str) -> OnChainLease:
        """Fetch a lease; raises `ContractReverted` with UnknownLease when it does not exist."""
        struct = await self.view("getLease", lease_id)
        try:
            return OnChainLease.from_struct(lease_id, struct)
        except ValueError as error:
            raise RpcUnavailable(f"the endpoint's answer to getLease cannot be read: {error}") from error

    async def committed_result(self, lease_id: str, computation_id: str) -> str | None:
        """Fetch the result hash committed for a computation, or None."""
        found: str = await self.view("committedResult", lease_id, computation_id)
        return found if int(found, 16) else None

    async def verify_receipt(self, receipt: Sequence[str], signature: str) -> bool:
        """Tell whether a receipt (five 32-byte values in hex) is signed by its lease's Earner, or by an operator of theirs during it."""
        return bool(await self.view("verifyReceipt", tuple(receipt), signature))

    async def credit_of(self, account: str) -> int:
        """Fetch what an account may withdraw, in wei."""
        return int(await self.view("creditOf", account))

    async def operator_of(self, earner: str) -> str | None:
        """Fetch the address of an Earner's operator, or None."""
        found: str = await self.view("operatorOf", earner)
        return found if int(found, 16) else None

    async def current_arbiter(self) -> str:
        """Fetch the arbiter of leases created now."""
        return str(await self.view("currentArbiter"))

    async def now(self) -> int:
        """Fetch the newest block's timestamp, the contract's clock, in Unix seconds."""
        head = await self._rpc.call("eth_getBlockByNumber", "latest", False)
        try:
            return int(head["timestamp"], 16)
        except (KeyError, TypeError, ValueError) as error:
            raise RpcUnavailable(f"the endpoint's newest block has no timestamp: {str(head)[:80]!r}") from error

    async def view(self, function: str, *values: object, abi: ContractAbi | None = None) -> Any:
        """Call a view by its name; `abi`: of another version of the contract."""
        known = abi or self._abi
        asked = {"to": self.contract, "data": "0x" + raise_usage_errors(known.encode_call, function, *values).hex()}
        found = await decode_reverts(known, function, self._rpc.call_for_bytes("eth_call", asked, "latest"))
        try:
            return known.decode_result(function, found)
        except ValueError as error:
            raise RpcUnavailable(f"the endpoint's answer to {function} cannot be read: {error}") from error

    async def _write(self, function: str, *values: object, value: int = 0) -> MinedTransaction:
        if self._sender is None:
            raise ChainError(f"{function} needs a key: pass `key` to write")
        return await self._sender.send(function.partition("(")[0], self.contract, self._calldata(function, *values), value)

    def _calldata(self, function: str, *values: object) -> bytes:
        return raise_usage_errors(self._abi.encode_call, function, *values)


_NONCES_AHEAD: Final = 16


def raise_usage_errors(encode: Callable[P, T], *values: P.args, **named: P.kwargs) -> T:
    """Call a function that checks values, and raise what it refuses as UsageError."""
    try:
        return encode(*values, **named)
    except BadValueError as problem:
        raise usage_error(f"{problem}.") from None
