"""In other people's projects: installed from its wheel, beside settings, a conftest and tests that are not ours."""

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

THEIRS = """
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
        warnings.warn("of their own", DeprecationWarning)

    def generate(self, prompts, params, seeds):
        return [[seed % 7] * row["max_new_tokens"] for row, seed in zip(params, seeds, strict=True)]
"""
"""Enough for SMOKE: it answers, repeats itself, and hears its seeds."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, installed into an environment's folder inside somebody's project."""
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


def outside(program: list[str], site: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a module of the environment; -P, since a script of an environment does not look into the folder one stands in."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"PYTHONPATH": str(site), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-P", "-m", *program]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False)


def project(folder: Path) -> Path:
    """A project with strict settings, a conftest and tests."""
    files = {"pyproject.toml": SETTINGS, "conftest.py": CONFTEST, "test_theirs.py": THEIRS, "engines.py": ENGINE}
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_what_is_no_code_is_in_the_wheel_too(site: Path) -> None:
    source = site.parent.parent / "source"
    for pattern in DATA:
        found = [path.relative_to(source) for path in source.glob(pattern) if path.is_file()]
        assert found and not [path for path in found if not (site / path).is_file()], pattern


def test_the_plugin_is_inert_where_nothing_is_judged(site: Path, tmp_path: Path) -> None:
    """Every pytest of the environment loads it: no error under strict settings, nothing written, nothing heavy imported."""
    done = outside(["pytest", "-q"], site, project(tmp_path))
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "reports").exists()


def test_chapters_beside_tests_that_are_not_ours(site: Path, tmp_path: Path) -> None:
    """Each keeps its own rules: their test stays, their `error` for warnings is not for engines; meta/ judges nobody."""
    words = ["test_theirs.py", "--pyargs", "properties", "--impl", "py:engines:Engine", "--judge", "only=SMOKE", "-n", "2"]
    done = outside(["pytest", *words, "-k", "not heavy"], site, project(tmp_path))
    assert done.returncode == 0 and "3 passed" in done.stdout, done.stdout + done.stderr
    seen = read_record(tmp_path / "reports" / "latest" / "record.jsonl")
    assert [(each.property, each.verdict) for each in seen.results] == [("SMOKE-1", "pass"), ("SMOKE-2", "pass")]
    assert "pass: 2 checks found no fault" in done.stdout


def test_the_command_reads_nothing_of_the_project_around_it(site: Path) -> None:
    """Not where one stands, and not around the environment: settings that need another plugin, and a conftest that raises."""
    folder = project(site.parent)
    (folder / "pyproject.toml").write_text(SETTINGS.replace("--strict-config", "--strict-config --no-such-option"))
    (folder / "conftest.py").write_text("raise RuntimeError('not ours')")
    done = outside(["harness.cli", "verify", "py:engines:Engine", "--only", "SMOKE", "-n", "0", "--out", "out"], site, folder)
    assert done.returncode == 0 and "SMOKE-2   pass" in done.stdout, done.stdout + done.stderr
