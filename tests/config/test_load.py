"""What the node says about its configuration: the key, the value, what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pandacea.config import Config, load_config
from pandacea.config.sections import LimitsSection
from pandacea.errors import BadConfig

ADDRESS = "0x" + "1" * 40
EARNER = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
"""With its checksum: the first example of EIP-55."""
GOOD = f"""
blockchain: {{rpc_url: "http://127.0.0.1:8545", contract_address: "{ADDRESS}", chain_id: 1}}
earner: {{address: "{EARNER}", keystore: keys/operator.json}}
"""


def filled_in() -> str:
    """The template with something in the place of each placeholder."""
    text = (Path(__file__).parents[2] / "config.yaml").read_text()
    for begins, value in (
        ("<an end", "http://127.0.0.1:8545"),
        ("<the num", "1"),
        ("<the Lease", f'"{ADDRESS}"'),
        ("<your", f'"{EARNER}"'),
    ):
        text = re.sub(f"{begins}[^>]*>", value, text)
    return text


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(BadConfig) as caught:
        load_config(write(folder, text), environment or {})
    return str(caught.value)


def test_defaults_are_the_specified_ones(tmp_path: Path) -> None:
    """A file with only what must be given serves on 8080, from ./data, in the image of the specification."""
    config = load_config(write(tmp_path, GOOD), {})
    assert config.server.port == 8080
    assert config.privacy.data_dir == tmp_path / "data"
    assert config.privacy.docker_image == "pandacea/pysyft-datasite:latest"
    assert config.blockchain.confidence == "safe"
    assert config.settlement.post_results == "priced"


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{url: http://receiver.example/, secret_file: s}", "https://"),
        ("{url: 'ftp://receiver.example/', secret_file: s, allow_private: true}", "https://"),
        ("{url: 'https://me:word@receiver.example/', secret_file: s}", "neither user, password"),
        ("{url: 'https://receiver.example/'}", "secret_file must be given"),
        ("{url: 'https://receiver.example/', secret_file: s, events: [computations.done]}", "computations.done"),
    ],
)
def test_a_webhook_is_refused_unless_it_is_safe_and_whole(tmp_path: Path, section: str, words: str) -> None:
    """Each sentence says what is wrong; a password in the URL is not shown again."""
    said = refused(tmp_path, f"{GOOD}\nwebhooks: {section}\n")
    assert words in said
    assert "me:word" not in said


def test_a_webhook_as_the_documents_show_it(tmp_path: Path) -> None:
    """The secret's file is taken from the configuration's folder; http is for private addresses, which must be allowed."""
    section = "{url: 'http://10.0.0.7/hook', secret_file: keys/webhook-secret, events: [results.committed], allow_private: true}"
    config = load_config(write(tmp_path, f"{GOOD}\nwebhooks: {section}\n"), {})
    assert config.webhooks.secret_file == tmp_path / "keys/webhook-secret"


def test_tls_of_the_broker_is_whole(tmp_path: Path) -> None:
    """A certificate without its key, or files without TLS, would be ignored silently."""
    assert "go together" in refused(tmp_path, f"{GOOD}\nmqtt: {{tls: true, tls_certificate: c.pem}}\n")
    assert "tls is false" in refused(tmp_path, f"{GOOD}\nmqtt: {{tls_ca: ca.pem}}\n")


def test_relative_paths_are_taken_from_the_files_folder(tmp_path: Path) -> None:
    """A service's working directory does not decide which keystore is opened."""
    assert load_config(write(tmp_path, GOOD), {}).earner.keystore == tmp_path / "keys/operator.json"


def test_addresses_are_lower_case_inside(tmp_path: Path) -> None:
    """Whatever the case in the file, one address is one string."""
    assert load_config(write(tmp_path, GOOD), {}).earner.address == EARNER.lower()


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("RPC_URL", "http://a:1,http://b:2", lambda c: [one.url for one in c.blockchain.rpc_url] == ["http://a:1", "http://b:2"]),
        ("CONTRACT_ADDRESS", "0x" + "2" * 40, lambda c: c.blockchain.contract_address == "0x" + "2" * 40),
        ("DATA_DIR", "/srv/tables", lambda c: c.privacy.data_dir == Path("/srv/tables")),
        ("PANDACEA_SERVER__PORT", "9000", lambda c: c.server.port == 9000),
        ("PANDACEA_PRIVACY__LIMITS__CPUS", "0.5", lambda c: c.privacy.limits.cpus == 0.5),
        ("PANDACEA_BLOCKCHAIN__CONFIDENCE", "{confirmations: 3}", lambda c: c.blockchain.confidence.confirmations == 3),
        ("PANDACEA_KEYSTORE_PASSPHRASE", "0123", lambda c: c.earner.passphrase.get_secret_value() == "0123"),
    ],
)
def test_the_environment_overrides(tmp_path: Path, name: str, value: str, read: object) -> None:
    """Three short names, and one prefix for every other key; a passphrase stays text even when it looks like a number."""
    assert callable(read)
    assert read(load_config(write(tmp_path, GOOD), {name: value}))


