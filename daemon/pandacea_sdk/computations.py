"""Submit computations to a node, wait until they have ended, and verify their answers."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from pandacea_sdk.errors import (
    JobError,
    NodeError,
    NodeUnavailable,
    PandaceaError,
    SignatureError,
    StillRunning,
    UntrustedResult,
    error_from_protocol,
)
from pandacea_sdk.node import NodeConnection, parse_object
from pandacea_sdk.on_chain import check_on_chain
from pandacea_sdk.protocol.execute_request import ExecuteRequest
from pandacea_sdk.protocol.ids import HASH32
from pandacea_sdk.protocol.job_token import JOB_TOKEN_HEADER
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.responses import ENDED
from pandacea_sdk.protocol.verify import ExpectedResult, VerifiedResult, verify_result
from pandacea_sdk.transport import Reply

RESULTS_PATH: Final = "/api/v1/privacy/results/"
LONG_POLL_SECONDS: Final = 30
"""The longest that one request lets the node wait before it answers."""
_REMEMBERED: Final = 256
"""Computations; the oldest is forgotten first."""
_KEPT: Final = 8
"""Answers that wait for the chain, each as large as a result may be."""


@dataclass(slots=True)
class _SubmittedRequest:
    """A request and the hashes of its attempts: each was signed anew, and any of them may be the one that made the job."""

    request: ExecuteRequest
    request_hashes: set[str] = field(default_factory=set)
    token: str | None = None
    by_anyone: bool = False
    """The Idempotency-Key is the caller's own: another process may have signed the request that made the job."""


