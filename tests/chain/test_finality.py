"""Whether an endpoint shows the chain that was final here: another, a chain that began again, or merely an old head of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pandacea.chain.finality import REBUILD_REMEDY, FinalityViolatedError, check_finality, is_reset
from pandacea.chain.rpc_messages import BlockHeader
from pandacea.domain.chain_view import BlockRef, ChainView
from pandacea.domain.ids import BlockNumber, Timestamp
from tests.chain.simulated import SimulatedChain, SimulatedEndpoint


def chain_of(length: int) -> tuple[SimulatedChain, SimulatedEndpoint]:
    """A chain of empty blocks and an endpoint that shows it."""
    chain = SimulatedChain(finality=4)
    for _ in range(length):
        chain.mine([])
    return chain, SimulatedEndpoint(chain, random.Random(1))


def block(chain: SimulatedChain, number: int) -> BlockRef:
    header = chain.blocks[number].header()
    fields = {name: header[key] for name, key in (("number", "number"), ("hash", "hash"), ("parent_hash", "parentHash"))}
    return BlockHeader(**fields, timestamp=header["timestamp"]).to_block_ref()


def view_of(chain: SimulatedChain) -> ChainView:
    """Settled to block 10, final at 12, held to 15."""
    held = tuple(block(chain, number) for number in range(11, 16))
    return ChainView(block(chain, 10), held, BlockNumber(13), BlockNumber(12))


async def test_an_endpoint_of_the_same_chain_passes_also_when_it_lags() -> None:
    """An old head is nothing to stop for: the other endpoint is followed, and this one catches up."""
    chain, endpoint = chain_of(15)
    await check_finality(endpoint, view_of(chain))
    endpoint.behind = 9
    await check_finality(endpoint, view_of(chain))


@pytest.mark.parametrize("fork", [10, 12])
async def test_another_block_where_one_was_final_names_endpoint_block_and_command(fork: int) -> None:
    """Settled, or final and still held by hash."""
    chain, endpoint = chain_of(15)
    view = view_of(chain)
    chain.final = 0
    del chain.blocks[fork:]
    for _ in range(9):
        chain.mine([])
    with pytest.raises(FinalityViolatedError) as caught:
        await check_finality(endpoint, view)
    assert f"{endpoint.name} shows another block {fork} than" in str(caught.value)
    assert REBUILD_REMEDY in str(caught.value)
    assert "`pandacea chain rebuild`" in REBUILD_REMEDY


def test_a_lower_head_is_of_another_chain_when_it_is_younger() -> None:
    """On one chain a lower block is an older one."""
    chain, _ = chain_of(15)
    base, low = block(chain, 10), block(chain, 3)
    assert not is_reset(low, base)
    assert is_reset(replace(low, timestamp=Timestamp(base.timestamp + 1)), base)
    assert not is_reset(replace(block(chain, 11), timestamp=Timestamp(base.timestamp + 9)), base)
