"""Every route at its quota, with a neighbour beside it: whoever asks for too much is told so, and the next one is served."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from pandacea.api import middleware, routes
from pandacea.api.auth import AUTHENTICATOR, Authenticator
from pandacea.api.connection_guard import HttpLimits
from pandacea.api.nonces import MemoryNonces
from pandacea.api.openapi.operation import Auth, Operation
from pandacea.api.rate_limit import RateLimiter
from pandacea.domain.ids import Address, LeaseId
from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.signing import SigningPolicy, sign_request
from tests.api.conftest import HttpAnswer, read_answer
from tests.api.served import AUTHORITY, SPENDER, ServedNode, assemble
from tests.fakes import CHAIN_ID, cached_lease
from tests.flows.conftest import World

NEIGHBOUR = KeySigner("44" * 32)
BURST, PLACES = 4, 4
GREEDY, BESIDE = "127.0.0.2", "127.0.0.3"
NONCE = iter(f"{number:022d}" for number in range(10**6))
OPERATIONS = [routes.operation_of(handler) for handler in routes.HANDLERS]
SIGNED = [operation for operation in OPERATIONS if operation.auth is not Auth.PUBLIC]
FOR_STRANGERS = [operation for operation in SIGNED if operation.path.startswith("/api/v1/privacy/code")]


def shown(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


@dataclass
class NeighbourRig:
    """The node's routes, at limits that a test reaches: requests of a Spender, connections of an address, requests of strangers."""

    served: ServedNode

    async def send_request(self, operation: Operation, address: str, signer: KeySigner | None = None) -> HttpAnswer:
        """Ask for a route from an address, on a new connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.served.port, local_addr=(address, 0))
        try:
            writer.write(raw(operation, signer))
            return await asyncio.wait_for(read_answer(reader), 10)
        finally:
            writer.close()


def raw(operation: Operation, signer: KeySigner | None) -> bytes:
    """A request for a route, with something in each place of its path and a body where it takes one."""
    target = re.sub(r"\{\w*sha256\}", "0" * 64, re.sub(r"\{\w+_id\}", "0x" + "1e" * 32, operation.path)).replace("{name}", "a")
    body = b"{}" if operation.request else None
    headers = {"Content-Type": "application/json"} if body else {}
    if signer is not None:
        headers |= sign_request(
            signer,
            method=operation.method,
            authority=AUTHORITY,
            target=target,
            body=body,
            chain_id=CHAIN_ID,
            created=int(time.time()),
            nonce=next(NONCE),
            headers=headers,
        )
    lines = [
        f"{operation.method} {target} HTTP/1.1",
        f"Host: {AUTHORITY}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[NeighbourRig]:
    async with AsyncExitStack() as stack:

        def prepare(world: World, app: web.Application) -> None:
            world.lease_cache.leases[LeaseId("0x" + "44" * 32)] = cached_lease(spender=Address(NEIGHBOUR.address))
            app[AUTHENTICATOR] = Authenticator(
                SigningPolicy(CHAIN_ID, frozenset({AUTHORITY})),
                world.clock,
                world.lease_cache,
                MemoryNonces(time.time, 30),
                stranger_nonces=MemoryNonces(time.time, 30),
                stranger_rate=RateLimiter(1000, 1000, time.monotonic),
                peer_rate=RateLimiter(0.001, BURST, time.monotonic),
                spender_rate=RateLimiter(0.001, BURST, time.monotonic),
            )

        served = await assemble(tmp_path, stack, HttpLimits(connections_per_peer=PLACES), prepare)
        yield NeighbourRig(served)


def test_every_route_is_here(rig: NeighbourRig) -> None:
    """What is added later is played, too: the table of operations is the routes."""
    served = {(method, path) for path, methods in rig.served.described["paths"].items() for method in methods}
    assert served == {(operation.method.lower(), operation.path) for operation in OPERATIONS}


@pytest.mark.parametrize("operation", SIGNED, ids=shown)
async def test_a_spender_over_the_rate_leaves_the_neighbour_served(rig: NeighbourRig, operation: Operation) -> None:
    """Signed requests of one Spender, from however many addresses: 429, while another's are answered as ever."""
    mine = [await rig.send_request(operation, f"127.0.1.{number + 1}", SPENDER) for number in range(BURST + 2)]
    assert [answer.status == 429 for answer in mine] == [False] * BURST + [True] * 2
    assert mine[-1].code == "rate-limited"
    neighbours = await rig.send_request(operation, BESIDE, NEIGHBOUR)
    assert neighbours.status not in {429, 503, 507}


@pytest.mark.parametrize("operation", FOR_STRANGERS, ids=shown)
async def test_strangers_of_one_address_leave_those_of_another_served(rig: NeighbourRig, operation: Operation) -> None:
    """Where people without a lease may ask: fresh keys do not help, another address has its own share."""
    mine = [await rig.send_request(operation, GREEDY, KeySigner(f"{number + 100:064x}")) for number in range(BURST + 2)]
    assert [answer.status == 429 for answer in mine] == [False] * BURST + [True] * 2
    assert (await rig.send_request(operation, BESIDE, KeySigner("99" * 32))).status not in {429, 503, 507}
    assert (await rig.send_request(operation, GREEDY, NEIGHBOUR)).status not in {429, 503, 507}, "a Spender at that very address"


@pytest.mark.parametrize("operation", OPERATIONS, ids=shown)
async def test_an_address_that_holds_all_its_connections_leaves_the_next_one_served(
    rig: NeighbourRig, operation: Operation
) -> None:
    """Idle connections: the address that holds them is refused another, its neighbour is answered."""
    held = [await asyncio.open_connection("127.0.0.1", rig.served.port, local_addr=(GREEDY, 0)) for _ in range(PLACES)]
    refused = await rig.send_request(operation, GREEDY)
    assert (refused.status, refused.code) == (503, "too-many-connections")
    signer = None if operation.auth is Auth.PUBLIC else NEIGHBOUR
    assert (await rig.send_request(operation, BESIDE, signer)).status not in {429, 503, 507}
    for _, writer in held:
        writer.close()


def test_no_route_reads_a_body_past_the_counts() -> None:
    """Bodies are read by `read_body` and `body_chunks`, which count them: aiohttp's own readers count for nobody."""
    past = re.compile(r"request\.(?:read|text|json|post|multipart)\(|request\.content\b")
    modules = [module for _, module in inspect.getmembers(routes, inspect.ismodule)]
    assert len(modules) >= 8
    assert [module.__name__ for module in modules if past.search(inspect.getsource(module))] == []
    assert inspect.getsource(middleware).count("request.content.readany") == 1
