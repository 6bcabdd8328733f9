"""The client's methods that run code on leased data and hand back handles and results."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from pandacea_sdk.computations import Computations
from pandacea_sdk.errors import PandaceaError, usage_error
from pandacea_sdk.jobs import AsyncJobHandle
from pandacea_sdk.node import NodeConnection, parse_object
from pandacea_sdk.prepare import Inputs, make_request, read_content
from pandacea_sdk.protocol.ids import HASH32
from pandacea_sdk.protocol.signing import IDEMPOTENCY_KEY
from pandacea_sdk.results import RunResult
from pandacea_sdk.scripts import Code, read_code
from pandacea_sdk.waiting import Identified, id_of

Uploads = Mapping[str, bytes | str | os.PathLike[str]]
SUBMIT_SECONDS: Final = 120.0
"""How long a submission is tried."""
ASKED_FIRST_BYTES: Final = 4096
"""A smaller upload is sent without asking whether the node has it."""
KEPT_SECONDS: Final = 300.0
"""An upload that the node keeps for less than this is sent again, which keeps it longer."""


class RunMethods:
    """Methods of `AsyncPandaceaClient` about running code; they need its connection and its computations."""

    _node: NodeConnection
    _computations: Computations

    async def submit(
        self,
        code: Code,
        lease: str | Identified,
        inputs: Inputs,
        *,
        params: Any = None,
        uploads: Uploads | None = None,
        product_version: str | None = None,
        mode: str | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncJobHandle:
        """Submit code on leased data and return a handle on the computation, without waiting for its end.

        Args:
            code: a function, a file, or a string of source (with a line break). Of a function the source is sent: it may use its
                parameters, builtins and what it imports or defines itself. What it returns becomes an artifact (docs/sdk.md).
            lease: the lease's id, or a handle on it.
            inputs: `{"df": "patients"}`: variable, or parameter of the function -> asset.
            params: any JSON value; the script's `params`.
            uploads: name -> bytes or file; the script finds them at /workspace/in/NAME, a function in its parameter `uploads`.
            product_version: refuse to run on any other version of the product.
            mode: `mock` rehearses on mock rows, uncharged and unsigned.
            idempotency_key: the caller's own, 1 to 128 of A-Z a-z 0-9 _ . : -. The same key with the same request, sent again by this
                process or another, gives the same computation, uncharged; with another request it is refused. Default: a new computation.

        Raises:
            UsageError: the code cannot be sent; its `line` says where. Nothing was sent.
            PandaceaError: as `execute_computation`.
        """
        if idempotency_key is not None and not IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            raise usage_error(f"idempotency_key is {idempotency_key[:40]!a}: give 1 to 128 letters, digits or one of _ . : -")
        script = read_code(code, inputs, has_params=params is not None, has_uploads=bool(uploads))
        given = {} if uploads is None else {name: read_content(content) for name, content in uploads.items()}
        request = make_request(id_of(lease), script.text, inputs, params, given, product_version, mode)
        for content in given.values():
            await self.upload(content)
        made = await self._computations.submit(request, time.monotonic() + SUBMIT_SECONDS, idempotency_key)
        return AsyncJobHandle(self._node, self._computations, made, mode, script)

    async def run(
        self,
        code: Code,
        lease: str | Identified,
        inputs: Inputs,
        *,
        params: Any = None,
        uploads: Uploads | None = None,
        product_version: str | None = None,
        mode: str | None = None,
        idempotency_key: str | None = None,
        timeout: float = 3600.0,
    ) -> RunResult:
        """Run code on leased data and return its verified result: `submit`, then `wait`.

        Raises:
            StillRunning: it has not ended within `timeout` seconds; its `computation_id` is for `job`.
            PandaceaError: as `submit` and `AsyncJobHandle.wait`.
        """
        job = await self.submit(
            code,
            lease,
            inputs,
            params=params,
            uploads=uploads,
            product_version=product_version,
            mode=mode,
            idempotency_key=idempotency_key,
        )
        return await job.wait(timeout)

    def job(self, computation_id: str, *, mode: str | None = None) -> AsyncJobHandle:
        """Make a handle on a computation that this client, or another with the same key, submitted before; nothing is sent.

        Its result is then verified against the computation's id, as `result` says. `mode`: `mock` for a rehearsal.

        Raises:
            UsageError: it is not a computation's id.
        """
        if not HASH32.fullmatch(computation_id):
            raise usage_error(f"{computation_id!a} is not a computation id.")
        return AsyncJobHandle(self._node, self._computations, computation_id, mode, None)

    def source(self, code: Code, inputs: Inputs) -> str:
        """Return the text that is sent, hashed and approved for this code.

        Raises:
            UsageError: the code cannot be sent; its `line` says where.
        """
        return read_code(code, inputs).text

    async def upload(self, content: bytes | str | os.PathLike[str]) -> str:
        """Upload data for a script, which itself has at most 100 KB; returns its sha-256, by which a request names it.

        What the node has already, and keeps for a while, is not sent again.
        """
        raw = read_content(content)
        digest = hashlib.sha256(raw).hexdigest()
        target = f"/api/v1/privacy/uploads/{quote(digest)}"
        if len(raw) < ASKED_FIRST_BYTES or not await self._has_upload(target, len(raw)):
            await self._node.send_signed("PUT", target, body=raw)
        return digest

    async def _has_upload(self, target: str, size: int) -> bool:
        try:
            stated = parse_object(await self._node.send_signed("GET", target))
        except PandaceaError as error:
            if error.status in {404, 405}:  # it is not there, or the node is of a version that cannot say
                return False
            raise
        until = stated.get("kept_until")
        return stated.get("size") == size and isinstance(until, int) and until > time.time() + KEPT_SECONDS
