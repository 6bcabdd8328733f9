"""Sixty-four connections announce a body and never send it, and every POST of everybody is refused.

The bytes were reserved as announced, before anything was known of the caller, of one pot for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from pandacea.domain.limits import MIB
from pandacea_sdk.protocol.hashing import KeySigner
from tests.api.conftest import SPENDER, STRANGER, GuardedNode, HttpAnswer, StartNode, read_answer, send_raw, start_node

__all__ = ["start_node"]

SILENT = 64
NEIGHBOUR = KeySigner("44" * 32)


@asynccontextmanager
async def announced(
    node: GuardedNode, heads: Sequence[bytes]
) -> AsyncIterator[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """A connection for each head, on which no body follows."""
    held = [await asyncio.open_connection("127.0.0.1", node.port) for _ in heads]
    for (_, writer), head in zip(held, heads, strict=True):
        writer.write(head)
        await writer.drain()
    await send_raw(node.port, b"GET /slow?seconds=0.2 HTTP/1.1\r\nHost: x\r\n\r\n")  # the server has read every head
    try:
        yield held
    finally:
        for _, writer in held:
            writer.close()


def head_alone(raw: bytes) -> bytes:
    """A signed request whose body stays away."""
    return raw[: raw.index(b"\r\n\r\n") + 4]


async def signed_post(node: GuardedNode, signer: KeySigner) -> HttpAnswer:
    return await send_raw(node.port, node.signed_request(signer=signer))


async def test_sockets_of_nobody_hold_nothing(start_node: StartNode) -> None:
    """As it was played: one line of headers each, no key. Each is told so at once, and a Spender is served."""
    node = await start_node()
    head = f"POST /signed HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\n".encode()
    async with announced(node, [head] * SILENT) as held:
        assert (await signed_post(node, SPENDER)).status == 200
        assert {(await read_answer(reader)).code for reader, _ in held} == {"signature-missing"}


async def test_sockets_of_a_stranger_with_a_key_hold_nothing_of_the_spenders(start_node: StartNode) -> None:
    """Also where strangers may send: what is theirs is small, and beside what Spenders use."""
    node = await start_node()
    body = bytes(MIB)
    heads = [head_alone(node.signed_request(target="/anyone", body=body, signer=STRANGER)) for _ in range(SILENT)]
    async with announced(node, heads):
        assert (await signed_post(node, SPENDER)).status == 200


async def test_one_spenders_bodies_are_no_other_spenders(start_node: StartNode) -> None:
    """With a lease it goes no better: what one Spender announces, even what one sends, leaves the neighbour's share alone."""
    node = await start_node()
    node.known.addresses.add(NEIGHBOUR.address)
    body = bytes(MIB)
    most = [node.signed_request(body=body)[:-1] for _ in range(SILENT)]  # all but the last byte
    async with announced(node, most):
        assert (await signed_post(node, NEIGHBOUR)).status == 200


async def test_a_body_that_does_not_match_is_not_executed_and_burns_no_nonce(start_node: StartNode) -> None:
    """Somebody who saw a head can send another body after it: refused, and the Spender's own request still passes, once."""
    node = await start_node()
    raw = node.signed_request(body=b'{"a":1}')
    assert (await send_raw(node.port, raw.replace(b'{"a":1}', b'{"a":2}'))).code == "digest-mismatch"
    assert node.handled == []
    assert (await send_raw(node.port, raw)).status == 200
    assert (await send_raw(node.port, raw)).code == "request-replayed"


async def test_a_body_is_read_for_nobody_whose_head_is_refused(start_node: StartNode) -> None:
    """A head alone is answered: forged, unknown and expired ones cost no byte of memory."""
    node = await start_node()

    class Forger(KeySigner):
        __slots__ = ()

    forger = Forger("33" * 32)
    forger.address = SPENDER.address
    for signer, code in ((forger, "signature-invalid"), (STRANGER, "unknown-spender")):
        raw = node.signed_request(body=bytes(MIB), signer=signer)
        assert (await send_raw(node.port, head_alone(raw), seconds=3)).code == code
