"""Measure the gas of each function of the LeaseAgreement, beside the first version's storage layout, in one run on one EVM.

    python benchmarks/gas.py [--json FILE] [--write docs/gas.md]

`first`: the first call of its kind by an account (its counters go from zero to one); `again`: every later one. Gas is what the
receipt charges, after refunds, on py-evm's Prague rules.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_typing import Address

from pandacea.devchain.ledger import CHAIN_ID, DevLedger
from pandacea.devchain.model import IncludedTransaction, TransactionRefused
from pandacea_sdk.protocol.approval import sign_approval
from pandacea_sdk.protocol.contract import ContractAbi, hash_product_id, lease_agreement
from pandacea_sdk.protocol.hashing import KeySigner

ROOT: Final = Path(__file__).resolve().parent.parent
ETHER: Final = 10**18
DAY: Final = 86_400
FLOOR_RATIO: Final = 1.05
"""What a whole lease may cost at most beside the frugal floor's two steps."""
BATCH: Final = 20
"""Results committed in one transaction."""
START: Final = 2_000_000_000
"""The chain's clock in Unix seconds, fixed so that calldata has the same bytes in every run."""
V0: Final = "v0 createLease + approveLease"
STRUCT: Final = "one slot per field and nothing else, create + approve"
V1: Final = "createLease + approveLease + commitResult"
CREATE: Final = "createLease(address,bytes32,uint256,uint64,uint32)"
CREATE_SHORT: Final = "createLease(address,bytes32,uint256)"
REASON: Final = "the artifact does not load: model_weights.pth has no key fc2.weight"
RECEIPT: Final = [
    {"name": name, "type": "bytes32"} for name in ("leaseId", "computationId", "requestHash", "productVersion", "resultHash")
]


class Bench:
    """One chain with all measured contracts on it."""

    def __init__(self) -> None:
        self.ledger = DevLedger(lambda: START)
        keys: list[LocalAccount] = [Account.from_key(one.private_key) for one in self.ledger.accounts]
        self.owner, self.arbiter, self.spender, self.earner, self.operator, self.other = keys[:6]
        self.abi = lease_agreement()
        self.v0_abi, struct = _artifact("LeaseAgreementV0"), _artifact("OneSlotPerField")
        self.rows: dict[str, int] = {}
        deployed = self.send(self.owner, None, self.abi.encode_creation(self.owner.address, self.arbiter.address))
        self.rows["deployment"] = deployed.gas_used
        self.v1 = deployed.created
        self.v0 = self.send(self.owner, None, self.v0_abi.encode_creation()).created
        self.struct = self.send(self.owner, None, struct.encode_creation()).created
        self._nonce = 0

    def send(self, account: LocalAccount, to: bytes | None, data: bytes, value: int = 0) -> IncludedTransaction:
        """Mine one transaction, which must succeed."""
        nonce = self.ledger.state_at(self.ledger.head).get_nonce(Address(bytes.fromhex(account.address[2:])))
        fields: dict[str, Any] = {"data": data, "value": value, "gas": 5_000_000, "nonce": nonce, "chainId": CHAIN_ID}
        fields |= {"maxFeePerGas": 4 * 10**9, "maxPriorityFeePerGas": 10**9} | ({} if to is None else {"to": to})
        (answer,) = self.ledger.mine_transactions([bytes(account.sign_transaction(fields).raw_transaction)])
        if isinstance(answer, TransactionRefused):
            raise answer
        mined = self.ledger.find_transaction(answer)
        if mined is None or not mined.succeeded:
            raise SystemExit(f"a call of the gas table was reverted: 0x{data[:4].hex()}")
        return mined

    def run(self, row: str | None, account: LocalAccount, function: str, *values: Any, value: int = 0) -> IncludedTransaction:
        """Call v1 and note the gas under `row`."""
        mined = self.send(account, self.v1, self.abi.encode_call(function, *values), value)
        if row is not None:
            self.rows[row] = mined.gas_used
        return mined

    def create(self, row: str | None = None, computations: int = 1, spender: LocalAccount | None = None) -> str:
        """Create a lease and return its id."""
        self._nonce += 1
        expiry = self.ledger.head.header.timestamp + 30 * DAY
        values = (self.earner.address, hash_product_id(f"product-{self._nonce}"), ETHER, expiry, computations)
        return "0x" + self.run(row, spender or self.spender, CREATE, *values, value=ETHER).logs[0].topics[1].hex()

    def approved(self, computations: int = 1) -> str:
        """Create a lease and approve it."""
        lease = self.create(computations=computations)
        self.run(None, self.earner, "approveLease", lease)
        return lease

    def executed(self) -> str:
        """Create a lease, approve it, commit a result and execute it."""
        lease = self.approved()
        self.run(None, self.earner, "commitResult", lease, word(7), word(8))
        self.run(None, self.earner, "executeLease", lease)
        return lease

    def approval(self, lease: str) -> bytes:
        """The Earner's signature of an approval without a deadline of its own."""
        assert self.v1 is not None
        return sign_approval(KeySigner(self.earner.key), CHAIN_ID, "0x" + self.v1.hex(), lease).signature

    def receipt(self, lease: str, result: int) -> tuple[tuple[str, ...], str]:
        """Make a receipt and the Earner's signature of it."""
        values = (lease, word(1), word(2), word(3), word(result))
        assert self.v1 is not None
        signed = self.earner.sign_message(
            encode_typed_data(
                {
                    "name": "Pandacea LeaseAgreement",
                    "version": "1",
                    "chainId": CHAIN_ID,
                    "verifyingContract": "0x" + self.v1.hex(),
                },
                {"Receipt": RECEIPT},
                {one["name"]: bytes.fromhex(value[2:]) for one, value in zip(RECEIPT, values, strict=True)},
            )
        )
        return values, "0x" + signed.signature.hex()


