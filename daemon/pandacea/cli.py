"""The command line: parse, call, print. Exit status 0 done, 1 failed, 2 bad configuration or usage."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandacea import __version__
from pandacea.errors import BadConfig, Broken, PandaceaError

if TYPE_CHECKING:
    from pandacea.config import Config

Handler = Callable[[argparse.Namespace], int]


def main(arguments: list[str] | None = None) -> int:
    """Run one command."""
    parsed = parser().parse_args(arguments)
    handler: Handler = parsed.handler
    try:
        return handler(parsed)
    except BadConfig as problem:
        sys.stderr.write(f"pandacea: {problem}\n")
        return 2
    except PandaceaError as problem:
        sys.stderr.write(f"pandacea: {problem}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Every command and its arguments."""
    root = argparse.ArgumentParser(
        prog="pandacea", description="Run strangers' code on your data, on your machine, under on-chain leases."
    )
    root.add_argument("--version", action="version", version=f"pandacea {__version__}")
    commands = root.add_subparsers(required=True, metavar="COMMAND", dest="command")

    run = _command(commands, "run", _run, "start the node")
    run.add_argument("--debug", action="store_true", help="log at level debug")

    init = _command(commands, "init", _init, "write a config.yaml and a products.yaml to start from", config=False)
    init.add_argument("--directory", type=Path, default=Path())

    deploy = _command(commands, "deploy", _deploy, "deploy the LeaseAgreement and write its deployment record", config=False)
    deploy.add_argument("--rpc-url", required=True)
    deploy.add_argument(
        "--keystore", type=Path, required=True, help="the account that pays for the deployment and owns the contract"
    )
    deploy.add_argument("--passphrase-file", type=Path, help="default: asked for")
    deploy.add_argument("--arbiter", required=True, help="who decides the disputes of leases created from now on")
    deploy.add_argument("--owner", help="who may pause and appoint arbiters; default: the deploying account")
    deploy.add_argument("--record", type=Path, default=Path("deployment.json"))
    deploy.add_argument("--insecure-http", action="store_true", help="accept plain http to another machine")

    doctor = _command(commands, "doctor", _doctor, "check this machine: sandbox, chain, keys, data")
    doctor.add_argument("--json", action="store_true", help="print JSON")

    leases = _command(commands, "leases", _leases, "show which leases the node believes, and why")
    leases.add_argument("--json", action="store_true", help="print JSON")
    vouch = _command(
        leases.add_subparsers(metavar="ACTION"),
        "acknowledge",
        _acknowledge,
        "say that you approved a lease whose approval the chain cannot prove; shows its terms and asks",
        config=False,
    )
    vouch.add_argument("--config", type=Path, default=argparse.SUPPRESS, help="default: ./config.yaml")
    vouch.add_argument("id", metavar="LEASE_ID")
    vouch.add_argument("--yes", action="store_true", help="ask nothing")
    vouch.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON; the terms go to standard error")

    keys = commands.add_parser("keys", help="encrypted keystores").add_subparsers(required=True, metavar="ACTION")
    create = _command(keys, "create", _keys_create, "make a new key and keep it encrypted", config=False)
    create.add_argument("file", type=Path)
    create.add_argument("--passphrase-file", type=Path, required=True, help="file (mode 600) whose first line is the passphrase")
    show = _command(keys, "address", _keys_address, "print the address of a keystore", config=False)
    show.add_argument("file", type=Path)

    _desk_commands(commands)
    _product_commands(commands)

    environment = commands.add_parser("environment", help="the sandbox's packages").add_subparsers(required=True, metavar="ACTION")
    build = _command(environment, "build", _environment_build, "build the bubblewrap environment", config=False)
    build.add_argument("--directory", type=Path, default=Path(".sandbox"))
    more = _command(
        environment, "add", _environment_add, "build a new environment with more packages; the old one stays", config=False
    )
    more.add_argument("packages", nargs="+", metavar="NAME", help="NAME or NAME==VERSION")
    more.add_argument("--directory", type=Path, default=Path(".sandbox"), help="the environment to start from")
    return root


def _command(parent: Any, name: str, handler: Handler, summary: str, *, config: bool = True) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = parent.add_parser(name, help=summary, description=summary)
    command.set_defaults(handler=handler)
    if config:
        command.add_argument("--config", type=Path, default=Path("config.yaml"), help="default: ./config.yaml")
    return command


