"""The package installed from its wheel into another project, which has pytest settings, a conftest and tests of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.pairs import FIXTURES
from harness.record.model import read_record

ROOT = FIXTURES.parent
PACKAGES = ("eagle2_ref", "harness", "properties", "fixtures")
DATA = ("fixtures/pairs/**/*", "fixtures/prompts/*", "harness/report/templates/*", "harness/mutants/*.json")

SETTINGS = """
[tool.pytest.ini_options]
addopts = "--strict-markers --strict-config"
xfail_strict = true
filterwarnings = ["error"]
"""

CONFTEST = """
import random
import pytest

@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
"""

PROJECT_TESTS = """
import os
import sys

def test_nothing_heavy_is_imported(pytestconfig):
    plugin = pytestconfig.pluginmanager.get_plugin("eagle2")
    assert plugin.__file__.startswith(os.environ["PYTHONPATH"])
    assert not {"torch", "pydantic", "harness.record.model", "properties"} & set(sys.modules)

def test_of_an_engine():
    pass
"""

ENGINE = """
import warnings

class Engine:
    def __init__(self, target, draft=None):
        warnings.warn("of the engine", DeprecationWarning)

    def generate(self, prompts, params, seeds):
        return [[seed % 7] * row["max_new_tokens"] for row, seed in zip(params, seeds, strict=True)]
"""
"""Enough for SMOKE: it answers, repeats its answers, and depends on its seeds."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, installed into a folder for packages inside another project."""
    folder = tmp_path_factory.mktemp("wheel")
    source, project = folder / "source", folder / "project"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__", "work"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--wheel-dir", str(folder), str(source)], check=True)
    target = ["--no-deps", "--no-index", "--no-compile", "--target", str(project / ".venv")]
    subprocess.run([*pip, "install", *target, *map(str, folder.glob("*.whl"))], check=True)
    return project / ".venv"


def run_module(program: list[str], site: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an installed module. -P: the scripts of an environment do not import from the current folder either."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(site), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-P", "-m", *program]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


def write_project(folder: Path) -> Path:
    """Write a project with strict settings, a conftest and tests."""
    files = {"pyproject.toml": SETTINGS, "conftest.py": CONFTEST, "test_theirs.py": PROJECT_TESTS, "engines.py": ENGINE}
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_wheel_contains_data_files(site: Path) -> None:
    source = site.parent.parent / "source"
    for pattern in DATA:
        found = [path.relative_to(source) for path in source.glob(pattern) if path.is_file()]
        assert found and not [path for path in found if not (site / path).is_file()], pattern


def test_plugin_does_nothing_without_an_implementation(site: Path, tmp_path: Path) -> None:
    """Every pytest of the environment loads it: it has no errors under strict settings, writes nothing, and imports no torch."""
    done = run_module(["pytest", "-q"], site, write_project(tmp_path))
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "reports").exists()


def test_chapters_and_tests_of_the_project_keep_their_own_settings(site: Path, tmp_path: Path) -> None:
    """Tests of the project run; its `error` for warnings does not apply to engines; meta/ is not collected."""
    words = ["test_theirs.py", "--pyargs", "properties", "--impl", "py:engines:Engine", "--judge", "only=SMOKE", "-n", "2"]
    done = run_module(["pytest", *words, "-k", "not heavy"], site, write_project(tmp_path))
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
    record = read_record(tmp_path / "reports" / "latest" / "record.jsonl")
    assert [(each.property, each.verdict) for each in record.results] == [("SMOKE-1", "pass"), ("SMOKE-2", "pass")]
    assert "pass: 2 checks" in done.stdout


def test_command_ignores_pytest_settings_and_conftest_of_the_project(site: Path) -> None:
    """Neither those of the current folder nor those around the environment: here a missing plugin, and a conftest that raises."""
    folder = write_project(site.parent)
    (folder / "pyproject.toml").write_text(SETTINGS.replace("--strict-config", "--strict-config --no-such-option"))
    (folder / "conftest.py").write_text("raise RuntimeError('not ours')")
    done = run_module(["harness.cli", "verify", "py:engines:Engine", "--only", "SMOKE", "-n", "0", "--out", "out"], site, folder)
    assert done.returncode == 0 and "SMOKE-2   pass" in done.stdout, done.stdout + done.stderr
