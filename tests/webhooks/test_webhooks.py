"""The webhook: signed, retried, bounded, and never sent to an address that is not public."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from pandacea.errors import BadConfig, Unavailable
from pandacea.flows.outbox import (
    MAX_WEBHOOK_ATTEMPTS,
    MAX_WEBHOOK_BACKOFF_SECONDS,
    Backlog,
    deliver_events,
    deliver_webhooks,
)
from pandacea.flows.unit_of_work import Channel
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.unit_of_work import SqlDatabase
from pandacea.webhooks import MAX_ANSWER_BYTES, WebhookSender, WebhookSettings, find_address_fault, parse_secret
from tests.fakes import FakeClock
from tests.messages import check_message, computation_message, put_events
from tests.mqtt.broker import Certificates
from tests.prerequisites import find_program, free_port
from tests.webhooks.receiver import Receiver, Resolver, accept_message, receiving

SECRET: Final = b"only for tests, 32 bytes of them"
WEBHOOK_ONLY: Final = frozenset({Channel.WEBHOOK})
ENDLESS_BYTES: Final = 2000 * MAX_ANSWER_BYTES
PAYLOAD: Final = {"id": "evt_1", "type": "t"}


def sender(url: str, *, allow_private: bool = True, timeout: float = 5.0, resolver: Resolver | None = None) -> WebhookSender:
    return WebhookSender(WebhookSettings(url, SECRET, allow_private, timeout_seconds=timeout), resolver)


async def refusal(one: WebhookSender) -> str:
    with pytest.raises(Unavailable) as caught:
        await one.send(dict(PAYLOAD), 1.0)
    return caught.value.detail


def openssl_signature(secret: bytes, signed: bytes) -> str:
    """What OpenSSL's own HMAC makes of it."""
    command = [
        find_program("openssl", "openssl"),
        "dgst",
        "-sha256",
        "-mac",
        "HMAC",
        "-macopt",
        f"hexkey:{secret.hex()}",
        "-binary",
    ]
    return base64.b64encode(subprocess.run(command, input=signed, check=True, capture_output=True).stdout).decode()


async def test_a_receiver_verifies_what_it_gets(database: DatabaseEngine) -> None:
    """Headers and signature of the Standard Webhooks specification, over the very bytes of the body; the body has the published form."""
    books, clock = SqlDatabase(database, WEBHOOK_ONLY), FakeClock()
    await put_events(books, clock, computation_message(1))
    async with receiving() as receiver:
        assert await deliver_webhooks(books, sender(receiver.url), clock) == 1
        assert await deliver_webhooks(books, sender(receiver.url), clock) == 0, "told once"
    ((headers, body),) = receiver.requests
    check_message(json.loads(body))
    assert headers["webhook-id"] == json.loads(body)["id"] == computation_message(1).id
    assert headers["webhook-timestamp"] == str(int(clock.now()))
    assert headers["content-type"] == "application/json"
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    assert headers["webhook-signature"] == f"v1,{openssl_signature(SECRET, signed)}"
    assert headers["webhook-signature"] != f"v1,{openssl_signature(SECRET, signed + b' ')}"


async def test_only_the_types_that_were_chosen_are_written(database: DatabaseEngine) -> None:
    """An event that nobody wants makes no row."""
    books, clock = SqlDatabase(database, WEBHOOK_ONLY, ("computations.failed",)), FakeClock()
    await put_events(books, clock, computation_message(1), computation_message(2, "failed"))
    async with books.read_session() as session:
        assert (await session.outbox.measure_waiting(Channel.WEBHOOK)).count == 1
        assert (await session.outbox.measure_waiting(Channel.MQTT)).count == 0


async def fail(_request: web.Request) -> web.Response:
    return web.Response(status=500, text="words of a stranger")


async def test_a_receiver_that_fails_is_asked_again_later_and_later_and_then_no_more(database: DatabaseEngine) -> None:
    """The pauses grow to a bound; after the last attempt the message is dropped and counted."""
    books, clock, backlog = SqlDatabase(database, WEBHOOK_ONLY), FakeClock(), Backlog(Channel.WEBHOOK)
    await put_events(books, clock, computation_message(1))
    pauses: list[float] = []
    async with receiving(fail) as receiver:
        while not backlog.dropped:
            since, seen = clock.now(), len(receiver.requests)
            while len(receiver.requests) == seen:
                await deliver_webhooks(books, sender(receiver.url), clock, backlog)
                clock.time += 0 if len(receiver.requests) > seen else 1 + (clock.now() - since) // 2
            pauses.append(clock.now() - since)
    assert len(receiver.requests) == MAX_WEBHOOK_ATTEMPTS
    assert pauses == sorted(pauses)
    assert max(pauses) <= 2 * MAX_WEBHOOK_BACKOFF_SECONDS
    assert (backlog.waiting, backlog.dropped) == (0, 1)


