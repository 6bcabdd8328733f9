# Written by tools/blocking_client.py from async_client; change that, then run the tool.
"""`PandaceaClient`: run a script on leased data and get a verified result.

from pandacea_sdk.client import PandaceaClient

client = PandaceaClient("http://localhost:8080")
answer = client.execute_computation(lease_id, "train.py", {"table": "a"})
weights = client.decode_artifact(answer["results"]["artifacts"]["model_weights.pth"])
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pandacea_sdk.artifacts import decode_artifact, load_weights, save_artifacts
from pandacea_sdk.async_client import AsyncPandaceaClient
from pandacea_sdk.catalogues import Discovery
from pandacea_sdk.errors import PandaceaError
from pandacea_sdk.event_stream import JobEvent
from pandacea_sdk.jobs import AsyncJobHandle
from pandacea_sdk.loop_thread import BlockingClient
from pandacea_sdk.prepare import Inputs
from pandacea_sdk.protocol.execute_request import ExecuteRequest
from pandacea_sdk.protocol.hashing import Signer
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.protocol.verify import VerifiedResult
from pandacea_sdk.results import RunResult
from pandacea_sdk.run_methods import Uploads
from pandacea_sdk.scripts import Code
from pandacea_sdk.waiting import AsyncCodeHandle, AsyncLeaseHandle, Identified, LeaseBill, LeaseUsage


class PandaceaClient(BlockingClient):
    """Client of one node for a Spender, for synchronous programs and notebooks.

    It works inside a running event loop too, as in Jupyter: requests run on a thread of the client's own.
    """

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
        """Set the client up; nothing is sent before a method needs it.

        Args:
            base_url: `http(s)://host[:port]`; plain http only to this machine unless `insecure_http`.
            key: see `credentials.find_signer` for where a key is looked for, and in which order.
            keystore: a Web3 Secret Storage v3 file, with `passphrase` or `passphrase_file`.
            passphrase: of the keystore.
            passphrase_file: a file whose first line is the passphrase.
            chain_id: of the leases; default: what the node states.
            contract: address of the LeaseAgreement; default: what the node states, which proves nothing.
            rpc_url: your own Ethereum RPC endpoint; every result's signer is then checked against the lease on the chain.
            timeout: seconds for one request; a computation has a timeout of its own (see `execute_computation`).
            insecure_http: allow plain http to another machine.
            tls: your own context, for a private certificate authority.

        Raises:
            UsageError: an argument cannot be used.
        """
        self._client = AsyncPandaceaClient(
            base_url,
            key,
            keystore=keystore,
            passphrase=passphrase,
            passphrase_file=passphrase_file,
            chain_id=chain_id,
            contract=contract,
            rpc_url=rpc_url,
            timeout=timeout,
            insecure_http=insecure_http,
            tls=tls,
        )
        super().__init__(self._client)

    def create_lease(
        self,
        product_id: str,
        *,
        computations: int = 1,
        days: int = 7,
        max_price: int = 0,
        arbiter: str | None = None,
        max_fee: int = 10000000000000000,
        max_tip: int | None = None,
    ) -> str:
        """Create a lease on a product at its signed price, and pay that price into the contract. Returns the lease's id.

        The client needs `rpc_url`, `contract` and a key with a balance. Earner, contract and price come from what the node signed; on
        your own endpoint chain, code, the signers, and the arbiter are checked before anything is sent. The Earner must approve the
        lease within 7 days; `lease(id)` says when it may be used.

        Args:
            product_id: as the catalogue names it.
            computations: how many the lease allows.
            days: until it expires, at most 730.
            max_price: the most wei you pay for the whole lease; a product that costs more is refused.
            arbiter: the only address that may judge a dispute; default: whoever is appointed, unless a side of the lease.
            max_fee: the most wei for the transaction's gas; the default is 0.01 of the native coin.
            max_tip: the most wei per gas on top of the base fee; default: 2 gwei, or the base fee where that is more.

        Raises:
            UsageError: the price is above `max_price`, or an argument cannot be used.
            RequestError: `product-unknown`.
            UntrustedResult: the offer contradicts itself, its signature or the chain. In all of these nothing was paid.
            LeaseError: the contract refused it.
            NodeUnavailable: node or endpoint do not answer.
            chain.FeeAboveCap, chain.NotMined: see there.
        """
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

    def request_lease(
        self,
        product: str | JsonMapping,
        *,
        computations: int = 1,
        days: int = 7,
        max_price: int = 0,
        arbiter: str | None = None,
        max_fee: int = 10000000000000000,
        max_tip: int | None = None,
    ) -> LeaseHandle:
        """Create a lease as `create_lease` does and return a handle on it, which has the bill and waits for the approval.

        Args:
            product: an id, or what `product` returned; whatever that says, price and Earner are asked of the node again and verified.
            computations: how many the lease allows.
            days: until it expires, at most 730.
            max_price: the most wei you pay for the whole lease.
            arbiter: as in `create_lease`.
            max_fee: the most wei for the transaction's gas.
            max_tip: as in `create_lease`.

        Raises:
            PandaceaError: as `create_lease`; nothing was paid.
        """
        return LeaseHandle(
            self._loop.run(
                self._client.request_lease(
                    product,
                    computations=computations,
                    days=days,
                    max_price=max_price,
                    arbiter=arbiter,
                    max_fee=max_fee,
                    max_tip=max_tip,
                )
            ),
            self,
        )

    def open_lease(self, lease_id: str) -> LeaseHandle:
        """Make a handle on a lease that was made before; nothing is sent.

        Raises:
            UsageError: it is not a lease's id.
        """
        return LeaseHandle(self._client.open_lease(lease_id), self)

    def submit_code(
        self,
        code: Code,
        product: str | JsonMapping,
        inputs: Inputs,
        *,
        uploads: Sequence[str] = (),
        params_schema: JsonMapping | None = None,
        note: str = "",
    ) -> CodeHandle:
        """Submit a script for the Earner's approval, before paying for a lease. Needs a key, not a lease.

        Args:
            code: as in `submit`; the text that `source` returns is approved, and runs only unchanged.
            product: the product whose assets the script reads, as an id or as `product` returned it.
            inputs: as in `execute_computation`; the approval covers this mapping of assets to variables.
            uploads: names of the uploads that requests with this script will have.
            params_schema: a JSON schema of its `params`; default: `params` must be empty.
            note: text for the Earner.

        Returns:
            A handle: `wait_approved(hours=2)`; `code_state(handle.id)` fetches the decision, too.
        """
        return CodeHandle(
            self._loop.run(
                self._client.submit_code(code, product, inputs, uploads=uploads, params_schema=params_schema, note=note)
            ),
            self,
        )

    def submit(
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
    ) -> JobHandle:
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
        return JobHandle(
            self._loop.run(
                self._client.submit(
                    code,
                    lease,
                    inputs,
                    params=params,
                    uploads=uploads,
                    product_version=product_version,
                    mode=mode,
                    idempotency_key=idempotency_key,
                )
            ),
            self,
        )

    def run(
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
        return self._loop.run(
            self._client.run(
                code,
                lease,
                inputs,
                params=params,
                uploads=uploads,
                product_version=product_version,
                mode=mode,
                idempotency_key=idempotency_key,
                timeout=timeout,
            )
        )

    def job(self, computation_id: str, *, mode: str | None = None) -> JobHandle:
        """Make a handle on a computation that this client, or another with the same key, submitted before; nothing is sent.

        Its result is then verified against the computation's id, as `result` says. `mode`: `mock` for a rehearsal.

        Raises:
            UsageError: it is not a computation's id.
        """
        return JobHandle(self._client.job(computation_id, mode=mode), self)

    def source(self, code: Code, inputs: Inputs) -> str:
        """Return the text that is sent, hashed and approved for this code.

        Raises:
            UsageError: the code cannot be sent; its `line` says where.
        """
        return self._client.source(code, inputs)

    def upload(self, content: bytes | str | os.PathLike[str]) -> str:
        """Upload data for a script, which itself has at most 100 KB; returns its sha-256, by which a request names it.

        What the node has already, and keeps for a while, is not sent again.
        """
        return self._loop.run(self._client.upload(content))

    @property
    def address(self) -> str:
        """The Spender's address, lower-case hex.

        Raises:
            UsageError: no key was given.
        """
        return self._client.address

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
        """Run a script on leased data and return the node's verified answer.

        Args:
            lease_id: `0x` and 64 hex digits.
            code_path: the script, at most 100 KB of UTF-8.
            inputs: `{"df": "patients"}`: the script finds each asset as a DataFrame in that variable. A list of
                `{"asset_id": ..., "variable_name": ...}` is taken, too.
            params: any JSON value; the script's `params`.
            uploads: name -> bytes or file; the script finds them at /workspace/in/NAME.
            product_version: refuse to run on any other version of the product.
            mode: `mock` rehearses on mock rows, uncharged; its answer carries no manifest and no receipt.
            timeout: seconds for everything, waiting in the node's queue included.

        Returns:
            `{"success", "computation_id", "results": {"output", "artifacts": {name: base64}}, "manifest", "result_hash",
            "receipt"}`, with `error` when the script failed (success false).

        Raises:
            PandaceaError: its class says what to do; `StillRunning` after `timeout`; `UntrustedResult` when bytes,
                manifest, receipt or chain contradict each other.
        """
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
        """Wait for a computation that this client, or another with the same key, requested before.

        The answer is always verified: against the request when this client sent it, otherwise against the computation's id. The id
        binds lease and signed request; script, params, uploads and inputs are then what the manifest says. Pass the request to
        `verify` to compare them.

        Args:
            computation_id: `0x` and 64 hex digits.
            mode: `mock` for a rehearsal that another client requested: nobody signs rehearsals, so it cannot be verified.
            timeout: seconds to wait.

        Raises:
            StillRunning: it has not ended within `timeout` seconds.
            PandaceaError: as `execute_computation`.
        """
        return self._loop.run(self._client.result(computation_id, mode=mode, timeout=timeout))

    def status(self, computation_id: str) -> JsonObject:
        """Fetch a computation's state: `{"computation_id", "status", ...}`."""
        return self._loop.run(self._client.status(computation_id))

    def cancel(self, computation_id: str) -> None:
        """Cancel a computation that is waiting or running."""
        self._loop.run(self._client.cancel(computation_id))

    def artifact(self, computation_id: str, name: str) -> bytes:
        """Fetch one artifact's raw bytes. Compare their sha-256 with the manifest's before trusting them."""
        return self._loop.run(self._client.artifact(computation_id, name))

    def verify(self, answer: JsonMapping, request: ExecuteRequest | None = None) -> VerifiedResult:
        """Verify an answer of `execute_computation` again: bytes, manifest, receipt and, with `rpc_url`, the chain.

        For an answer that another client requested, give its `request`: without it the answer is compared with the computation's id
        only, and the outcome's `request_compared` is False.

        Raises:
            UntrustedResult: its `code` says which parts contradict each other.
        """
        return self._loop.run(self._client.verify(answer, request))

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
        """Download a product's mock rows, check them against its document, and write `<asset_id>_mock.csv` files below `folder`.

        Raises:
            NodeError: the product has no mock rows.
            UntrustedResult: a mock is not the one that the product's document names.
        """
        return self._loop.run(self._client.save_mocks(product_id, folder))

    def mock_data(self, product: str | JsonMapping, table: str) -> Any:
        """Download the mock rows of one table, check them against the product's document, and return them as a DataFrame (needs pandas).

        Raises:
            UsageError: the product has no such table with mock rows, or pandas is missing.
            UntrustedResult: the mock is not the one that the product's document names.
        """
        return self._loop.run(self._client.mock_data(product, table))

    def discover_products(self, urls: Sequence[str], *, insecure_http: bool = False) -> Discovery:
        """Fetch the products of several nodes, with this client's timeout and certificate authorities.

        Args:
            urls: addresses of nodes.
            insecure_http: allow plain http to other machines.

        Returns:
            `products`: each with its node's `url`; `unreachable`: address -> why it gave no list.
        """
        return self._loop.run(self._client.discover_products(urls, insecure_http=insecure_http))

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
        return AsyncPandaceaClient.decode_artifact(text)

    @staticmethod
    def save_artifacts(answer: JsonMapping, folder: str | os.PathLike[str]) -> list[Path]:
        """Write an answer's artifacts below `folder` and return the files: safe names only, nothing overwritten."""
        return AsyncPandaceaClient.save_artifacts(answer, folder)

    @staticmethod
    def load_weights(content: bytes, **options: Any) -> Any:
        """Load a PyTorch checkpoint without running code from it (torch >= 2.6, weights_only)."""
        return AsyncPandaceaClient.load_weights(content, **options)


