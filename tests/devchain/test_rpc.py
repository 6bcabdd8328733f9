"""The embedded chain speaks JSON-RPC as an execution client does, so that the node reads both in the same way."""

from __future__ import annotations

import re
from typing import Any

import pytest
import rlp
from eth_account import Account
from eth_utils.crypto import keccak
from web3 import AsyncWeb3

from pandacea.devchain import CHAIN_ID
from pandacea_sdk.protocol.contract import lease_agreement
from tests.devchain.conftest import DevChainClient

QUANTITY = re.compile(r"0x(0|[1-9a-f][0-9a-f]*)")
DATA = re.compile(r"0x([0-9a-f]{2})*")
QUANTITIES = {
    "number", "difficulty", "size", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas", "type",
    "nonce", "blockNumber", "transactionIndex", "value", "gas", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas", "chainId",
    "v", "r", "s", "yParity", "status", "cumulativeGasUsed", "effectiveGasPrice", "logIndex",
}  # fmt: skip
ABI = lease_agreement()


def well_formed(found: Any, name: str = "", *, block: bool = False) -> None:
    """Check that every string is a QUANTITY or DATA, as its name says; a block's nonce is DATA."""
    if isinstance(found, dict):
        for key, value in found.items():
            well_formed(value, key, block="parentHash" in found)
    elif isinstance(found, list):
        for value in found:
            well_formed(value, name)
    elif isinstance(found, str):
        pattern = QUANTITY if name in QUANTITIES and not (block and name == "nonce") else DATA
        assert pattern.fullmatch(found), (name, found)


async def lease(client: DevChainClient, contract: str) -> dict[str, Any]:
    """The receipt of a new lease for 5 wei."""
    call = ABI.encode_call("createLease(address,bytes32,uint256)", client.accounts[2].address, b"\1" * 32, 5)
    return await client.send_transaction(1, to=contract, data=call, value=5)


async def test_everything_is_written_as_quantities_and_data(client: DevChainClient) -> None:
    """Blocks, transactions, receipts and logs have the form of the execution API."""
    contract = await client.deploy_agreement()
    receipt = await lease(client, contract)
    number = receipt["blockNumber"]
    for found in (
        receipt,
        await client.call_method("eth_getBlockByNumber", number, True),
        await client.call_method("eth_getBlockByHash", receipt["blockHash"], False),
        await client.call_method("eth_getTransactionByHash", receipt["transactionHash"]),
        await client.call_method("eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest"}),
    ):
        assert found
        well_formed(found)
    for method, *params in (
        ("eth_chainId",),
        ("eth_blockNumber",),
        ("eth_gasPrice",),
        ("eth_maxPriorityFeePerGas",),
        ("eth_getBalance", contract, "latest"),
        ("eth_getTransactionCount", contract, "latest"),
    ):
        assert QUANTITY.fullmatch(await client.call_method(method, *params)), method


async def test_chain_id_is_the_one_the_contract_sees(client: DevChainClient) -> None:
    """The chain id equals the contract's, or no EIP-712 signature would be valid on the chain."""
    assert int(await client.call_method("eth_chainId"), 16) == CHAIN_ID
    code = bytes.fromhex("4660005260206000f3")  # CHAINID, MSTORE 0, RETURN 32 bytes
    init = bytes([0x60, len(code), 0x80, 0x60, 0x0B, 0x60, 0x00, 0x39, 0x60, 0x00, 0xF3]) + code
    contract = (await client.send_transaction(data=init))["contractAddress"]
    assert int(await client.call_method("eth_call", {"to": contract}, "latest"), 16) == CHAIN_ID