async def test_a_message_that_is_not_taken_does_not_hold_up_the_others(database: DatabaseEngine) -> None:
    """One that the receiver fails on waits out its pause while the rest arrives."""

    async def fail_on_first(request: web.Request) -> web.Response:
        return web.Response(status=500 if computation_message(0).id in await request.text() else 200)

    books, clock, backlog = SqlDatabase(database, WEBHOOK_ONLY), FakeClock(), Backlog(Channel.WEBHOOK)
    await put_events(books, clock, *(computation_message(number) for number in range(5)))
    async with receiving(fail_on_first) as receiver:
        assert await deliver_webhooks(books, sender(receiver.url), clock, backlog) == 0
        assert await deliver_webhooks(books, sender(receiver.url), clock, backlog) == 4
    assert backlog.waiting == 1


async def test_a_receiver_that_is_down_gets_what_waited(database: DatabaseEngine, capsys: pytest.CaptureFixture[str]) -> None:
    """The words of the failure name the receiver, not the path, which may be a secret."""
    books, clock = SqlDatabase(database, WEBHOOK_ONLY), FakeClock()
    port, backlog = free_port(), Backlog(Channel.WEBHOOK)
    await put_events(books, clock, computation_message(1))
    url = f"http://127.0.0.1:{port}/secret-path"
    for _ in range(3):
        assert await deliver_webhooks(books, sender(url), clock, backlog) == 0
        clock.time += 60
    assert "secret-path" not in await refusal(sender(url))
    clock.time += 600
    async with receiving(port=port) as receiver:
        assert await deliver_webhooks(books, sender(url), clock, backlog) == 1
    assert len(receiver.requests) == 1
    logged = "".join(capsys.readouterr())
    assert (logged.count("messages.wait"), logged.count("messages.delivered_again")) == (1, 1), "not once for each try"


async def test_a_slow_receiver_costs_no_more_than_the_timeout() -> None:
    """It is asked again; nothing waits for it for ever."""
    ended = asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        await ended.wait()
        return web.Response()

    async with receiving(wait) as receiver, asyncio.timeout(5):
        assert "no answer in time" in await refusal(sender(receiver.url, timeout=0.3))
        ended.set()


async def test_an_endless_answer_is_cut_off() -> None:
    """Its status counts; of the body a little is read and dropped."""
    written = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal written
        answer = web.StreamResponse()
        await answer.prepare(request)
        with suppress(ConnectionError):
            while written < ENDLESS_BYTES:
                await answer.write(b"x" * 65_536)
                written += 65_536
        return answer

    async with receiving(pour) as receiver, asyncio.timeout(5):
        await sender(receiver.url).send(dict(PAYLOAD), 1.0)
    assert written < ENDLESS_BYTES


