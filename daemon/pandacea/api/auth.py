"""Authentication of signed requests: cheap checks first; for strangers nothing is written and no RPC endpoint is asked.

The signature is in the head and covers the body's digest, so the head is verified before a byte of the body is read or memory is
reserved for it. The nonce is spent last: a request whose body was cut off or damaged is not executed and may be sent again unchanged,
and whoever saw only its head cannot use its nonce up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from aiohttp import web

from pandacea.api.middleware import HEAD, SIGNED, USAGE, assign_to_spender, read_body
from pandacea.api.nonces import Nonces
from pandacea.api.rate_limit import RateLimiter
from pandacea.domain.ids import Address
from pandacea.errors import Unavailable
from pandacea.flows.ports import Clock, LeaseCache
from pandacea_sdk.protocol.job_token import JOB_TOKEN_HEADER
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.signing import RequestHead, SignedRequest, SigningPolicy, parse_signed_request

STRANGERS: Final = "strangers"

ReadBody = Callable[[SignedRequest], Awaitable[bytes]]
"""Reads the body of a request whose head was verified, counted for its signer."""


class KnownSpenders(Protocol):
    """The Spenders of this node's leases, from memory."""

    def knows_spender(self, address: Address) -> bool:
        """Return whether this is the Spender of an approved lease: O(1), no database, no RPC."""
        ...


class LeaseSpenders:
    """The Spenders of the lease cache, as `KnownSpenders`."""

    def __init__(self, leases: LeaseCache) -> None:
        """Look Spenders up in `leases`."""
        self._leases = leases

    def knows_spender(self, address: Address) -> bool:
        """Return whether this address is the Spender of an approved lease.

        Raises:
            Unavailable: it is not known, and the node is not in step with the chain: a node that has just started must not tell a
                Spender that their lease does not exist.
        """
        known = self._leases.knows_spender(address)
        status = self._leases.chain_status()
        if not known and not status.is_ready:
            raise Unavailable(
                f"The node cannot tell who has a lease now: {status.not_ready_reason}", retry_after=status.retry_after
            )
        return known


class ContractSignatures(Protocol):
    """Signatures of accounts that are contracts (ERC-1271)."""

    async def accepts(self, address: Address, digest: bytes, signature: bytes, peer: str) -> bool:
        """Return whether the contract at `address` accepts the signature, at the confident block and at the latest; `peer`: who sent it.

        False for a plain key, and for an address without code.

        Raises:
            Unavailable: the chain could not be asked, or the budget of such calls is used up.
            ProtocolError: rate-limited, this peer or this key.
        """
        ...