@pytest.mark.parametrize("fees", [{}, {"gasPrice": 3 * 10**9}], ids=["eip1559", "legacy"])
async def test_a_transaction_can_be_proved_from_what_is_told(client: DevChainClient, fees: dict[str, int]) -> None:
    """A transaction's fields give its hash and sender, so that no endpoint need be believed."""
    receipt = await client.send_transaction(3, to=client.accounts[4].address, value=7, **fees)
    told = await client.call_method("eth_getTransactionByHash", receipt["transactionHash"])
    n = {key: int(told[key], 16) for key in ("nonce", "gas", "value", "v", "r", "s", "gasPrice")}
    to, data = bytes.fromhex(told["to"][2:]), bytes.fromhex(told["input"][2:])
    if fees:
        raw = rlp.encode([n["nonce"], n["gasPrice"], n["gas"], to, n["value"], data, n["v"], n["r"], n["s"]])
    else:
        tip, cap = int(told["maxPriorityFeePerGas"], 16), int(told["maxFeePerGas"], 16)
        fields = [CHAIN_ID, n["nonce"], tip, cap, n["gas"], to, n["value"], data, [], int(told["yParity"], 16), n["r"], n["s"]]
        raw = b"\x02" + rlp.encode(fields)
    assert "0x" + keccak(raw).hex() == told["hash"]
    assert Account.recover_transaction(raw).lower() == told["from"] == client.accounts[3].address.lower()


async def test_blocks_form_a_chain_of_hashes(client: DevChainClient) -> None:
    """Each block names its parent, and is found by number and by hash alike."""
    await client.deploy_agreement()
    await lease(client, await client.deploy_agreement())
    head = int(await client.call_method("eth_blockNumber"), 16)
    blocks = [await client.call_method("eth_getBlockByNumber", hex(number), False) for number in range(head + 1)]
    assert [block["parentHash"] for block in blocks[1:]] == [block["hash"] for block in blocks[:-1]]
    assert [await client.call_method("eth_getBlockByHash", block["hash"], False) for block in blocks] == blocks
    assert [int(block["timestamp"], 16) for block in blocks] == sorted({int(block["timestamp"], 16) for block in blocks})


@pytest.mark.parametrize("tag", ["latest", "safe", "finalized", "pending"])
async def test_every_tag_is_the_head(client: DevChainClient, tag: str) -> None:
    """All tags name the head, because the chain has no reorgs."""
    await client.deploy_agreement()
    head = await client.call_method("eth_blockNumber")
    assert (await client.call_method("eth_getBlockByNumber", tag, False))["number"] == head


async def test_what_is_not_there_is_null(client: DevChainClient) -> None:
    """Blocks beyond the head and unknown hashes answer null, not an error."""
    nowhere = "0x" + "12" * 32
    assert await client.call_method("eth_getBlockByNumber", "0xffff", False) is None
    for method in ("eth_getTransactionByHash", "eth_getTransactionReceipt"):
        assert await client.call_method(method, nowhere) is None
    assert await client.call_method("eth_getBlockByHash", nowhere, False) is None
    assert await client.call_method("eth_getCode", client.accounts[0].address, "latest") == "0x"


async def test_logs_by_range_by_hash_by_address_and_by_topic(client: DevChainClient) -> None:
    """Each filter finds the receipts' logs in order; a range beyond the head is empty, not an error."""
    first, second = await client.deploy_agreement(), await client.deploy_agreement()
    receipts = [await lease(client, contract) for contract in (first, second, first)]
    logs = [log for receipt in receipts for log in receipt["logs"]]
    start = receipts[0]["blockNumber"]

    async def found(**asked: Any) -> Any:
        return await client.call_method("eth_getLogs", asked)

    assert await found(fromBlock=start, toBlock="latest") == logs
    assert await found(fromBlock=start, toBlock="0xffff") == logs
    assert await found(fromBlock="0xfff0", toBlock="0xffff") == []
    assert await found(blockHash=receipts[1]["blockHash"]) == receipts[1]["logs"]
    assert await found(fromBlock=start, toBlock="latest", address=second) == receipts[1]["logs"]
    assert await found(fromBlock=start, toBlock="latest", address=[first, second]) == logs
    topic, spender = ABI.event_topic("LeaseCreated"), "0x" + client.accounts[1].address[2:].lower().rjust(64, "0")
    created = [log for log in logs if log["topics"][0] == topic]
    assert len(created) == 3
    assert await found(fromBlock=start, toBlock="latest", topics=[topic]) == created
    assert await found(fromBlock=start, toBlock="latest", topics=[[topic, "0x" + "00" * 32]]) == created
    assert await found(fromBlock=start, toBlock="latest", topics=[None, None, spender]) == created
    assert await found(fromBlock=start, toBlock="latest", topics=[topic, None, topic]) == []