async def test_a_redirect_is_not_followed() -> None:
    """It would lead past the rules about addresses, with a signed message."""
    async with receiving() as target:

        async def redirect(_request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": target.url})

        async with receiving(redirect) as receiver:
            assert "redirects are not followed" in await refusal(sender(receiver.url))
            assert len(receiver.requests) == 1
    assert target.requests == []


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0", "0x7f.1"]
)
async def test_an_address_of_the_machine_or_its_network_is_not_connected_to(host: str) -> None:
    """However it is written; not even a connection reaches what listens there."""
    connected = 0

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connected
        connected += 1
        writer.close()

    server = await asyncio.start_server(count, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        said = await refusal(sender(f"https://{host}:{port}/", allow_private=False))
    assert connected == 0
    assert any(words in said for words in ("not a public address", "nobody's address", "InvalidUrl"))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1", "fd00::1", "64:ff9b::7f00:1"])
async def test_a_public_name_with_a_private_address_is_not_connected_to(address: str) -> None:
    """What counts is the address that the name has, not the name."""
    said = await refusal(sender("https://receiver.example/", allow_private=False, resolver=Resolver(address)))
    assert "not a public address" in said


async def test_a_name_that_resolves_differently_the_second_time_is_caught() -> None:
    """The address is judged where it is connected to: 127.0.0.2 plays the public one here."""
    async with receiving(host="127.0.0.2") as public, receiving(port=public.port) as private:

        def find_fault(address: str) -> str | None:
            return None if address == "127.0.0.2" else f"{address} is not a public address"

        settings = WebhookSettings(f"http://receiver.example:{public.port}/", SECRET)
        one = WebhookSender(settings, Resolver("127.0.0.2", "127.0.0.1"), find_fault)
        await one.send(dict(PAYLOAD), 1.0)
        assert "not a public address" in await refusal(one)
        assert (len(public.requests), len(private.requests)) == (1, 0)


@pytest.mark.parametrize(
    ("address", "allow_private", "is_plain", "allowed"),
    [
        ("93.184.216.34", False, False, True),
        ("2606:2800:220:1::1", False, False, True),
        ("93.184.216.34", True, True, False),  # plain http leaves the house
        ("192.168.1.5", True, True, True),
        ("169.254.0.1", True, False, True),
        ("100.64.0.1", False, False, False),  # shared between a provider's customers
        ("224.0.0.1", True, True, False),
        ("ff02::1%eth0", True, True, False),
        ("255.255.255.255", True, True, False),
        ("::ffff:10.0.0.1", False, False, False),
        ("2002:7f00:1::", False, False, False),  # 6to4 of 127.0.0.1
        ("::7f00:1", False, False, False),
        ("fe80::1%eth0", False, False, False),
        ("fec0::1", False, False, False),  # site-local, of old
        ("64:ff9b:1::5db8:d822", False, False, False),  # a network's own NAT64
        ("64:ff9b::5db8:d822", False, False, True),  # NAT64 of 93.184.216.34
        ("64:ff9b::a00:1", False, False, False),  # and of 10.0.0.1
        ("0.0.0.0", True, True, False),
    ],
)
def test_which_addresses_may_be_connected_to(address: str, allow_private: bool, is_plain: bool, allowed: bool) -> None:
    """Public ones over https; others only where the operator allows them, and http to those alone."""
    assert (find_address_fault(address, allow_private=allow_private, is_plain=is_plain) is None) == allowed


async def test_a_receiver_that_hangs_does_not_delay_mqtt(database: DatabaseEngine) -> None:
    """Each channel has its own rows and its own loop; one event is told on both under one id."""
    books, clock = SqlDatabase(database), FakeClock()
    await put_events(books, clock, computation_message(1))
    published: list[Any] = []
    hanging, ended = asyncio.Event(), asyncio.Event()

    class Broker:
        async def publish(self, topic: str, payload: dict[str, Any]) -> None:
            published.append((topic, payload["id"]))

    async def hang(_request: web.Request) -> web.Response:
        hanging.set()
        await ended.wait()
        return web.Response()

    async with receiving(hang) as receiver:
        webhook = asyncio.create_task(deliver_webhooks(books, sender(receiver.url), clock))
        await hanging.wait()
        assert await deliver_events(books, Broker(), clock) == 1
        assert not webhook.done()
        ended.set()
        assert await webhook == 1
    assert published == [(computation_message(1).topic, computation_message(1).id)]


async def test_a_broker_that_is_away_does_not_delay_the_webhook(database: DatabaseEngine) -> None:
    """As a receiver that hangs does not delay the broker."""
    books, clock = SqlDatabase(database), FakeClock()
    await put_events(books, clock, computation_message(1))

    class Broker:
        async def publish(self, _topic: str, _payload: dict[str, Any]) -> None:
            raise Unavailable("away")

    async with receiving() as receiver:
        assert await deliver_events(books, Broker(), clock) == 0
        assert await deliver_webhooks(books, sender(receiver.url), clock) == 1


async def test_a_receiver_without_a_known_certificate_is_not_believed(tmp_path: Path) -> None:
    """TLS is verified on private addresses, too."""
    files = Certificates(tmp_path).make()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate("broker"), files.key("broker"))
    receiver = Receiver(accept_message)
    app = web.Application()
    app.router.add_post("/", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        await refusal(sender(f"https://127.0.0.1:{runner.addresses[0][1]}/"))
    finally:
        await runner.cleanup()
    assert receiver.requests == []


def test_a_signing_secret_has_its_form() -> None:
    """24 to 64 random bytes; the error shows how to make one, not what was there."""
    key = secrets.token_bytes(32)
    assert parse_secret(f"whsec_{base64.b64encode(key).decode()}\n") == key
    for text in (
        "",
        "whsec_",
        "hunter2",
        base64.b64encode(key).decode(),
        "whsec_" + base64.b64encode(b"short").decode(),
        "whsec_!!!!",
    ):
        with pytest.raises(BadConfig, match=r"webhooks\.secret_file") as caught:
            parse_secret(text)
        assert "hunter2" not in str(caught.value)
