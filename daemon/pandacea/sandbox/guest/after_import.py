"""Run a function when a module has been imported: at once where it is there already, else at the end of its first import."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def run_after_import(actions: dict[str, Callable[[Any], None]]) -> None:
    """Call each action with its module, by the module's full name. A script that never imports it pays nothing."""
    waiting = {}
    for name, action in actions.items():
        if name in sys.modules:
            action(sys.modules[name])
        else:
            waiting[name] = action
    if waiting:
        sys.meta_path.insert(0, _Finder(waiting))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, waiting: dict[str, Callable[[Any], None]]) -> None:
        self._waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._waiting:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._waiting, fullname)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, inner: Any, waiting: dict[str, Callable[[Any], None]], name: str) -> None:
        self._inner, self._waiting, self._name = inner, waiting, name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._inner.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner  # from here on the module looks as if it had been imported without this
        module.__loader__ = self._inner
        self._inner.exec_module(module)
        action = self._waiting.pop(self._name, None)  # only now: whoever asks for a spec need not import the module
        if action is not None:
            action(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
