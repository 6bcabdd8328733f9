"""`pandacea chain rebuild`: forget what was read of the chain, so that the next start reads it again from the deployment."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

from pandacea.app import factories
from pandacea.app.commands.prompts import Prompt, Write, prompt_yes_no
from pandacea.config import Config
from pandacea.errors import Unavailable
from pandacea.store.chain_store import count_chain_rows, delete_deployment
from pandacea_sdk.protocol.json_types import JsonObject

_CONFIRM: Final = "Forget this, and read the chain again at the next start?"


async def rebuild_chain(config: Config, *, yes: bool, write: Write, prompt: Prompt) -> JsonObject | None:
    """Forget the blocks, events, leases and proofs of the configured contract; None: the answer was no.

    Jobs, charges, results and products stay, and so do the other contracts that this database followed. No endpoint is asked.

    Raises:
        Broken: a node runs on this state folder or database.
        Unavailable: the contract was never followed here, so there is nothing to forget.
    """
    contract = factories.resolve_contract(config)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(factories.lock_state_dir(config.store.state_dir))
        engine = await stack.enter_async_context(factories.open_database(config, exclusive=True))
        counts = await count_chain_rows(engine, contract.chain_id, contract.address)
        if counts is None:
            raise Unavailable(factories.NOT_FOLLOWED)
        write(
            f"Contract {contract.address} on chain {contract.chain_id}, read up to block {counts['block']}: {counts['leases']} lease(s), "
            f"{counts['events']} event(s) above finality, {counts['proofs']} proof(s), {counts['acknowledged']} of them your own "
            "acknowledgements, which nothing brings back (`pandacea leases acknowledge`)."
        )
        write("Jobs, charges, results and products stay.")
        if not yes and not prompt_yes_no(prompt, write, _CONFIRM, default=False):
            write("Nothing was changed.")
            return None
        await delete_deployment(engine, contract.chain_id, contract.address)
    write("Forgotten. `pandacea run` reads the chain again from the deployment, and answers 503 until it has caught up.")
    return counts
