"""Read config.yaml, credentials and the environment into a `Config`, or report every bad key in a sentence."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pandacea.config.secret_file import read_secret
from pandacea.config.sections import Config
from pandacea.errors import BadConfig
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.protocol.redaction import redact_url

VARIABLE_PREFIX: Final = "PANDACEA_"
SHORT_VARIABLES: Final = {
    "RPC_URL": "blockchain.rpc_url",
    "CONTRACT_ADDRESS": "blockchain.contract_address",
    "DATA_DIR": "privacy.data_dir",
}
CREDENTIALS: Final = {
    "keystore-passphrase": "earner.passphrase",
    "mqtt-password": "mqtt.password",
    "database-password": "store.password",
}
OTHER_VARIABLES: Final = {
    "PANDACEA_KEYSTORE_PASSPHRASE": "earner.passphrase",
    # Read by the SDK, by tests or by the Makefile, not by the node.
    "PANDACEA_PRIVATE_KEY": None,
    "PANDACEA_KEYSTORE": None,
    "PANDACEA_KEYSTORE_PASSPHRASE_FILE": None,
    "PANDACEA_CONFIG": None,
}
PATH_KEYS: Final = (
    "blockchain.deployment",
    "earner.keystore",
    "earner.passphrase_file",
    "mqtt.tls_ca",
    "mqtt.tls_certificate",
    "mqtt.tls_key",
    "privacy.data_dir",
    "privacy.environment",
    "server.tls_certificate",
    "server.tls_key",
    "store.state_dir",
    "webhooks.secret_file",
)
_PLACEHOLDER: Final = re.compile(r"<(.+)>")
_HEX_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]+")
SECRET_KEYS: Final = ("passphrase", "password")


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML that refuses a duplicate key: the second would replace the first silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"the key {min(twice)!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_config(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Load the configuration.

    Args:
        path: config.yaml.
        environment: variables to read; default `os.environ`. `RPC_URL`, `CONTRACT_ADDRESS` and `DATA_DIR` override their keys;
            every other key is `PANDACEA_<SECTION>__<KEY>`, its value read as YAML (`PANDACEA_PRIVACY__LIMITS__CPUS=2`).

    Raises:
        BadConfig: a sentence for each key that is unknown, missing or bad, with its value and what is allowed.
    """
    variables = os.environ if environment is None else environment
    tree = _read(path)
    base = path.resolve().parent
    for key in PATH_KEYS:
        _resolve_path(tree, key, base)
    _apply_credentials(tree, variables)
    origins = _apply_environment(tree, variables)
    if unfilled := _find_placeholders(tree):
        raise BadConfig("\n".join(f"{path}: {key} is still to be filled in: {wanted}." for key, wanted in unfilled.items()))
    try:
        config = Config.model_validate(tree)
    except ValidationError as problem:
        sentences = _sentences(problem).items()
        raise BadConfig("\n".join(f"{_origin(key, origins, path)}: {line}" for key, line in sentences)) from None
    return _resolve_defaults(config, base, path)


def _read(path: Path) -> JsonObject:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadConfig(f"{path} does not exist. Write one with `pandacea init`, or name yours with --config FILE.") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise BadConfig(f"{path} cannot be read: {problem}.") from problem
    try:
        tree = _load_yaml(text)
    except yaml.YAMLError as problem:
        raise BadConfig(f"{path} is not YAML: {' '.join(str(problem).split())}.") from problem
    if not isinstance(tree, dict):
        raise BadConfig(f"{path} holds {type(tree).__name__}; it must hold sections such as `blockchain:` and `earner:`.")
    for section, keys in tree.items():
        if keys is None:
            tree[section] = {}
    return tree


def _load_yaml(text: str) -> object:
    loader = _UniqueKeyLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def find_placeholders(text: str) -> list[str]:
    """List the keys of a configuration that are still to be filled in."""
    return list(_find_placeholders(yaml.safe_load(text)))


