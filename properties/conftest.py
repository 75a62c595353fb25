"""What the chapters are given: the subject, opened once a worker, and a judge for each check."""

from __future__ import annotations

from pathlib import Path

from harness.lasting import lasting

with lasting():
    import pytest
    import torch
    import transformers
    from hypothesis import HealthCheck
    from hypothesis import settings as hypothesis_settings

    from harness.implementations import connect
    from harness.pairs import find_pair
    from harness.pytest_plugin import SETTINGS, Judge, is_worker, judge_of
    from harness.settings import Settings
    from properties.memory import Peak
    from properties.subject import Subject

# Properties are the same on every run and every worker; a slow machine is no fault of the decoder.
hypothesis_settings.register_profile("eagle2", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("eagle2")
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)  # the models are small: a second thread waits more than it works, and a busy machine stalls it


def pytest_configure(config: pytest.Config) -> None:
    if not is_worker(config):
        config.pluginmanager.register(Peak())


@pytest.fixture(scope="session")
def asked(pytestconfig: pytest.Config) -> Settings:
    return pytestconfig.stash[SETTINGS]


@pytest.fixture(scope="session")
def subject(asked: Settings, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    own = tmp_path_factory.getbasetemp()
    told = own.parent if is_worker(pytestconfig) else own  # those of all workers stand in one that the run has to itself
    impl = connect(asked.impl, asked.time_limit, Path(asked.tape) if asked.tape else None)
    return Subject.of(asked, impl, find_pair(asked.pair, asked.target or None, asked.draft or None), told)


@pytest.fixture
def judge(request: pytest.FixtureRequest, subject: Subject) -> Judge:
    return judge_of(request.node, subject.impl.lossy)
