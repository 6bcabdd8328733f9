"""What a commitment meets on its way: each row ends in exactly one effect, or waits with its reason. Nothing ends by one answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandacea.chain.sending.fees import FeeLimits
from pandacea.errors import Unavailable
from pandacea.flows.settlement.commit_results import ON_ITS_WAY
from tests.chain.anvil import EARNER, OPERATOR, STRANGER, Anvil, AnvilAgreement, encode_call
from tests.faults.proxy import After, Before, FaultProxy, ProxyAnswer, answer_first
from tests.faults.settling import DEPTH, settling_node, word


async def test_a_commitment_is_delivered_when_it_is_final(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Sent in one step, mined in the next block; the outbox keeps it until its block is as deep as the configuration says."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease()
        await earner.release(lease, "a")
        assert await earner.settle() == 0
        assert await earner.committed(lease, "a")
        assert await earner.notes() == {f"commit:{word('a')}": ON_ITS_WAY}
        await earner.resend()
        assert await earner.states() == ["mined"]
        assert await earner.settle_when_due() == 0, "not final yet"
        await earner.finish()
        assert await earner.notes() == {f"commit:{word('a')}": "committed"}
        assert (await earner.waiting(), await earner.states(), await earner.nonce()) == (0, ["final"], 1)


async def test_a_reorg_that_drops_it_does_not_end_it(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Undone below finality, it is sent again, unchanged; what comes after it does not wait behind a gap."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease()
        await chain.mine_blocks(1)
        await earner.release(lease, "a")
        await earner.settle()
        await earner.resend()
        await chain.reorg(1)
        assert not await earner.committed(lease, "a")
        await earner.release(lease, "b")
        await earner.settle()
        assert await earner.committed(lease, "a")
        assert await earner.committed(lease, "b")
        await earner.finish()
        assert (await earner.waiting(), await earner.states(), await earner.nonce()) == (0, ["final", "final"], 2)


@pytest.mark.parametrize("depth", [1, 2, DEPTH])
async def test_a_reorg_of_any_depth_below_finality(depth: int, deep: Anvil, tmp_path: Path) -> None:
    """However deep, and twice: one effect, one nonce."""
    chain, agreement = deep, await deep.deploy_agreement()
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease()
        await earner.release(lease, "a")
        await earner.settle()
        for _ in range(2):
            await chain.mine_blocks(depth - 1)
            await earner.resend()
            await chain.reorg(depth)
            await earner.resend()
            assert await earner.committed(lease, "a")
        await earner.finish()
        assert (await earner.waiting(), await earner.states(), await earner.nonce()) == (0, ["final"], 1)


async def test_a_pool_that_drops_it_gets_it_again(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Dropped from the pool without a word: the same bytes are sent again."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.send_into_pool("a")
        await chain.call_method("anvil_dropAllTransactions")
        await earner.resend()
        await chain.mine_blocks(1)
        assert await earner.committed(lease, "a")
        await earner.finish()
        assert (await earner.waiting(), await earner.states()) == (0, ["final"])


async def test_a_base_fee_that_jumps_is_followed_at_once(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Twenty times the base fee: one replacement, at the fee of now, and not twenty-four."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.send_into_pool("a")
        await chain.call_method("anvil_setNextBlockBaseFeePerGas", hex(20 * 10**9))
        await chain.mine_blocks(1)
        assert not await earner.committed(lease, "a")
        await earner.resend()
        await chain.mine_blocks(1)
        assert await earner.committed(lease, "a")
        await earner.finish()
        assert (await earner.states(), await earner.nonce()) == (["lost", "final"], 1)


async def test_a_transaction_that_is_stuck_is_replaced(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """After a minute in the pool it is replaced by a dearer one with the same nonce; whichever is mined, the effect is one."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        await earner.send_into_pool("a")
        await earner.resend()
        assert len(await earner.rows()) == 1, "not stuck for long enough"
        await earner.resend()
        await earner.resend()
        first, second = await earner.rows()
        assert (first.nonce, second.nonce) == (0, 0)
        assert second.max_fee >= first.max_fee * 9 // 8
        await chain.mine_blocks(1)
        await earner.finish()
        assert (await earner.waiting(), await earner.states(), await earner.nonce()) == (0, ["lost", "final"], 1)


