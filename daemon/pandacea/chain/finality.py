"""Finality violated: an endpoint shows another chain where a block was final, and what the operator can do about it."""

from __future__ import annotations

from typing import Final

from pandacea.chain.rpc import Endpoint
from pandacea.domain.chain_view import BlockRef, ChainView

REBUILD_REMEDY: Final = (
    "Remove that endpoint from blockchain.rpc_url if it is wrong; if the chain itself was reset or went back, stop the node, run "
    "`pandacea chain rebuild`, and start it again"
)
"""What every sentence about a violation asks for: the log, /readyz and `pandacea doctor` say the same."""


class FinalityViolatedError(Exception):
    """An endpoint contradicts a block that was final. The text names both and `REBUILD_REMEDY`."""

    def __init__(self, contradiction: str) -> None:
        """`contradiction`: one clause without a full stop: which endpoint shows what."""
        self.contradiction = contradiction
        super().__init__(f"{contradiction}. {REBUILD_REMEDY}.")


def is_reset(head: BlockRef, base: BlockRef) -> bool:
    """Return whether a head below the settled base is of another chain: it is younger, which a lagging endpoint's never is."""
    return head.number < base.number and head.timestamp > base.timestamp


def describe_reset(endpoint: Endpoint, head: BlockRef, base: BlockRef) -> str:
    """Describe a head that is younger than the base and lower."""
    return f"{endpoint.name} shows block {head.number} as the newest, made after block {base.number} that was final here"


def describe_other_block(endpoint: Endpoint, held: BlockRef) -> str:
    """Describe a block with another hash than the one that was final."""
    return f"{endpoint.name} shows another block {held.number} than {held.hash}, which was final here"


async def check_finality(endpoint: Endpoint, view: ChainView) -> None:
    """Compare what is final in a view with what an endpoint shows; one that lags behind it is believed.

    Raises:
        FinalityViolatedError: it shows another chain.
        RpcFault: it failed.
    """
    if view.base.number < 0:
        return
    head = (await endpoint.get_header("latest")).to_block_ref()
    if is_reset(head, view.base):
        raise FinalityViolatedError(describe_reset(endpoint, head, view.base))
    for held in (view.base, view.block_at(view.finalized)):
        if held is not None and held.number <= head.number and (await endpoint.get_header(held.number)).hash != held.hash:
            raise FinalityViolatedError(describe_other_block(endpoint, held))
