"""A stranger sends job tokens that open nothing for computations whose ids the chain shows, and the node reads a whole result for each.

No key, no rate and no nonce stand before it: a row with its script, params and output was read from the database to refuse the token.
"""

from __future__ import annotations

import tracemalloc

from pandacea.domain.limits import MIB
from pandacea_sdk.protocol.job_token import JOB_TOKEN_HEADER
from tests.jobs.conftest import Served, results, served
from tests.jobs.test_result_quotas import MINE, insert_result

__all__ = ["served"]


async def test_a_token_is_refused_before_its_computation_is_read(served: Served) -> None:
    """As it was played, once: refusing takes no memory to speak of, and says the same as for an id that is unknown."""
    known = await insert_result(served, MINE, MIB, output=bytes(MIB), token_sha256="0" * 64)
    unknown = "0x" + "ab" * 32
    first = await served.send("GET", results(unknown), signer=None, **{JOB_TOKEN_HEADER: "x" * 43})
    tracemalloc.start()
    try:
        second = await served.send("GET", results(known), signer=None, **{JOB_TOKEN_HEADER: "x" * 43})
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (first.status, first.code) == (second.status, second.code) == (401, "job-token-invalid")
    assert most < MIB // 2, f"{most / MIB:.1f} MiB were read to refuse a token"