class Computations:
    """The computations that one client has requested from one node."""

    def __init__(self, node: NodeConnection, rpc_url: str | None) -> None:
        """`rpc_url`: an Ethereum RPC endpoint with which every result's signer is checked; None: not checked."""
        self._node = node
        self._rpc_url = rpc_url
        self._asked: OrderedDict[str, _SubmittedRequest] = OrderedDict()
        self._unchecked: OrderedDict[str, JsonObject] = OrderedDict()
        """Answers that agree with manifest and receipt, and of which the chain could not be asked."""

    async def submit_and_wait(self, request: ExecuteRequest, deadline: float, timeout: float) -> JsonObject:
        """Submit a request and wait for its verified answer. `deadline`: of the monotonic clock; `timeout`: its seconds, for messages."""
        asked = _SubmittedRequest(request)
        reply, answer = await self._submit(asked, deadline, secrets.token_urlsafe(16))
        if reply.status == 202:
            computation_id = _computation_id(answer)
            answer = await self._poll_until_ended(computation_id, asked, deadline, timeout, _location(reply, answer))
        return await self._verify_ended(answer, asked, rehearsed=request.mode == "mock")

    async def submit(self, request: ExecuteRequest, deadline: float, idempotency_key: str | None) -> str:
        """Submit a request without waiting for its end; returns the computation's id.

        `idempotency_key`: the caller's own; sent again with the same request, by this process or another, it gives the same computation.
        """
        asked = _SubmittedRequest(request, by_anyone=idempotency_key is not None)
        _, answer = await self._submit(asked, deadline, idempotency_key or secrets.token_urlsafe(16))
        return _computation_id(answer)

    async def wait_for_record(self, computation_id: str, mode: str | None, timeout: float) -> JsonObject:
        """Wait for a computation and verify all of it but the artifacts' bytes, which the answer leaves out."""
        asked = self._asked.get(computation_id)
        deadline = time.monotonic() + timeout
        location = RESULTS_PATH + computation_id
        answer = await self._poll_until_ended(computation_id, asked, deadline, timeout, location, more="&artifacts=none")
        if _computation_id(answer) != computation_id:
            raise UntrustedResult("bad-answer", "The node answered with another computation than the one requested.")
        if isinstance(answer.get("results"), dict) and not isinstance(answer["results"].get("artifact_sizes"), dict):
            raise NodeError("bad-answer", "The node does not name the artifacts' sizes; it is of a version before this client's.")
        rehearsed = mode == "mock" if asked is None else asked.request.mode == "mock"
        return await self._verify_ended(answer, asked, rehearsed=rehearsed)

    def find_request(self, computation_id: str) -> ExecuteRequest | None:
        """Find the request of a computation that this client submitted; None: another did, or it was forgotten."""
        asked = self._asked.get(computation_id)
        return None if asked is None else asked.request

    async def wait_for_result(self, computation_id: str, mode: str | None, timeout: float) -> JsonObject:
        """Wait for a computation and verify it. See `AsyncPandaceaClient.result`."""
        asked = self._asked.get(computation_id)
        location = RESULTS_PATH + computation_id
        answer = self._unchecked.get(computation_id)
        if answer is None:
            answer = await self._poll_until_ended(computation_id, asked, time.monotonic() + timeout, timeout, location)
        if _computation_id(answer) != computation_id:
            raise UntrustedResult("bad-answer", "The node answered with another computation than the one requested.")
        rehearsed = mode == "mock" if asked is None else asked.request.mode == "mock"
        return await self._verify_ended(answer, asked, rehearsed=rehearsed)

    async def verify(self, answer: JsonMapping, request: ExecuteRequest | None) -> VerifiedResult:
        """Verify an answer. See `AsyncPandaceaClient.verify`."""
        computation_id = _computation_id(answer)
        asked = self._asked.get(computation_id)
        if request is not None:
            stated = answer["manifest"].get("request_hash") if isinstance(answer.get("manifest"), Mapping) else None
            asked = _SubmittedRequest(request, {stated} if isinstance(stated, str) else set())
        return await self._verify(answer, asked)

    async def _submit(self, asked: _SubmittedRequest, deadline: float, key: str) -> tuple[Reply, JsonObject]:
        """Send a request until it is answered. All attempts carry one Idempotency-Key, so they make one computation."""
        body = asked.request.to_bytes()
        chain_id = await self._node.chain_id()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "Prefer": "respond-async, wait=10",
        }

        async def attempt() -> Reply:
            target = "/api/v1/privacy/execute"
            signed = self._node.transport.sign_headers("POST", target, chain_id, headers, body)
            asked.request_hashes.add(self._node.transport.hash_signed_request("POST", target, headers | signed, chain_id))
            return await self._node.transport.send("POST", target, headers=headers | signed, body=body)

        reply = await self._node.transport.with_retries(attempt, max(deadline - time.monotonic(), 1))
        answer = parse_object(reply)
        token = answer.get("job_token")
        asked.token = token if isinstance(token, str) else None
        self._remember(_computation_id(answer), asked)
        return reply, answer

    async def _poll_until_ended(
        self,
        computation_id: str,
        asked: _SubmittedRequest | None,
        deadline: float,
        patience: float,
        location: str,
        *,
        more: str = "",
    ) -> JsonObject:
        """Long-poll until the computation has ended, or raise StillRunning at the deadline."""
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise StillRunning(computation_id, patience)
            wait = max(0, min(LONG_POLL_SECONDS, int(left)))
            target = f"{location}?wait={wait}{more}"
            try:
                answer = await self._poll(target, wait, asked.token if asked else None, left)
            except SignatureError as error:
                if asked is None or asked.token is None or error.code != "job-token-invalid":
                    raise
                asked.token = None  # another process sent the request again, which gave it a token of its own
                continue
            if answer.get("status") in ENDED:
                return answer
            if answer.get("status") == "held" or wait == 0:
                await asyncio.sleep(min(5.0, max(deadline - time.monotonic(), 0)))

    async def _poll(self, target: str, wait: int, token: str | None, seconds: float) -> JsonObject:
        async def attempt() -> Reply:
            if token is not None:
                return await self._node.transport.send("GET", target, headers={JOB_TOKEN_HEADER: token}, seconds=wait + 60)
            return await self._node.transport.send("GET", target, chain_id=await self._node.chain_id(), seconds=wait + 60)

        return parse_object(await self._node.transport.with_retries(attempt, max(seconds, 30)))

    async def _verify_ended(self, answer: JsonObject, asked: _SubmittedRequest | None, *, rehearsed: bool) -> JsonObject:
        """Verify an ended computation and return it as `execute_computation` does."""
        if rehearsed and isinstance(answer.get("results"), dict):
            return answer  # nobody signs a rehearsal, so there is nothing to verify
        if answer.get("manifest") is None:
            if isinstance(answer.get("results"), dict):
                raise UntrustedResult(
                    "bad-answer", 'The answer is not signed, as only that of a rehearsal may be; if it was one, pass mode="mock".'
                )
            status, error = answer.get("status"), answer.get("error")
            message = error.get("message") if isinstance(error, dict) else answer.get("reason")
            code = "computation-cancelled" if status == "cancelled" else "computation-failed"
            raise JobError(code, f"There is no result: {message if isinstance(message, str) else 'the node gives no reason'}")
        answer.pop("on_chain", None)  # ours to say
        try:
            verified = await self._verify(answer, asked)
        except PandaceaError as error:
            # It may have been charged: whoever catches this has it, whatever the node does with it.
            error.answer, error.computation_id = answer, _computation_id(answer)
            raise
        self._unchecked.pop(verified.computation_id, None)
        if verified.on_chain is not None:
            answer["on_chain"] = asdict(verified.on_chain)
        return answer

    def verifier(self, computation_id: str, chain_id: int) -> Callable[[JsonMapping], VerifiedResult]:
        """Return what verifies answers of this computation without asking anybody."""
        asked = self._asked.get(computation_id)
        return lambda answer: self._verify_offline(answer, asked, chain_id)

    async def _verify(self, answer: JsonMapping, asked: _SubmittedRequest | None) -> VerifiedResult:
        chain_id = await self._node.chain_id()
        verified = self._verify_offline(answer, asked, chain_id)
        if self._rpc_url is None or self._node.contract is None:
            return verified
        try:
            check = await check_on_chain(verified, answer, self._rpc_url, self._node.contract, chain_id)
        except NodeUnavailable:
            if "artifacts" in answer["results"]:  # without them it is quickly asked for again
                self._keep(verified.computation_id, dict(answer))
            raise
        return replace(verified, on_chain=check)

    def _verify_offline(self, answer: JsonMapping, asked: _SubmittedRequest | None, chain_id: int) -> VerifiedResult:
        manifest = answer.get("manifest")
        stated = manifest.get("request_hash") if isinstance(manifest, Mapping) else None
        if asked is not None and not asked.by_anyone and stated not in asked.request_hashes:
            raise UntrustedResult(
                "bad-manifest", "The manifest names a request that this client did not sign; keep the answer and ask the Earner."
            )
        if not isinstance(stated, str) or not HASH32.fullmatch(stated):
            raise UntrustedResult("bad-manifest", "The manifest names no request; keep the answer and ask the Earner.")
        request = None if asked is None else asked.request
        expected = ExpectedResult(request, stated, chain_id, self._node.address, self._node.contract, _computation_id(answer))
        try:
            return verify_result(answer, expected)
        except ProtocolError as error:
            raise error_from_protocol(error) from None

    def _keep(self, computation_id: str, answer: JsonObject) -> None:
        self._unchecked[computation_id] = answer
        if len(self._unchecked) > _KEPT:
            self._unchecked.popitem(last=False)

    def _remember(self, computation_id: str, asked: _SubmittedRequest) -> None:
        self._asked[computation_id] = asked
        if len(self._asked) > _REMEMBERED:
            self._asked.popitem(last=False)


def _computation_id(answer: JsonMapping) -> str:
    found = answer.get("computation_id")
    if not isinstance(found, str) or not HASH32.fullmatch(found):
        raise NodeError("bad-answer", "The node's answer names no computation.")
    return found


def _location(reply: Reply, answer: JsonMapping) -> str:
    """Return the path of the result: always this node's own route for this computation."""
    expected = RESULTS_PATH + _computation_id(answer)
    if reply.headers.get("Location") not in {expected, None}:
        raise NodeError(
            "bad-answer", "The node's Location names another place for the result; it is not followed.", status=reply.status
        )
    return expected
