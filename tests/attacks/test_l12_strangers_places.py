"""Thirteen keys made this second fill the hundred places for scripts of people without a lease, for thirty days.

And one stranger who signs nothing takes the rate of all: it was counted before the signature was looked at.
"""

from __future__ import annotations

from typing import Any

import aiohttp

from pandacea.domain.product import Policy
from pandacea_sdk.protocol.hashing import KeySigner
from tests.api.conftest import StartNode, send_raw, start_node
from tests.jobs.conftest import JobAnswer, Served, served

__all__ = ["served", "start_node"]

CODE = "/api/v1/privacy/code"


async def hand_in(served: Served, key: int, number: int) -> JobAnswer:
    inputs = [{"asset_id": "a", "variable_name": "table"}]
    body: dict[str, Any] = {"product_id": "p", "code": f"print({key}, {number})", "inputs": inputs}
    return await served.send("POST", CODE, body, signer=KeySigner(f"{key:064x}"))


async def test_many_keys_of_one_machine_leave_places_for_others(served: Served) -> None:
    """As it was played: eight scripts of each of thirteen keys; a newcomer at another address still finds a place."""
    served.rules(policy=Policy.APPROVED_CODE)
    answers = [await hand_in(served, 1000 + key, number) for key in range(13) for number in range(8)]
    assert sum(answer.status == 202 for answer in answers) <= 8
    assert {answer.code for answer in answers if answer.status != 202} == {"rate-limited"}
    elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with aiohttp.ClientSession(connector=elsewhere) as session:
        served.session, mine = session, served.session
        answer = await hand_in(served, 5000, 1)
        served.session = mine
    assert answer.status == 202


async def test_forged_requests_take_nothing_of_the_strangers_rate(start_node: StartNode) -> None:
    """As it was played: whoever signs nothing has no part in what all who sign share."""
    node = await start_node()

    class Forger(KeySigner):
        __slots__ = ()

    forger = Forger("33" * 32)
    forger.address = "0x" + "77" * 20
    for _ in range(20):
        assert (await send_raw(node.port, node.signed_request(target="/anyone", signer=forger))).status in {401, 429}
    honest = node.signed_request(target="/anyone", signer=KeySigner("45" * 32))
    assert (await send_raw(node.port, honest, local_address="127.0.0.2")).status == 200
