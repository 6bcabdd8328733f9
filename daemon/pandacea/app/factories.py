"""Factories: from sections of the configuration to adapters, opened or ready to open."""

from __future__ import annotations

import asyncio
import hashlib
import stat
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from pandacea import keys
from pandacea.api.connection_guard import HttpLimits
from pandacea.api.server import Listener, Tls
from pandacea.chain.confidence import Confidence, ConfidenceKind
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.follow_options import FollowOptions
from pandacea.chain.follower import Follower
from pandacea.chain.rpc import Endpoint
from pandacea.chain.sending.fees import FeeLimits
from pandacea.chain.sending.finalized_leases import FollowedLeases
from pandacea.chain.sending.sender import ChainSender
from pandacea.clock import SystemClock
from pandacea.config import Config, read_docker_host
from pandacea.config.secret_file import read_secret
from pandacea.config.sections import Confirmations, ServerSection
from pandacea.domain.auto_approval import ApprovalPolicy
from pandacea.domain.ids import Address, Hash32
from pandacea.domain.limits import MIB
from pandacea.errors import BadConfig, Broken, Unavailable
from pandacea.files.results import ResultStore
from pandacea.flows.live_output import JobNotifier
from pandacea.flows.release import ReleasePorts
from pandacea.flows.settlement.commit_results import Posting
from pandacea.flows.unit_of_work import Channel
from pandacea.mqtt import MqttPublisher, MqttSettings
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings, PoolSettings
from pandacea.store.chain_store import SqlChainStore, list_followed_chains
from pandacea.store.database_engine import DatabaseEngine, DatabaseUnreachable
from pandacea.store.migrate import upgrade
from pandacea.store.sent_transactions import SqlSentTransactionStore
from pandacea.store.unit_of_work import SqlDatabase
from pandacea.store.writer_lock import hold_lock_file
from pandacea.webhooks import WebhookSender, WebhookSettings, parse_secret
from pandacea_sdk.protocol.contract import lease_agreement
from pandacea_sdk.protocol.deployment import Deployment

log = structlog.get_logger(__name__)

NOT_FOLLOWED: Final = "This node has not followed the contract yet; start it once with `pandacea run`."


@dataclass(frozen=True, slots=True)
class ContractConfig:
    """Which LeaseAgreement is followed, and from which block on (None: the follower looks for it)."""

    address: Address
    chain_id: int
    code_hash: Hash32
    """keccak256 of its code: what every endpoint must show."""
    deploy_block: int | None


def resolve_contract(config: Config) -> ContractConfig:
    """Return the contract that the configuration or its deployment record names.

    Raises:
        BadConfig: the record cannot be read, or contradicts `blockchain.chain_id` or `blockchain.code_hash`.
    """
    chain = config.blockchain
    if chain.deployment is None:
        assert chain.contract_address is not None  # the section's validator
        assert chain.chain_id is not None
        code_hash = chain.code_hash or lease_agreement().runtime_code_hash
        assert code_hash is not None  # the artifact states it
        return ContractConfig(Address(chain.contract_address), chain.chain_id, Hash32(code_hash), chain.start_block or None)
    try:
        record = Deployment.read(chain.deployment)
    except (OSError, ValueError) as problem:
        raise BadConfig(f"blockchain.deployment cannot be used: {problem}. `pandacea deploy` writes such a record.") from problem
    if chain.chain_id is not None and chain.chain_id != record.chain_id:
        raise BadConfig(f"blockchain.chain_id is {chain.chain_id}, but {chain.deployment} is of chain {record.chain_id}.")
    if chain.code_hash is not None and chain.code_hash != record.code_hash:
        raise BadConfig(f"blockchain.code_hash is {chain.code_hash}, but {chain.deployment} is of {record.code_hash}.")
    return ContractConfig(Address(record.address), record.chain_id, Hash32(record.code_hash), record.deploy_block)


