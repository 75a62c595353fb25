"""pytest settings of the checks, and what the processes of one run share."""

from __future__ import annotations

import gc
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

import harness.context  # noqa: F401 - imported before the freeze
from harness.pytest_plugin import SETTINGS, SHARED, is_worker
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

_SHARED = "eagle2-shared"


def pytest_configure(config: pytest.Config) -> None:
    """Create the shared folder on the controller; workers receive its path."""
    if is_worker(config):
        config.stash[SHARED] = Path(config.workerinput[_SHARED])  # type: ignore[attr-defined]
    else:
        config.stash[SHARED] = Path(tempfile.mkdtemp(prefix="eagle2-"))
        config.add_cleanup(lambda: shutil.rmtree(config.stash[SHARED], ignore_errors=True))
        config.pluginmanager.register(PeakMemory())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput[_SHARED] = str(node.config.stash[SHARED])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests of the harness itself check no implementation."""
    judging = config.option.impl or config.stash[SETTINGS].only
    return True if judging and collection_path == Path(__file__).parent / "meta" else None