class Authenticator:
    """Verifies the signatures of requests."""

    def __init__(
        self,
        policy: SigningPolicy,
        clock: Clock,
        spenders: KnownSpenders,
        nonces: Nonces,
        *,
        stranger_nonces: Nonces,
        stranger_rate: RateLimiter,
        wallets: ContractSignatures | None = None,
        spender_rate: RateLimiter | None = None,
        peer_rate: RateLimiter | None = None,
        requests_since: int = 0,
    ) -> None:
        """`nonces` stores the nonces of known Spenders durably; those of strangers are in `stranger_nonces`.

        Strangers of one peer share `peer_rate`, checked before anything is computed for them; all strangers share `stranger_rate`, which
        only valid signatures use up. `wallets` verifies signatures that no plain key made. The requests of one Spender are limited by
        `spender_rate`, checked after the signature: nobody else can use it up. Requests signed before `requests_since` (Unix seconds) are
        refused: the nonces that were used by then may be lost.
        """
        self._policy = policy
        self._clock = clock
        self._spenders = spenders
        self._nonces = nonces
        self._stranger_nonces = stranger_nonces
        self._stranger_rate = stranger_rate
        self._wallets = wallets
        self._spender_rate = spender_rate
        self._peer_rate = peer_rate
        self._requests_since = requests_since

    async def authenticate(self, head: RequestHead, read: ReadBody, peer: str = "") -> SignedRequest:
        """Verify a request of a known Spender: first its head, then its body. `peer`: who sent it.

        Raises:
            ProtocolError: in this order: everything `parse` raises; unknown-spender; signature-invalid (rate-limited: too many that a
                contract wallet would have to be asked about, or too many of theirs); what `read` raises; digest-mismatch, body-not-allowed;
                request-replayed.
            Unavailable: the database or, for a contract wallet, the chain cannot be asked.
        """
        signed = await self._verify_spender(self._parse(head), peer)
        signed.check_body(await read(signed))
        return await _spend_nonce(self._nonces, signed)

    async def authenticate_head(self, head: RequestHead, peer: str = "") -> SignedRequest:
        """Verify a request before its body arrives; the caller compares the body with `body_sha256` before using it.

        Raises:
            ProtocolError, Unavailable: as `authenticate`, without digest-mismatch.
        """
        return await _spend_nonce(self._nonces, await self._verify_spender(self._parse(head), peer))

    async def authenticate_anyone(self, head: RequestHead, peer: str, read: ReadBody, read_strangers: ReadBody) -> SignedRequest:
        """Verify a request on a route for people without a lease: a plain key, no RPC, nothing written to the database.

        Args:
            head: of the request.
            peer: who sent it.
            read: reads the body, counted for the Spender.
            read_strangers: reads the body of somebody without a lease, counted for the peer.

        Raises:
            ProtocolError: as `authenticate`, with rate-limited instead of unknown-spender.
            Unavailable: too many nonces at once.
        """
        signed = self._parse(head)
        if self._spenders.knows_spender(Address(signed.address)):
            await self._verify_spender(signed, peer)
            signed.check_body(await read(signed))
            return await _spend_nonce(self._nonces, signed)
        if self._peer_rate is not None:
            self._peer_rate.acquire(peer)
        if not signed.is_signed_by_address():
            raise _signature_invalid()
        self._stranger_rate.acquire(STRANGERS)
        signed.check_body(await read_strangers(signed))
        return await _spend_nonce(self._stranger_nonces, signed)

    def _parse(self, head: RequestHead) -> SignedRequest:
        now = self._clock.now()
        signed = parse_signed_request(head, self._policy, now)
        if signed.created < self._requests_since:
            again = "The node's database was put back from a backup, and which requests it received before is lost"
            if now < self._requests_since:
                seconds = int(self._requests_since - now) + 1
                raise Unavailable(f"{again}; it takes requests signed in {seconds} s and later.", retry_after=seconds)
            raise ProtocolError("signature-expired", f"{again}; sign the request again, newly dated.")
        return signed

    async def _verify_spender(self, signed: SignedRequest, peer: str) -> SignedRequest:
        """Return the request if a Spender of this node signed it. The body is not read, and no nonce is spent."""
        if not self._spenders.knows_spender(Address(signed.address)):
            raise ProtocolError(
                "unknown-spender",
                f"{signed.address} is the spender of no approved lease here. Sign with the key that made the lease; "
                "a new lease counts once its approval is confirmed.",
            )
        if not signed.is_signed_by_address() and not await self._wallet_accepts(signed, peer):
            raise _signature_invalid()
        if self._spender_rate is not None:
            self._spender_rate.acquire(signed.address)
        return signed

    async def _wallet_accepts(self, signed: SignedRequest, peer: str) -> bool:
        return self._wallets is not None and await self._wallets.accepts(
            Address(signed.address), signed.digest, signed.signature, peer
        )


AUTHENTICATOR: Final = web.AppKey("authenticator", Authenticator)


async def authenticate_spender(request: web.Request) -> SignedRequest:
    """Return the verified request of a known Spender. See `Authenticator.authenticate`."""
    return await request.app[AUTHENTICATOR].authenticate(request[HEAD], _reader(request), request[USAGE].peer)


async def authenticate_spender_head(request: web.Request) -> SignedRequest:
    """Return the verified head of a request whose body the route streams. See `Authenticator.authenticate_head`."""
    verified = await request.app[AUTHENTICATOR].authenticate_head(request[HEAD], request[USAGE].peer)
    request[SIGNED] = True
    assign_to_spender(request, verified.address)
    return verified


async def authenticate_anyone(request: web.Request) -> SignedRequest:
    """Return the verified request of anybody with a key. See `Authenticator.authenticate_anyone`."""

    async def strangers(_: SignedRequest) -> bytes:
        return await read_body(request)

    authenticator = request.app[AUTHENTICATOR]
    return await authenticator.authenticate_anyone(request[HEAD], request[USAGE].peer, _reader(request), strangers)


def _reader(request: web.Request) -> ReadBody:
    async def read(verified: SignedRequest) -> bytes:
        request[SIGNED] = True
        assign_to_spender(request, verified.address)
        return await read_body(request)

    return read


def job_token(request: web.Request) -> str | None:
    """Return the job token of a request, if any: it replaces the signature on the routes that read one computation."""
    head: RequestHead = request[HEAD]
    values = head.header_values(JOB_TOKEN_HEADER.lower())
    return values[0] if len(values) == 1 else None


async def _spend_nonce(nonces: Nonces, signed: SignedRequest) -> SignedRequest:
    if not await nonces.spend(signed.keyid, signed.nonce, signed.expires):
        raise ProtocolError("request-replayed", "This very request was received before; sign a new one with a new nonce.")
    return signed


def _signature_invalid() -> ProtocolError:
    return ProtocolError(
        "signature-invalid", "The signature was not made by the key in keyid over this request; sign exactly what is sent."
    )
