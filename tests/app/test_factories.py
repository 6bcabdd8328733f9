"""Opening what the configuration names."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pandacea.app import factories
from pandacea.config import Config
from pandacea.errors import BadConfig, Broken
from pandacea.flows.unit_of_work import Channel
from tests.postgres import PASSWORD, PostgresServer


@pytest.mark.parametrize(
    ("sections", "channels"),
    [
        ({}, {Channel.CHAIN}),
        ({"mqtt": {"host": "127.0.0.1"}}, {Channel.CHAIN, Channel.MQTT}),
        ({"webhooks": {"url": "https://receiver.example/", "secret_file": "s"}}, {Channel.CHAIN, Channel.WEBHOOK}),
    ],
)
def test_messages_are_kept_for_those_who_are_configured(
    tmp_path: Path, sections: dict[str, object], channels: set[Channel]
) -> None:
    """Nobody listens: nothing is written but what goes on-chain."""
    config = Config.model_validate(
        {
            "blockchain": {"rpc_url": "http://127.0.0.1:1", "contract_address": "0x" + "1" * 40, "chain_id": 1},
            "earner": {"address": "0x" + "2" * 40, "keystore": tmp_path / "none.json"},
            **sections,
        }
    )
    assert factories.delivery_channels(config) == channels


def test_a_tls_file_of_the_broker_that_cannot_be_used_is_named_at_the_start(tmp_path: Path) -> None:
    """Later it would be one more reason why the broker does not answer."""
    missing = tmp_path / "authority.pem"
    config = Config.model_validate(
        {
            "blockchain": {"rpc_url": "http://127.0.0.1:1", "contract_address": "0x" + "1" * 40, "chain_id": 1},
            "earner": {"address": "0x" + "2" * 40, "keystore": tmp_path / "none.json"},
            "mqtt": {"host": "127.0.0.1", "tls": True, "tls_ca": missing},
        }
    )
    with pytest.raises(BadConfig, match=r"mqtt\.tls_ca") as caught:
        factories.make_publisher(config)
    assert str(missing) in str(caught.value)


async def test_a_node_that_starts_before_its_database_server_waits_for_it(postgres: PostgresServer, tmp_path: Path) -> None:
    """A command does not wait: it says that nobody is there."""
    name = await postgres.create_migrated_database()
    config = Config.model_validate(
        {
            "blockchain": {"rpc_url": "http://127.0.0.1:1", "contract_address": "0x" + "1" * 40, "chain_id": 1},
            "earner": {"address": "0x" + "2" * 40, "keystore": tmp_path / "none.json"},
            "store": {"url": postgres.url(name, password=False), "password": PASSWORD},
        }
    )
    postgres.stop()
    try:
        with pytest.raises(Broken, match="cannot be opened"):
            await factories.open_database(config).__aenter__()
        patient = factories.open_database(config, exclusive=True, timeout=60)
        waiting = asyncio.create_task(patient.__aenter__())
        await asyncio.sleep(0.1)  # it has been refused once
        assert not waiting.done()
    finally:
        postgres.start()
    database = await waiting
    async with database.read_connection():
        pass
    await patient.__aexit__(None, None, None)
    await postgres.recycle_database(name)