async def require_same_chain(contract: ContractConfig, engine: DatabaseEngine) -> None:
    """Refuse a database that followed this contract on another chain and never on the configured one.

    Raises:
        Broken: it did; names both chains.
    """
    before = await list_followed_chains(engine, contract.address)
    if before and contract.chain_id not in before:
        raise Broken(
            f"The database followed the contract {contract.address} on chain {', '.join(map(str, before))}, but the configuration names "
            f"chain {contract.chain_id}. Correct blockchain.chain_id (or blockchain.deployment), or give the other chain a "
            "store.state_dir of its own."
        )


@asynccontextmanager
async def lock_state_dir(state_dir: Path) -> AsyncIterator[None]:
    """Lock the state folder, and make it where it is missing: two nodes in it would remove each other's sandboxes and results as leftovers.

    Only the node's user may read it: scripts, held results and the keys of commitments are in it.

    Raises:
        Broken: another node runs on it, or others can read it and this cannot be changed.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if stat.S_IMODE(state_dir.stat().st_mode) & 0o077:
        with suppress(PermissionError):  # another user's folder: the error below says so
            state_dir.chmod(0o700)
        if stat.S_IMODE(state_dir.stat().st_mode) & 0o077:
            raise Broken(f"{state_dir} can be read by other users of this machine. Run: chmod 700 {state_dir}")
    async with hold_lock_file(state_dir / "node.lock", str(state_dir)):
        yield


async def node_is_running(state_dir: Path) -> bool:
    """Return whether a node runs on this state folder now."""
    lock = state_dir / "node.lock"
    if not lock.exists():
        return False
    try:
        async with hold_lock_file(lock, str(state_dir)):
            return False
    except Broken:
        return True


def require_data_folder(config: Config) -> None:
    """Refuse a data folder that does not exist: a mistyped name would look like a folder without products.

    Raises:
        BadConfig: privacy.data_dir is not a folder.
    """
    folder = config.privacy.data_dir
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise BadConfig(f"privacy.data_dir {folder} {what}", remedy=f"correct the name, or run `mkdir -m 700 {folder}`")


def listener_of(section: ServerSection, upload_mb: int) -> Listener:
    """Return where and how the HTTP server listens. `upload_mb`: the largest body, that of an upload, in MiB."""
    tls = Tls(section.tls_certificate, section.tls_key) if section.tls_certificate and section.tls_key else None
    return Listener(
        section.host,
        section.port,
        tls,
        behind_proxy=section.behind_proxy,
        proxies=section.trusted_proxies,
        grace_seconds=section.grace_seconds,
        limits=HttpLimits(connections=section.max_connections, upload_bytes=upload_mb * MIB),
    )


@asynccontextmanager
async def open_database(config: Config, *, exclusive: bool = False, timeout: float = 0) -> AsyncIterator[DatabaseEngine]:
    """Open the database and migrate it to the newest schema; close it at the end of the block.

    Args:
        config: names it.
        exclusive: take the writer lock, as the one node that works on it.
        timeout: seconds to wait for a database server that does not answer.

    Raises:
        Broken: it cannot be opened, or another node holds it.
    """
    opened = await _connect(config, exclusive=exclusive, deadline=time.monotonic() + timeout)
    try:
        await upgrade(opened)
        if exclusive:
            await opened.write_fencing_token()
        yield opened
    finally:
        await opened.close()


async def _connect(config: Config, *, exclusive: bool, deadline: float) -> DatabaseEngine:
    password = None if config.store.password is None else config.store.password.get_secret_value()
    while True:
        try:
            return await DatabaseEngine.open(config.database_url, password=password, exclusive=exclusive)
        except DatabaseUnreachable as problem:
            if time.monotonic() > deadline:
                raise
            log.warning("node.waits_for_database", reason=problem.detail)
            await asyncio.sleep(1)


async def open_chain_store(config: Config, engine: DatabaseEngine) -> SqlChainStore:
    """Open the contract's rows where no node runs.

    Raises:
        Unavailable: the contract has not been followed here yet.
    """
    contract = resolve_contract(config)
    store = SqlChainStore(engine, contract.chain_id, contract.address)
    if await store.find_view() is None:
        raise Unavailable(NOT_FOLLOWED)
    return store


@asynccontextmanager
async def open_follower(
    config: Config, contract: ContractConfig, engine: DatabaseEngine, operator: Address
) -> AsyncIterator[Follower]:
    """Build the chain follower, not yet started; close its endpoints at the end of the block."""
    chain = config.blockchain
    endpoints = EndpointPool(
        [Endpoint(one.url, operator=one.operator, timeout=chain.timeout_seconds) for one in chain.rpc_url],
        chain_id=contract.chain_id,
        contract=contract.address,
        code_hash=contract.code_hash,
    )
    options = FollowOptions(
        contract=contract.address,
        earner=Address(config.earner.address),
        approvers=frozenset({operator}),
        chain_id=contract.chain_id,
        deploy_block=contract.deploy_block,
        confidence=confidence_of(config),
        poll_interval=chain.poll_seconds,
        # The head of a chain that mines on demand stands still.
        max_head_age=0 if chain.development else chain.max_head_age_seconds,
        contract_wallets=frozenset(map(Address, chain.contract_wallets)),
        announce=delivery_channels(config) != {Channel.CHAIN},
        ws_url=chain.ws_url,
    )

    def open_store(chain_id: int) -> SqlChainStore:
        return SqlChainStore(engine, chain_id, contract.address, delivery_channels(config), config.webhooks.events)

    try:
        yield Follower(endpoints, open_store, SystemClock(), options)
    finally:
        for endpoint in endpoints.members:
            await endpoint.close()


def confidence_of(config: Config) -> Confidence:
    """Return how deep an approval must be before it counts."""
    stated = config.blockchain.confidence
    if isinstance(stated, Confirmations):
        return Confidence(ConfidenceKind.CONFIRMATIONS, stated.confirmations)
    return Confidence(ConfidenceKind(stated))


def unlock_signer(config: Config) -> keys.KeystoreSigner:
    """Unlock the key that approves, commits and signs receipts.

    Raises:
        BadConfig: the keystore is missing, others can read it, or its passphrase does not open it; the passphrase is never in the text.
    """
    keys.require_private(config.earner.keystore)
    passphrase = config.earner.passphrase
    if passphrase is None:
        raise BadConfig(
            "earner.keystore needs its passphrase: give the systemd credential keystore-passphrase, PANDACEA_KEYSTORE_PASSPHRASE, "
            "or earner.passphrase_file."
        )
    return keys.unlock_keystore(config.earner.keystore, passphrase.get_secret_value())


def make_poster(
    config: Config, follower: Follower, engine: DatabaseEngine, contract: Address, key: keys.KeystoreSigner
) -> ChainSender:
    """Make the sender that commits result hashes on-chain, within the fees that the operator allows."""
    limits = FeeLimits(
        max_wei_per_transaction=int(config.settlement.max_fee_eth_per_transaction * 10**18),
        max_wei_per_day=int(config.settlement.max_fee_eth_per_day * 10**18),
    )
    return ChainSender(
        follower.endpoints,
        SqlSentTransactionStore(engine),
        key.account(),
        contract,
        FollowedLeases(follower).confident_block,
        keystore=config.earner.keystore,
        limits=limits,
    )


def approval_policy_of(config: Config) -> ApprovalPolicy | None:
    """Return by which rules leases are approved without anybody looking; None: by none."""
    stated = config.approval
    if not stated.auto:
        return None
    spenders = frozenset(Address(one) for one in stated.spenders)
    return ApprovalPolicy(
        stated.min_price_per_gas, stated.min_remaining_seconds, stated.per_spender_per_day, stated.per_day, spenders
    )


def posting_of(config: Config) -> Posting:
    """Return which results are committed on-chain."""
    stated = config.settlement.post_results
    return Posting.PRICED if stated == "priced" else Posting.ALL if stated else Posting.NONE


def delivery_channels(config: Config) -> frozenset[Channel]:
    """Return the channels that messages are delivered on; nothing is put into the outbox for others."""
    listening = {Channel.MQTT: config.mqtt.host is not None, Channel.WEBHOOK: config.webhooks.url is not None}
    return frozenset({Channel.CHAIN, *(channel for channel, listens in listening.items() if listens)})


def open_books(config: Config, engine: DatabaseEngine) -> SqlDatabase:
    """Return the database as the flows see it, with the channels that this node delivers on."""
    return SqlDatabase(engine, delivery_channels(config), config.webhooks.events)


def make_release_ports(config: Config, database: SqlDatabase, notifier: JobNotifier) -> ReleasePorts:
    """Return what decisions on held results work with."""
    results = ResultStore(config.store.state_dir / "results", config.store.max_results_mb * MIB)
    return ReleasePorts(database, SystemClock(), results, notifier, config.privacy.hold_seconds)


def make_publisher(config: Config) -> MqttPublisher | None:
    """Make the MQTT publisher; None: no broker is configured.

    Raises:
        BadConfig: a file of `mqtt.tls_ca`, `tls_certificate` or `tls_key` cannot be used.
    """
    mqtt = config.mqtt
    if mqtt.host is None:
        return None
    password = None if mqtt.password is None else mqtt.password.get_secret_value()
    settings = MqttSettings(
        mqtt.host,
        mqtt.port,
        mqtt.username,
        password,
        tls=mqtt.tls,
        topic_prefix=mqtt.topic,
        node_name=config.earner.address,
        tls_ca=mqtt.tls_ca,
        tls_certificate=mqtt.tls_certificate,
        tls_key=mqtt.tls_key,
    )
    try:
        settings.make_tls_context()
    except OSError as problem:
        files = ", ".join(str(file) for file in (mqtt.tls_ca, mqtt.tls_certificate, mqtt.tls_key) if file is not None)
        raise BadConfig(
            f"mqtt.tls_ca, tls_certificate or tls_key cannot be used ({files}): {problem}. They are PEM files that the node's user can "
            "read; the key has no passphrase and belongs to the certificate."
        ) from problem
    return MqttPublisher(settings)


def make_webhook_sender(config: Config) -> WebhookSender | None:
    """Make the sender of events to the webhook; None: none is configured.

    Raises:
        BadConfig: `webhooks.secret_file` cannot be read, can be read by others, or holds no signing secret.
    """
    webhooks = config.webhooks
    if webhooks.url is None or webhooks.secret_file is None:
        return None
    secret = parse_secret(read_secret(webhooks.secret_file, "webhooks.secret_file"))
    return WebhookSender(WebhookSettings(webhooks.url, secret, webhooks.allow_private))


def sandbox_settings(config: Config, *, purpose: str = "", pool: int | None = None) -> tuple[DockerSettings, BubblewrapSettings]:
    """Return the settings of both backends.

    A command that needs a sandbox beside a running node names its `purpose`: state and leftovers are then its own.
    """
    privacy, state = config.privacy, config.store.state_dir / purpose
    # The label of all that this node makes: the cleanup at start removes its own leftovers only.
    instance = hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:16]
    pool_settings = PoolSettings(size=privacy.pool_size if pool is None else pool, limits=privacy.limits.to_limits())
    docker = DockerSettings(
        image=privacy.docker_image,
        state_dir=state / "docker",
        node_label=instance,
        pool=pool_settings,
        engine_url=privacy.docker_url or read_docker_host(),
        runtime=privacy.docker_runtime,
        uid_base=privacy.uid_base,
    )
    bubblewrap = BubblewrapSettings(
        environment=privacy.environment,
        state_dir=state / "bubblewrap",
        node_label=instance,
        cgroups=privacy.cgroups,
        pool=pool_settings,
        uid_base=privacy.uid_base,
    )
    return docker, bubblewrap
