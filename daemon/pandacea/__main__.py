"""`python -m pandacea` and the command `pandacea`."""

from __future__ import annotations

import importlib.util
import sys

NEEDED = ("web3", "sqlmodel", "structlog", "pydantic", "yaml")
"""A few of the extra's packages: enough to tell that it is not installed."""


def main() -> int:
    """Run the command line; without the `daemon` extra say what to install."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            "pandacea: the node is not installed here, only the SDK (pandacea_sdk). In a clone of the repository run: "
            "pip install '.[daemon]'; where pandacea came from a package index: pip install \"pandacea[daemon]\"\n"
            f"(missing: {', '.join(missing)})\n"
        )
        return 2
    from pandacea.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