def _find_placeholders(tree: JsonMapping, above: str = "") -> dict[str, str]:
    """Find the keys whose value is a placeholder of the template, `<what to put there>`, and what to put there."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _find_placeholders(value, f"{above}{key}.")
        elif isinstance(value, str) and (match := _PLACEHOLDER.fullmatch(value)):
            found[f"{above}{key}"] = match[1]
    return found


def _origin(key: str, origins: Mapping[str, str], path: Path) -> str:
    """Return where a bad value comes from: the environment variable that gave it, else the file."""
    variable = next((name for target, name in origins.items() if key == target or key.startswith(f"{target}.")), None)
    return f"{path}" if variable is None else f"The environment variable {variable}"


def _set_key(tree: JsonObject, key: str, value: object) -> None:
    *parents, last = key.split(".")
    for name in parents:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            return  # the validator reports the bad section
        tree = inner
    tree[last] = value


def _resolve_path(tree: JsonObject, key: str, base: Path) -> None:
    section, name = key.split(".")
    inner = tree.get(section)
    if isinstance(inner, dict) and isinstance(inner.get(name), str):
        inner[name] = str(base / Path(inner[name]).expanduser())


def _apply_credentials(tree: JsonObject, variables: Mapping[str, str]) -> None:
    folder = variables.get("CREDENTIALS_DIRECTORY")
    if folder:
        for name, key in CREDENTIALS.items():
            file = Path(folder) / name
            if file.is_file():
                _set_key(tree, key, file.read_text(encoding="utf-8").rstrip("\r\n"))


def _apply_environment(tree: JsonObject, variables: Mapping[str, str]) -> dict[str, str]:
    """Set the environment's values in the tree; returns which variable gave which key."""
    origins: dict[str, str] = {}
    for name, key in SHORT_VARIABLES.items():
        if variables.get(name):
            origins[key] = name
            _set_key(tree, key, variables[name].split(",") if name == "RPC_URL" else variables[name])
            if name == "CONTRACT_ADDRESS" and isinstance(tree.get("blockchain"), dict):
                tree["blockchain"].pop("deployment", None)
    for name, text in variables.items():
        if not name.startswith(VARIABLE_PREFIX) or name.startswith("PANDACEA_TEST_"):
            continue
        if name in OTHER_VARIABLES:
            target = OTHER_VARIABLES[name]
            if target:
                origins[target] = name
                _set_key(tree, target, text)
            continue
        parts = name[len(VARIABLE_PREFIX) :].lower().split("__")
        if len(parts) < 2 or parts[0] not in Config.model_fields:
            raise BadConfig(
                f"The environment variable {name} does not name a key; write {VARIABLE_PREFIX}<SECTION>__<KEY>, "
                f"sections: {_list_keys(Config)}."
            )
        origins[".".join(parts)] = name
        _set_key(tree, ".".join(parts), _value(name, parts[-1], text))
    return origins


def _value(variable: str, key: str, text: str) -> object:
    """Read a variable's value as YAML; secrets and addresses stay text, whatever they look like."""
    if key in SECRET_KEYS or _HEX_NUMBER.fullmatch(text):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise BadConfig(f"The environment variable {variable} is not YAML: {' '.join(str(problem).split())}.") from problem


def _sentences(problem: ValidationError) -> dict[str, str]:
    """Return a sentence for each bad key; of several errors of a union the first is enough."""
    sentences: dict[str, str] = {}
    for error in problem.errors(include_url=False):
        key, sentence = _sentence(error)
        sentences.setdefault(key, sentence)
    return sentences


def _sentence(error: ErrorDetails) -> tuple[str, str]:
    where = [str(part) for part in error["loc"] if not str(part).startswith(("literal[", "Confirmations"))]
    key = ".".join(where)
    model = _find_section(where[:-1])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[-1], model.model_fields, n=1) if model else []
        hint = f"did you mean {near[0]}? " if near else ""
        return key, f"{key} is not a key; {hint}allowed here: {_list_keys(model)}."
    if error["type"] == "missing":
        return key, f"{key} is missing; it must be given."
    message = error["msg"].removeprefix("Value error, ")
    value = error["input"]
    if any(name in SECRET_KEYS for name in where) or isinstance(value, dict):
        return key, f"{key or 'config'}: {message}."
    if key == "blockchain.confidence":
        message = "allowed are safe, finalized, or {confirmations: N}"
    shown = redact_url(value) if isinstance(value, str) and "://" in value else value
    return key, f"{key} is {shown!r}: {message}."


def _find_section(where: list[str]) -> type[BaseModel] | None:
    model: type[BaseModel] = Config
    for name in where:
        field = model.model_fields.get(name)
        if field is None:
            return None
        kinds = [field.annotation, *get_args(field.annotation)]
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if section is None:
            return None
        model = section
    return model


def _list_keys(model: type[BaseModel] | None) -> str:
    return ", ".join(name for name, field in model.model_fields.items() if not field.exclude) if model else "nothing"


def _resolve_defaults(config: Config, base: Path, path: Path) -> Config:
    """Resolve default paths, refuse a state folder inside the data, and read the passphrase file."""
    privacy = config.privacy.model_copy(
        update={"data_dir": base / config.privacy.data_dir, "environment": base / config.privacy.environment}
    )
    store = config.store.model_copy(update={"state_dir": base / config.store.state_dir})
    if store.state_dir.resolve().is_relative_to(privacy.data_dir.resolve()):
        raise BadConfig(
            f"{path}: store.state_dir is {store.state_dir}, inside privacy.data_dir {privacy.data_dir}: the node's own files must lie "
            "apart from your tables. Name another folder."
        )
    earner = config.earner
    if earner.passphrase is None and earner.passphrase_file is not None:
        earner = type(earner).model_validate(
            {**earner.model_dump(), "passphrase": read_secret(earner.passphrase_file, "earner.passphrase_file")}
        )
    return config.model_copy(update={"privacy": privacy, "store": store, "earner": earner})


def read_service_manager(environment: Mapping[str, str] | None = None) -> tuple[str | None, float | None]:
    """Read systemd's notification socket and watchdog interval in seconds (sd_notify(3), sd_watchdog_enabled(3))."""
    variables = os.environ if environment is None else environment
    micros = variables.get("WATCHDOG_USEC", "")
    return variables.get("NOTIFY_SOCKET"), int(micros) / 1e6 if micros.isdigit() else None


def read_docker_host(environment: Mapping[str, str] | None = None) -> str | None:
    """Read `DOCKER_HOST`, as Docker's own tools do."""
    return (os.environ if environment is None else environment).get("DOCKER_HOST")