class JobHandle:
    """A computation on a node, by its id."""

    def __init__(self, inner: AsyncJobHandle, client: PandaceaClient) -> None:
        """Made by the client's methods."""
        self._inner = inner
        self._client = client
        self._loop = client._loop  # noqa: SLF001  # the client's own thread

    @property
    def id(self) -> str:
        """The computation's id, `0x` and 64 hex digits: keep it, and `client.job(id)` finds the computation again."""
        return self._inner.id

    def status(self) -> str:
        """Fetch its state: pending, running, held, completed, failed or cancelled."""
        return self._loop.run(self._inner.status())

    def wait(self, timeout: float = 3600.0) -> RunResult:
        """Wait until it has ended, fetch its artifacts to files, and verify all of it.

        Args:
            timeout: seconds until the end of the computation; the artifacts may take longer.

        Raises:
            StillRunning: it has not ended; nothing is lost, wait again.
            JobError: it has no result.
            UntrustedResult: bytes, manifest, receipt or chain contradict each other.
        """
        return self._loop.run(self._inner.wait(timeout))

    def cancel(self) -> None:
        """Cancel it: while it waits it is not charged, while it runs its sandbox is destroyed."""
        self._loop.run(self._inner.cancel())

    def stream(self) -> Iterator[JobEvent]:
        """Iterate over its states, progress and output as they come, until it has ended; a broken connection is continued.

        What of progress and output is shown is the product's rule `live_output`.
        """
        return self._loop.iterate(self._inner.stream())