async def test_without_ether_it_waits_and_says_so(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Nothing is signed, the reason is written down, and it goes on when there is ether."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease()
        await chain.call_method("anvil_setBalance", OPERATOR.address, "0x0")
        await earner.release(lease, "a")
        await earner.settle()
        assert "has not enough ether" in str(await earner.notes())
        assert "has not enough ether" in str(earner.sender.trouble)
        assert await earner.rows() == []
        await chain.call_method("anvil_setBalance", OPERATOR.address, hex(10**18))
        await earner.settle_when_due()
        await earner.finish()
        assert (await earner.waiting(), await earner.states()) == (0, ["final"])


async def test_ether_that_ran_out_after_signing(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """What is signed stays, is an alarm, and is sent when there is ether again."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        await earner.send_into_pool("a")
        await chain.call_method("anvil_dropAllTransactions")
        await chain.call_method("anvil_setBalance", OPERATOR.address, "0x0")
        await earner.resend()
        assert "has not enough ether" in str(earner.sender.trouble)
        await chain.call_method("anvil_setBalance", OPERATOR.address, hex(10**18))
        await earner.resend()
        assert earner.sender.trouble is None
        await chain.mine_blocks(1)
        await earner.finish()
        assert (await earner.waiting(), await earner.nonce()) == (0, 1)


def _lose(proxy: FaultProxy, times: int, *, deliver: bool) -> None:
    """Break the first `times` sendings: before the chain has it, or after, with the answer lost."""
    broken = ProxyAnswer(status=502, body=b"bad gateway")
    if not deliver:
        proxy.before.append(answer_first(times, broken, ["eth_sendRawTransaction"]))
        return
    left = [times]

    async def rule(method: str, params: list[object]) -> ProxyAnswer | None:
        if method != "eth_sendRawTransaction" or not left[0]:
            return None
        left[0] -= 1
        async with proxy._session.post(proxy.upstreams[0], json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}):
            return broken

    proxy.before.append(rule)


@pytest.mark.parametrize("deliver", [False, True], ids=["before it arrived", "after it arrived"])
async def test_a_connection_cut_while_sending(deliver: bool, agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Whether the chain has it, nobody can tell from the answer: the same bytes go again."""
    async with FaultProxy(agreement.chain.url) as proxy, settling_node(agreement, tmp_path, urls=[proxy.url]) as earner:
        lease = await earner.lease()
        await earner.release(lease, "a")
        _lose(proxy, 3, deliver=deliver)
        for _ in range(5):
            await earner.settle_when_due()
            await earner.node.wait_until(lambda: not earner.node.endpoints.seconds_until_ready())
        await earner.finish()
        assert (await earner.waiting(), await earner.nonce()) == (0, 1)


async def test_a_nonce_that_somebody_else_used(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """It is given up when the other's is final, not before; the commitment gets another nonce."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.send_into_pool("a")
        await chain.call_method("anvil_dropAllTransactions")
        await chain.call_method("eth_sendRawTransaction", await chain.sign_transaction(OPERATOR, STRANGER.address, "0x", nonce=0))
        await chain.mine_blocks(1)
        await chain.call_method("evm_setAutomine", True)
        await earner.resend()
        assert await earner.states() == ["signed"], "one block is not enough to give it up"
        await chain.mine_blocks(DEPTH)
        await earner.resend()
        assert await earner.states() == ["lost"]
        await earner.settle_when_due()
        await earner.finish()
        assert await earner.committed(lease, "a")
        assert (await earner.waiting(), await earner.nonce()) == (0, 2)


async def test_a_lease_cancelled_while_it_is_in_the_pool(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """It reverts, and ends when the followed chain shows the cancellation for good; the next commitment is not touched."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        gone, other = await earner.lease(), await earner.lease()
        await chain.call_method("evm_setAutomine", False)
        await earner.release(gone, "a")
        await earner.settle()
        await earner.cancel_before_it(gone)
        await chain.call_method("evm_setAutomine", True)
        await chain.mine_blocks(1)
        await earner.release(other, "b")
        await earner.settle_when_due()
        await earner.finish()
        assert await earner.notes() == {
            f"commit:{word('a')}": "refused: the lease is cancelled on-chain",
            f"commit:{word('b')}": "committed",
        }
        assert await earner.nonce() == 2


async def test_a_lease_cancelled_before(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Nothing is signed for it; it ends with the chain's reason, and not before that is final."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease()
        await agreement.cancel(lease)
        await earner.release(lease, "a")
        await earner.settle()
        assert "WrongStatus" in str(await earner.notes())
        assert await earner.waiting() == 1
        await earner.finish()
        assert await earner.notes() == {f"commit:{word('a')}": "refused: the lease is cancelled on-chain"}
        assert await earner.rows() == []


async def test_an_operator_that_is_not_named(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """It waits with the contract's reason, and goes on when the operator is named."""
    async with settling_node(agreement, tmp_path, name_operator=False) as earner:
        lease = await earner.lease()
        await earner.release(lease, "a")
        await earner.settle()
        assert "NotEarnerOrOperator" in str(await earner.notes())
        await earner.chain.send_transaction(EARNER, agreement.address, encode_call("setOperator(address)", OPERATOR.address))
        await earner.settle_when_due()
        await earner.finish()
        assert (await earner.waiting(), await earner.nonce()) == (0, 1)


async def test_a_cap_holds_it_back_by_its_real_name(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Both caps name the key that the configuration has; below the cap it goes on."""
    limits = FeeLimits(max_wei_per_transaction=10**16, max_wei_per_day=10**15)
    async with settling_node(agreement, tmp_path, limits=limits) as earner:
        lease = await earner.lease()
        await earner.release(lease, "a")
        await earner.chain.call_method("anvil_setNextBlockBaseFeePerGas", hex(200 * 10**9))
        await earner.chain.mine_blocks(1)
        await earner.settle()
        assert "settlement.max_fee_eth_per_transaction" in str(await earner.notes())
        await earner.chain.call_method("anvil_setNextBlockBaseFeePerGas", hex(20 * 10**9))
        await earner.chain.mine_blocks(1)
        await earner.settle_when_due()
        assert "settlement.max_fee_eth_per_day" in str(await earner.notes())
        assert await earner.rows() == []
        await earner.chain.call_method("anvil_setNextBlockBaseFeePerGas", hex(10**8))
        await earner.chain.mine_blocks(1)
        await earner.settle_when_due()
        await earner.finish()
        assert (await earner.waiting(), await earner.nonce()) == (0, 1)


def _say_once(method: str, answer: ProxyAnswer) -> Before:
    return answer_first(1, answer, [method])


async def _delivered_after_one_wrong_answer(
    agreement: AnvilAgreement, folder: Path, rule: Before | None, lie: After | None
) -> None:
    async with FaultProxy(agreement.chain.url) as proxy, settling_node(agreement, folder, urls=[proxy.url]) as earner:
        lease = await earner.lease()
        await earner.release(lease, "a")
        proxy.before += [rule] if rule else []
        proxy.after += [lie] if lie else []
        await earner.settle()
        assert await earner.waiting() == 1
        proxy.after.clear()
        await earner.node.wait_until(lambda: not earner.node.endpoints.seconds_until_ready())
        await earner.settle_when_due()
        await earner.finish()
        assert await earner.committed(lease, "a")
        assert (await earner.waiting(), await earner.nonce()) == (0, 1)


async def test_one_estimate_of_ten_million_gas(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """An estimate beyond every cap ends nothing; it is asked again."""
    await _delivered_after_one_wrong_answer(agreement, tmp_path, _say_once("eth_estimateGas", ProxyAnswer(result=hex(10**7))), None)


async def test_an_estimate_of_half_a_million_gas_is_no_obstacle(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """On Arbitrum the gas of a call includes the price of the parent chain: caps are in wei."""
    async with FaultProxy(agreement.chain.url) as proxy, settling_node(agreement, tmp_path, urls=[proxy.url]) as earner:
        lease = await earner.lease()
        proxy.before.append(_say_once("eth_estimateGas", ProxyAnswer(result=hex(450_000))))
        await earner.release(lease, "a")
        await earner.settle()
        assert await earner.committed(lease, "a")


async def test_one_endpoint_that_names_another_hash(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """What an endpoint says is committed counts for nothing: the followed chain's events do."""

    def lie(method: str, params: list[object], result: object) -> object:
        return word("another") if method == "eth_call" else result

    await _delivered_after_one_wrong_answer(agreement, tmp_path, None, lie)


async def test_a_receipt_that_an_endpoint_invents_does_not_deliver(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """A receipt of one endpoint ends the row at most; the message stays, and is sent again."""
    chain = agreement.chain
    async with FaultProxy(chain.url) as proxy, settling_node(agreement, tmp_path, urls=[proxy.url]) as earner:
        lease = await earner.send_into_pool("a")
        await chain.call_method("anvil_dropAllTransactions")
        lied = ProxyAnswer(
            result={"transactionHash": word("t"), "blockHash": word("b"), "blockNumber": "0x1", "status": "0x1", "logs": []}
        )
        proxy.before.append(_say_once("eth_getTransactionReceipt", lied))
        await earner.resend()
        assert await earner.states() == ["final"]
        assert await earner.waiting() == 1
        await chain.call_method("evm_setAutomine", True)
        await earner.settle_when_due()
        await earner.finish()
        await earner.finish()
        assert await earner.committed(lease, "a")
        assert (await earner.waiting(), await earner.nonce()) == (0, 2), "and the nonce that it claimed was filled"


async def test_a_tip_below_the_chains_minimum(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Polygon names the tip it wants: the next attempt pays it, in the same pass, and later ones begin there."""
    wanted = 25 * 10**9
    seen: list[int] = []

    async def pool(method: str, params: list[object]) -> ProxyAnswer | None:
        if method != "eth_sendRawTransaction":
            return None
        tip = (await earner.rows())[-1].priority_fee
        seen.append(tip)
        message = f"transaction gas price below minimum: gas tip cap {tip}, minimum needed {wanted}"
        return ProxyAnswer(error={"code": -32000, "message": message}) if tip < wanted else None

    async with FaultProxy(agreement.chain.url) as proxy, settling_node(agreement, tmp_path, urls=[proxy.url]) as earner:
        lease = await earner.lease()
        proxy.before.append(pool)
        await earner.release(lease, "a")
        await earner.settle()
        assert await earner.committed(lease, "a")
        await earner.release(lease, "b")
        await earner.settle()
        assert [tip >= wanted for tip in seen] == [False, True, True]
        await earner.finish()
        assert (await earner.waiting(), await earner.nonce()) == (0, 2)


async def test_a_chain_without_eip_1559(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Its blocks have no base fee: transactions are of type 0 and pay what eth_gasPrice says."""

    def legacy(method: str, params: list[object], result: object) -> object:
        return {name: value for name, value in result.items() if name != "baseFeePerGas"} if isinstance(result, dict) else result

    async with FaultProxy(agreement.chain.url) as proxy, settling_node(agreement, tmp_path, urls=[proxy.url]) as earner:
        lease = await earner.lease()
        proxy.after.append(legacy)
        await earner.release(lease, "a", "b")
        await earner.settle()
        [row] = await earner.rows()
        mined = await agreement.chain.call_method("eth_getTransactionByHash", row.tx_hash)
        assert mined["type"] == "0x0"
        await earner.finish()
        assert (await earner.waiting(), await earner.nonce()) == (0, 1)


async def test_a_contract_that_never_takes_it_does_not_fill_the_chain(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """A result whose time is over ends by the chain's clock; nothing was sent."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease(days=1)
        await earner.chain.call_method("evm_increaseTime", 2 * 86_400 + 60)
        await earner.chain.mine_blocks(1)
        await earner.release(lease, "late")
        await earner.settle()
        assert "TooLate" in str(await earner.notes())
        await earner.finish()
        assert str(await earner.notes()).count("refused: the lease expired") == 1
        assert await earner.rows() == []


async def test_a_gap_below_our_nonce_is_filled(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """A database that lost a row (a restore) would leave all above it waiting for ever."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.send_into_pool("a")
        await earner.release(lease, "b")
        await earner.settle()
        await earner.store.update_state((await earner.rows())[0], "lost")
        await chain.call_method("anvil_dropAllTransactions")
        await earner.resend()
        await chain.mine_blocks(1)
        assert await earner.committed(lease, "b")
        await chain.call_method("evm_setAutomine", True)
        await earner.settle_when_due()
        await earner.finish()
        assert await earner.committed(lease, "a")
        assert (await earner.waiting(), await earner.nonce()) == (0, 3)


async def test_two_processes_with_one_key_take_turns(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """The lock is on the keystore's file: while another process sends, this one waits, and says why if that lasts."""
    import fcntl

    keystore = tmp_path / "operator.json"
    keystore.write_text("{}")
    async with settling_node(agreement, tmp_path, keystore=keystore) as earner:
        lease = await earner.lease()
        await earner.release(lease, "a")
        with keystore.open() as held, pytest.MonkeyPatch.context() as patch:
            fcntl.flock(held, fcntl.LOCK_EX)
            patch.setattr("pandacea.chain.sending.key_lock.WAIT_SECONDS", 0.1)
            await earner.settle()
            assert "Another process is sending with the key" in str(await earner.notes())
            with pytest.raises(Unavailable):
                await earner.resend()
        await earner.settle_when_due()
        assert await earner.committed(lease, "a")