def _artifact(name: str) -> ContractAbi:
    path = ROOT / "contracts" / "test" / "artifacts" / f"{name}.json"
    return ContractAbi(json.loads(path.read_text(encoding="utf-8")))


def word(number: int) -> str:
    """Make a 32-byte value of mostly non-zero bytes."""
    return f"0x{0xABCDEF00 + number:064x}".replace("0x0000", "0x9f3c", 1)


def measure_v0(bench: Bench) -> None:
    """Measure the first version's two steps; its counter goes from zero to one with the very first lease."""
    for row in ("first", "again"):
        created, approved = _two_steps(bench, bench.v0, row)
        bench.rows |= {f"v0 createLease, {row}": created.gas_used, "v0 approveLease": approved.gas_used}
    created, approved = _two_steps(bench, bench.struct, "again")
    bench.rows[STRUCT] = created.gas_used + approved.gas_used


def _two_steps(bench: Bench, contract: bytes | None, row: str) -> tuple[IncludedTransaction, IncludedTransaction]:
    create = bench.v0_abi.encode_call("createLease", bench.earner.address, hash_product_id(f"v0-{row}"), ETHER)
    created = bench.send(bench.spender, contract, create, ETHER)
    return created, bench.send(bench.earner, contract, bench.v0_abi.encode_call("approveLease", created.logs[0].topics[1]))