class LeaseHandle:
    """A lease, by its id: waited for, and looked at."""

    def __init__(self, inner: AsyncLeaseHandle, client: PandaceaClient) -> None:
        """Made by the client's methods."""
        self._inner = inner
        self._client = client
        self._loop = client._loop  # noqa: SLF001  # the client's own thread

    @property
    def id(self) -> str:
        """The lease's id, `0x` and 64 hex digits: keep it, and `client.open_lease(id)` makes this handle again."""
        return self._inner.id

    @property
    def bill(self) -> LeaseBill | None:
        """What it cost; None where another process made it."""
        return self._inner.bill

    def status(self) -> LeaseUsage:
        """Fetch how this node sees the lease: what of it is used, reserved and left, until when, and why it would refuse.

        Raises:
            LeaseError: `lease-unknown`, `unknown-spender`: it was not approved yet, or is not yours.
        """
        return self._loop.run(self._inner.status())

    def wait(self, timeout: float = 604800.0) -> Self:
        """Wait until this node would run a computation under it: the Earner approved it, and the chain shows it deeply enough.

        Args:
            timeout: seconds; the Earner has 7 days to approve.

        Raises:
            StillWaiting: not within `timeout` seconds.
            LeaseError: it ended; `lease.status()` says how.
        """
        self._loop.run(self._inner.wait(timeout))
        return self


