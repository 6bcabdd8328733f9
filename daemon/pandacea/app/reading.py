"""A sandbox of a command's own, to read tables in beside a node that may be running."""

from __future__ import annotations

from contextlib import AsyncExitStack

from pandacea.app import parts
from pandacea.catalogue.tables import Tables
from pandacea.config import Config
from pandacea.sandbox.choose import choose


async def open_tables(config: Config, stack: AsyncExitStack, *, purpose: str) -> Tables:
    """The node's tables, written to through a sandbox that is closed with `stack`. `purpose` names its folder.

    Raises:
        Broken: no sandbox can be opened here.
    """
    sandbox, _ = await choose(config.privacy.sandbox, *parts.sandbox_settings(config, purpose=purpose, pool=0))
    await sandbox.open()
    stack.push_async_callback(sandbox.close)
    incoming = "incoming-command" if purpose == "tools" else f"incoming-{purpose}"
    return Tables(config.store.state_dir / "tables", sandbox, config.privacy.limits.limits(), incoming=incoming)
