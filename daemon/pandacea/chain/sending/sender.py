"""Sends transactions that survive a crash: stored before they are sent, sent again unchanged, replaced when stuck, effective once.

Sending ends with the pool. Whether a transaction did its work is read from the followed chain, whoever's transaction it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import structlog
from eth_account.signers.local import LocalAccount

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.sending.attempts import FILL, Attempt, MinedAttempt, cost_of, find_mined, log_outcome, sign_attempt
from pandacea.chain.sending.calldata import commitments_in, encode_commitments
from pandacea.chain.sending.fees import DAY_SECONDS, FeeLimits, FeeQuote, minimum_tip_of, parse_wei, quote_fees
from pandacea.chain.sending.key_lock import hold_key
from pandacea.chain.sending.reverts import PoolRefusal, classify_refusal, error_from_revert, insufficient_funds, revert_of
from pandacea.domain.ids import Address, LeaseId
from pandacea.errors import Unavailable
from pandacea.flows.following.chain_store import SentTransaction, SentTransactionStore
from pandacea.flows.ports import Commitment
from pandacea_sdk.protocol.contract import lease_agreement

log = structlog.get_logger(__name__)

BATCH_SIZE: Final = 20
"""Commitments of one transaction."""
MAX_UNMINED: Final = 16
"""Nonces that may wait to be mined; pools keep no more than a few of one sender."""
LOST_AFTER_SECONDS: Final = 7_200.0
"""A nonce that another transaction used is given up after this long where no endpoint tells the count at a final block."""
FEE_ATTEMPTS: Final = 4
"""How often one pass raises the fee of a transaction that the pool finds too cheap."""


class ChainSender:
    """Sends this node's transactions to one contract, one at a time. Implements `flows.ports.ResultPoster`."""

    def __init__(
        self,
        endpoints: EndpointPool,
        store: SentTransactionStore,
        account: LocalAccount,
        contract: Address,
        confident_block: Callable[[], int],
        *,
        keystore: Path | None = None,
        limits: FeeLimits | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`confident_block`: what is mined up to it is final; `keystore`: the file by which processes exclude each other."""
        self._endpoints = endpoints
        self._store = store
        self._account = account
        self._contract = contract
        self._confident_block = confident_block
        self._keystore = keystore
        self._limits = limits or FeeLimits()
        self._now = now
        self._lock = asyncio.Lock()
        self._sent_at: dict[str, float] = {}
        """Transaction hash -> when it was last given to an endpoint."""
        self._undone_at: dict[str, float] = {}
        """Transaction hash -> when a reorganisation took it out of the chain; until then it was not waiting."""
        self._minimum_tip = 0
        self.address = Address(str(account.address).lower())
        self.trouble: str | None = None
        """Why what is signed is not mined, as the last pass saw it; None: nothing stands in the way."""

    # -- what the flows ask for

    async def commit_results(self, commitments: Sequence[Commitment]) -> dict[Commitment, str | None]:
        """Commit results in batches; return for each why it is not on its way (None: a transaction with it is signed).

        Raises:
            Unavailable: no endpoint or no database; nothing was decided.
        """
        async with self._exclusive_endpoint() as endpoint:
            flying = {one[:2] for row in await self._look_after(endpoint) for one in commitments_in(row.raw)}
            answers: dict[Commitment, str | None] = {one: None for one in commitments if one[:2] in flying}
            waiting = [one for one in commitments if one not in answers]
            for start in range(0, len(waiting), BATCH_SIZE):
                batch = waiting[start : start + BATCH_SIZE]
                try:
                    answers.update(await self._commit_batch(endpoint, batch))
                except Unavailable as error:
                    self._note_failure(endpoint, error)
                    answers.update({one: error.detail for one in waiting[start:] if one not in answers})
                    break
            return answers

    async def call_lease(self, name: str, lease_id: LeaseId, note: str = "") -> None:
        """Sign and send `executeLease`, `approveLease`, `cancelLease` or `finalizeLease` of a lease, unless it is on its way.

        `note`: kept with the transaction.

        Raises:
            Unavailable: not now; the contract's reason, where it gave one.
        """
        async with self._exclusive_endpoint() as endpoint:
            purpose = f"{name}:{lease_id}"
            if not any(row.purpose.startswith(purpose) for row in await self._look_after(endpoint)):
                purpose += f":{note}" if note else ""
                await self._send_new(endpoint, purpose, lease_agreement().encode_call(name, lease_id))

    async def fetch_fee(self) -> int:
        """Return the fee cap per gas that a transaction would offer now, in wei.

        Raises:
            Unavailable: no endpoint tells.
        """
        async with self._exclusive_endpoint() as endpoint:
            return (await quote_fees(endpoint, minimum_tip=self._minimum_tip)).max_fee

    async def resend_undone(self) -> int:
        """Look at every transaction that is not final: send again what was dropped or undone, replace what is stuck; return how many.

        Raises:
            Unavailable: no endpoint or no database; nothing was decided.
        """
        async with self._exclusive_endpoint() as endpoint:
            return len(await self._look_after(endpoint))

    @asynccontextmanager
    async def _exclusive_endpoint(self) -> AsyncIterator[Endpoint]:
        async with self._lock, hold_key(self._keystore):
            endpoint = await self._endpoints.pick_endpoint()
            try:
                yield endpoint
            except RpcFault as fault:
                self._note_failure(endpoint, fault)
                raise

    def _note_failure(self, endpoint: Endpoint, error: Unavailable) -> None:
        if isinstance(error, RpcFault) and error.kind is not FaultKind.ERROR:
            self._endpoints.record_failure(endpoint, error)

    # -- new transactions

    async def _commit_batch(self, endpoint: Endpoint, batch: Sequence[Commitment]) -> dict[Commitment, str | None]:
        """Send one transaction with those of a batch that the contract would take now; smaller ones where the cap is too low for it."""
        answers: dict[Commitment, str | None] = {}
        if len(batch) > 1:
            said = await asyncio.gather(*(self._find_objection(endpoint, one) for one in batch))
            answers = {one: reason for one, reason in zip(batch, said, strict=True) if reason is not None}
            batch = [one for one in batch if one not in answers]
        if not batch:
            return answers
        purpose = f"commitResults:{batch[0].computation_id}:{len(batch)}"
        if len(batch) == 1:
            purpose = f"commitResult:{batch[0].lease_id}:{batch[0].computation_id}"
        try:
            await self._send_new(endpoint, purpose, encode_commitments(batch))
        except RpcFault:
            raise
        except _CapError:
            if len(batch) == 1:
                raise
            middle = len(batch) // 2
            return answers | await self._commit_batch(endpoint, batch[:middle]) | await self._commit_batch(endpoint, batch[middle:])
        except _RevertedError as error:
            return answers | dict.fromkeys(batch, error.detail)
        return answers | dict.fromkeys(batch)

    async def _find_objection(self, endpoint: Endpoint, one: Commitment) -> str | None:
        """Return why the contract would refuse one commitment now: a batch leaves it out at a price."""
        try:
            await endpoint.call_method("eth_call", [self._call_of(encode_commitments([one])), "latest"], str)
        except RpcFault as fault:
            if fault.reverted or revert_of(fault) is not None:
                return error_from_revert(fault, self.address).detail
            raise
        return None

    async def _send_new(self, endpoint: Endpoint, purpose: str, data: bytes) -> None:
        gas = await self._estimate_gas(endpoint, data)
        quote = await quote_fees(endpoint, minimum_tip=self._minimum_tip)
        self._check_transaction(gas * quote.max_fee)
        latest = await self._count_transactions(endpoint, "latest")
        pending = await self._count_transactions(endpoint, "pending")
        rows = await self._store.list_from_nonce(self._endpoints.chain_id, self.address, latest)
        taken = {row.nonce for row in rows if row.state != "lost"}
        nonce = latest
        while nonce in taken or nonce < pending:  # pending and not ours: another program sends with this key
            nonce += 1
        unmined = {row.nonce: row.max_cost for row in rows if row.state != "lost"}
        if len(unmined) >= MAX_UNMINED:
            raise Unavailable(f"{len(unmined)} transactions wait to be mined; the next one follows them.", retry_after=15)
        await self._check_balance(endpoint, gas * quote.max_fee + sum(unmined.values()))
        await self._sign_and_send(endpoint, self._attempt(rows, purpose, data, nonce, gas, quote))

    async def _estimate_gas(self, endpoint: Endpoint, data: bytes) -> int:
        try:
            needed = await endpoint.call_quantity("eth_estimateGas", [self._call_of(data)])
        except RpcFault as fault:
            if fault.kind is FaultKind.ERROR:
                found = error_from_revert(fault, self.address)
                raise found if found is fault else _RevertedError(found.detail, retry_after=found.retry_after) from fault
            raise
        if needed * 5 // 4 > self._limits.max_gas:
            raise _CapError(
                f"The endpoint says that the call needs {needed} gas, with a margin more than {self._limits.max_gas}; asked again later."
            )
        return needed * 5 // 4

    def _call_of(self, data: bytes) -> dict[str, str]:
        return {"from": self.address, "to": self._contract, "data": "0x" + data.hex(), "value": "0x0"}

    def _check_transaction(self, cost: int) -> None:
        try:
            self._limits.check_transaction(cost)
        except Unavailable as error:
            raise _CapError(error.detail, retry_after=error.retry_after) from None

    async def _check_balance(self, endpoint: Endpoint, needed: int) -> None:
        held = parse_wei(endpoint, await endpoint.call_method("eth_getBalance", [self.address, "latest"], str), "eth_getBalance")
        if held < needed:
            self._alarm(insufficient_funds(self.address).detail)
            raise insufficient_funds(self.address)

    async def _count_transactions(self, endpoint: Endpoint, block: str) -> int:
        return await endpoint.call_quantity("eth_getTransactionCount", [self.address, block])

    def _attempt(
        self, rows: Sequence[SentTransaction], purpose: str, data: bytes, nonce: int, gas: int, quote: FeeQuote
    ) -> Attempt:
        number = 1 + max((row.attempt for row in rows if row.nonce == nonce), default=-1)
        to = self.address if purpose.startswith(FILL) else self._contract
        return Attempt(self._endpoints.chain_id, purpose, to, data, nonce, number, gas, quote)

    async def _sign_and_send(self, endpoint: Endpoint, attempt: Attempt) -> SentTransaction:
        recent = await self._store.list_since(attempt.chain_id, self.address, self._now() - DAY_SECONDS)
        self._limits.check_day(attempt.nonce, attempt.cost, recent)
        row = sign_attempt(attempt, self._account, self.address, self._now())
        await self._store.insert_attempt(row)
        return await self._send(endpoint, row)

    async def _send(self, endpoint: Endpoint, row: SentTransaction) -> SentTransaction:
        """Give a signed attempt to the endpoint; one that the pool finds too cheap is replaced at once. Return what was sent last."""
        for _ in range(FEE_ATTEMPTS):
            self._sent_at[row.tx_hash] = self._now()
            try:
                await endpoint.call_method("eth_sendRawTransaction", [row.raw], str)
            except RpcFault as fault:
                if fault.kind is FaultKind.NULL:
                    return row
                match classify_refusal(fault.detail):
                    case PoolRefusal.KNOWN | PoolRefusal.NONCE_USED | PoolRefusal.REPLACEMENT_TOO_LOW:
                        return row
                    case PoolRefusal.NO_FUNDS:
                        self._alarm(insufficient_funds(self.address).detail)
                        return row
                    case PoolRefusal.BASE_FEE_ABOVE:
                        log.warning("sender.base_fee_above", nonce=row.nonce, max_fee=row.max_fee)
                    case PoolRefusal.FEE_TOO_LOW:
                        demanded = minimum_tip_of(fault.detail) or 2 * row.priority_fee
                        self._minimum_tip = max(self._minimum_tip, demanded)
                        log.warning("sender.fee_too_low", nonce=row.nonce, tip=row.priority_fee, demanded=demanded)
                    case PoolRefusal.OTHER:
                        self._alarm(fault.detail)
                        raise
            else:
                return row
            row = await self._sign_replacement(endpoint, row)
        return row

    async def _sign_replacement(self, endpoint: Endpoint, row: SentTransaction) -> SentTransaction:
        """Sign a dearer attempt with the same nonce and gas: also where the contract would refuse it by now, for the nonce must be used."""
        quote = (await quote_fees(endpoint, minimum_tip=self._minimum_tip)).over(row)
        rows = await self._store.list_from_nonce(row.chain_id, self.address, row.nonce)
        attempt = self._attempt(rows, row.purpose, Attempt.data_of(row), row.nonce, row.max_cost // row.max_fee, quote)
        self._limits.check_transaction(attempt.cost)
        recent = await self._store.list_since(row.chain_id, self.address, self._now() - DAY_SECONDS)
        self._limits.check_day(attempt.nonce, attempt.cost, recent)
        log.warning("sender.replaced", purpose=row.purpose, nonce=row.nonce, max_fee=quote.max_fee, tip=quote.tip)
        signed = sign_attempt(attempt, self._account, self.address, self._now())
        await self._store.insert_attempt(signed)
        return signed

    def _alarm(self, reason: str) -> None:
        if self.trouble != reason:
            log.error("sender.trouble", sender=self.address, reason=reason)
        self.trouble = reason

    # -- what was sent

    async def _look_after(self, endpoint: Endpoint) -> list[SentTransaction]:
        """Bring the rows in line with the chain and send what is not in it; return the attempts that may still take effect."""
        self.trouble, before = None, self.trouble
        rows = await self._store.list_open(self._endpoints.chain_id, self.address)
        if not rows:
            return []
        # Asked before the receipts: a transaction mined in between has a receipt by then.
        latest = await self._count_transactions(endpoint, "latest")
        flying: list[SentTransaction] = []
        for nonce, group in groupby(rows, key=lambda row: row.nonce):
            attempts = list(group)
            mined = await find_mined(endpoint, attempts)
            if mined is not None:
                if not await self._record_mined(endpoint, mined, attempts):
                    flying += attempts
            elif nonce >= latest:
                flying += await self._push(endpoint, attempts, before)
            elif await self._is_lost(endpoint, attempts[-1]):
                for row in attempts:
                    await self._store.update_state(row, "lost")
                log.warning("sender.lost", purpose=attempts[0].purpose, nonce=nonce, transaction=attempts[-1].tx_hash)
            else:
                flying += attempts
        await self._fill_gaps(endpoint, latest, flying)
        return flying

    async def _record_mined(self, endpoint: Endpoint, mined: MinedAttempt, attempts: Sequence[SentTransaction]) -> bool:
        """Write down that an attempt is in a block; return whether that is final."""
        final = mined.block <= self._confident_block()
        if mined.row.state != "mined":
            log_outcome(endpoint, mined)
        if final or mined.row.state != "mined" or mined.row.mined_block != mined.block:
            cost = cost_of(endpoint, mined.receipt)
            await self._store.update_state(mined.row, "final" if final else "mined", mined.block, cost)
        for row in attempts if final else ():
            self._sent_at.pop(row.tx_hash, None)
            self._undone_at.pop(row.tx_hash, None)
            if row is not mined.row:
                await self._store.update_state(row, "lost")
        return final

    async def _push(self, endpoint: Endpoint, attempts: list[SentTransaction], trouble: str | None) -> list[SentTransaction]:
        """Send attempts that are in no block: the last one again, or a dearer one in its place."""
        for row in attempts:
            if row.state == "mined":
                log.warning("sender.undone_by_reorg", purpose=row.purpose, transaction=row.tx_hash)
                await self._store.update_state(row, "signed")
                self._undone_at[row.tx_hash] = self._now()
                self._sent_at.clear()
        last = attempts[-1]
        try:
            if self._now() - self._undone_at.get(last.tx_hash, last.at) > self._limits.replace_after_seconds:
                last = await self._sign_replacement(endpoint, last)
            if self._now() - self._sent_at.get(last.tx_hash, float("-inf")) >= self._limits.resend_seconds:
                last = await self._send(endpoint, last)
            else:
                self.trouble = self.trouble or trouble  # as the last sending saw it
        except RpcFault:
            raise
        except Unavailable as error:  # a cap: the attempts that are signed go on
            self._alarm(error.detail)
            await self._send(endpoint, attempts[-1])
        return [*(row for row in attempts if row is not last), last]

    async def _is_lost(self, endpoint: Endpoint, row: SentTransaction) -> bool:
        """Whether another transaction used the nonce for good; one answer about the newest block may be of a node behind or a fork."""
        for block in (hex(max(0, self._confident_block())), "finalized"):
            try:
                return row.nonce < await self._count_transactions(endpoint, block)
            except RpcFault as fault:
                if fault.kind not in {FaultKind.ERROR, FaultKind.UNSUPPORTED, FaultKind.NULL}:
                    raise
        return self._now() - row.at > LOST_AFTER_SECONDS  # no endpoint keeps the state of that block

    async def _fill_gaps(self, endpoint: Endpoint, latest: int, flying: Sequence[SentTransaction]) -> None:
        """Use nonces below ours that nobody uses (a row lost with a database): everything above waits for them."""
        if not flying or (top := flying[-1].nonce) < latest:
            return
        missing = sorted(set(range(latest, top)) - {row.nonce for row in flying})
        if not missing:
            return
        pending = await self._count_transactions(endpoint, "pending")
        for nonce in missing:
            if nonce >= pending:
                quote = await quote_fees(endpoint, minimum_tip=self._minimum_tip)
                rows = await self._store.list_from_nonce(self._endpoints.chain_id, self.address, nonce)
                log.warning("sender.gap_filled", nonce=nonce)
                gas: Any = await endpoint.call_quantity(
                    "eth_estimateGas", [{"from": self.address, "to": self.address, "value": "0x0"}]
                )
                self._limits.check_transaction(gas * quote.max_fee)
                await self._sign_and_send(endpoint, self._attempt(rows, f"{FILL}{nonce}", b"", nonce, gas, quote))


class _CapError(Unavailable):
    """A transaction costs more than the operator allows."""

    code = "fee-cap"


class _RevertedError(Unavailable):
    """The contract would revert the call now."""

    code = "reverts-now"