def test_credentials_stand_between_the_file_and_the_environment(tmp_path: Path) -> None:
    """config.yaml < credentials < environment."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "keystore-passphrase").write_text("from systemd\n")
    variables = {"CREDENTIALS_DIRECTORY": str(credentials)}
    first = load_config(write(tmp_path, GOOD), variables)
    second = load_config(write(tmp_path, GOOD), {**variables, "PANDACEA_KEYSTORE_PASSPHRASE": "from the environment"})
    assert first.earner.passphrase is not None
    assert first.earner.passphrase.get_secret_value() == "from systemd"
    assert second.earner.passphrase is not None
    assert second.earner.passphrase.get_secret_value() == "from the environment"


def test_the_databases_password_comes_apart_from_its_url(tmp_path: Path) -> None:
    """From a credential or the environment, as text whatever it looks like; it is shown nowhere."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "database-password").write_text("12345\n")
    variables = {"CREDENTIALS_DIRECTORY": str(credentials)}
    first = load_config(write(tmp_path, GOOD), variables)
    second = load_config(write(tmp_path, GOOD), {**variables, "PANDACEA_STORE__PASSWORD": "007"})
    assert first.store.password is not None
    assert first.store.password.get_secret_value() == "12345"
    assert second.store.password is not None
    assert second.store.password.get_secret_value() == "007"
    assert "007" not in repr(second)
    assert "password" not in second.model_dump()["store"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("server: {prot: 1}", "server.prot is not a key; did you mean port?"),
        ("serevr: {port: 1}", "serevr is not a key; did you mean server?"),
        ("server: {port: 99999}", "server.port is 99999"),
        ("privacy: {sandbox: dokcer}", "privacy.sandbox is 'dokcer'"),
        ("privacy: {limits: {cpuss: 1}}", "privacy.limits.cpuss is not a key; did you mean cpus?"),
        ("privacy: {limits: {workspace_mb: 2000}}", "above memory_mb 1024"),
        ("server: {tls_key: k.pem}", "tls_certificate and tls_key go together"),
        ("server: {host: 0.0.0.0, behind_proxy: true}", "name the proxy in server.proxies"),
        ("server: {proxies: 10.0.0.1}", "behind_proxy is false"),
        ("server: {behind_proxy: true, proxies: [proxy.example]}", "must be an IP address, or a network such as 10.0.0.0/8"),
        ("server: {behind_proxy: true, proxies: 10.0.0.1/8}", "has host bits set"),
        ("privacy: {workers: many}", "privacy.workers"),
        ("store: {results_mb_per_spender: 100}", "less than one result may take (129 MiB"),
    ],
)
def test_a_bad_key_is_named_with_its_value_and_what_is_allowed(tmp_path: Path, more: str, said: str) -> None:
    """One sentence tells the operator what to change."""
    assert said in refused(tmp_path, GOOD + more)


@pytest.mark.parametrize(
    ("server", "trusted"),
    [
        ("{}", ()),
        ("{behind_proxy: true}", ("127.0.0.0/8", "::1/128")),
        ("{behind_proxy: true, host: 10.0.0.2, proxies: 10.0.0.1}", ("10.0.0.1/32",)),
        ('{behind_proxy: true, proxies: [10.0.0.0/24, "fd00::/8"]}', ("10.0.0.0/24", "fd00::/8")),
    ],
)
def test_only_a_proxy_that_is_named_is_believed(tmp_path: Path, server: str, trusted: tuple[str, ...]) -> None:
    """Or, where the node listens on loopback behind one, whoever runs on this machine; without `behind_proxy` nobody."""
    config = load_config(write(tmp_path, GOOD + f"server: {server}"), {})
    assert config.server.trusted_proxies == trusted


def test_every_bad_key_is_named_at_once(tmp_path: Path) -> None:
    """Three mistakes take one run to find."""
    lines = refused(tmp_path, GOOD + "server: {port: -1, prot: 2}\nlog: {level: loud}").splitlines()
    assert [line.split(": ", 1)[1].split(" is ")[0] for line in lines] == ["server.port", "server.prot", "log.level"]


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    """The node cannot guess whose leases it serves."""
    text = f'blockchain: {{rpc_url: "http://h", contract_address: "{ADDRESS}", chain_id: 1}}\nearner: {{keystore: k}}'
    assert "earner.address is missing" in refused(tmp_path, text)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """YAML would let the second win silently."""
    assert "'port' stands twice" in refused(tmp_path, GOOD + "server: {port: 1, port: 2}")


def test_a_variable_that_names_no_key_is_refused(tmp_path: Path) -> None:
    """A misspelt override must not be ignored."""
    assert "PANDACEA_SERVER_PORT does not name a key" in refused(tmp_path, GOOD, {"PANDACEA_SERVER_PORT": "1"})


