"""Prints the lock of the Python that runs it, as JSON. Standard library only; the image's build runs it too."""

import hashlib
import importlib.metadata
import json
import os
import platform
import sys

_INSTALLERS = ("pip", "setuptools", "wheel")


def identity(python: str, packages: list[str]) -> str:
    """Return the digest of a lock: the same packages on the same Python version have the same digest on every machine."""
    text = "\n".join([f"python=={python}", *sorted(packages)]) + "\n"
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def lock() -> dict[str, object]:
    """Return the lock of the running interpreter's environment; `packages` are sorted `name==version` lines without the installers."""
    found = {(dist.metadata["Name"].lower().replace("_", "-"), dist.version) for dist in importlib.metadata.distributions()}
    packages = sorted(f"{name}=={version}" for name, version in found if name not in _INSTALLERS)
    python = platform.python_version()
    return {
        "python": python,
        "base_prefix": os.path.realpath(sys.base_prefix),
        "interpreter": os.path.realpath(sys.executable),
        "packages": packages,
        "identity": identity(python, packages),
    }


if __name__ == "__main__":
    print(json.dumps(lock(), indent=2))  # noqa: T201 - its caller reads it
