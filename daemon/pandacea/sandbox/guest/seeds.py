"""Seed random generators with the job's seed, also those of libraries that are imported later: the same job gives the same numbers."""

from __future__ import annotations

import importlib
import random
from typing import Any

from . import after_import

_NUMPY_SEEDS = 2**32  # numpy's legacy generator takes 32 bits


def seed_generators(seed: int, threads: int) -> None:
    """Seed what is imported already, and have numpy and torch seeded at the end of their first import."""

    def seed_numpy(module: Any) -> None:
        module.random.seed(seed % _NUMPY_SEEDS)

    def seed_torch(module: Any) -> None:
        module.manual_seed(seed)
        module.set_num_threads(threads)

    random.seed(seed)
    after_import.run_after_import({"numpy": seed_numpy, "torch": seed_torch})
    if threads > 1:
        _allow_threads(threads)


def _allow_threads(threads: int) -> None:
    """Raise the thread pools of BLAS and OpenMP, which were started with one thread, to what the job asked for."""
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return  # an environment without scikit-learn: only torch takes the number
    threadpoolctl.threadpool_limits(limits=threads)
