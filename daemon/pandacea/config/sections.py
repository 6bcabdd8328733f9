"""The sections of config.yaml, frozen. Units stand in the names; relative paths are taken from the file's own folder."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, HttpUrl, SecretStr, TypeAdapter, model_validator

from pandacea.domain.endpoint_operator import normalize_url
from pandacea.domain.ids import ADDRESS, HASH32
from pandacea.domain.limits import MIB, RESERVED_MEMORY_BYTES, Limits
from pandacea.flows.messages import EVENT_TYPES
from pandacea_sdk.protocol.addresses import has_wrong_checksum
from pandacea_sdk.protocol.loopback import is_loopback


class Section(BaseModel):
    """A section knows its keys: any other is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=False)


def _refuse_unquoted(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError('YAML reads an address without quotes as a number; put it in quotes: "0x..."')  # noqa: TRY004 - pydantic's
    return value


def _check_address(value: str) -> str:
    lower = value.lower()
    if not ADDRESS.fullmatch(lower):
        raise ValueError("must be 0x and 40 hex digits")
    if has_wrong_checksum(value):
        raise ValueError("its upper and lower case do not fit its checksum (EIP-55), so a digit is wrong: copy it again")
    return lower


def _check_rpc_url(value: str) -> str:
    TypeAdapter(HttpUrl).validate_python(value)
    return value


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, list | tuple) else [value]