def _desk_commands(commands: Any) -> None:
    """What the Earner decides: the running node is asked to act; when none runs, the command does it."""
    results = commands.add_parser("results", help="held results").add_subparsers(required=True, metavar="ACTION")
    code = commands.add_parser("code", help="scripts handed in for approval").add_subparsers(required=True, metavar="ACTION")
    for actions, verb, summary in (
        (results, "results list", "results that wait for your word"),
        (results, "results show", "one result: its output and where its files lie"),
        (results, "results release", "let a held result out to its Spender"),
        (results, "results refuse", "keep a held result back for good"),
        (code, "code list", "scripts that wait for your word"),
        (code, "code show", "one script, what an approval covers, and lines to look at"),
        (code, "code approve", "let a script run with its inputs, uploads and params"),
        (code, "code reject", "refuse a script; takes an approval back, too"),
    ):
        command = _command(actions, verb.split()[1], _desk, summary)
        command.set_defaults(verb=verb)
        command.add_argument("--json", action="store_true", help="print JSON")
        if verb == "code list":
            command.add_argument("--all", action="store_true", help="those already decided, too")
        if not verb.endswith("list"):
            command.add_argument("id")
        if verb in {"results refuse", "code reject"}:
            command.add_argument("--reason", default="", help="one sentence for the Spender")


def _product_commands(commands: Any) -> None:
    """What the Earner offers."""
    actions = commands.add_parser("products", help="what you offer").add_subparsers(required=True, metavar="ACTION")
    for verb, summary in (
        ("products list", "products on offer"),
        ("products show", "all that is public of one product"),
        ("products reload", "have the running node take up products.yaml and changed files"),
    ):
        command = _command(actions, verb.split()[1], _desk, summary)
        command.set_defaults(verb=verb)
        command.add_argument("--json", action="store_true", help="print JSON")
        if verb == "products show":
            command.add_argument("id")
    remove = _command(actions, "remove", _products_remove, "take a product off the offer")
    remove.add_argument("id")
    add = _command(actions, "add", _products_add, "offer a file of the data folder; shows what becomes public before it does")
    add.add_argument("file", type=Path, help="CSV, Parquet, Arrow (Feather) or SQLite, in the data folder")
    for name, summary in (
        ("id", "default: the file's name"),
        ("name", "for people"),
        ("description", "what it is, from when, in which units"),
        ("price", "of a lease, for example '0.02 ether'"),
        ("keywords", "separated by commas"),
        ("policy", "approved-code | any-code"),
        ("release", "hold | auto"),
        ("live-output", "none | progress | full"),
        ("rehearsal", "lease | open | off"),
    ):
        add.add_argument(f"--{name}", help=summary)
    add.add_argument("--drop", help="columns that are not converted, separated by commas")
    add.add_argument("--keep", help="the only columns that are, separated by commas")
    add.add_argument("--label", help="the column scripts are to predict")
    add.add_argument("--separator", help="of CSV, default: ','")
    add.add_argument("--table", help="of a SQLite file")
    add.add_argument("--mock-rows", type=int, help="default: 100")
    column = "what a column holds, as YAML: 'age: {unit: years, minimum: 0, maximum: 110}'"
    add.add_argument("--column", action="append", default=[], help=column)
    add.add_argument("--keep-flagged", action="store_true", help="with --yes: columns that may identify people stay")
    add.add_argument("--yes", action="store_true", help="ask nothing: what is not stated gets the strictest value")


def _products_add(parsed: argparse.Namespace) -> int:
    from pandacea import app

    config = _quietly(parsed)
    given = {key: getattr(parsed, key) for key in ("id", "name", "description", "price") if getattr(parsed, key)}
    if parsed.keywords:
        given["keywords"] = _listed(parsed.keywords)
    rules = {key: getattr(parsed, key) for key in ("policy", "release", "live_output", "rehearsal") if getattr(parsed, key)}
    if rules:
        given["rules"] = rules
    asset: dict[str, Any] = {key: getattr(parsed, key) for key in ("separator", "table") if getattr(parsed, key)}
    asset |= {key: _listed(getattr(parsed, key)) for key in ("drop", "keep") if getattr(parsed, key)}
    if parsed.mock_rows is not None:
        asset["mock"] = {"rows": parsed.mock_rows}
    if parsed.column:
        asset["columns"] = _columns(parsed.column)
    wanted = app.Wanted(parsed.file, given, asset, parsed.label, yes=parsed.yes, keep_flagged=parsed.keep_flagged)
    return 0 if asyncio.run(app.add_product(config, wanted)) else 1


def _products_remove(parsed: argparse.Namespace) -> int:
    from pandacea import app
    from pandacea.config import load

    print(asyncio.run(app.remove_product(load(parsed.config), parsed.id)))
    return 0


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _columns(texts: list[str]) -> dict[str, Any]:
    import yaml

    columns: dict[str, Any] = {}
    for text in texts:
        try:
            said = yaml.safe_load(text)
        except yaml.YAMLError:
            said = None
        if not isinstance(said, dict) or not all(isinstance(about, dict) for about in said.values()):
            raise BadConfig(
                f"--column {text!r} is not understood; write for example 'age: {{unit: years, minimum: 0, maximum: 110}}'."
            )
        columns |= said
    return columns


