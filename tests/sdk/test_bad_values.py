"""What the SDK refuses to encode: every id, hash, address and amount has its form, or a sentence says what is wrong with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from pandacea.devchain import DevChain
from pandacea.keys import import_key
from pandacea_sdk.chain import LeaseChain, deploy
from pandacea_sdk.errors import PandaceaError, UsageError
from pandacea_sdk.protocol.contract import BadValueError, derive_lease_id, lease_agreement
from tests.prerequisites import ROOT

ADDRESS = "0x" + "a1" * 20
ID = "0x" + "77" * 32
RECEIPT = (ID,) * 5

BAD: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "an id of one byte": lambda chain: chain.lease("0x12"),
    "an id without 0x": lambda chain: chain.lease("77" * 32),
    "an id that is no hex": lambda chain: chain.approve("0x" + "zz" * 32),
    "an id that is a number": lambda chain: chain.cancel(12),
    "a hash of four bytes": lambda chain: chain.commit_result(ID, ID, "0x12345678"),
    "a receipt of four values": lambda chain: chain.verify_receipt(RECEIPT[:4], "0x"),
    "a receipt with a short value": lambda chain: chain.verify_receipt((*RECEIPT[:4], "0x12"), "0x"),
    "a signature of half a byte": lambda chain: chain.verify_receipt(RECEIPT, "0x1"),
    "an address of two bytes": lambda chain: chain.set_operator("0x6813"),
    "an address with a slip": lambda chain: chain.credit_of("0xF39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
    "a price that is a float": lambda chain: chain.create_lease(ADDRESS, "p", price=1e16, expires_at=2 * 10**9),
    "a price below nothing": lambda chain: chain.create_lease(ADDRESS, "p", price=-1, expires_at=2 * 10**9),
    "a price that is a bool": lambda chain: chain.create_lease(ADDRESS, "p", price=True, expires_at=2 * 10**9),
    "an expiry beyond 64 bits": lambda chain: chain.create_lease(ADDRESS, "p", price=1, expires_at=2**64),
    "half a computation": lambda chain: chain.create_lease(ADDRESS, "p", price=1, expires_at=9, max_computations=0.5),
    "an earner that is none": lambda chain: chain.create_lease("0x12", "p", price=1, expires_at=9),
}


async def test_a_bad_value_is_named_and_nothing_is_sent() -> None:
    """Neither padded, nor cut, nor rounded; typed, with the value and what is needed."""
    async with DevChain() as chain:
        key = chain.accounts[0].private_key
        record = await deploy(chain.url, key, arbiter=chain.accounts[1].address)
        async with LeaseChain(chain.url, record, key=key) as lease_chain:
            before = await lease_chain._rpc.call_for_quantity("eth_getTransactionCount", lease_chain.address, "latest")
            for what, call in BAD.items():
                with pytest.raises(UsageError) as caught:
                    await call(lease_chain)
                assert isinstance(caught.value, PandaceaError), what
                assert caught.value.code == "bad-usage", what
                assert " is " in str(caught.value), what
            assert await lease_chain._rpc.call_for_quantity("eth_getTransactionCount", lease_chain.address, "latest") == before


@pytest.mark.parametrize("contract", ["0x12", "", "0x" + "zz" * 20])
def test_a_contract_that_is_no_address_is_refused_before_anything_is_asked(contract: str) -> None:
    """And a key that is none, without repeating it."""
    with pytest.raises(UsageError, match="contract is"):
        LeaseChain("http://127.0.0.1:1", contract)
    with pytest.raises(UsageError) as caught:
        LeaseChain("http://127.0.0.1:1", ADDRESS, key="0x1234secret")
    assert "secret" not in str(caught.value)


def test_what_is_encoded_is_what_was_given() -> None:
    """Capitals of a checksum, all capitals and none are one address."""
    account = Account.from_key("0x" + "11" * 32).address
    spellings = [account, account.lower(), "0x" + account[2:].upper()]
    assert len({lease_agreement().encode_call("setOperator", spelling) for spelling in spellings}) == 1


@pytest.mark.parametrize(
    "field", ["contract", "spender", "earner", "data_product_id", "price", "expires_at", "max_computations", "arbiter"]
)
def test_a_leases_id_is_computed_of_whole_terms_alone(field: str) -> None:
    """A term that is none makes no id."""
    terms: dict[str, Any] = {
        "chain_id": 1,
        "contract": ADDRESS,
        "spender": ADDRESS,
        "earner": ADDRESS,
        "data_product_id": ID,
        "price": 1,
        "expires_at": 2,
        "max_computations": 3,
        "arbiter": ADDRESS,
        "nonce": 0,
    }
    assert derive_lease_id(**terms)
    with pytest.raises(BadValueError, match=field):
        derive_lease_id(**{**terms, field: "0x12"})


def test_deploy_names_a_bad_arbiter(tmp_path: Path) -> None:
    """One sentence, no traceback, exit status 2; no endpoint was asked."""
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text("only for tests")
    import_key(tmp_path / "owner.json", "0x" + "11" * 32, "only for tests")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pandacea", "deploy", "--rpc-url", "http://127.0.0.1:1", "--arbiter", "0x6813"),
            *(
                "--keystore",
                str(tmp_path / "owner.json"),
                "--passphrase-file",
                str(secret),
                "--record",
                str(tmp_path / "record.json"),
            ),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT / "daemon",
    )
    assert done.returncode == 2, done.stderr
    assert "arbiter" in done.stderr
    assert "'0x6813'" in done.stderr
    assert "Traceback" not in done.stderr