def _as_endpoint(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


def _check_code_hash(value: str) -> str:
    lower = value.lower()
    if not HASH32.fullmatch(lower):
        raise ValueError("must be 0x and 64 hex digits")
    return lower


def _check_network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError as problem:
        raise ValueError(f"must be an IP address, or a network such as 10.0.0.0/8: {problem}") from None


Network = Annotated[str, AfterValidator(_check_network)]
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")
HexAddress = Annotated[str, BeforeValidator(_refuse_unquoted), AfterValidator(_check_address)]
RpcUrl = Annotated[str, AfterValidator(_check_rpc_url)]


class Confirmations(Section):
    """`confirmations: N`: an approval counts N blocks below the head. 0 only on a development chain."""

    confirmations: int = Field(ge=0, le=10_000)


class RpcEndpoint(Section):
    """An entry of `rpc_url`: a URL alone, or with who runs it."""

    url: RpcUrl
    operator: str | None = Field(default=None, min_length=1, max_length=64)
    """Who runs it. Default: the last two labels of its host name; endpoints without a registered name count as one operator's."""


class BlockchainSection(Section):
    """The chain, the contract on it, and when an approval counts."""

    rpc_url: Annotated[
        tuple[Annotated[RpcEndpoint, BeforeValidator(_as_endpoint)], ...], BeforeValidator(_as_list), Field(min_length=1)
    ]
    """One HTTP JSON-RPC endpoint, or several in order of preference: a URL, or `{url:, operator:}`. `RPC_URL` (comma-separated)
    overrides it. Endpoints count as independent when their operators differ: the last two labels of the host name, unless
    `operator` states who runs it. Addresses, `localhost` and names without a registered domain count as one operator's unless
    stated."""
    ws_url: str | None = Field(default=None, pattern=r"^wss?://")
    """WebSocket endpoint. It only wakes the follower earlier; what counts is always read over HTTP."""
    contract_address: HexAddress | None = None
    """Address of the LeaseAgreement: this, or `deployment`. `CONTRACT_ADDRESS` overrides it."""
    deployment: Path | None = None
    """Deployment record written by `pandacea deploy`, instead of `contract_address` and `start_block`."""
    chain_id: int | None = Field(default=None, ge=1)
    """Required with `contract_address`; a deployment record states it. An endpoint of another chain is refused, and so is a
    database that followed the contract on another chain only."""
    code_hash: Annotated[str, AfterValidator(_check_code_hash)] | None = None
    """keccak256 of the contract's code. Default: the deployment record's, else this version's. An endpoint that shows other code is
    refused. State it for a contract of another build, the first version's among them."""
    contract_wallets: tuple[HexAddress, ...] = ()
    """Spenders that are contracts (ERC-1271) and may sign although only endpoints of one operator are configured."""
    start_block: int = Field(default=0, ge=0)
    """The contract's deploy block: nothing before it is read. 0: found by asking."""
    confidence: Literal["safe", "finalized"] | Confirmations = "safe"
    """How deep an approval must be before it counts. `confirmations: N`: N blocks below the head; 0 only with `development:
    true`."""
    poll_seconds: float = Field(default=1.0, ge=0.05, le=300)
    """How often the head is asked for."""
    timeout_seconds: float = Field(default=10.0, ge=0.1, le=300)
    """Time limit of one RPC call."""
    max_head_age_seconds: float = Field(default=300.0, ge=1)
    """With an older head the node answers 503: it cannot know what it missed."""
    development: bool = False
    """A chain of your own: allows `confirmations: 0`, and a head that stands still."""

    @model_validator(mode="after")
    def _one_contract(self) -> BlockchainSection:
        if (self.contract_address is None) == (self.deployment is None):
            raise ValueError("give exactly one of contract_address and deployment")
        if self.contract_address is not None and self.chain_id is None:
            raise ValueError(
                "chain_id must be given with contract_address: the same address may hold another contract on another chain, "
                "and an RPC endpoint must not choose which (1 is Ethereum; a deployment record states it)"
            )
        if len({normalize_url(endpoint.url) for endpoint in self.rpc_url}) < len(self.rpc_url):
            raise ValueError("rpc_url names one URL twice; it is one endpoint, not two that agree")
        if isinstance(self.confidence, Confirmations) and self.confidence.confirmations == 0 and not self.development:
            raise ValueError("confidence.confirmations is 0, which a reorganisation undoes; allowed only with development: true")
        return self


class EarnerSection(Section):
    """Whose leases are served, and with which key the node signs."""

    address: HexAddress
    """Only leases made with this address are served."""
    keystore: Path
    """Web3 Secret Storage v3 file of the key that approves, commits and signs receipts: the operator's, or the Earner's own."""
    passphrase_file: Path | None = None
    """File of mode 600 whose first line opens the keystore. The systemd credential `keystore-passphrase` is read first;
    `PANDACEA_KEYSTORE_PASSPHRASE` overrides both. Never write the passphrase itself into config.yaml."""
    passphrase: SecretStr | None = Field(default=None, exclude=True)


class LimitsSection(Section):
    """The limits of one computation."""

    memory_mb: int = Field(default=1024, ge=256)
    """Memory of one sandbox in MiB, tmpfs included."""
    cpus: float = Field(default=1.0, gt=0, le=1024)
    """Processor cores."""
    time_seconds: float = Field(default=300, gt=0, le=604_800)
    """Then the sandbox is killed."""
    pids: int = Field(default=64, ge=16, le=4096)
    """Processes and threads."""
    workspace_mb: int = Field(default=256, ge=1)
    """Size of /workspace in MiB."""
    workspace_inodes: int = Field(default=4096, ge=64)
    """Files and folders in /workspace."""
    tmp_mb: int = Field(default=64, ge=1)
    """Size of /tmp in MiB."""
    output_kb: int = Field(default=1024, ge=1)
    """stdout and stderr together, in KiB."""
    artifact_mb: int = Field(default=64, ge=1)
    """One artifact, in MiB."""
    artifacts_mb: int = Field(default=128, ge=1)
    """All artifacts together, in MiB."""
    artifact_count: int = Field(default=64, ge=1, le=4096)
    """Number of artifacts."""
    artifact_depth: int = Field(default=4, ge=1, le=16)
    """Folders above an artifact in /workspace."""

    @model_validator(mode="after")
    def _tmpfs_fits(self) -> LimitsSection:
        needed = self.to_limits().min_memory_bytes // MIB
        if needed > self.memory_mb:
            raise ValueError(
                f"workspace_mb + tmp_mb + {RESERVED_MEMORY_BYTES // MIB} for the supervisor is {needed}, above memory_mb {self.memory_mb}"
            )
        return self

    def to_limits(self) -> Limits:
        """Convert the limits to bytes."""
        return Limits(
            memory_bytes=self.memory_mb * MIB,
            cpus=self.cpus,
            time_seconds=self.time_seconds,
            pids=self.pids,
            workspace_bytes=self.workspace_mb * MIB,
            workspace_inodes=self.workspace_inodes,
            tmp_bytes=self.tmp_mb * MIB,
            output_bytes=self.output_kb * 1024,
            artifact_bytes=self.artifact_mb * MIB,
            artifacts_bytes=self.artifacts_mb * MIB,
            artifact_count=self.artifact_count,
            artifact_depth=self.artifact_depth,
        )


class PrivacySection(Section):
    """The data, and the sandboxes that scripts run in."""

    data_dir: Path = Path("data")
    """Folder of the tables and of products.yaml. `DATA_DIR` overrides it."""
    sandbox: Literal["auto", "docker", "bubblewrap"] = "auto"
    """`auto`: Docker where an engine answers and holds the image, else bubblewrap; the log says which and why."""
    docker_image: str = Field(default="pandacea/pysyft-datasite:latest", min_length=1)
    """Resolved to an image id at start."""
    docker_url: str | None = None
    """Engine API. Default: `DOCKER_HOST`, then the local socket."""
    docker_runtime: str | None = None
    """Another runtime than the engine's own, for example `runsc` (gVisor). Refused at start when the engine does not know it or a
    wall does not hold under it."""
    environment: Path = Path(".sandbox")
    """Folder of the bubblewrap environment, made by `pandacea environment build`."""
    cgroups: bool = True
    """`true`: bubblewrap needs control groups, and the node refuses to start where it may not make any. `false`: its sandboxes are
    held by resource limits and a watch, which hold less; the log and `pandacea doctor` say what."""
    uid_base: int = Field(default=10_001, ge=1000, le=2**31)
    """Sandboxes run as this uid and the 1,023 above it, one for each. Refused where a user, a group or a subordinate range of the
    machine has one of them. bubblewrap as a plain user uses none."""
    pool_size: int = Field(default=2, ge=0, le=64)
    """Warm sandboxes kept ready, each about 300 MB; fewer while memory is short. 0: every computation starts cold."""
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = "auto"
    """Computations at the same time. `auto`: as many as the processors and half of the memory hold, at most 8. One Spender has all
    but one of them."""
    queue_per_spender: int = Field(default=16, ge=1)
    """Waiting and running computations of one Spender. More: 429."""
    queue_total: int = Field(default=1000, ge=1)
    """Waiting and running computations of all Spenders. More: 503."""
    queue_seconds: float = Field(default=3600, gt=0)
    """A computation that has not started by then fails, uncharged."""
    hold_seconds: float = Field(default=14 * 86_400, ge=60)
    """A held result that nobody decided on by then is refused."""
    refused_imports: tuple[str, ...] = ("os", "sys")
    """Modules whose import is refused early, with a clear error. The sandbox is the boundary, not this."""
    threads: int = Field(default=1, ge=1, le=64)
    """Threads of torch, BLAS and joblib in a computation; 1 keeps results reproducible. OpenMP starts at most 32."""
    limits: LimitsSection = LimitsSection()
    """The limits of one computation."""


class ServerSection(Section):
    """The HTTP server that Spenders reach."""

    host: str = "127.0.0.1"
    """Address to listen on; off loopback only with TLS or `behind_proxy`."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """TCP port."""
    authorities: tuple[str, ...] = ()
    """What signed requests may name as @authority, each `host` or `host:port`. Default: localhost and 127.0.0.1 at `port`."""
    tls_certificate: Path | None = None
    """PEM file, with `tls_key`; read again when it changes."""
    tls_key: Path | None = None
    """PEM file of the certificate's key."""
    behind_proxy: bool = False
    """TLS ends at a proxy in front: allows a host off loopback without a certificate."""
    proxies: Annotated[tuple[Network, ...], BeforeValidator(_as_list)] = ()
    """The proxies in front, as addresses or networks: only they are believed about X-Forwarded-For. Default: loopback where
    `behind_proxy` is set and `host` is on loopback; elsewhere they must be named."""
    max_connections: int = Field(default=1024, ge=1)
    """Open connections."""
    grace_seconds: float = Field(default=20, ge=0)
    """Running requests and computations get this long at shutdown."""

    @model_validator(mode="after")
    def _tls_whole(self) -> ServerSection:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        return self

    @model_validator(mode="after")
    def _proxies_named(self) -> ServerSection:
        if self.proxies and not self.behind_proxy:
            raise ValueError("proxies are named, but behind_proxy is false; set behind_proxy: true if one of them stands in front")
        if self.behind_proxy and not self.proxies and not is_loopback(self.host):
            raise ValueError(
                f"behind_proxy is true and host {self.host} is reached from other machines: name the proxy in server.proxies (addresses or "
                "networks), or all of its clients count as one"
            )
        return self

    @property
    def trusted_proxies(self) -> tuple[str, ...]:
        """Return the proxies whose X-Forwarded-For is believed."""
        return self.proxies or (LOOPBACK_NETWORKS if self.behind_proxy else ())


class StoreSection(Section):
    """What the node keeps, and for how long."""

    url: str | None = None
    """Database: `postgresql+asyncpg://user@host/name`, to which `?ssl=require` and asyncpg's other options may be added. Default:
    SQLite in `state_dir`."""
    password: SecretStr | None = Field(default=None, exclude=True)
    """PostgreSQL's. Given by the systemd credential `database-password`, or PANDACEA_STORE__PASSWORD; never write it into the file,
    nor into `url`."""
    state_dir: Path = Path("state")
    """Folder of the database, results and sandbox sockets; never under `data_dir`."""
    keep_results_seconds: float = Field(default=7 * 86_400, ge=0)
    """Then a result's bytes are deleted; its row and manifest stay."""
    max_results_mb: int = Field(default=4096, ge=1)
    """Results of leased runs in MiB, all together. Without space for another, computations are refused before they start."""
    results_mb_per_spender: int = Field(default=1024, ge=1)
    """Results of one Spender in MiB, held ones included. Beyond it that Spender's computations are refused."""
    keep_scripts_seconds: float = Field(default=90 * 86_400, ge=0)
    """Then script and params of a computation that was paid for are deleted; its manifest keeps their digests. Longer
    where leases run for more than fifty days."""
    keep_uploads_seconds: float = Field(default=86_400, ge=60)
    """An upload is deleted this long after it was last sent, unless a waiting computation names it."""
    upload_mb: int = Field(default=64, ge=1, le=4096)
    """One upload, in MiB; no more than `uploads_mb_per_spender` is of use."""
    uploads_mb: int = Field(default=2048, ge=1)
    """All uploads together, in MiB."""
    uploads_mb_per_spender: int = Field(default=256, ge=1)
    """Uploads of one Spender, in MiB."""


class SettlementSection(Section):
    """What the node writes to the chain."""

    post_results: bool | Literal["priced"] = "priced"
    """Commit each result's hash on-chain: always, never, or where the lease has a price. Costs gas from the keystore's account; a lease
    under which nothing is committed is paid back to its Spender."""
    max_fee_eth_per_transaction: float = Field(default=0.01, gt=0)
    """Highest fee of one transaction, in ether."""
    max_fee_eth_per_day: float = Field(default=0.1, gt=0)
    """Highest fees of a day together, in ether."""


class ApprovalSection(Section):
    """Leases that are approved without anybody looking at them."""

    auto: bool = False
    """Approve a requested lease by itself when every rule here holds. The others wait for `pandacea leases approve`."""
    min_price_per_gas: float = Field(default=3, ge=1)
    """The price is at least the product's, and so many times the gas of the lease's whole life at the fee of now."""
    min_remaining_seconds: float = Field(default=86_400, ge=0)
    """The lease still runs for at least so long."""
    per_spender_per_day: int = Field(default=3, ge=0)
    """Approvals for one Spender within 24 hours, those by hand included."""
    per_day: int = Field(default=20, ge=0)
    """Approvals within 24 hours, those by hand included."""
    spenders: tuple[HexAddress, ...] = ()
    """Only these; empty: anybody."""


class MqttSection(Section):
    """The broker that events are published to."""

    host: str | None = None
    """Broker; without it nothing is published."""
    port: int = Field(default=1883, ge=1, le=65_535)
    """TCP port."""
    username: str | None = None
    """Name at the broker."""
    password: SecretStr | None = Field(default=None, exclude=True)
    """Given by the systemd credential `mqtt-password`, or PANDACEA_MQTT__PASSWORD; never write it into the file."""
    tls: bool = False
    """Connect with TLS."""
    tls_ca: Path | None = None
    """PEM file of the authorities that may sign the broker's certificate, in place of the system's. Read at each connection."""
    tls_certificate: Path | None = None
    """PEM file of the node's own certificate, where the broker asks for one; with `tls_key`."""
    tls_key: Path | None = None
    """PEM file of that certificate's key, mode 600."""
    topic: str = Field(default="pandacea", pattern=r"^[A-Za-z0-9_/-]{1,64}$")
    """First levels of every topic."""
    backlog: int = Field(default=10_000, ge=1)
    """Messages that wait for a broker that is down; beyond it the oldest are dropped, counted and logged."""

    @model_validator(mode="after")
    def _tls_whole(self) -> MqttSection:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if not self.tls and (self.tls_ca or self.tls_certificate):
            raise ValueError("tls_ca and tls_certificate are given, but tls is false; set tls: true")
        return self


class WebhooksSection(Section):
    """The one HTTPS address that events are sent to."""

    url: str | None = None
    """Receiver, `https://...`; without it nothing is sent. Never a private, loopback or link-local address unless `allow_private`."""
    secret_file: Path | None = None
    """File of mode 600 with the signing secret: `whsec_` and base64 of 24 to 64 random bytes."""
    events: tuple[str, ...] = ()
    """Types of events to send, as docs/messages.md lists them. Default: all."""
    allow_private: bool = False
    """Allow a receiver on a private, loopback or link-local address, and plain http to such a one."""
    backlog: int = Field(default=10_000, ge=1)
    """Messages that wait for a receiver that is down; beyond it the oldest are dropped, counted and logged."""

    @model_validator(mode="after")
    def _is_whole(self) -> WebhooksSection:
        if self.url is None:
            return self
        parts = urlsplit(self.url)
        if parts.scheme not in ({"https", "http"} if self.allow_private else {"https"}) or not parts.hostname:
            raise ValueError(
                "url must begin with https:// and name a host; http:// is for private addresses, with allow_private: true"
            )
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ValueError("url must hold neither user, password nor fragment; the receiver knows the node by the signature")
        if self.secret_file is None:
            raise ValueError("secret_file must be given with url: the receiver verifies with it that a message is yours")
        if unknown := sorted(set(self.events) - set(EVENT_TYPES)):
            raise ValueError(f"events names {', '.join(unknown)}; allowed are {', '.join(EVENT_TYPES)}")
        return self


class TelemetrySection(Section):
    """What a monitoring system may read."""

    metrics_port: int | None = Field(default=None, ge=0, le=65_535)
    """TCP port of the Prometheus text at http://127.0.0.1:PORT/metrics, loopback only; 0 takes a free one. Without it nothing
    listens."""


class LogSection(Section):
    """How the node logs, to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged; `--debug` overrides it."""
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, JSON lines otherwise."""


class Config(Section):
    """Everything the node can be told."""

    blockchain: BlockchainSection
    earner: EarnerSection
    privacy: PrivacySection = PrivacySection()
    server: ServerSection = ServerSection()
    store: StoreSection = StoreSection()
    settlement: SettlementSection = SettlementSection()
    approval: ApprovalSection = ApprovalSection()
    mqtt: MqttSection = MqttSection()
    webhooks: WebhooksSection = WebhooksSection()
    telemetry: TelemetrySection = TelemetrySection()
    log: LogSection = LogSection()

    @model_validator(mode="after")
    def _a_result_fits(self) -> Config:
        largest = self.privacy.limits.to_limits().largest_result
        for key in ("results_mb_per_spender", "max_results_mb"):
            if largest > getattr(self.store, key) * MIB:
                raise ValueError(
                    f"store.{key} is {getattr(self.store, key)}, less than one result may take ({-(-largest // MIB)} MiB: "
                    "privacy.limits.artifacts_mb and output_kb), so nothing could ever run; raise it or lower those"
                )
        return self

    @property
    def database_url(self) -> str:
        """Return the SQLAlchemy URL of the database."""
        return self.store.url or f"sqlite+aiosqlite:///{self.store.state_dir / 'pandacea.db'}"

    @property
    def authorities(self) -> tuple[str, ...]:
        """Return the authorities that signed requests may name."""
        return self.server.authorities or (f"localhost:{self.server.port}", f"127.0.0.1:{self.server.port}")
