"""Errors as providers word them: what the node makes of each, and of the span that it names.

The sentences are written down from the providers' documentation and source, not recorded from their endpoints.
"""

from __future__ import annotations

from typing import Any

import pytest

from pandacea.chain.rpc_faults import FaultKind, classify_rpc_error
from pandacea.chain.rpc_messages import JsonRpcError

RANGE, RATE, LAG, ERROR, UNSUPPORTED = (
    FaultKind.RANGE,
    FaultKind.RATE_LIMIT,
    FaultKind.NULL,
    FaultKind.ERROR,
    FaultKind.UNSUPPORTED,
)

SENTENCES: list[tuple[str, int, str, FaultKind, int | None]] = [
    ("Infura", -32005, "query returned more than 10000 results", RANGE, None),
    (
        "Infura, with a range",
        -32005,
        "query returned more than 10000 results. Try with this block range [0x10, 0x1f].",
        RANGE,
        16,
    ),
    ("Infura, rate", -32005, "daily request count exceeded, request rate limited", RATE, None),
    (
        "Alchemy",
        -32602,
        "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the response size, or "
        "you can request any block range with a cap of 10K logs in the response. Based on your parameters and the response size limit, "
        "this block range should work: [0x20, 0x2f]",
        RANGE,
        16,
    ),
    (
        "Alchemy, free",
        -32600,
        "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range. Based on your parameters, this block "
        "range should work: [0x100, 0x109].",
        RANGE,
        10,
    ),
    (
        "Alchemy, rate",
        429,
        "Your app has exceeded its compute units per second capacity. If you have retries enabled, you can safely ignore this message.",
        RATE,
        None,
    ),
    ("QuickNode", -32614, "eth_getLogs is limited to a 10,000 range", RANGE, 10_000),
    ("QuickNode, free", -32615, "eth_getLogs is limited to a 5 range", RANGE, 5),
    ("QuickNode, rate", -32007, "50/second request limit reached - reduce calls per second or upgrade your account", RATE, None),
    ("Ankr", -32600, "block range is too wide", RANGE, None),
    ("Ankr, freemium", -32600, "query exceeds max results 20000, retry with the range 100-199", RANGE, 100),
    ("BlastAPI", -32600, "Block range limit exceeded. Maximum block range: 10000", RANGE, 10_000),
    ("Chainstack", -32602, "Block range limit exceeded. See more details at https://docs.chainstack.com/docs/limits", RANGE, None),
    ("dRPC", 35, "ranges over 10000 blocks are not supported on freetier", RANGE, 10_000),
    ("dRPC, other methods", -32601, "method is not available on freetier, upgrade to paid tier", UNSUPPORTED, None),
    ("dRPC, without the code", 35, "method is not available on freetier", UNSUPPORTED, None),
    ("LlamaNodes", -32602, "query exceeds max block range 1000", RANGE, 1000),
    ("Cloudflare", -32047, "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: 800", RANGE, 800),
    ("Base, public", -32614, "eth_getLogs is limited to 0 - 10000 blocks range", RANGE, 10_000),
    ("Optimism, public", -32011, "block range too large (12000), maximum allowed is 10000 blocks", RANGE, None),
    ("Polygon, public (bor)", -32000, "exceed maximum block range: 5000", RANGE, 5000),
    ("BSC, public", -32005, "limit exceeded", RATE, None),
    ("Avalanche (coreth)", -32000, "requested too many blocks from 100 to 5000, maximum is set to 2048", RANGE, 2048),
    ("Avalanche, behind", -32000, "requested from block 900 after last accepted block 880", LAG, None),
    ("Erigon", -32000, "query timeout exceeded", RANGE, None),
    ("geth, behind", -32000, "block range extends beyond current head block", LAG, None),
    ("geth, from after to", -32602, "invalid block range params", LAG, None),
    ("geth, state", -32000, "missing trie node 0f00 (path ) state 0x0f is not available", ERROR, None),
    ("geth, tag", -39001, "finalized block not found", UNSUPPORTED, None),
    ("Nethermind", -32603, "Too many logs requested. Max logs per response is 20000.", RANGE, None),
    ("any node without the method", -32601, "the method eth_getBlockReceipts does not exist/is not available", UNSUPPORTED, None),
]


@pytest.mark.parametrize(("code", "message", "kind", "span"), [row[1:] for row in SENTENCES], ids=[row[0] for row in SENTENCES])
def test_an_error_is_understood_as_its_provider_means_it(code: int, message: str, kind: FaultKind, span: int | None) -> None:
    """A range is halved or taken as said, a lagging node asked again, a limit waited for, what is not sold done without."""
    found, hint = classify_rpc_error(JsonRpcError(code, message))
    assert found is kind
    said: Any = None if hint is None else hint.span or (hint.last or 0) - (hint.first or 0) + 1
    if kind is RANGE:
        assert said == span
    else:
        assert hint is None


def test_there_are_as_many_as_the_page_says() -> None:
    """The page docs/chain-follower.md says how many there are."""
    assert len(SENTENCES) == 31
