"""The command line: parse, call, print. Exit status 0 done, 1 failed, 2 bad configuration or usage."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from pandacea import __version__
from pandacea.cli.audit import audit_commands
from pandacea.cli.chain import chain_commands
from pandacea.cli.command import Handler, add_command, load_config_quietly
from pandacea.cli.control import control_commands
from pandacea.cli.devchain import devchain_command
from pandacea.cli.disputes import disputes_command
from pandacea.cli.doctor import render_findings
from pandacea.cli.income import income_command
from pandacea.cli.keys import key_commands
from pandacea.cli.leases import format_ether, lease_commands
from pandacea.cli.products import product_commands
from pandacea.errors import BadConfig, Broken, DaemonError


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parsed = parser().parse_args(arguments)
    handler: Handler = parsed.handler
    if parsed.command != "environment":  # its packages are read by the user that sandboxes run as
        os.umask(0o077)
    try:
        return handler(parsed)
    except BadConfig as problem:
        sys.stderr.write(f"pandacea: {problem}\n")
        return 2
    except DaemonError as problem:
        sys.stderr.write(f"pandacea: {problem}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Build the parser of every command."""
    root = argparse.ArgumentParser(
        prog="pandacea", description="Run strangers' code on your data, on your machine, under on-chain leases."
    )
    root.add_argument("--version", action="version", version=f"pandacea {__version__}")
    commands = root.add_subparsers(required=True, metavar="COMMAND", dest="command")

    run = add_command(commands, "run", _run, "start the node")
    run.add_argument("--debug", action="store_true", help="log at level debug")

    init = add_command(commands, "init", _init, "write a config.yaml and a products.yaml to start from", config=False)
    init.add_argument("--directory", type=Path, default=Path(), help="where; default: here")
    init.add_argument("--earner", metavar="ADDRESS", help="your address, which leases name and the money goes to")
    init.add_argument("--rpc-url", metavar="URL", help="an endpoint of the chain")
    init.add_argument("--deployment", type=Path, metavar="FILE", help="the contract's record, as `pandacea deploy` writes it")
    init.add_argument(
        "--development", action="store_true", help="the chain is `pandacea devchain` or one like it: an approval counts at once"
    )

    deploy = add_command(commands, "deploy", _deploy, "deploy the LeaseAgreement and write its deployment record", config=False)
    deploy.add_argument("--rpc-url", required=True, metavar="URL", help="an endpoint of the chain to deploy on")
    deploy.add_argument(
        "--keystore", type=Path, required=True, help="the account that pays for the deployment and owns the contract"
    )
    deploy.add_argument("--passphrase-file", type=Path, help="default: asked for")
    deploy.add_argument("--arbiter", required=True, help="who decides the disputes of leases created from now on")
    deploy.add_argument("--owner", help="who may pause and appoint arbiters; default: the deploying account")
    deploy.add_argument(
        "--record", type=Path, default=Path("deployment.json"), help="where its record is written; default: ./deployment.json"
    )
    deploy.add_argument("--insecure-http", action="store_true", help="accept plain http to another machine")

    doctor = add_command(commands, "doctor", _doctor, "check this machine: keys, data, chain, server, sandbox")
    doctor.add_argument("--json", action="store_true", help="print JSON")

    key_commands(commands)
    devchain_command(commands)
    chain_commands(commands)
    withdraw = add_command(
        commands, "withdraw", _withdraw, "take the Earner's money out of the contract, with the Earner's own key"
    )
    withdraw.add_argument("--keystore", type=Path, required=True, help="the Earner's own; it is read once and never kept")
    withdraw.add_argument("--passphrase-file", type=Path, help="default: ask at the terminal")
    income_command(commands)
    disputes_command(commands)
    lease_commands(commands)
    control_commands(commands)
    product_commands(commands)
    audit_commands(commands)

    environment = commands.add_parser("environment", help="the sandbox's packages").add_subparsers(required=True, metavar="ACTION")
    build = add_command(environment, "build", _environment_build, "build the bubblewrap environment", config=False)
    build.add_argument("--directory", type=Path, default=Path(".sandbox"), help="where; default: ./.sandbox")
    more = add_command(
        environment, "add", _environment_add, "build a new environment with more packages; the old one stays", config=False
    )
    more.add_argument("packages", nargs="+", metavar="NAME", help="NAME or NAME==VERSION")
    more.add_argument("--directory", type=Path, default=Path(".sandbox"), help="the environment to start from")
    more.add_argument("--image", metavar="IMAGE", help="also build an image of the same packages, on top of this one, which stays")
    return root


