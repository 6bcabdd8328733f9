"""A sandbox of a command's own, to read tables in beside a node that may be running."""

from __future__ import annotations

from contextlib import AsyncExitStack

from pandacea.app import factories
from pandacea.catalogue.table_store import TableStore
from pandacea.config import Config
from pandacea.sandbox.select_backend import select_backend


async def open_tables(config: Config, stack: AsyncExitStack, *, purpose: str) -> TableStore:
    """The node's tables, written to through a sandbox that is closed with `stack`. `purpose` names its folder.

    Raises:
        Broken: no sandbox can be opened here.
    """
    sandbox, _ = await select_backend(config.privacy.sandbox, *factories.sandbox_settings(config, purpose=purpose, pool=0))
    await sandbox.start()
    stack.push_async_callback(sandbox.stop)
    incoming = "incoming-command" if purpose == "tools" else f"incoming-{purpose}"
    return TableStore(config.store.state_dir / "tables", sandbox, config.privacy.limits.to_limits(), incoming=incoming)