async def test_several_transactions_of_one_block_number_their_logs_through(client: DevChainClient) -> None:
    """Log indices count within the block, cumulative gas adds up."""
    contract = await client.deploy_agreement()
    call = ABI.encode_call("setOperator", client.accounts[5].address)
    raw = [bytes.fromhex((await client.sign_transaction(by, to=contract, data=call))[2:]) for by in (2, 3, 4)]
    hashes = client.chain.ledger.mine_transactions(raw)
    receipts = [await client.call_method("eth_getTransactionReceipt", "0x" + bytes(one).hex()) for one in hashes]  # type: ignore[arg-type]
    assert len({receipt["blockHash"] for receipt in receipts}) == 1
    assert [receipt["transactionIndex"] for receipt in receipts] == ["0x0", "0x1", "0x2"]
    assert [receipt["logs"][0]["logIndex"] for receipt in receipts] == ["0x0", "0x1", "0x2"]
    used = [int(receipt["gasUsed"], 16) for receipt in receipts]
    assert [int(receipt["cumulativeGasUsed"], 16) for receipt in receipts] == [used[0], used[0] + used[1], sum(used)]


async def test_a_revert_carries_the_contracts_own_error(client: DevChainClient) -> None:
    """A revert answers code 3 and its data, from a call and from an estimate."""
    contract = await client.deploy_agreement()
    asked = {"from": client.accounts[2].address, "to": contract, "data": "0x" + ABI.encode_call("approveLease", b"\7" * 32).hex()}
    for method in ("eth_call", "eth_estimateGas"):
        error = (await client.call_raw_answer(method, asked, "latest"))["error"]
        assert error["code"] == 3
        revert = ABI.decode_revert(bytes.fromhex(error["data"][2:]))
        assert (revert.name, revert.values) == ("UnknownLease", {"leaseId": "0x" + "07" * 32})


async def test_a_reverted_transaction_is_mined_with_status_zero(client: DevChainClient) -> None:
    """A reverted transaction is mined: its gas is spent, and it has no logs."""
    contract = await client.deploy_agreement()
    receipt = await client.send_transaction(2, to=contract, data=ABI.encode_call("approveLease", b"\7" * 32))
    assert (receipt["status"], receipt["logs"]) == ("0x0", [])


async def test_an_estimate_is_enough(client: DevChainClient) -> None:
    """An estimate is enough for a transfer, a creation, and a call that forwards ether."""
    transfer = {"from": client.accounts[0].address, "to": client.accounts[1].address, "value": "0x1"}
    assert await client.call_method("eth_estimateGas", transfer) == hex(21_000)
    contract = await client.deploy_agreement()
    created = await lease(client, contract)
    lease_id = created["logs"][0]["topics"][1]
    for by, call in ((1, ABI.encode_call("cancelLease", lease_id)), (1, ABI.encode_call("withdraw"))):
        asked = {"from": client.accounts[by].address, "to": contract, "data": "0x" + call.hex()}
        gas = int(await client.call_method("eth_estimateGas", asked), 16)
        receipt = await client.send_transaction(by, to=contract, data=call, gas=gas)
        assert receipt["status"] == "0x1"


