"""A table store for commands: it reads tables in a sandbox of its own, beside a node that may be running."""

from __future__ import annotations

from contextlib import AsyncExitStack

from pandacea.app.factories import sandbox_settings
from pandacea.catalogue.table_store import TableStore
from pandacea.config import Config
from pandacea.sandbox.select_backend import select_backend


async def open_tables(config: Config, stack: AsyncExitStack, *, purpose: str) -> TableStore:
    """Open the node's table store with a sandbox that is closed with `stack`. `purpose` names the sandbox's folder.

    Raises:
        Broken: no sandbox can be opened here.
    """
    sandbox, _ = await select_backend(config.privacy.sandbox, *sandbox_settings(config, purpose=purpose, pool=0))
    await sandbox.start()
    stack.push_async_callback(sandbox.stop)
    incoming = "incoming-command" if purpose == "tools" else f"incoming-{purpose}"
    return TableStore(config.store.state_dir / "tables", sandbox, config.privacy.limits.to_limits(), incoming=incoming)
