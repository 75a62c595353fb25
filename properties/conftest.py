"""pytest settings of the checks."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from harness.pytest_plugin import SETTINGS, is_worker
from properties.peak_memory import PeakMemory


def pytest_configure(config: pytest.Config) -> None:
    # Imports create a million objects that are never freed. Traversing them took a fifth of the time of the imports and a
    # tenth of the time after them, so that the garbage collector pauses here and ignores them from now on.
    gc.disable()
    import torch
    import transformers
    from hypothesis import HealthCheck, settings

    import harness.context  # noqa: F401
    from harness.catalogue import catalogue

    catalogue()
    gc.freeze()
    gc.enable()

    # Checks behave alike on every run and in every process; a slow machine is not a fault of the decoder.
    settings.register_profile("eagle2", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("eagle2")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)  # the models are small: a second thread waits more than it works
    if not is_worker(config):
        config.pluginmanager.register(PeakMemory())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests of the harness itself check no implementation."""
    judging = config.option.impl or config.stash[SETTINGS].only
    return True if judging and collection_path == Path(__file__).parent / "meta" else None
