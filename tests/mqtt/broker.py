"""A real broker for tests."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.prerequisites import find_program


@dataclass(frozen=True)
class Certificates:
    """An authority of its own, and two certificates that it signed: the broker's for 127.0.0.1, and a client's."""

    folder: Path

    def make(self) -> Certificates:
        """Write `ca`, `broker` and `client`, each `.pem` and `.key`."""
        self._run("req", "-x509", *_NEW_KEY, "-days", "1", "-subj", "/CN=an authority of a clinic", *self._pair("ca"))
        for name in ("broker", "client"):
            signer = ("-CA", str(self.folder / "ca.pem"), "-CAkey", str(self.folder / "ca.key"))
            names = ("-addext", "subjectAltName=IP:127.0.0.1")
            self._run("req", "-x509", *_NEW_KEY, "-days", "1", "-subj", f"/CN={name}", *names, *signer, *self._pair(name))
        return self

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.pem"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def _pair(self, name: str) -> tuple[str, ...]:
        return ("-keyout", str(self.key(name)), "-out", str(self.certificate(name)))

    def _run(self, *arguments: str) -> None:
        subprocess.run([find_program("openssl", "openssl"), *arguments], check=True, capture_output=True)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass
class Mosquitto:
    """A broker on loopback that the test starts and stops; with `certificates` it speaks TLS and asks for a client's."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process | None = None
    certificates: Certificates | None = None

    async def start(self) -> None:
        config = self.folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "persistence false", "max_queued_messages 0"]
        if self.certificates is not None:
            lines += [
                f"cafile {self.certificates.certificate('ca')}",
                f"certfile {self.certificates.certificate('broker')}",
                f"keyfile {self.certificates.key('broker')}",
                "require_certificate true",
                "user root",  # else it changes to a user who cannot read the key in a private folder
            ]
        config.write_text("\n".join(lines) + "\n")
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
