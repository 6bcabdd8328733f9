"""Uploads that are larger together than the box's workspace end its first process before the script: three boots, for nothing."""

from __future__ import annotations

import pytest

from pandacea.domain.ids import Address
from pandacea.domain.limits import MIB
from tests.jobs.conftest import EXECUTE, SPENDER, Served, served

__all__ = ["served"]


async def kept(served: Served, *sizes: int) -> dict[str, str]:
    """Uploads of these sizes, as if they had been sent: the members of a request that names them."""
    named = {}
    async with served.world.submit.database.unit_of_work() as work:
        for place, size in enumerate(sizes):
            digest = f"{place:064x}"
            await work.uploads.put_upload(Address(SPENDER.address), digest, size, served.clock.now() + 1000)
            named[f"file{place}"] = digest
        await work.commit()
    return named


@pytest.mark.parametrize("mode", [{}, {"mode": "mock"}], ids=["leased", "rehearsal"])
async def test_they_are_refused_when_they_are_named(served: Served, mode: dict[str, str]) -> None:
    """As it was played: four of 64 MiB are within a Spender's room, and all of a workspace of 256 MiB. No box is made for them."""
    uploads = await kept(served, *[64 * MIB] * 4)
    answer = await served.send("POST", EXECUTE, served.body(uploads=uploads, **mode), Prefer="respond-async")
    assert (answer.status, answer.code) == (413, "uploads-too-large")
    assert "256" in answer.json["detail"]
    assert served.stage.plays.empty()


async def test_what_fits_is_taken(served: Served) -> None:
    """With room for the script's own files beside them."""
    uploads = await kept(served, *[64 * MIB] * 3)
    answer = await served.send("POST", EXECUTE, served.body(uploads=uploads), Prefer="respond-async")
    assert answer.status == 202
