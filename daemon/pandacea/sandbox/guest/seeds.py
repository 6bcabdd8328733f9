"""Seed random generators with the job's seed, also those of libraries that are imported later: the same job gives the same numbers."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import random
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_NUMPY_SEEDS = 2**32  # numpy's legacy generator takes 32 bits


def _seed_numpy(module: Any, seed: int, _threads: int) -> None:
    module.random.seed(seed % _NUMPY_SEEDS)


def _seed_torch(module: Any, seed: int, threads: int) -> None:
    module.manual_seed(seed)
    module.set_num_threads(threads)


_LIBRARIES: dict[str, Callable[[Any, int, int], None]] = {"numpy": _seed_numpy, "torch": _seed_torch}


def seed_generators(seed: int, threads: int) -> None:
    """Seed what is imported already, and have numpy and torch seeded at the end of their first import."""
    random.seed(seed)
    waiting = {}
    for name, prepare in _LIBRARIES.items():
        if name in sys.modules:
            prepare(sys.modules[name], seed, threads)
        else:
            waiting[name] = prepare
    if threads > 1:
        _allow_threads(threads)
    if waiting:
        sys.meta_path.insert(0, _Seeder(waiting, seed, threads))


def _allow_threads(threads: int) -> None:
    """Raise the thread pools of BLAS and OpenMP, which were started with one thread, to what the job asked for."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return  # an environment without scikit-learn: only torch takes the number
    threadpoolctl.threadpool_limits(limits=threads)


class _Seeder(importlib.abc.MetaPathFinder):
    def __init__(self, waiting: dict[str, Callable[[Any, int, int], None]], seed: int, threads: int) -> None:
        self._waiting, self._seed, self._threads = waiting, seed, threads

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        prepare = self._waiting.pop(fullname, None)
        if prepare is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _SeededLoader(spec.loader, lambda module: prepare(module, self._seed, self._threads))
        return spec


class _SeededLoader(importlib.abc.Loader):
    def __init__(self, inner: Any, after: Callable[[Any], None]) -> None:
        self._inner, self._after = inner, after

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._inner.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._inner  # from here on the module looks as if it had been imported without this
        module.__loader__ = self._inner
        self._inner.exec_module(module)
        self._after(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
