"""pytest settings of the checks."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

import harness.context  # noqa: F401 - imported before the freeze
from harness.pytest_plugin import SETTINGS, is_worker
from properties.peak_memory import PeakMemory

# The imports above create a million objects that are never freed. Frozen, they are not traversed again by every garbage
# collection, which took a tenth of the time of a run.
gc.freeze()

# Checks behave alike on every run and in every process; a slow machine is not a fault of the decoder.
hypothesis_settings.register_profile("eagle2", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("eagle2")
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)  # the models are small: a second thread waits more than it works


def pytest_configure(config: pytest.Config) -> None:
    if not is_worker(config):
        config.pluginmanager.register(PeakMemory())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests of the harness itself check no implementation."""
    judging = config.option.impl or config.stash[SETTINGS].only
    return True if judging and collection_path == Path(__file__).parent / "meta" else None
