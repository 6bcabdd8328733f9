"""A real broker for tests."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from tests.prerequisites import find_program


@dataclass
class Mosquitto:
    """A broker on loopback that the test starts and stops."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        config = self.folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        command = find_program("mosquitto", "mosquitto")
        self.process = await asyncio.create_subprocess_exec(command, "-c", str(config), stderr=asyncio.subprocess.DEVNULL)
        for _ in range(200):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            await asyncio.sleep(0.02)
        raise AssertionError("mosquitto does not listen")

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