def test_zero_confirmations_need_a_development_chain(tmp_path: Path) -> None:
    """An approval that a reorganisation undoes opens nothing on a real chain."""
    assert "development: true" in refused(tmp_path, GOOD, {"PANDACEA_BLOCKCHAIN__CONFIDENCE": "{confirmations: 0}"})


def test_an_endpoints_key_is_not_repeated(tmp_path: Path) -> None:
    """API keys travel in paths and user names of RPC URLs: a complaint shows only the host."""
    said = refused(tmp_path, GOOD, {"RPC_URL": "ftp://user:hunter2@node.example/v3/0123456789abcdef"})
    assert "node.example" in said
    assert "hunter2" not in said
    assert "0123456789abcdef" not in said


def test_a_passphrase_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    secret = tmp_path / "passphrase"
    secret.write_text("x")
    secret.chmod(0o644)
    assert "chmod 600" in refused(tmp_path, GOOD.replace("keystore:", "passphrase_file: passphrase, keystore:"))


def test_an_address_without_quotes_is_understood(tmp_path: Path) -> None:
    """YAML reads it as a number: the answer is to quote it, not a number of 48 digits that stands nowhere in the file."""
    said = refused(tmp_path, GOOD.replace(f'"{EARNER}"', EARNER))
    assert "earner.address" in said
    assert 'put it in quotes: "0x..."' in said


def test_an_address_in_a_variable_needs_no_quotes(tmp_path: Path) -> None:
    """A shell takes quotes away."""
    config = load_config(write(tmp_path, GOOD), {"PANDACEA_EARNER__ADDRESS": EARNER})
    assert config.earner.address == EARNER.lower()


def test_a_mistyped_address_is_refused(tmp_path: Path) -> None:
    """A mixed-case address carries a checksum; in one case it carries none, and is taken."""
    wrong = EARNER.replace("5aAeb", "5aAeB")
    assert "checksum" in refused(tmp_path, GOOD.replace(EARNER, wrong))
    assert load_config(write(tmp_path, GOOD.replace(EARNER, EARNER.lower())), {}).earner.address == EARNER.lower()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PANDACEA_PRIVACY__LIMITS__CPU", "2", "privacy.limits.cpu is not a key; did you mean cpus?"),
        ("PANDACEA_SERVER__PORT", "http", "server.port is 'http'"),
        ("PANDACEA_SERVER__PORT", "[1", "is not YAML"),
        ("CONTRACT_ADDRESS", "0x12", "blockchain.contract_address is '0x12'"),
    ],
)
def test_a_bad_variable_is_named_and_not_the_file(tmp_path: Path, name: str, value: str, said: str) -> None:
    """Nobody looks for it in config.yaml."""
    (line,) = refused(tmp_path, GOOD, {name: value}).splitlines()
    assert line.startswith(f"The environment variable {name}")
    assert said in line
    assert "config.yaml" not in line


def test_the_nodes_own_files_lie_apart_from_the_data(tmp_path: Path) -> None:
    """Whatever way the state folder leads there: results and keys of tables are not tables."""
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for folder in ("data/state", "data", "link/state"):
        said = refused(tmp_path, GOOD + f"store: {{state_dir: {folder}}}")
        assert "store.state_dir" in said
        assert "Name another folder" in said


def test_the_template_names_what_is_to_be_filled_in(tmp_path: Path) -> None:
    """No plausible value stands in for the Earner's: the start fails, with a line for each key and what to put there."""
    said = refused(tmp_path, (Path(__file__).parents[2] / "config.yaml").read_text())
    keys = [line.split(": ", 1)[1].split(" is still to be filled in: ")[0] for line in said.splitlines()]
    assert keys == ["blockchain.rpc_url", "blockchain.chain_id", "blockchain.contract_address", "earner.address"]
    assert "your address, which leases name" in said


def test_the_file_in_the_repository_loads(tmp_path: Path) -> None:
    """config.yaml as shipped, filled in, has no key that the node does not know; its passphrase file is the only thing it lacks."""
    path = write(tmp_path, filled_in())
    with pytest.raises(BadConfig, match="passphrase_file"):
        load_config(path, {})
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "passphrase").touch(mode=0o600)
    config = load_config(path, {})
    assert isinstance(config, Config)
    assert config.privacy.sandbox == "auto"


def test_the_documentation_names_every_key() -> None:
    """docs/configuration.md is the table an operator reads: no key is missing, none is invented."""
    text = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    documented: dict[str, set[str]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("## "):
            section = line[3:]
            documented[section] = set()
        elif line.startswith("| `") and section:
            documented[section].add(line.split("`")[1])
    fields = {name: set(field.annotation.model_fields) for name, field in Config.model_fields.items() if field.annotation}
    fields["privacy.limits"] = set(LimitsSection.model_fields)
    fields["privacy"].discard("limits")
    fields["earner"].discard("passphrase")
    assert documented == fields
