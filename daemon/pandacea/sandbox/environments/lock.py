"""Prints the lock of the Python that runs it, as JSON. Standard library only; the image's build runs it too."""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import sys

_INSTALLERS = ("pip", "setuptools", "wheel")


def identity(python: str, packages: list[str]) -> str:
    """Return the digest of a lock: the same packages on the same Python version have the same digest on every machine."""
    text = "\n".join([f"python=={python}", *sorted(packages)]) + "\n"
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def list_modules(folder: str) -> list[str]:
    """Return the top-level modules that can be imported from a site-packages folder: packages, files and compiled modules, sorted."""
    paths = list(pathlib.Path(folder).iterdir())
    found = {path.name for path in paths if path.is_dir()}  # "x.libs" and "x-1.0.dist-info" are no identifiers
    found |= {path.name.partition(".")[0] for path in paths if path.suffix in (".py", ".so")}
    return sorted(name for name in found if name.isidentifier() and name != "__pycache__")


def lock() -> dict[str, object]:
    """Return the lock of the running interpreter's environment; `packages` are sorted `name==version` lines without the installers.

    `modules` are not part of the identity: they follow from the packages.
    """
    found = {(dist.metadata["Name"].lower().replace("_", "-"), dist.version) for dist in importlib.metadata.distributions()}
    packages = sorted(f"{name}=={version}" for name, version in found if name not in _INSTALLERS)
    python = platform.python_version()
    return {
        "python": python,
        "base_prefix": os.path.realpath(sys.base_prefix),
        "interpreter": os.path.realpath(sys.executable),
        "packages": packages,
        "modules": sorted({name for path in sys.path if path.endswith("-packages") for name in list_modules(path)}),
        "identity": identity(python, packages),
    }


if __name__ == "__main__":
    print(json.dumps(lock(), indent=2))  # noqa: T201 - its caller reads it
