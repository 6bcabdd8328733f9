"""The Spender's client for asynchronous programs; `client.PandaceaClient` is the same for synchronous ones."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from pandacea_sdk import artifacts, mocks
from pandacea_sdk.agreement_methods import AgreementMethods
from pandacea_sdk.catalogues import Discovery, discover_products, list_products
from pandacea_sdk.computations import RESULTS_PATH, Computations
from pandacea_sdk.credentials import find_signer
from pandacea_sdk.errors import usage_error
from pandacea_sdk.node import NodeConnection, parse_object
from pandacea_sdk.prepare import Inputs, make_request, read_content, read_script
from pandacea_sdk.protocol.execute_request import ExecuteRequest
from pandacea_sdk.protocol.hashing import Signer
from pandacea_sdk.protocol.ids import ADDRESS, HASH32
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.protocol.verify import VerifiedResult
from pandacea_sdk.run_methods import RunMethods, Uploads
from pandacea_sdk.transport import Origin, Transport


class AsyncPandaceaClient(RunMethods, AgreementMethods):
    """Client of one node for a Spender. Use it in `async with`, or call `close`."""

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
        if contract is not None and not ADDRESS.fullmatch(contract.lower()):
            raise usage_error(f"contract is {contract!a}; give 0x and 40 hex digits.")
        if rpc_url is not None and contract is None:
            raise usage_error(
                "rpc_url checks results against a contract: give its address as contract=, too; what the node states proves nothing."
            )
        signer = find_signer(key, keystore, passphrase, passphrase_file)
        transport = Transport(Origin.from_url(base_url, insecure_http=insecure_http), signer, timeout=timeout, tls=tls)
        self._node = NodeConnection(transport, signer, chain_id, contract.lower() if contract else None)
        self._rpc_url = rpc_url
        self._computations = Computations(self._node, rpc_url)

    async def __aenter__(self) -> Self:
        """Return the client; connections are opened when they are needed."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connections to the node."""
        await self.close()

    async def close(self) -> None:
        """Close the connections to the node."""
        await self._node.close()

    @property
    def address(self) -> str:
        """The Spender's address, lower-case hex.

        Raises:
            UsageError: no key was given.
        """
        return self._node.address

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
        timeout: float = 3600.0,  # the name callers look for; it bounds waiting, not one await
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
        given = {} if uploads is None else {name: read_content(content) for name, content in uploads.items()}
        request = make_request(lease_id, read_script(code_path), inputs, params, given, product_version, mode)
        deadline = time.monotonic() + timeout
        for content in given.values():
            await self.upload(content)
        return await self._computations.submit_and_wait(request, deadline, timeout)

    async def result(
        self,
        computation_id: str,
        *,
        mode: str | None = None,
        timeout: float = 60.0,  # as execute_computation
    ) -> JsonObject:
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
        if not HASH32.fullmatch(computation_id):
            raise usage_error(f"{computation_id!a} is not a computation id.")
        return await self._computations.wait_for_result(computation_id, mode, timeout)

    async def status(self, computation_id: str) -> JsonObject:
        """Fetch a computation's state: `{"computation_id", "status", ...}`."""
        return parse_object(await self._node.send_signed("GET", RESULTS_PATH + quote(computation_id, safe="")))

    async def cancel(self, computation_id: str) -> None:
        """Cancel a computation that is waiting or running."""
        await self._node.send_signed("DELETE", RESULTS_PATH + quote(computation_id, safe=""))

    async def artifact(self, computation_id: str, name: str) -> bytes:
        """Fetch one artifact's raw bytes. Compare their sha-256 with the manifest's before trusting them."""
        target = f"{RESULTS_PATH}{quote(computation_id, safe='')}/artifacts/{quote(name)}"
        return (await self._node.send_signed("GET", target)).body

    async def verify(self, answer: JsonMapping, request: ExecuteRequest | None = None) -> VerifiedResult:
        """Verify an answer of `execute_computation` again: bytes, manifest, receipt and, with `rpc_url`, the chain.

        For an answer that another client requested, give its `request`: without it the answer is compared with the computation's id
        only, and the outcome's `request_compared` is False.

        Raises:
            UntrustedResult: its `code` says which parts contradict each other.
        """
        return await self._computations.verify(answer, request)

    # ------------------------------------------------------------------------------------------------ everything else

    async def code_state(self, code_id: str) -> JsonObject:
        """Fetch the Earner's decision about a submitted script, and the reason."""
        return parse_object(await self._node.send_signed("GET", f"/api/v1/privacy/code/{quote(code_id, safe='')}"))

    async def products(self) -> list[JsonObject]:
        """Fetch the list of all products on offer."""
        return await list_products(self._node)

    async def product(self, product_id: str) -> JsonObject:
        """Fetch one product: schema, mock rows, price, rules, environment, version."""
        return parse_object(await self._node.get_public(f"/api/v1/products/{quote(product_id, safe='')}"))

    async def save_mocks(self, product_id: str, folder: str | os.PathLike[str]) -> list[Path]:
        """Download a product's mock rows, check them against its document, and write `<asset_id>_mock.csv` files below `folder`.

        Raises:
            NodeError: the product has no mock rows.
            UntrustedResult: a mock is not the one that the product's document names.
        """
        product = await self.product(product_id)
        found = {}
        for asset_id, (target, sha256) in mocks.mock_targets(product).items():
            reply = await self._node.get_public(quote(target))
            found[asset_id] = mocks.check_mock(asset_id, reply.body, sha256)
        return mocks.save_mock_files(product, found, folder)

    async def mock_data(self, product: str | JsonMapping, table: str) -> Any:
        """Download the mock rows of one table, check them against the product's document, and return them as a DataFrame (needs pandas).

        Raises:
            UsageError: the product has no such table with mock rows, or pandas is missing.
            UntrustedResult: the mock is not the one that the product's document names.
        """
        described = await self.product(product) if isinstance(product, str) else product
        schema = mocks.find_schema(described, table)
        target, sha256 = mocks.mock_targets(described)[table]
        reply = await self._node.get_public(quote(target))
        return mocks.read_frame(BytesIO(mocks.check_mock(table, reply.body, sha256)), schema)

    async def discover_products(self, urls: Sequence[str], *, insecure_http: bool = False) -> Discovery:
        """Fetch the products of several nodes, with this client's timeout and certificate authorities.

        Args:
            urls: addresses of nodes.
            insecure_http: allow plain http to other machines.

        Returns:
            `products`: each with its node's `url`; `unreachable`: address -> why it gave no list.
        """
        return await discover_products(urls, lambda url: self._node.transport.sibling(url, insecure_http=insecure_http))

    async def lease(self, lease_id: str) -> JsonObject:
        """Fetch how the node sees one of your leases, and why it would refuse a computation."""
        return parse_object(await self._node.send_signed("GET", f"/api/v1/leases/{quote(lease_id, safe='')}"))

    async def info(self) -> JsonObject:
        """Fetch what the node states about itself (/.well-known/pandacea)."""
        return await self._node.fetch_info()

    async def sign(self, method: str, target: str, body: bytes | None = None) -> dict[str, str]:
        """Sign one request for another HTTP client; returns the headers to add, valid once and for one minute."""
        return await self._node.sign(method, target, body)

    @staticmethod
    def decode_artifact(text: str) -> bytes:
        """Decode an artifact in `answer["results"]["artifacts"]` to its bytes."""
        return artifacts.decode_artifact(text)

    @staticmethod
    def save_artifacts(answer: JsonMapping, folder: str | os.PathLike[str]) -> list[Path]:
        """Write an answer's artifacts below `folder` and return the files: safe names only, nothing overwritten."""
        return artifacts.save_artifacts(answer["results"]["artifacts"], folder)

    @staticmethod
    def load_weights(content: bytes, **options: Any) -> Any:
        """Load a PyTorch checkpoint without running code from it (torch >= 2.6, weights_only)."""
        return artifacts.load_weights(content, **options)
