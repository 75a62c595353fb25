"""The models of the EAGLE-2 paper by name: which checkpoints, how they are asked, with which budget."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from harness.compare.chat import LLAMA2, LLAMA3, VICUNA, Chat, Family
from harness.pairs import Pair, find_pair


@dataclass(frozen=True)
class Preset:
    """A model that figures are published for. model: its name there. target, draft: repositories of its checkpoints.

    Nothing is downloaded: a user has the checkpoints, or fetches them by these names.
    """

    model: str
    target: str
    draft: str
    family: Family
    budget: Budget
    dtype: str = "float16"

    def pair(self, target: str, draft: str) -> Pair:
        """The user's copies of the checkpoints."""
        for flag, given, repository in (("--target", target, self.target), ("--draft", draft, self.draft)):
            if not given:
                raise BadInput(f"{self.model} needs {flag}: nothing is downloaded here", _download(flag, repository))
            if not Path(given).is_dir() and re.fullmatch(r"[\w.-]+/[\w.-]+", given):
                raise BadInput(
                    f"{flag} {given} is no directory, but the name of a repository: nothing is downloaded here",
                    _download(flag, given),
                )
        return find_pair("", target, draft)

    def chat(self, pair: Pair) -> Chat:
        return Chat.of(pair, self.family)


def _download(flag: str, repository: str) -> str:
    folder = repository.rpartition("/")[2]
    return f"hf download {repository} --local-dir {folder}\nand give {flag} {folder}"


def _paper(total: int) -> Budget:
    """The paper's budget (EAGLE-2, appendix A). What it counts as 60 tokens has the root among them in its code."""
    return Budget(k=10, depth=6, m=total - 1)


PRESETS = {
    "vicuna-7b": Preset("Vicuna 7B", "lmsys/vicuna-7b-v1.3", "yuhuili/EAGLE-Vicuna-7B-v1.3", VICUNA, _paper(60)),
    "vicuna-13b": Preset("Vicuna 13B", "lmsys/vicuna-13b-v1.3", "yuhuili/EAGLE-Vicuna-13B-v1.3", VICUNA, _paper(50)),
    # Not in the paper. Spec-Bench measures it with 60, as it does all sizes.
    "vicuna-33b": Preset("Vicuna 33B", "lmsys/vicuna-33b-v1.3", "yuhuili/EAGLE-Vicuna-33B-v1.3", VICUNA, _paper(60)),
    "llama2-7b": Preset("LLaMA2-Chat 7B", "meta-llama/Llama-2-7b-chat-hf", "yuhuili/EAGLE-llama2-chat-7B", LLAMA2, _paper(60)),
    "llama2-13b": Preset(
        "LLaMA2-Chat 13B", "meta-llama/Llama-2-13b-chat-hf", "yuhuili/EAGLE-llama2-chat-13B", LLAMA2, _paper(50)
    ),
    "llama2-70b": Preset(
        "LLaMA2-Chat 70B", "meta-llama/Llama-2-70b-chat-hf", "yuhuili/EAGLE-llama2-chat-70B", LLAMA2, _paper(48)
    ),
    "llama3-8b": Preset(
        "LLaMA3-Instruct 8B", "meta-llama/Meta-Llama-3-8B-Instruct", "yuhuili/EAGLE-LLaMA3-Instruct-8B", LLAMA3, _paper(60)
    ),
    "llama3-70b": Preset(
        "LLaMA3-Instruct 70B", "meta-llama/Meta-Llama-3-70B-Instruct", "yuhuili/EAGLE-LLaMA3-Instruct-70B", LLAMA3, _paper(48)
    ),
}


def preset(name: str) -> Preset:
    """The preset of a name."""
    if name not in PRESETS:
        raise BadInput(f"preset {name!r} is not known", f"known are {', '.join(PRESETS)}")
    return PRESETS[name]
