"""Over the wire: who is let in, who is refused with what, and what a stranger can cost."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.signing import ACCEPT_SIGNATURE
from tests.api.conftest import SPENDER, STRANGER, StartNode, raw_request, send_raw


async def test_a_known_spender_is_let_in_once(start_node: StartNode) -> None:
    """A signed request passes; the very same bytes again are refused as a replay, and so they stay."""
    node = await start_node()
    raw = node.signed_request()
    first = await send_raw(node.port, raw)
    assert (first.status, first.json["address"]) == (200, SPENDER.address)
    for _ in range(2):
        again = await send_raw(node.port, raw)
        assert (again.status, again.code) == (401, "request-replayed")
    assert node.handled == ["/signed"]


async def test_the_time_to_the_answer_of_a_signed_request_is_observed(start_node: StartNode) -> None:
    """Of requests whose own signature was verified; strangers and long-polls, which wait on purpose, would only blur it."""
    node = await start_node()
    await send_raw(node.port, raw_request("POST", "/signed", {}, b"{}"))
    await send_raw(node.port, node.signed_request(signer=STRANGER))
    await send_raw(node.port, node.signed_request(target="/signed?wait=1"))
    assert node.observed == []
    await send_raw(node.port, node.signed_request())
    (seconds,) = node.observed
    assert 0 < seconds < 10


async def test_of_many_copies_at_once_one_passes(start_node: StartNode) -> None:
    """The nonce is taken atomically: twenty copies sent together give one 200."""
    node = await start_node()
    raw = node.signed_request()
    answers = await asyncio.gather(*(send_raw(node.port, raw) for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [200] + [401] * 19


async def test_a_request_signed_before_the_database_was_put_back_is_refused(start_node: StartNode) -> None:
    """Its nonce may have been used, and the database that knew is gone. Until a fast clock cannot have dated it later, all wait."""
    now = int(time.time())
    waits = await start_node(requests_since=now + 20)
    told = await send_raw(waits.port, waits.signed_request())
    assert (told.status, told.code) == (503, "unavailable")
    assert 0 < int(told.headers["retry-after"]) <= 21
    serves = await start_node(requests_since=now - 10)
    for target, signer in (("/signed", SPENDER), ("/anyone", STRANGER)):
        old = await send_raw(serves.port, serves.signed_request(target=target, created=now - 11, signer=signer))
        assert (old.status, old.code) == (401, "signature-expired"), target
        assert (await send_raw(serves.port, serves.signed_request(target=target, signer=signer))).status == 200, target


async def test_an_unsigned_request_is_told_how_to_sign(start_node: StartNode) -> None:
    """401 carries Accept-Signature (RFC 9421) and WWW-Authenticate (RFC 9110)."""
    node = await start_node()
    answer = await send_raw(node.port, raw_request("POST", "/signed", {}, b"{}"))
    assert (answer.status, answer.code) == (401, "signature-missing")
    assert answer.headers["accept-signature"] == ACCEPT_SIGNATURE
    assert answer.headers["www-authenticate"]
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_stranger_costs_nothing_but_a_look(start_node: StartNode) -> None:
    """An address without a lease: 403, no signature recovered, no nonce written, no chain asked."""
    node = await start_node()
    answer = await send_raw(node.port, node.signed_request(signer=STRANGER))
    assert (answer.status, answer.code) == (403, "unknown-spender")
    assert node.nonces._rows == {}
    assert node.wallets.asked == 0


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"chain_id": 1}, "wrong-chain"),
        ({"authority": "evil.example"}, "wrong-authority"),
        ({"created": int(time.time()) - 1000}, "signature-expired"),
        ({"created": int(time.time()) + 1000}, "signature-not-yet-valid"),
        ({"expires": int(time.time()) + 1000}, "signature-window"),
        ({"headers": {"Idempotency-Key": "a b"}}, "bad-idempotency-key"),
    ],
)
async def test_each_fault_keeps_its_code_over_the_wire(start_node: StartNode, changes: dict[str, Any], code: str) -> None:
    """The table of codes is what a client sees."""
    node = await start_node()
    answer = await send_raw(node.port, node.signed_request(**changes))
    assert (answer.code, node.handled) == (code, [])


async def test_a_swapped_body_is_refused(start_node: StartNode) -> None:
    """The body is bound to the signature."""
    node = await start_node()
    raw = node.signed_request(body=b'{"a":1}')
    assert (await send_raw(node.port, raw.replace(b'{"a":1}', b'{"a":2}'))).code == "digest-mismatch"


async def test_a_key_that_did_not_sign_is_refused_before_its_nonce_is_spent(start_node: StartNode) -> None:
    """Naming somebody else's address neither passes nor uses up their nonces."""
    node = await start_node()

    class Impostor(KeySigner):
        __slots__ = ()

    impostor = Impostor("33" * 32)
    impostor.address = SPENDER.address
    answer = await send_raw(node.port, node.signed_request(signer=impostor))
    assert (answer.status, answer.code) == (401, "signature-invalid")
    assert node.nonces._rows == {}


