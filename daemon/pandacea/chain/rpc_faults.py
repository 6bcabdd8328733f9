"""Faults of RPC endpoints, classified by what the node does about each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pandacea.chain.rpc_messages import JsonRpcError
from pandacea.errors import Unavailable
from pandacea_sdk.protocol.redaction import redact_urls_in


class FaultKind(StrEnum):
    """Kinds of faults, as the metrics count them."""

    NETWORK = "network"  # refused, reset, TLS
    TIMEOUT = "timeout"
    HTTP = "http"  # 4xx or 5xx without a JSON-RPC body
    RATE_LIMIT = "rate-limit"
    MALFORMED = "malformed"  # not JSON, wrong shape, redirected
    NULL = "null"  # null where an answer is required, or an error that says as much: the block is not there yet
    RANGE = "range"  # too many blocks or logs in one request
    ERROR = "error"  # any other JSON-RPC error
    UNSUPPORTED = "unsupported"  # the endpoint lacks the method or block tag
    INCONSISTENT = "inconsistent"  # answers that contradict each other or the request
    WRONG_CHAIN = "wrong-chain"


ANSWER_FAULTS: Final = frozenset({FaultKind.INCONSISTENT, FaultKind.ERROR, FaultKind.NULL})
"""Faults of one answer, as a reorg or a lagging node may cause: where one lease is looked up, the endpoint does not back off for them."""


class RpcFault(Unavailable):
    """An RPC endpoint did not give a usable answer."""

    code = "rpc"

    def __init__(
        self,
        kind: FaultKind,
        endpoint: str,
        method: str,
        detail: str,
        *,
        retry_after: int = 0,
        range_hint: RangeHint | None = None,
        data: object = None,
        rpc_code: int = 0,
    ) -> None:
        """`endpoint`: its redacted name; `retry_after`: seconds, 0 when the endpoint named none; `data`: of the JSON-RPC error."""
        super().__init__(f"{endpoint}: {method}: {detail}", retry_after=retry_after)
        self.kind = kind
        self.reason = detail
        self.endpoint = endpoint
        self.method = method
        self.range_hint = range_hint
        self.data = data
        self.rpc_code = rpc_code

    @property
    def reverted(self) -> bool:
        """Whether the contract reverted the call: an answer about the contract, not a failure of the endpoint."""
        text = self.reason.lower()
        return self.kind is FaultKind.ERROR and (self.rpc_code == 3 or "revert" in text or "invalid opcode" in text)


@dataclass(frozen=True, slots=True)
class RangeHint:
    """A provider's suggestion in its error: a range of blocks that will work, or the number of blocks it allows."""

    first: int | None = None
    last: int | None = None
    span: int | None = None


_MAX_MESSAGE_CHARACTERS: Final = 1_000
"""Characters of an error message that are searched: some patterns take quadratic time."""

_RANGE_WORDS: Final = re.compile(
    r"more than [\d,]+ results|too many (?:results|logs|blocks)|max(?:imum)? results|response size|response (?:is )?too (?:large|big)"
    r"|(?:block )?range (?:is )?(?:too (?:large|wide|big)|limit|exceed)|(?:max(?:imum)?|exceed\w*)[^.]*range|limited to"
    r"|ranges? over|range limit|query timeout|timeout exceeded|timed? ?out|batch size|log limit|blocks? range|range of blocks"
    r"|query exceeds",
    re.IGNORECASE,
)
_LAG_WORDS: Final = re.compile(
    r"beyond (?:the )?(?:current |latest )?(?:head|block)|invalid block range params|after last accepted block", re.IGNORECASE
)
_RATE_WORDS: Final = re.compile(
    r"rate limit|too many requests|(?:request|compute units)[^.]*(?:per second|exceeded)|throughput|capacity|quota|throttl"
    r"|daily request count",
    re.IGNORECASE,
)
_UNSUPPORTED_WORDS: Final = re.compile(
    r"(?:method|tag)[^.]*(?:not (?:found|supported|available|exist)|unsupported|unknown)|unknown block tag"
    r"|unsupported block|invalid block (?:tag|number|id)|(?:safe|finalized) block not found|unknown_method",
    re.IGNORECASE,
)
_BRACKETS: Final = re.compile(r"\[\s*(0x[0-9a-f]+|\d+)\s*,\s*(0x[0-9a-f]+|\d+)\s*\]", re.IGNORECASE)
_DASHED: Final = re.compile(r"range\s+(0x[0-9a-f]+|\d+)\s*-\s*(0x[0-9a-f]+|\d+)", re.IGNORECASE)
_SPAN: Final = re.compile(
    r"(?:limited to|max(?:imum)?(?: block)?(?: range)?(?: is)?(?: set to)?:?|up to an?|over|at most|exceeds?(?: the)?(?: range)?(?: of)?)"
    r"\s+(?:an? )?(?:0\s*-\s*)?(\d[\d,]{0,20})\s*(k)?\b",
    re.IGNORECASE | re.ASCII,
)
_RESULTS: Final = re.compile(r"results|logs in|response size", re.IGNORECASE)


def classify_rpc_error(error: JsonRpcError) -> tuple[FaultKind, RangeHint | None]:
    """Classify a JSON-RPC error by its message: providers do not agree on codes."""
    message = error.message[:_MAX_MESSAGE_CHARACTERS]
    if error.code == -32601 or _UNSUPPORTED_WORDS.search(message):
        return FaultKind.UNSUPPORTED, None
    if _LAG_WORDS.search(message):
        return FaultKind.NULL, None
    hint = _hint(message, error.data)
    if _RATE_WORDS.search(message) and hint is None and not re.search(r"results|range", message, re.IGNORECASE):
        return FaultKind.RATE_LIMIT, None
    if hint is not None or _RANGE_WORDS.search(message):
        return FaultKind.RANGE, hint
    if error.code in {429, -32005, -32029, -32097}:
        return FaultKind.RATE_LIMIT, None
    return FaultKind.ERROR, None


def _hint(message: str, data: object) -> RangeHint | None:
    if isinstance(data, dict) and isinstance(data.get("from"), str) and isinstance(data.get("to"), str):
        found = _range(data["from"], data["to"])
        if found is not None:
            return found
    for pattern in (_BRACKETS, _DASHED):
        match = pattern.search(message)
        if match is not None:
            return _range(match[1], match[2])
    if "range" not in message.lower() and "block" not in message.lower():
        return None
    for match in _SPAN.finditer(message):
        after = message[match.end() : match.end() + 12]
        if _RESULTS.match(after.strip()):
            continue  # a limit on results, not on blocks
        span = int(match[1].replace(",", "")) * (1000 if match[2] else 1)
        if span > 0:
            return RangeHint(span=span)
    return None


def _range(first: str, last: str) -> RangeHint | None:
    try:
        low, high = int(first, 0), int(last, 0)
    except ValueError:
        return None
    return RangeHint(low, high) if 0 <= low <= high else None


def describe_exception(error: BaseException) -> str:
    """Name an exception's class and text, URLs in it reduced to scheme, host and port."""
    text = redact_urls_in(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