async def test_calls_cost_nobody_anything(client: DevChainClient) -> None:
    """An account without ether may call, on the state of any block."""
    contract = await client.deploy_agreement()
    before = await client.call_method("eth_blockNumber")
    await lease(client, contract)
    asked = {
        "from": "0x" + "ab" * 20,
        "to": contract,
        "data": "0x" + ABI.encode_call("nonceOf", client.accounts[1].address).hex(),
    }
    assert [int(await client.call_method("eth_call", asked, block), 16) for block in (before, "latest")] == [0, 1]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ({"nonce": 9}, "nonce"),
        ({"chainId": 1}, "signed for chain 1,"),
        ({"gas": 20_000}, "gas"),
        ({"value": 10**30}, ""),
    ],
    ids=["nonce-ahead", "other-chain", "too-little-gas", "too-poor"],
)
async def test_a_transaction_that_cannot_enter_a_block_is_refused(
    client: DevChainClient, spoil: dict[str, int], words: str
) -> None:
    """A transaction that cannot enter a block is refused with a reason, and nothing is mined."""
    head = client.chain.ledger.head_number
    raw = await client.sign_transaction(to=client.accounts[1].address, **spoil)
    error = (await client.call_raw_answer("eth_sendRawTransaction", raw))["error"]
    assert error["code"] == -32000
    assert words in error["message"].lower()
    assert client.chain.ledger.head_number <= head + 1  # an empty block for the nonce that was read, perhaps


async def test_a_transaction_sent_twice_counts_once(client: DevChainClient) -> None:
    """A transaction sent twice is refused the second time: its nonce is used."""
    raw = await client.sign_transaction(to=client.accounts[1].address, value=1)
    sent = await client.call_method("eth_sendRawTransaction", raw)
    assert "error" in await client.call_raw_answer("eth_sendRawTransaction", raw)
    assert (await client.call_method("eth_getTransactionReceipt", sent))["status"] == "0x1"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff\xfe", -32700),
        (b"7", -32600),
        (b'{"id":1}', -32600),
        (b'{"id":1,"method":"eth_nothing"}', -32601),
        (b'{"id":1,"method":"eth_getBalance","params":{}}', -32602),
        (b'{"id":1,"method":"eth_getBalance","params":[]}', -32602),
        (b'{"id":1,"method":"eth_getBalance","params":["0x12"]}', -32602),
        (b'{"id":1,"method":"eth_getBlockByNumber","params":["newest",false]}', -32602),
        (b'{"id":1,"method":"eth_getLogs","params":[{"fromBlock":"0x5","toBlock":"0x1"}]}', -32602),
        (b'{"id":1,"method":"eth_getLogs","params":[{"blockHash":"0x12"}]}', -32602),
        (b'{"id":1,"method":"eth_sendRawTransaction","params":["0xzz"]}', -32602),
        (b'{"id":1,"method":"eth_sendRawTransaction","params":["0x02"]}', -32000),
        (b'{"id":1,"method":"eth_call","params":["0x02"]}', -32602),
    ],
)
async def test_what_cannot_be_read_is_refused_with_its_code(client: DevChainClient, body: bytes, code: int) -> None:
    """Bad requests answer the codes of JSON-RPC 2.0, and the chain continues."""
    assert (await client.post_body(body))["error"]["code"] == code
    assert await client.call_method("eth_chainId")


async def test_a_batch_is_answered_in_order(client: DevChainClient) -> None:
    """A batch is answered as JSON-RPC 2.0 section 6 says."""
    batch = b'[{"id":7,"method":"eth_chainId"},{"id":8,"method":"eth_nothing"}]'
    answers = await client.post_body(batch)
    assert [answer["id"] for answer in answers] == [7, 8]
    assert ["result" in answer for answer in answers] == [True, False]


async def test_web3_reads_and_writes_it_as_any_chain(client: DevChainClient) -> None:
    """AsyncWeb3 reads and writes the chain through its own HTTP provider and formatters."""
    contract = await client.deploy_agreement()
    await lease(client, contract)
    w3 = AsyncWeb3(AsyncWeb3.AsyncHTTPProvider(client.chain.url))
    try:
        agreement = w3.eth.contract(w3.to_checksum_address(contract), abi=ABI.abi)
        (created,) = await agreement.events.LeaseCreated.get_logs(from_block=0)
        assert created["args"]["price"] == 5
        assert await agreement.functions.leaseExists(created["args"]["leaseId"]).call() is True
        history = await w3.eth.fee_history(2, "latest", [50.0])
        assert len(history["baseFeePerGas"]) == len(history["gasUsedRatio"]) + 1
    finally:
        await w3.provider.disconnect()
