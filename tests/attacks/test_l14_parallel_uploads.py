"""A hundred and twenty-eight small uploads sent at once all pass the limit on files, which counts those that are there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

from pandacea.domain.ids import Address
from pandacea.errors import ProblemError
from pandacea.flows.uploads import UploadQuota
from tests.jobs.conftest import SPENDER, Served, served

__all__ = ["served"]

FILES, PARALLEL = 16, 128


async def test_files_that_are_coming_count(served: Served) -> None:
    """As it was played: all are under way before the first has come."""
    uploads = served.world.uploads
    uploads.quota = replace(UploadQuota(), max_spender_files=FILES)
    spender, gate, arrived = Address(SPENDER.address), asyncio.Event(), 0

    async def chunks(data: bytes) -> AsyncIterator[bytes]:
        nonlocal arrived
        arrived += 1
        await gate.wait()
        yield data

    async def put(number: int) -> str:
        data = str(number).encode()
        try:
            await uploads.receive_upload(spender, hashlib.sha256(data).hexdigest(), len(data), chunks(data))
        except ProblemError as refused:
            return refused.code
        return "kept"

    sent = [asyncio.create_task(put(number)) for number in range(PARALLEL)]
    async with asyncio.timeout(10):
        while arrived + sum(task.done() for task in sent) < PARALLEL:  # each has passed the limit or was refused
            await asyncio.sleep(0.01)
    gate.set()
    answers = await asyncio.gather(*sent)
    assert sorted(answers) == ["kept"] * FILES + ["uploads-full"] * (PARALLEL - FILES)
    async with served.world.submit.database.read_session() as view:
        assert await view.uploads.count_usage(spender) == (
            FILES,
            sum(len(str(n)) for n, said in enumerate(answers) if said == "kept"),
        )