def measure_life(bench: Bench) -> None:
    """Measure a lease from creation to payment."""
    bench.create("createLease, first")
    lease = bench.create("createLease, again", computations=2)
    short = (bench.earner.address, hash_product_id("product-0"), ETHER)
    bench.run("createLease, short form, again", bench.spender, CREATE_SHORT, *short, value=ETHER)
    bench.run("approveLease", bench.earner, "approveLease", lease)
    bench.run("commitResult", bench.earner, "commitResult", lease, word(1), word(2))
    bench.run("setOperator, first", bench.earner, "setOperator", bench.operator.address)
    bench.run("approveLease by the operator", bench.operator, "approveLease", bench.create())
    bench.run("commitResult by the operator", bench.operator, "commitResult", lease, word(3), word(4))
    for leases, row in ((1, "of one lease"), (BATCH, f"of {BATCH} leases")):
        approved = [bench.approved(computations=BATCH // leases) for _ in range(leases)]
        batch = [(approved[number % leases], word(number), word(number + BATCH)) for number in range(BATCH)]
        mined = bench.run(None, bench.operator, "commitResults", batch)
        bench.rows[f"commitResults, each of {BATCH} {row}"] = mined.gas_used // BATCH
    lease_signed = bench.create()
    deadline = 2**256 - 1
    bench.run(
        "approveLeaseBySignature", bench.other, "approveLeaseBySignature", lease_signed, deadline, bench.approval(lease_signed)
    )
    bench.run("executeLease", bench.earner, "executeLease", lease)
    bench.run("finalizeLease, first credit", bench.spender, "finalizeLease", lease)
    bench.run("finalizeLease, more credit", bench.spender, "finalizeLease", bench.executed())
    bench.run("withdraw", bench.earner, "withdraw")
    bench.run("cancelLease, first credit", bench.spender, "cancelLease", bench.create())
    bench.run("withdrawTo", bench.spender, "withdrawTo", bench.other.address)


def measure_disputes(bench: Bench) -> None:
    """Measure disputes, equivocation and the owner's calls."""
    disputed = [bench.executed() for _ in range(3)]
    for lease in disputed:
        bench.run("raiseDispute", bench.spender, "raiseDispute", lease, REASON, value=ETHER // 10)
    bench.run("resolveDispute", bench.arbiter, "resolveDispute", disputed[0], True)
    lease = bench.approved()
    first, second = bench.receipt(lease, 4), bench.receipt(lease, 5)
    bench.run("proveEquivocation", bench.other, "proveEquivocation", *first, *second)
    bench.ledger.advance_time(31 * DAY)
    bench.run("splitDispute", bench.other, "splitDispute", disputed[1])
    bench.run("setArbiter", bench.owner, "setArbiter", bench.other.address)
    bench.run("pause", bench.owner, "pause")
    bench.run("unpause", bench.owner, "unpause")


def measure() -> dict[str, int]:
    """Measure the gas of each row."""
    bench = Bench()
    measure_v0(bench)
    measure_life(bench)
    measure_disputes(bench)
    steps = bench.rows["approveLease"] + bench.rows["commitResult"]
    struct = bench.rows.pop(STRUCT)
    return bench.rows | {
        f"{V0}, first": bench.rows["v0 createLease, first"] + bench.rows["v0 approveLease"],
        f"{V1}, first": bench.rows["createLease, first"] + steps,
        f"{V0}, again": bench.rows["v0 createLease, again"] + bench.rows["v0 approveLease"],
        STRUCT: struct,
        f"{V1}, again": bench.rows["createLease, again"] + steps,
    }


def table(rows: Mapping[str, int]) -> str:
    """Write the Markdown table; ratios are to the first version's two steps together."""
    v0 = rows[f"{V0}, again"]
    lines = ["| call | gas | of v0's create + approve |", "| --- | ---: | ---: |"]
    return "\n".join([*lines, *(f"| {row} | {gas:,} | {gas / v0:.2f} |" for row, gas in rows.items())])


def main() -> None:
    """Print the table, and fail when a target is missed."""
    parser = argparse.ArgumentParser(description="Gas of every function.")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--write", type=Path, help="replace the table between the two markers in this document")
    asked = parser.parse_args()
    rows = measure()
    print(table(rows))
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if asked.write:
        text = asked.write.read_text(encoding="utf-8")
        before, _, rest = text.partition("<!-- table -->")
        _, _, after = rest.partition("<!-- /table -->")
        asked.write.write_text(f"{before}<!-- table -->\n{table(rows)}\n<!-- /table -->{after}", encoding="utf-8")
    for kind in ("first", "again"):
        if rows[f"{V1}, {kind}"] >= rows[f"{V0}, {kind}"]:
            sys.exit(f"{V1} must cost less than {V0} ({kind})")
    if rows[f"{V1}, again"] >= FLOOR_RATIO * rows[STRUCT]:
        sys.exit(f"{V1} must cost less than {FLOOR_RATIO} of {STRUCT} (again)")


if __name__ == "__main__":
    main()
