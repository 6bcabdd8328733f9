"""The Spender's client for asynchronous programs; `client.PandaceaClient` is the same for those that are not."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import ssl
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

from pandacea_sdk import mocks
from pandacea_sdk.credentials import find_signer
from pandacea_sdk.errors import JobError, NodeError, StillRunning, UntrustedResult, from_protocol, usage
from pandacea_sdk.on_chain import check_on_chain
from pandacea_sdk.prepare import checked_request, read_content, read_script, to_json
from pandacea_sdk.protocol.answers import ENDED
from pandacea_sdk.protocol.hashing import ADDRESS, HASH32, Signer
from pandacea_sdk.protocol.job_token import HEADER as JOB_TOKEN_HEADER
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.verify import Expected, VerifiedResult, verify_result
from pandacea_sdk.protocol.wire import ExecuteRequest
from pandacea_sdk.transport import Origin, Reply, Transport

Inputs = Sequence[Mapping[str, str]]
Uploads = Mapping[str, bytes | str | os.PathLike[str]]

RESULTS: Final = "/api/v1/privacy/results/"
LONG_POLL: Final = 30
_REMEMBERED: Final = 256


@dataclass(slots=True)
class _Asked:
    """A computation as we asked for it: each attempt was signed anew, and any of them may be the one that made the job."""

    request: ExecuteRequest
    request_hashes: set[str] = field(default_factory=set)
    token: str | None = None


class AsyncPandaceaClient:
    """A Spender's connection to one node. Use it in `async with`, or close it."""

    def __init__(
        self,
        base_url: str,
        key: str | bytes | Signer | Any | None = None,
        *,
        keystore: str | os.PathLike[str] | None = None,
        passphrase: str | None = None,
        passphrase_file: str | os.PathLike[str] | None = None,
        chain_id: int | None = None,
        contract: str | None = None,
        rpc_url: str | None = None,
        timeout: float = 60.0,
        insecure_http: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Nothing is sent before it is needed.

        Args:
            base_url: `http(s)://host[:port]`; plain http only to this machine unless `insecure_http`.
            key: see `credentials.find_signer` for where a key is looked for, and in which order.
            keystore: a Web3 Secret Storage v3 file, with `passphrase` or `passphrase_file`.
            passphrase: of the keystore.
            passphrase_file: a file with it.
            chain_id: of the leases; default: what the node says of itself.
            contract: address of the LeaseAgreement; give it to not take the node's word for it.
            rpc_url: an Ethereum RPC endpoint of yours: every result's signer is then checked against the lease on the chain.
            timeout: seconds for one request; a computation has its own (see `execute_computation`).
            insecure_http: allow plain http to another machine.
            tls: a context of your own, for a private certificate authority.

        Raises:
            UsageError: an argument cannot be used.
        """
        if contract is not None and not ADDRESS.fullmatch(contract.lower()):
            raise usage(f"contract is {contract!a}; give 0x and 40 hex digits.")
        if rpc_url is not None and contract is None:
            raise usage("rpc_url checks results against a contract: give its address too, the node's word for it proves nothing.")
        self._signer = find_signer(key, keystore, passphrase, passphrase_file)
        self._transport = Transport(Origin.of(base_url, insecure_http=insecure_http), self._signer, timeout=timeout, tls=tls)
        self._chain_id = chain_id
        self._contract = contract.lower() if contract else None
        self._rpc_url = rpc_url
        self._asked: OrderedDict[str, _Asked] = OrderedDict()

    async def __aenter__(self) -> Self:
        """Nothing is opened yet."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    @property
    def address(self) -> str:
        """The Spender's address, lower-case hex.

        Raises:
            UsageError: there is no key.
        """
        if self._signer is None:
            raise usage("There is no key: pass key=, or set PANDACEA_PRIVATE_KEY or PANDACEA_KEYSTORE.")
        return self._signer.address.lower()

    # ------------------------------------------------------------------------------------------------ computations

    async def execute_computation(
        self,
        lease_id: str,
        code_path: str | os.PathLike[str],
        inputs: Inputs,
        *,
        params: Any = None,
        uploads: Uploads | None = None,
        product_version: str | None = None,
        mode: str | None = None,
        timeout: float = 3600.0,  # noqa: ASYNC109  # the name callers look for; it bounds waiting, not one await
    ) -> dict[str, Any]:
        """Run a script on leased data and return the node's verified answer.

        Args:
            lease_id: `0x` and 64 hex digits.
            code_path: the script, at most 100 KB of UTF-8.
            inputs: `[{"asset_id": ..., "variable_name": ...}]`: the script sees each asset as a DataFrame of that name.
            params: JSON; the script's `params`.
            uploads: name -> bytes or file; the script finds them at /workspace/in/NAME.
            product_version: refuse to run on any other version of the product.
            mode: `mock` rehearses on mock rows, uncharged.
            timeout: seconds for all of it, waiting in the node's queue included.

        Returns:
            `{"success", "computation_id", "results": {"output", "artifacts": {name: base64}}, "manifest", "result_hash",
            "receipt"}`, with `error` when the script failed (success false).

        Raises:
            PandaceaError: of the class that says what to do; `StillRunning` after `timeout`; `UntrustedResult` when bytes,
                manifest, receipt or chain contradict each other.
        """
        deadline = time.monotonic() + timeout
        given = {} if uploads is None else {name: read_content(content) for name, content in uploads.items()}
        body: dict[str, Any] = {"lease_id": lease_id, "code": read_script(code_path), "inputs": [dict(item) for item in inputs]}
        optional = {"params": params, "product_version": product_version, "mode": mode}
        body |= {name: value for name, value in optional.items() if value is not None}
        if given:
            body["uploads"] = {name: hashlib.sha256(content).hexdigest() for name, content in given.items()}
        request = checked_request(body)
        for content in given.values():
            await self.upload(content)
        asked = _Asked(request)
        reply = await self._submit(asked, deadline)
        answer = _object(reply)
        computation_id = _computation_id(answer)
        self._remember(computation_id, asked)
        if reply.status == 202:
            token = answer.get("job_token")
            asked.token = token if isinstance(token, str) else None
            answer = await self._until_ended(computation_id, asked, deadline, timeout, _location(reply, answer))
        return await self._finished(answer, asked)

    async def result(self, computation_id: str, *, timeout: float = 60.0) -> dict[str, Any]:  # noqa: ASYNC109
        """Wait for a computation that was asked for before, by this client or another with the same key.

        Its bytes are always checked against manifest and receipt; against the request too when this very client made it.

        Raises:
            StillRunning: it has not ended within `timeout` seconds.
            PandaceaError: as `execute_computation`.
        """
        if not HASH32.fullmatch(computation_id):
            raise usage(f"{computation_id!a} is not a computation id.")
        asked = self._asked.get(computation_id)
        location = RESULTS + computation_id
        answer = await self._until_ended(computation_id, asked, time.monotonic() + timeout, timeout, location)
        if asked is None:
            return answer
        return await self._finished(answer, asked)

    async def status(self, computation_id: str) -> dict[str, Any]:
        """Where a computation stands now: `{"computation_id", "status", ...}`."""
        return _object(await self._signed("GET", RESULTS + quote(computation_id, safe="")))

    async def cancel(self, computation_id: str) -> None:
        """Cancel a computation that waits or runs."""
        await self._signed("DELETE", RESULTS + quote(computation_id, safe=""))

    async def artifact(self, computation_id: str, name: str) -> bytes:
        """One artifact's raw bytes. Compare their sha-256 with the manifest's before trusting them."""
        target = f"{RESULTS}{quote(computation_id, safe='')}/artifacts/{quote(name)}"
        return (await self._signed("GET", target)).body

    async def verify(self, answer: Mapping[str, Any], request: ExecuteRequest | None = None) -> VerifiedResult:
        """Check an answer of `execute_computation` again: bytes, manifest, receipt and, with `rpc_url`, the chain.

        `request` is needed for an answer that another client asked for.

        Raises:
            UntrustedResult: with the code of what contradicts what.
        """
        computation_id = _computation_id(answer)
        asked = self._asked.get(computation_id)
        if request is not None:
            stated = answer["manifest"].get("request_hash") if isinstance(answer.get("manifest"), Mapping) else None
            asked = _Asked(request, {stated} if isinstance(stated, str) else set())
        if asked is None:
            raise usage("This client did not ask for this computation: pass the request too.")
        return await self._verify(answer, asked)

    # ------------------------------------------------------------------------------------------------ everything else

    async def upload(self, content: bytes | str | os.PathLike[str]) -> str:
        """Put what a script needs beyond 100 KB on the node; returns its sha-256, by which a request names it."""
        raw = read_content(content)
        digest = hashlib.sha256(raw).hexdigest()
        await self._signed("PUT", f"/api/v1/privacy/uploads/{digest}", body=raw)
        return digest

    async def submit_code(
        self,
        code_path: str | os.PathLike[str],
        inputs: Inputs,
        product_id: str,
        *,
        uploads: Sequence[str] = (),
        params_schema: Mapping[str, Any] | None = None,
        note: str = "",
    ) -> dict[str, Any]:
        """Hand in a script for the Earner's approval, before paying for a lease; needs a key, no lease.

        Args:
            code_path: the script.
            inputs: as `execute_computation`; the approval covers this mapping of assets to names.
            product_id: the product it is for.
            uploads: names of the uploads it will be given.
            params_schema: what its `params` may be; default: none at all.
            note: a word to the Earner.

        Returns:
            `{"code_id", "status", ...}`; ask `code_state(code_id)` for the decision.
        """
        body: dict[str, Any] = {"product_id": product_id, "code": read_script(code_path), "inputs": [dict(item) for item in inputs]}
        optional = {"uploads": list(uploads), "params_schema": params_schema, "note": note}
        body |= {name: value for name, value in optional.items() if value}
        return _object(await self._signed("POST", "/api/v1/privacy/code", body=to_json(body)))

    async def code_state(self, code_id: str) -> dict[str, Any]:
        """How the Earner decided about a script that was handed in, and why."""
        return _object(await self._signed("GET", f"/api/v1/privacy/code/{quote(code_id, safe='')}"))

    async def products(self) -> list[dict[str, Any]]:
        """All products on offer."""
        found: list[dict[str, Any]] = []
        cursor = ""
        for _ in range(1000):
            page = _object(
                await self._public(f"/api/v1/products?cursor={quote(cursor, safe='')}" if cursor else "/api/v1/products")
            )
            data, cursor = page.get("data"), page.get("nextCursor") or ""
            if not isinstance(data, list) or not isinstance(cursor, str):
                raise NodeError("bad-answer", "The node's list of products has another shape.")
            found += [item for item in data if isinstance(item, dict)]
            if not cursor:
                break
        return found

    async def product(self, product_id: str) -> dict[str, Any]:
        """One product: schema, mock rows, price, rules, environment, version."""
        return _object(await self._public(f"/api/v1/products/{quote(product_id, safe='')}"))

    async def save_mocks(self, product_id: str, folder: str | os.PathLike[str]) -> list[Path]:
        """Download a product's mock rows, check them against its document, and write `<asset_id>_mock.csv` files below `folder`.

        Raises:
            NodeError: the product has no mock rows.
            UntrustedResult: a mock is not the one that the product's document names.
        """
        product = await self.product(product_id)
        found = {}
        for asset_id, (target, sha256) in mocks.mock_targets(product).items():
            reply = await self._public(quote(target))
            found[asset_id] = mocks.checked(asset_id, reply.body, sha256)
        return mocks.save(product, found, folder)

    async def lease(self, lease_id: str) -> dict[str, Any]:
        """How the node sees a lease of yours, and why it would refuse."""
        return _object(await self._signed("GET", f"/api/v1/leases/{quote(lease_id, safe='')}"))

    async def info(self) -> dict[str, Any]:
        """What the node says of itself (/.well-known/pandacea)."""
        return _object(await self._public("/.well-known/pandacea"))

    async def sign(self, method: str, target: str, body: bytes | None = None) -> dict[str, str]:
        """Headers that sign one request, for use with another HTTP client; they serve once, within a minute."""
        return self._transport.sign(method, target, await self._chain(), body=body)

    # ------------------------------------------------------------------------------------------------ inside

    async def _submit(self, asked: _Asked, deadline: float) -> Reply:
        """Send a request until it is answered. One Idempotency-Key for all attempts: they make one computation."""
        body = asked.request.to_bytes()
        chain_id = await self._chain()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": secrets.token_urlsafe(16),
            "Prefer": "respond-async, wait=10",
        }

        async def attempt() -> Reply:
            target = "/api/v1/privacy/execute"
            signed = self._transport.sign("POST", target, chain_id, headers, body)
            asked.request_hashes.add(self._transport.request_hash("POST", target, headers | signed, chain_id))
            return await self._transport.ask("POST", target, headers=headers | signed, body=body)

        return await self._transport.retrying(attempt, max(deadline - time.monotonic(), 1))

    async def _until_ended(
        self, computation_id: str, asked: _Asked | None, deadline: float, patience: float, location: str
    ) -> dict[str, Any]:
        """Long-poll until the computation has ended."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise StillRunning(computation_id, patience)
            wait = max(0, min(LONG_POLL, int(left)))
            answer = await self._poll(location, wait, asked.token if asked else None, left)
            if answer.get("status") in ENDED:
                return answer
            if answer.get("status") == "held" or wait == 0:
                await asyncio.sleep(min(5.0, max(deadline - time.monotonic(), 0)))

    async def _poll(self, location: str, wait: int, token: str | None, seconds: float) -> dict[str, Any]:
        target = f"{location}?wait={wait}"

        async def attempt() -> Reply:
            if token is not None:
                return await self._transport.ask("GET", target, headers={JOB_TOKEN_HEADER: token}, seconds=wait + 60)
            return await self._transport.ask("GET", target, chain_id=await self._chain(), seconds=wait + 60)

        return _object(await self._transport.retrying(attempt, max(seconds, 30)))

    async def _finished(self, answer: dict[str, Any], asked: _Asked) -> dict[str, Any]:
        """An ended computation as `execute_computation` returns it."""
        if answer.get("manifest") is None:
            status, error = answer.get("status"), answer.get("error")
            told = error.get("message") if isinstance(error, dict) else answer.get("reason")
            code = "computation-cancelled" if status == "cancelled" else "computation-failed"
            raise JobError(code, f"There is no result: {told if isinstance(told, str) else 'the node does not say why'}")
        await self._verify(answer, asked)
        return answer

    async def _verify(self, answer: Mapping[str, Any], asked: _Asked) -> VerifiedResult:
        manifest = answer.get("manifest")
        stated = manifest.get("request_hash") if isinstance(manifest, Mapping) else None
        if stated not in asked.request_hashes:
            raise UntrustedResult("bad-manifest", "The manifest names a request that this client did not sign; keep the answer.")
        expected = Expected(asked.request, str(stated), await self._chain(), self.address, self._contract)
        try:
            verified = verify_result(answer, expected)
        except ProtocolError as error:
            raise from_protocol(error) from None
        if self._rpc_url is not None and self._contract is not None:
            await check_on_chain(verified, answer, self._rpc_url, self._contract, expected.chain_id)
        return verified

    async def _chain(self) -> int:
        if self._chain_id is None:
            info = await self.info()
            chain_id, contract = info.get("chain_id"), info.get("contract")
            if not isinstance(chain_id, int) or isinstance(chain_id, bool) or chain_id <= 0:
                raise NodeError("bad-answer", "The node names no chain id in /.well-known/pandacea; pass chain_id=.")
            if self._contract is not None and contract != self._contract:
                raise UntrustedResult("bad-answer", f"The node serves the contract {contract!a}, not {self._contract}.")
            self._chain_id = chain_id
        return self._chain_id

    async def _public(self, target: str) -> Reply:
        return await self._transport.retrying(lambda: self._transport.ask("GET", target), 30)

    async def _signed(self, method: str, target: str, body: bytes | None = None) -> Reply:
        chain_id = await self._chain()
        headers = {} if body is None else {"Content-Type": "application/json" if method == "POST" else "application/octet-stream"}

        async def attempt() -> Reply:
            return await self._transport.ask(method, target, chain_id=chain_id, headers=headers, body=body)

        # All of these may happen twice: reading, cancelling, putting the same bytes, handing in the same script.
        return await self._transport.retrying(attempt, 30)

    def _remember(self, computation_id: str, asked: _Asked) -> None:
        self._asked[computation_id] = asked
        if len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)


def _object(reply: Reply) -> dict[str, Any]:
    body = reply.json()
    if not isinstance(body, dict):
        raise NodeError("bad-answer", "The node's answer is no JSON object.", status=reply.status)
    return body


def _computation_id(answer: Mapping[str, Any]) -> str:
    found = answer.get("computation_id")
    if not isinstance(found, str) or not HASH32.fullmatch(found):
        raise NodeError("bad-answer", "The node's answer names no computation.")
    return found


def _location(reply: Reply, answer: Mapping[str, Any]) -> str:
    """Where to ask for the result: only ever this node's own route for this computation."""
    expected = RESULTS + _computation_id(answer)
    if reply.headers.get("Location") not in {expected, None}:
        raise NodeError("bad-answer", "The node points to another place for the result; it is not followed.", status=reply.status)
    return expected
