"""Who is calling: the order in which a signed request is verified, cheap first, and nothing written or asked for strangers."""

from __future__ import annotations

from typing import Final, Protocol

from aiohttp import web

from pandacea.api.middleware import HEAD
from pandacea.api.nonces import Nonces
from pandacea.api.throttle import Rate
from pandacea.domain.ids import Address
from pandacea.flows.ports import Clock
from pandacea_sdk.protocol.job_token import HEADER as JOB_TOKEN_HEADER
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.signing import RequestHead, SignedRequest, SigningPolicy, parse

STRANGERS: Final = "strangers"


class Spenders(Protocol):
    """The spenders of this node's leases, from memory."""

    def knows_spender(self, address: Address) -> bool:
        """O(1), no database, no RPC."""
        ...


class ContractWallets(Protocol):
    """Signatures of accounts that are contracts (ERC-1271)."""

    async def accepts(self, address: Address, digest: bytes, signature: bytes, peer: str) -> bool:
        """Whether the contract at `address` accepts the signature, at the confident block and at the latest; `peer`: who sent it.

        False for a plain key, and for an address without code.

        Raises:
            Unavailable: the chain could not be asked, or the budget for such calls is used.
            ProtocolError: rate-limited, this peer or this key.
        """
        ...


class Authenticator:
    """Verifies signed requests."""

    def __init__(
        self,
        policy: SigningPolicy,
        clock: Clock,
        spenders: Spenders,
        nonces: Nonces,
        *,
        stranger_nonces: Nonces,
        stranger_rate: Rate,
        wallets: ContractWallets | None = None,
    ) -> None:
        """`nonces` keeps known spenders' nonces durably; strangers get `stranger_nonces` and share one `stranger_rate`.

        `wallets` is asked for signatures that no plain key made.
        """
        self._policy = policy
        self._clock = clock
        self._spenders = spenders
        self._nonces = nonces
        self._stranger_nonces = stranger_nonces
        self._stranger_rate = stranger_rate
        self._wallets = wallets

    async def authenticate(self, head: RequestHead, body: bytes, peer: str = "") -> SignedRequest:
        """Verify a request of a known spender, body included; `peer`: who sent it.

        Raises:
            ProtocolError: in this order: everything `parse` raises; digest-mismatch, body-not-allowed; unknown-spender;
                signature-invalid (rate-limited: too many that a contract wallet would have to be asked about); request-replayed.
            Unavailable: the database or, for a contract wallet, the chain cannot be asked.
        """
        signed = parse(head, self._policy, self._clock.now())
        signed.check_body(body)
        return await self._known(signed, peer)

    async def authenticate_head(self, head: RequestHead, peer: str = "") -> SignedRequest:
        """Verify a request whose body is still to come; the caller compares the body with `body_sha256` before using it.

        Raises:
            ProtocolError, Unavailable: as `authenticate`, without digest-mismatch.
        """
        return await self._known(parse(head, self._policy, self._clock.now()), peer)

    async def authenticate_anyone(self, head: RequestHead, body: bytes, peer: str = "") -> SignedRequest:
        """Verify a request on a route for people who have no lease yet: a plain key, no RPC, nothing written to the database.

        Raises:
            ProtocolError: as `authenticate`, with rate-limited in the place of unknown-spender.
            Unavailable: too many nonces at once.
        """
        signed = parse(head, self._policy, self._clock.now())
        signed.check_body(body)
        if self._spenders.knows_spender(Address(signed.address)):
            return await self._known(signed, peer)
        self._stranger_rate.take(STRANGERS)
        if not signed.recovers():
            raise _invalid()
        return await _spend(self._stranger_nonces, signed)

    async def _known(self, signed: SignedRequest, peer: str) -> SignedRequest:
        if not self._spenders.knows_spender(Address(signed.address)):
            raise ProtocolError(
                "unknown-spender",
                f"{signed.address} is the spender of no approved lease here. Sign with the key that made the lease; "
                "a new lease counts once its approval is confirmed.",
            )
        if not signed.recovers() and not await self._wallet_accepts(signed, peer):
            raise _invalid()
        return await _spend(self._nonces, signed)

    async def _wallet_accepts(self, signed: SignedRequest, peer: str) -> bool:
        return self._wallets is not None and await self._wallets.accepts(
            Address(signed.address), signed.digest, signed.signature, peer
        )


AUTHENTICATOR: Final = web.AppKey("authenticator", Authenticator)


async def signed(request: web.Request) -> SignedRequest:
    """For a route: the verified request of a known spender. See `Authenticator.authenticate`."""
    return await request.app[AUTHENTICATOR].authenticate(request[HEAD], await request.read(), request.remote or "")


async def signed_head(request: web.Request) -> SignedRequest:
    """For a route that streams its body. See `Authenticator.authenticate_head`."""
    return await request.app[AUTHENTICATOR].authenticate_head(request[HEAD], request.remote or "")


async def signed_by_anyone(request: web.Request) -> SignedRequest:
    """For a route open to people without a lease. See `Authenticator.authenticate_anyone`."""
    return await request.app[AUTHENTICATOR].authenticate_anyone(request[HEAD], await request.read(), request.remote or "")


def job_token(request: web.Request) -> str | None:
    """The job token sent with a request, if any: it stands in for a signature on the read-only routes of one computation."""
    head: RequestHead = request[HEAD]
    values = head.values(JOB_TOKEN_HEADER.lower())
    return values[0] if len(values) == 1 else None


async def _spend(nonces: Nonces, signed: SignedRequest) -> SignedRequest:
    if not await nonces.spend(signed.keyid, signed.nonce, signed.expires):
        raise ProtocolError("request-replayed", "This very request was received before; sign a new one with a new nonce.")
    return signed


def _invalid() -> ProtocolError:
    return ProtocolError(
        "signature-invalid", "The signature was not made by the key in keyid over this request; sign exactly what is sent."
    )
