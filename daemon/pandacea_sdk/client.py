"""`PandaceaClient`: run a script on leased data and get a verified result.

from pandacea_sdk.client import PandaceaClient

client = PandaceaClient("http://localhost:8080")
answer = client.execute_computation(lease_id, "train.py", {"table": "a"})
weights = client.decode_artifact(answer["results"]["artifacts"]["model_weights.pth"])
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pandacea_sdk.artifacts import decode_artifact, load_weights, save_artifacts
from pandacea_sdk.async_client import AsyncPandaceaClient, Uploads
from pandacea_sdk.errors import PandaceaError
from pandacea_sdk.prepare import Inputs
from pandacea_sdk.protocol.execute_request import ExecuteRequest
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.protocol.verify import VerifiedResult

T = TypeVar("T")


class PandaceaClient:
    """Client of one node for a Spender, for synchronous programs and notebooks.

    It works inside a running event loop too, as in Jupyter: requests run on a thread of the client's own.
    """

    def __init__(self, base_url: str, key: Any = None, **options: Any) -> None:
        """Set the client up as `AsyncPandaceaClient`; nothing is sent before a method needs it.

        Options: `key`, `keystore`, `passphrase`, `passphrase_file`, `chain_id`, `contract`, `rpc_url`, `timeout`,
        `insecure_http`, `tls`.

        Raises:
            UsageError: an argument cannot be used.
        """
        self._client = AsyncPandaceaClient(base_url, key, **options)
        self._loop = _LoopThread()
        # A client that is not closed must not keep its thread.
        self._finalizer = weakref.finalize(self, _LoopThread.stop, self._loop)

    def __enter__(self) -> Self:
        """Return the client; connections are opened when they are needed."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connections to the node."""
        self.close()

    def close(self) -> None:
        """Close the connections; the client cannot be used afterwards."""
        if self._finalizer.alive:
            self._loop.run(self._client.close())
            self._finalizer()

    @property
    def address(self) -> str:
        """The Spender's address, lower-case hex."""
        return self._client.address

    def create_lease(
        self,
        product_id: str,
        *,
        computations: int = 1,
        days: int = 7,
        max_price: int = 0,
        arbiter: str | None = None,
        max_fee: int = 10**16,
        max_tip: int | None = None,
    ) -> str:
        """Create a lease on a product at its signed price; returns its id. See `AsyncPandaceaClient.create_lease`."""
        return self._loop.run(
            self._client.create_lease(
                product_id,
                computations=computations,
                days=days,
                max_price=max_price,
                arbiter=arbiter,
                max_fee=max_fee,
                max_tip=max_tip,
            )
        )

    def execute_computation(
        self,
        lease_id: str,
        code_path: str | os.PathLike[str],
        inputs: Inputs,
        *,
        params: Any = None,
        uploads: Uploads | None = None,
        product_version: str | None = None,
        mode: str | None = None,
        timeout: float = 3600.0,
    ) -> JsonObject:
        """Run a script on leased data and return the node's verified answer. See `AsyncPandaceaClient.execute_computation`."""
        return self._loop.run(
            self._client.execute_computation(
                lease_id,
                code_path,
                inputs,
                params=params,
                uploads=uploads,
                product_version=product_version,
                mode=mode,
                timeout=timeout,
            )
        )

    def result(self, computation_id: str, *, mode: str | None = None, timeout: float = 60.0) -> JsonObject:
        """Wait for a computation that was requested before. See `AsyncPandaceaClient.result`."""
        return self._loop.run(self._client.result(computation_id, mode=mode, timeout=timeout))

    def status(self, computation_id: str) -> JsonObject:
        """Fetch a computation's state. See `AsyncPandaceaClient.status`."""
        return self._loop.run(self._client.status(computation_id))

    def cancel(self, computation_id: str) -> None:
        """Cancel a computation that is waiting or running."""
        self._loop.run(self._client.cancel(computation_id))

    def artifact(self, computation_id: str, name: str) -> bytes:
        """Fetch one artifact's raw bytes. See `AsyncPandaceaClient.artifact`."""
        return self._loop.run(self._client.artifact(computation_id, name))

    def verify(self, answer: JsonMapping, request: ExecuteRequest | None = None) -> VerifiedResult:
        """Verify an answer again. See `AsyncPandaceaClient.verify`."""
        return self._loop.run(self._client.verify(answer, request))

    def upload(self, content: bytes | str | os.PathLike[str]) -> str:
        """Upload data for a script; returns its sha-256. See `AsyncPandaceaClient.upload`."""
        return self._loop.run(self._client.upload(content))

    def submit_code(
        self,
        code_path: str | os.PathLike[str],
        inputs: Inputs,
        product_id: str,
        *,
        uploads: Sequence[str] = (),
        params_schema: JsonMapping | None = None,
        note: str = "",
    ) -> JsonObject:
        """Submit a script for the Earner's approval. See `AsyncPandaceaClient.submit_code`."""
        return self._loop.run(
            self._client.submit_code(code_path, inputs, product_id, uploads=uploads, params_schema=params_schema, note=note)
        )

    def code_state(self, code_id: str) -> JsonObject:
        """Fetch the Earner's decision about a submitted script, and the reason."""
        return self._loop.run(self._client.code_state(code_id))

    def products(self) -> list[JsonObject]:
        """Fetch the list of all products on offer."""
        return self._loop.run(self._client.products())

    def product(self, product_id: str) -> JsonObject:
        """Fetch one product: schema, mock rows, price, rules, environment, version."""
        return self._loop.run(self._client.product(product_id))

    def save_mocks(self, product_id: str, folder: str | os.PathLike[str]) -> list[Path]:
        """Download a product's mock rows below `folder`. See `AsyncPandaceaClient.save_mocks`."""
        return self._loop.run(self._client.save_mocks(product_id, folder))

    def lease(self, lease_id: str) -> JsonObject:
        """Fetch how the node sees one of your leases, and why it would refuse a computation."""
        return self._loop.run(self._client.lease(lease_id))

    def info(self) -> JsonObject:
        """Fetch what the node states about itself (/.well-known/pandacea)."""
        return self._loop.run(self._client.info())

    def sign(self, method: str, target: str, body: bytes | None = None) -> dict[str, str]:
        """Sign one request for another HTTP client; returns the headers to add, valid once and for one minute."""
        return self._loop.run(self._client.sign(method, target, body))

    @staticmethod
    def decode_artifact(text: str) -> bytes:
        """Decode an artifact in `answer["results"]["artifacts"]` to its bytes."""
        return decode_artifact(text)

    @staticmethod
    def save_artifacts(answer: JsonMapping, folder: str | os.PathLike[str]) -> list[Path]:
        """Write an answer's artifacts below `folder` and return the files: safe names only, nothing overwritten."""
        return save_artifacts(answer["results"]["artifacts"], folder)

    @staticmethod
    def load_weights(content: bytes, **options: Any) -> Any:
        """Load a PyTorch checkpoint without running code from it (torch >= 2.6, weights_only)."""
        return load_weights(content, **options)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop and close it on the same thread. The garbage collector would close its descriptors in any order, on any thread."""
    try:
        loop.run_forever()
    finally:
        loop.close()


class _LoopThread:
    """An event loop on a daemon thread, which starts at the first use."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop until it ends; Ctrl-C cancels it."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run_loop, args=(self._loop,), name="pandacea-client", daemon=True).start()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """Stop the loop, which ends its thread."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None


__all__ = ["AsyncPandaceaClient", "PandaceaClient", "PandaceaError", "decode_artifact", "load_weights", "save_artifacts"]
