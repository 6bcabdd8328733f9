"""The service manager's notification socket (sd_notify(3)): ready, status, watchdog, stopping."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """Where systemd listens (`NOTIFY_SOCKET`), and how often it wants a sign of life (seconds), or None."""

    address: str | None = None
    watchdog_seconds: float | None = None

    def notify(self, state: str) -> None:
        """Send `READY=1`, `STATUS=...`, `WATCHDOG=1` or `STOPPING=1`. Without a service manager nothing happens."""
        if not self.address:
            return
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
            try:
                wire.sendto(state.encode(), name)
            except OSError as problem:
                # A node must not stop because nobody listens to it; the manager's own time-out speaks.
                log.warning("service_manager.unreachable", problem=str(problem))

    async def ping_watchdog(self) -> None:
        """Send a sign of life at half the wanted interval, from the event loop: a blocked loop is a dead node.

        For ever, like every task of the node: where nobody wants a sign, none is sent.
        """
        if not self.watchdog_seconds:
            await asyncio.Event().wait()
        while self.watchdog_seconds:
            self.notify("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2)