class CodeHandle:
    """A script that was handed in for the Earner's approval."""

    def __init__(self, inner: AsyncCodeHandle, client: PandaceaClient) -> None:
        """Made by the client's methods."""
        self._inner = inner
        self._client = client
        self._loop = client._loop  # noqa: SLF001  # the client's own thread

    @property
    def id(self) -> str:
        """The id of script, inputs, uploads and params schema together; `client.code_state(id)` fetches the decision."""
        return self._inner.id

    @property
    def answer(self) -> JsonMapping:
        """The node's answer to the submission: `{"code_id", "status", ...}`."""
        return self._inner.answer

    def status(self) -> str:
        """Fetch the decision: pending, approved or rejected."""
        return self._loop.run(self._inner.status())

    def wait_approved(self, hours: float = 24.0) -> Self:
        """Wait until the Earner approved it.

        Raises:
            StillWaiting: nobody decided within `hours`.
            CodeError: it was rejected; the message is the Earner's reason.
        """
        self._loop.run(self._inner.wait_approved(hours))
        return self


__all__ = [
    "AsyncPandaceaClient",
    "CodeHandle",
    "JobHandle",
    "LeaseHandle",
    "PandaceaClient",
    "PandaceaError",
    "decode_artifact",
    "load_weights",
    "save_artifacts",
]
