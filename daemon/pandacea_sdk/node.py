"""Public and signed requests to one node, and the chain to which their signatures are bound."""

from __future__ import annotations

from pandacea_sdk.errors import NodeError, UntrustedResult, usage_error
from pandacea_sdk.protocol.hashing import Signer
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.transport import Reply, Transport


class NodeConnection:
    """One node, as a client with one key sees it."""

    def __init__(self, transport: Transport, signer: Signer | None, chain_id: int | None, contract: str | None) -> None:
        """`chain_id` and `contract` None: what the node states is used."""
        self.transport = transport
        self.contract = contract
        self._signer = signer
        self._chain_id = chain_id

    async def close(self) -> None:
        """Close the connections to the node."""
        await self.transport.close()

    @property
    def address(self) -> str:
        """The signer's address, lower-case hex.

        Raises:
            UsageError: no key was given.
        """
        return self.signer.address.lower()

    @property
    def signer(self) -> Signer:
        """The signer of requests.

        Raises:
            UsageError: no key was given.
        """
        if self._signer is None:
            raise usage_error("There is no key: pass key=, or set PANDACEA_PRIVATE_KEY or PANDACEA_KEYSTORE.")
        return self._signer

    async def chain_id(self) -> int:
        """Return the chain's id; where it was not given, the node is asked once.

        Raises:
            NodeError: the node does not name one.
            UntrustedResult: the node serves another contract than the one given.
        """
        if self._chain_id is None:
            info = await self.fetch_info()
            chain_id, contract = info.get("chain_id"), info.get("contract")
            if not isinstance(chain_id, int) or isinstance(chain_id, bool) or chain_id <= 0:
                raise NodeError("bad-answer", "The node names no chain id in /.well-known/pandacea; pass chain_id=.")
            if self.contract is not None and contract != self.contract:
                raise UntrustedResult("bad-answer", f"The node serves the contract {contract!a}, not {self.contract}.")
            self._chain_id = chain_id
        return self._chain_id

    async def fetch_info(self) -> JsonObject:
        """Fetch what the node states about itself (/.well-known/pandacea)."""
        return parse_object(await self.get_public("/.well-known/pandacea"))

    async def sign(self, method: str, target: str, body: bytes | None) -> dict[str, str]:
        """Sign one request; returns the headers to add."""
        return self.transport.sign_headers(method, target, await self.chain_id(), body=body)

    async def get_public(self, target: str) -> Reply:
        """Send a GET without a signature."""
        return await self.transport.with_retries(lambda: self.transport.send("GET", target), 30)

    async def send_signed(self, method: str, target: str, body: bytes | None = None) -> Reply:
        """Send a signed request, several times if it fails: only for reading, cancelling, uploading and submitting a script."""
        chain_id = await self.chain_id()
        headers = {} if body is None else {"Content-Type": "application/json" if method == "POST" else "application/octet-stream"}

        async def attempt() -> Reply:
            return await self.transport.send(method, target, chain_id=chain_id, headers=headers, body=body)

        return await self.transport.with_retries(attempt, 30)


def parse_object(reply: Reply) -> JsonObject:
    """Parse the JSON object of an answer.

    Raises:
        NodeError: it is not a JSON object.
    """
    body = reply.json()
    if not isinstance(body, dict):
        raise NodeError("bad-answer", "The node's answer is not a JSON object.", status=reply.status)
    return body