def _run(parsed: argparse.Namespace) -> int:
    from pandacea.app.node import serve
    from pandacea.app.tuning import limit_recursion
    from pandacea.config import load_config, read_service_manager
    from pandacea.log import configure_logging
    from pandacea.telemetry.notify import ServiceManager

    config = load_config(parsed.config)
    configure_logging("debug" if parsed.debug else config.log.level, config.log.format)
    limit_recursion()
    asyncio.run(serve(config, ServiceManager(*read_service_manager())))
    return 0


def _init(parsed: argparse.Namespace) -> int:
    from pandacea.config.example import InitAnswers, write_example

    answers = InitAnswers(parsed.earner, parsed.rpc_url, parsed.deployment, parsed.development)
    written, missing = write_example(parsed.directory, answers)
    for path in written:
        print(path)
    if missing:
        print(f"Fill in before the first start: {', '.join(missing)}", file=sys.stderr)
    return 0


def _deploy(parsed: argparse.Namespace) -> int:
    from pandacea import keys
    from pandacea_sdk.chain import ChainError, UsageError, deploy

    if parsed.record.exists():
        raise BadConfig(f"{parsed.record} exists already; name another --record.")
    account = keys.unlock_keystore(parsed.keystore, keys.read_passphrase(parsed.passphrase_file)).account()
    try:
        record = asyncio.run(
            deploy(parsed.rpc_url, account, arbiter=parsed.arbiter, owner=parsed.owner, allow_http=parsed.insecure_http)
        )
    except UsageError as problem:
        raise BadConfig(f"Nothing was deployed: {problem}") from problem
    except ChainError as problem:
        raise Broken(f"The contract was not deployed: {problem}") from problem
    record.write(parsed.record)
    print(f"LeaseAgreement {record.address} on chain {record.chain_id}, block {record.deploy_block}; record: {parsed.record}")
    return 0


def _withdraw(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.earner_key import unlock_earner_key, withdraw_with_key

    config = load_config_quietly(parsed)
    account = unlock_earner_key(config, parsed.keystore, parsed.passphrase_file)
    withdrawn = asyncio.run(withdraw_with_key(config, account, print))
    if withdrawn:
        print(f"{format_ether(withdrawn)} withdrawn to {account.address}.")
    else:
        print("The contract holds nothing for the Earner yet.")
    return 0


def _doctor(parsed: argparse.Namespace) -> int:
    from pandacea.app.commands.doctor import run_checks

    config = load_config_quietly(parsed)
    findings = asyncio.run(run_checks(config))
    if parsed.json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        print("\n".join(render_findings(findings)))
    return 0 if all(finding.ok for finding in findings) else 1


def _environment_build(parsed: argparse.Namespace) -> int:
    from pandacea.sandbox.environments.build import build_environment

    build_environment(parsed.directory, progress=_print_now)
    return 0


def _environment_add(parsed: argparse.Namespace) -> int:
    from pandacea.sandbox.environments.add import add_packages

    made = add_packages(parsed.directory, parsed.packages, _print_now)
    print(f"{made.identity}: set privacy.environment: {made.folder}")
    if parsed.image is not None:
        from pandacea.config import read_docker_host
        from pandacea.sandbox.environments.image import add_to_image

        name = asyncio.run(add_to_image(parsed.image, made, engine_url=read_docker_host(), progress=_print_now))
        print(f"{name}: set privacy.docker_image: {name}")
    return 0


def _print_now(line: str) -> None:
    """Print one line of progress without buffering."""
    print(line, flush=True)
