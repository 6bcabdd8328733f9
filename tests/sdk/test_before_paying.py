"""What the SDK looks at before it pays: a lying endpoint on a real chain, and terms that nobody would mean."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pandacea_sdk.chain import (
    Caps,
    ContractReverted,
    Deployment,
    FeeAboveCap,
    LeaseChain,
    UsageError,
    WrongDeployment,
    deploy,
)
from pandacea_sdk.chain.caps import MAX_FEE, MAX_GAS
from tests.chain.anvil import ANVIL, EARNER, KEYS, OPERATOR, SPENDER, STRANGER, Anvil
from tests.faults.proxy import FaultProxy
from tests.prerequisites import skip_or_fail

DAY = 86_400
GWEI = 10**9
ETHER = 10**18


@dataclass
class Market:
    """A deployed contract, and the Spender's hand on it through the endpoint."""

    anvil: Anvil
    proxy: FaultProxy
    record: Deployment
    lies: dict[str, Any] = field(default_factory=dict)
    """Method -> its answer, or the members of its answer that are other ones (None: not there)."""

    def lie(self, method: str, _params: list[Any], result: Any) -> Any:
        """The endpoint's word instead of the chain's."""
        told = self.lies.get(method, result)
        if not isinstance(told, dict) or told is result:
            return told
        return {key: value for key, value in {**result, **told}.items() if value is not None}

    def sent(self) -> int:
        """How many transactions came to the endpoint."""
        return sum(method == "eth_sendRawTransaction" for method, _ in self.proxy.calls)

    def connect(self, **options: Any) -> LeaseChain:
        return LeaseChain(self.proxy.url, self.record, key=KEYS[2], **options)

    async def balance(self) -> int:
        return int(await self.anvil.call_method("eth_getBalance", SPENDER.address, "latest"), 16)

    async def create(self, chain: LeaseChain, earner: str = EARNER.address, **terms: Any) -> str:
        whole = {"price": ETHER // 1000, "expires_at": int(time.time()) + 7 * DAY, **terms}
        return await chain.create_lease(earner, "diabetes", **whole)


@pytest.fixture
async def market() -> AsyncIterator[Market]:
    if not ANVIL.exists():
        skip_or_fail("anvil is not installed: npm install in tests/npm")
    async with Anvil() as anvil:
        record = await deploy(anvil.url, KEYS[0], arbiter=STRANGER.address)
        async with FaultProxy(anvil.url) as proxy:
            market = Market(anvil, proxy, record)
            proxy.after.append(market.lie)
            yield market


# ------------------------------------------------------------------------------------------------ what gas may cost


async def test_a_tip_that_an_endpoint_invents_is_refused(market: Market) -> None:
    """0.02 ether for each unit of gas, which made a lease of 0.001 ether cost 2,480: nothing is signed, value and cap are named."""
    before = await market.balance()
    market.lies["eth_maxPriorityFeePerGas"] = hex(ETHER // 50)
    async with market.connect() as chain:
        with pytest.raises(FeeAboveCap, match=r"a tip of 20,000,000,000,000,000 wei per gas, and at most 2,000,000,000") as caught:
            await market.create(chain)
    assert (caught.value.action, caught.value.what, caught.value.value, caught.value.cap) == (
        "createLease",
        "tip",
        ETHER // 50,
        2 * GWEI,
    )
    assert "pass max_tip=" in str(caught.value)
    assert market.sent() == 0
    assert await market.balance() == before


@pytest.mark.parametrize(
    ("lies", "what", "cap"),
    [
        ({"eth_getBlockByNumber": {"baseFeePerGas": hex(ETHER)}}, "fee", MAX_FEE),
        ({"eth_getBlockByNumber": {"baseFeePerGas": hex(ETHER)}, "eth_maxPriorityFeePerGas": hex(ETHER)}, "fee", MAX_FEE),
        ({"eth_getBlockByNumber": {"baseFeePerGas": None}, "eth_gasPrice": hex(ETHER)}, "fee", MAX_FEE),
        ({"eth_estimateGas": hex(29_000_000)}, "gas", MAX_GAS),
    ],
    ids=["base fee", "base fee and a tip that hides behind it", "price of gas before EIP-1559", "gas"],
)
async def test_whatever_makes_gas_dear_is_held_against_a_cap(market: Market, lies: dict[str, Any], what: str, cap: int) -> None:
    """Each figure is an endpoint's word; none is signed above the cap."""
    market.lies.update(lies)
    async with market.connect() as chain:
        with pytest.raises(FeeAboveCap) as caught:
            await market.create(chain)
    assert (caught.value.what, caught.value.cap) == (what, cap)
    assert caught.value.value > cap
    assert f"max_{what}=" in str(caught.value)
    assert market.sent() == 0


async def test_a_lie_below_the_caps_costs_no_more_than_the_cap(market: Market) -> None:
    """The highest tip that passes: what it cost in the end is below what is allowed."""
    market.lies["eth_maxPriorityFeePerGas"] = hex(2 * GWEI)
    before = await market.balance()
    async with market.connect() as chain:
        await market.create(chain, price=0)
    assert 0 < before - await market.balance() < MAX_FEE


async def test_a_cap_is_the_callers_to_move(market: Market) -> None:
    """Both ways: a smaller one refuses the honest price, a larger one takes the dear."""
    async with market.connect(max_fee=1) as chain:
        with pytest.raises(FeeAboveCap, match=r"at most 1 are allowed"):
            await market.create(chain)
    market.lies["eth_maxPriorityFeePerGas"] = hex(25 * GWEI)  # as Polygon demands
    async with market.connect(max_tip=30 * GWEI) as chain:
        assert await market.create(chain)
    with pytest.raises(UsageError, match=r"max_fee is 0\.01"):
        market.connect(max_fee=0.01)


async def test_the_price_may_rise_with_the_base_fee_as_far_as_the_cap_allows() -> None:
    """Twice the base fee where there is room, the cap where there is not; below the base fee of now it is refused."""
    caps = Caps(max_fee=10**6, max_gas=10**5)
    assert caps.price_gas("a", 10**4, 20, 3) == {"maxPriorityFeePerGas": 3, "maxFeePerGas": 43}
    assert caps.price_gas("a", 10**4, 60, 3) == {"maxPriorityFeePerGas": 3, "maxFeePerGas": 100}
    with pytest.raises(FeeAboveCap, match=r"a fee of 1,010,000 wei, and at most 1,000,000"):
        caps.price_gas("a", 10**4, 98, 3)
    assert caps.price_gas("a", 10, 3 * GWEI // 10**6, 0)["maxFeePerGas"] == 6000


async def test_a_deployment_has_caps_of_its_own(market: Market) -> None:
    """It takes millions of gas, which no call may."""
    with pytest.raises(FeeAboveCap, match="deployment was not sent"):
        await deploy(market.proxy.url, KEYS[0], arbiter=STRANGER.address, caps=Caps())
    market.lies["eth_maxPriorityFeePerGas"] = hex(ETHER)
    with pytest.raises(FeeAboveCap, match="deployment was not sent"):
        await deploy(market.proxy.url, KEYS[0], arbiter=STRANGER.address)
    assert market.sent() == 0


# ------------------------------------------------------------------------------------------------ terms nobody would mean


async def test_terms_that_nobody_would_mean_are_refused_before_anything_is_sent(market: Market) -> None:
    """Each with the value and what is needed."""
    async with market.connect() as chain:
        now = await chain.now()
        for words, terms in {
            r"this account itself": {"earner": SPENDER.address},
            r"this account itself: ": {"earner": SPENDER.address.lower()},
            r"at most 730 days later": {"expires_at": now + 731 * DAY},
            r"expires_at is 32503680000": {"expires_at": 32_503_680_000},
            r"must lie after the chain's time": {"expires_at": now},
            r"a whole number \(int\) is needed": {"price": 0.001},
            r"below 2\*\*64": {"expires_at": 2**64},
            r"0x and 40 hex digits": {"earner": EARNER.address[:-1]},
        }.items():
            with pytest.raises(UsageError, match=words):
                await market.create(chain, **terms)
        assert await market.create(chain, expires_at=await chain.now() + 730 * DAY)
    assert market.sent() == 1


@pytest.mark.parametrize("side", ["the Earner", "the Earner's operator", "the Spender"])
async def test_a_judge_who_is_a_side_is_refused(market: Market, side: str) -> None:
    """The owner may appoint anybody; the SDK reads who it is before it creates."""
    arbiter = {"the Earner": EARNER, "the Earner's operator": OPERATOR, "the Spender": SPENDER}[side].address
    async with LeaseChain(market.anvil.url, market.record, key=KEYS[1]) as earner:
        await earner.set_operator(OPERATOR.address)
    async with LeaseChain(market.anvil.url, market.record, key=KEYS[0]) as owner:
        await owner.set_arbiter(arbiter)
    async with market.connect() as chain:
        with pytest.raises(UsageError, match="would judge its own disputes"):
            await market.create(chain)
    assert market.sent() == 0


async def test_another_chain_than_the_one_meant_is_refused(market: Market) -> None:
    """Whether a record or the caller says which: an endpoint cannot make this account sign for another."""
    market.lies["eth_chainId"] = "0x1"
    by_record = LeaseChain(market.proxy.url, market.record, key=KEYS[2])
    by_word = LeaseChain(market.proxy.url, market.record.address, key=KEYS[2], chain_id=market.record.chain_id)
    for chain in (by_record, by_word):
        with pytest.raises(WrongDeployment, match="serves chain 1, but"):
            async with chain:
                pass
    with pytest.raises(UsageError, match="is of chain 31337"):
        LeaseChain(market.proxy.url, market.record, chain_id=1)
    assert market.sent() == 0


async def test_what_the_contract_refuses_still_costs_nothing(market: Market) -> None:
    """The caps come after its refusal, which says more."""
    async with market.connect() as chain:
        with pytest.raises(ContractReverted, match="PriceAboveMax"):
            await market.create(chain, price=2, max_price=1)
    assert market.sent() == 0