async def test_a_contract_wallet_may_speak_for_its_address(start_node: StartNode) -> None:
    """When recovery fails, the account itself is asked (ERC-1271); its yes passes, its no does not."""
    node = await start_node()

    class Wallet:
        address = "0x" + "cc" * 20

        def __init__(self, signature: bytes) -> None:
            self.signature = signature

        def sign_digest(self, digest: bytes) -> bytes:
            return self.signature

    node.known.addresses.add(Wallet.address)
    node.wallets.accepted.add(b"two of three owners agree")
    good = await send_raw(node.port, node.signed_request(signer=Wallet(b"two of three owners agree")))
    assert (good.status, good.json["address"]) == (200, Wallet.address)
    bad = await send_raw(node.port, node.signed_request(signer=Wallet(b"one of three owners agrees")))
    assert (bad.status, bad.code) == (401, "signature-invalid")


async def test_a_signed_get_needs_no_digest_and_takes_no_body(start_node: StartNode) -> None:
    """GET is signed over its path and query; a body smuggled in is refused."""
    node = await start_node()
    raw = node.signed_request("GET", "/signed?wait=30", body=None)
    assert (await send_raw(node.port, raw)).status == 200
    raw = node.signed_request("GET", "/signed", body=None)
    smuggled = raw.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\nevil")
    assert (await send_raw(node.port, smuggled)).code == "body-not-allowed"


async def test_strangers_share_a_small_rate_on_open_routes(start_node: StartNode) -> None:
    """Routes for people without a lease take any plain key, each request once, a few a second for all of them together."""
    node = await start_node()
    raw = node.signed_request(target="/anyone", signer=STRANGER)
    assert (await send_raw(node.port, raw)).json["address"] == STRANGER.address
    assert (await send_raw(node.port, raw)).code == "request-replayed"
    others = [node.signed_request(target="/anyone", signer=KeySigner(f"{n}" * 64)) for n in range(4, 8)]
    answers = [await send_raw(node.port, other) for other in others]
    limited = [answer for answer in answers if answer.status == 429]
    assert limited
    assert limited[0].code == "rate-limited"
    assert int(limited[0].headers["retry-after"]) > 0
    known = await send_raw(node.port, node.signed_request(target="/anyone"))
    assert known.json["address"] == SPENDER.address, "a known spender does not share the strangers' rate"


async def test_upload_bodies_are_streamed_after_the_head_was_verified(start_node: StartNode) -> None:
    """A PUT larger than a POST may be passes through in pieces; a stranger's is refused before it is read."""
    node = await start_node()
    body = bytes(3_000_000)
    assert (await send_raw(node.port, node.signed_request("PUT", "/upload", body))).json == {"size": len(body)}
    raw = node.signed_request("PUT", "/upload", body, signer=STRANGER)
    head_only = raw[: raw.index(b"\r\n\r\n") + 4]
    assert (await send_raw(node.port, head_only)).code == "unknown-spender"
