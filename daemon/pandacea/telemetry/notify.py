"""The service manager's notification socket (sd_notify(3)): ready, status, watchdog, stopping."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """The service manager's socket (`NOTIFY_SOCKET`) and its watchdog interval in seconds; None where there is none."""

    address: str | None = None
    watchdog_seconds: float | None = None

    def notify(self, state: str) -> None:
        """Send `READY=1`, `STATUS=...`, `WATCHDOG=1` or `STOPPING=1`; does nothing without a service manager."""
        if not self.address:
            return
        name = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
            try:
                wire.sendto(state.encode(), name)
            except OSError as problem:
                # The node does not stop for it: the manager's own time-out acts.
                log.warning("service_manager.unreachable", reason=str(problem))

    async def ping_watchdog(self) -> None:
        """Ping the watchdog at half its interval, from the event loop: a blocked loop counts as a dead node.

        Runs until cancelled, as every background task; without a watchdog it sends nothing.
        """
        if not self.watchdog_seconds:
            await asyncio.Event().wait()
        while self.watchdog_seconds:
            self.notify("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2)