def _desk(parsed: argparse.Namespace) -> int:
    from pandacea import app

    config = _quietly(parsed)
    asked = {name: value for name in ("id", "reason", "all") if (value := getattr(parsed, name, None)) is not None}
    answer = asyncio.run(app.ask(config, parsed.verb, asked))
    print(json.dumps(answer, indent=2) if parsed.json else app.shown(parsed.verb, answer))
    return 0


def _run(parsed: argparse.Namespace) -> int:
    from pandacea import app
    from pandacea.config import load, service_manager
    from pandacea.log import setup
    from pandacea.telemetry.notify import ServiceManager

    config = load(parsed.config)
    setup("debug" if parsed.debug else config.log.level, config.log.format)
    asyncio.run(app.serve(config, ServiceManager(*service_manager())))
    return 0


def _quietly(parsed: argparse.Namespace) -> Config:
    """The configuration of a command whose answer is what it prints: the log speaks of trouble only."""
    from pandacea.config import load
    from pandacea.log import setup

    config = load(parsed.config)
    setup("warning", config.log.format)
    return config


def _init(parsed: argparse.Namespace) -> int:
    from pandacea.config.example import write_example

    for path in write_example(parsed.directory):
        print(path)
    return 0


def _deploy(parsed: argparse.Namespace) -> int:
    from pandacea import keys
    from pandacea_sdk.chain import ChainError, deploy

    if parsed.record.exists():
        raise BadConfig(f"{parsed.record} exists already; name another --record.")
    account = keys.unlock(parsed.keystore, keys.read_passphrase(parsed.passphrase_file)).account()
    try:
        record = asyncio.run(
            deploy(parsed.rpc_url, account, arbiter=parsed.arbiter, owner=parsed.owner, allow_http=parsed.insecure_http)
        )
    except ChainError as problem:
        raise Broken(f"The contract was not deployed: {problem}") from problem
    record.write(parsed.record)
    print(f"LeaseAgreement {record.address} on chain {record.chain_id}, block {record.deploy_block}; record: {parsed.record}")
    return 0


def _doctor(parsed: argparse.Namespace) -> int:
    from pandacea import app

    config = _quietly(parsed)
    rows = asyncio.run(app.examine(config))
    if parsed.json:
        print(json.dumps(rows, indent=2))
    else:
        width = max(len(row["check"]) for row in rows)
        for row in rows:
            print(f"{'ok  ' if row['ok'] else 'FAIL'}  {row['check']:<{width}}  {row['detail']}")
    return 0 if all(row["ok"] for row in rows) else 1


def _leases(parsed: argparse.Namespace) -> int:
    from pandacea import app

    config = _quietly(parsed)
    rows = asyncio.run(app.lease_rows(config))
    if parsed.json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        count = f"{row['used']}/{row['max_computations']} used"
        print(f"{row['lease_id']}  {row['status']:<10} approval {row['approval']:<13} {count:<12} {row['reason'] or 'may run'}")
    if not rows:
        print("No approved lease of this Earner is known yet.")
    return 0


def _acknowledge(parsed: argparse.Namespace) -> int:
    from pandacea import app

    def say(text: str) -> None:
        print(text, file=sys.stderr if parsed.json else sys.stdout)

    def ask(question: str) -> str:
        print(question, end="", flush=True, file=sys.stderr)
        return sys.stdin.readline()

    config = _quietly(parsed)
    answer = asyncio.run(app.acknowledge_lease(config, parsed.id, yes=parsed.yes, say=say, ask=ask))
    if answer is None:
        return 1
    print(json.dumps(answer, indent=2) if parsed.json else app.shown("leases acknowledge", answer))
    return 0


def _keys_create(parsed: argparse.Namespace) -> int:
    from pandacea import keys

    print(keys.create(parsed.file, keys.read_passphrase(parsed.passphrase_file)))
    return 0


def _keys_address(parsed: argparse.Namespace) -> int:
    from pandacea import keys

    print(keys.address(parsed.file))
    return 0


def _environment_build(parsed: argparse.Namespace) -> int:
    from pandacea.sandbox.environments import build_environment

    build_environment(parsed.directory, progress=_show_build)
    return 0


def _environment_add(parsed: argparse.Namespace) -> int:
    from pandacea.sandbox.environment_add import add_packages

    made = add_packages(parsed.directory, parsed.packages, _show_build)
    print(f"{made.identity}: set privacy.environment: {made.folder}")
    return 0


def _show_build(line: str) -> None:
    """Pip's long story in short: what is being fetched, not from where."""
    if line.startswith("Collecting"):
        print(f"  {line.split(' (', maxsplit=1)[0]}", flush=True)
    elif not line.startswith(("WARNING", "Processing", "Downloading", "  ", "Requirement", "Successfully", "Looking")):
        print(line if len(line) < 160 else line[:159] + "…", flush=True)
