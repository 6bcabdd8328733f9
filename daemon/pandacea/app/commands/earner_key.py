"""Calls that the contract takes from the Earner's own key only: the key is read once, used, and never kept."""

from __future__ import annotations

from pathlib import Path

from eth_account.signers.local import LocalAccount

from pandacea import keys
from pandacea.app import factories
from pandacea.app.commands.leases import list_leases
from pandacea.app.commands.prompts import Write
from pandacea.app.control.ids import expand_id
from pandacea.config import Config
from pandacea.domain.ids import LeaseId
from pandacea.errors import BadConfig, Broken, Refused
from pandacea_sdk.chain import ChainError, ContractReverted, LeaseChain


def unlock_earner_key(config: Config, keystore: Path, passphrase_file: Path | None) -> LocalAccount:
    """Unlock the Earner's own key.

    Raises:
        BadConfig: the keystore is another key's, or the passphrase does not open it.
    """
    if keys.keystore_address(keystore) != config.earner.address.lower():
        raise BadConfig(f"{keystore} is not the key of the Earner {config.earner.address}; the money is that address's alone.")
    return keys.unlock_keystore(keystore, keys.read_passphrase(passphrase_file)).account()


async def cancel_with_key(config: Config, account: LocalAccount, lease_id: str) -> LeaseId:
    """Refuse or cancel a lease with the Earner's own key: its Spender has the whole price back. Its id may be shortened.

    Raises:
        Refused: no such lease is known here, or the contract does not take it; the reason.
        Broken: the chain cannot be asked.
    """
    async with factories.open_database(config) as engine:
        store = await factories.open_chain_store(config, engine)
        known: list[LeaseId] = await store.list_waiting()
        async for page in store.load_approved():
            known += [row.lease_id for row in page]
    wanted = LeaseId(expand_id(lease_id, sorted(set(known))))
    if wanted not in known:
        raise Refused(f"No lease {wanted} of this Earner is known here; `pandacea leases` shows them.")
    try:
        async with _open_chain(config, account) as chain:
            await chain.cancel(wanted)
    except ContractReverted as refused:
        raise Refused(f"The contract refuses: {refused}") from refused
    except ChainError as problem:
        raise Broken(f"Nothing was cancelled: {problem}") from problem
    return wanted


async def withdraw_with_key(config: Config, account: LocalAccount, write: Write) -> int:
    """Finalize each executed lease that the contract lets be, and withdraw all that it holds for the Earner; returns wei, 0 for nothing.

    Raises:
        Unavailable: the contract has not been followed here yet.
        Broken: the chain cannot be asked.
    """
    executed = [row["lease_id"] for row in await list_leases(config) if row["status"] == "executed"]
    try:
        async with _open_chain(config, account) as chain:
            for lease_id in executed:
                try:
                    await chain.finalize(lease_id)
                    write(f"{lease_id} is finalized: its price is yours.")
                except ContractReverted as refused:
                    write(f"{lease_id} cannot be finalized yet: {refused}")
            return await chain.withdraw() if await chain.credit_of(account.address) else 0
    except ChainError as problem:
        raise Broken(f"Nothing was withdrawn: {problem}") from problem


def _open_chain(config: Config, account: LocalAccount) -> LeaseChain:
    # The node sends over the configured endpoint, too, whatever its scheme.
    url = config.blockchain.rpc_url[0].url
    return LeaseChain(url, factories.resolve_contract(config).address, key=account, any_code=True, allow_http=True)
