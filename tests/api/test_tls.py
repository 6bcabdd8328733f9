"""TLS: a new certificate is taken without a restart, a broken one changes nothing."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import pytest

from pandacea.api.server import HttpServer, Listener, Tls, create_app
from pandacea.errors import BadConfig
from tests.prerequisites import find_program


def certify(folder: Path, name: str) -> Tls:
    """A self-signed pair for `name`, at the same two paths each time."""
    pair = Tls(folder / "certificate.pem", folder / "key.pem")
    command = [
        find_program("openssl", "openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "1", "-subj", f"/CN={name}", "-keyout", str(pair.key), "-out", str(pair.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return pair


async def served(server: HttpServer) -> str:
    """The certificate that a new connection is shown, PEM."""
    return await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", server.port))


async def test_a_changed_certificate_is_served_to_new_connections(tmp_path: Path) -> None:
    """Renewal needs no restart; what did not change is not loaded again."""
    pair = certify(tmp_path, "first.example")
    server = HttpServer(create_app(), Listener(port=0, tls=pair, grace_seconds=0))
    await server.start()
    try:
        before = await served(server)
        assert not server.reload_tls_if_changed()
        certify(tmp_path, "second.example")
        assert server.reload_tls_if_changed()
        assert await served(server) != before
        pair.certificate.write_text("half a certifi")
        assert not server.reload_tls_if_changed()
        assert "BEGIN CERTIFICATE" in await served(server)
    finally:
        await server.stop()


def test_a_pair_that_cannot_be_used_is_refused_before_anything_listens(tmp_path: Path) -> None:
    """The sentence names both files."""
    pair = certify(tmp_path, "a.example")
    pair.key.write_text("no key")
    with pytest.raises(BadConfig, match=r"key\.pem"):
        HttpServer(create_app(), Listener(port=0, tls=pair))


@pytest.mark.parametrize(("host", "said"), [("0.0.0.0", "without TLS"), ("node.example", "without TLS")])
def test_plain_http_off_this_machine_is_refused(host: str, said: str) -> None:
    """Unless TLS or a declared proxy stands in front."""
    with pytest.raises(BadConfig, match=said):
        HttpServer(create_app(), Listener(host=host))
    HttpServer(create_app(), Listener(host=host, behind_proxy=True))
