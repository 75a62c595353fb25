"""What the chapters share: the implementation under test, opened once a worker, the pairs, and the truth about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from harness.implementations import Implementation, connect
from harness.implementations.engine import Engine
from harness.laws.teacher import Teacher, load_plain
from harness.pairs import Pair, Prompt, find_pair, prompts, shipped
from harness.plugin import SETTINGS, Judge
from harness.settings import Settings

# Properties are the same on every run and every worker; a slow machine is no fault of the decoder.
hypothesis_settings.register_profile("eagle2", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("eagle2")
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)  # the models are small: a second thread waits more than it works, and a busy machine stalls it


@pytest.fixture(scope="session")
def asked(pytestconfig: pytest.Config) -> Settings:
    return pytestconfig.stash[SETTINGS]


@pytest.fixture(scope="session")
def impl(asked: Settings) -> Implementation:
    return connect(asked.impl, asked.time_limit, Path(asked.tape) if asked.tape else None)


@pytest.fixture(scope="session")
def pair(asked: Settings) -> Pair:
    """The pair to decode with."""
    return find_pair(asked.pair, asked.target or None, asked.draft or None)


@pytest.fixture(scope="session")
def open_engine(impl: Implementation, asked: Settings) -> Callable[..., Engine]:
    """open_engine(pair, speculate=…, **options): an engine, kept for later checks of this worker.

    The device and dtype of the run are handed to constructors that have a parameter for them.
    """

    @cache
    def opened(pair: Pair, speculate: bool = True, **options: Any) -> Engine:
        common = {name: value for name, value in {"dtype": asked.dtype, "device": asked.device}.items() if impl.takes(name)}
        return impl.open(pair, speculate=speculate, **{**common, **options})

    return opened


@pytest.fixture(scope="session")
def teacher(asked: Settings) -> Callable[[Pair, str], Teacher]:
    """teacher(pair, dtype): the truth about a pair, and the noise of that dtype."""
    return cache(lambda pair, dtype: Teacher(pair, dtype, asked.device))


@pytest.fixture(scope="session")
def plain(asked: Settings) -> Callable[[Pair, str], transformers.PreTrainedModel]:
    """plain(pair, dtype): the target through transformers alone."""
    return cache(lambda pair, dtype: load_plain(pair, dtype, asked.device))


@pytest.fixture(scope="session")
def coins4() -> Pair:
    return shipped("coin4")


@pytest.fixture(scope="session")
def coins6() -> Pair:
    return shipped("coin6")


@pytest.fixture(scope="session")
def texts(pair: Pair) -> list[Prompt]:
    """The held-out prompts, in the pair's tokens; cut where they would fill more than half the context."""
    return [replace(prompt, tokens=prompt.tokens[: pair.context // 2]) for prompt in prompts(pair)]


@pytest.fixture
def judge(request: pytest.FixtureRequest, asked: Settings) -> Judge:
    return Judge(request.node, asked)
