"""The models of the EAGLE-2 paper, and those of EAGLE-3's authors, by name: their checkpoints, chat formats and budgets."""

from __future__ import annotations

from dataclasses import dataclass

from eagle2_ref.drafters.base import Checkpoint
from eagle2_ref.drafters.eagle2 import Budget, TreeBudget
from eagle2_ref.drafters.eagle3 import Eagle3
from eagle2_ref.errors import BadInput
from harness.benchmark.chat import LLAMA2, LLAMA3, PLAIN, VICUNA, Chat, ChatFormat
from harness.pairs import Pair, download, find_pair


@dataclass(frozen=True)
class Preset:
    """A model with published figures. model: its name in the paper. target, draft: repositories of its checkpoints.

    Nothing is downloaded here. Users have the checkpoints, or download them from these repositories.
    """

    model: str
    target: str
    draft: str
    format: ChatFormat
    budget: TreeBudget
    dtype: str = "float16"

    @property
    def checkpoint(self) -> Checkpoint:
        """The kind of its head."""
        return "eagle3" if isinstance(self.budget, Eagle3) else "draft"

    def pair(self, target: str, draft: str) -> Pair:
        """The user's copies of the checkpoints."""
        for flag, given, repository in (("--target", target, self.target), ("--draft", draft, self.draft)):
            if not given:
                raise BadInput(f"{self.model} needs {flag}", download(flag, repository))
        return find_pair("", target, draft)

    def chat(self, pair: Pair, system: str = "") -> Chat:
        """Its chat format. The paper's evaluation adds a long system message for LLaMA, which is not part of the format."""
        return Chat.of(pair, self.format, system)


PRESETS = {
    name: Preset(model, target, f"yuhuili/EAGLE-{head}", chat_format, Budget(k=10, depth=6, m=total - 1))
    for name, model, target, head, chat_format, total in (
        ("vicuna-7b", "Vicuna 7B", "lmsys/vicuna-7b-v1.3", "Vicuna-7B-v1.3", VICUNA, 60),
        ("vicuna-13b", "Vicuna 13B", "lmsys/vicuna-13b-v1.3", "Vicuna-13B-v1.3", VICUNA, 50),
        ("vicuna-33b", "Vicuna 33B", "lmsys/vicuna-33b-v1.3", "Vicuna-33B-v1.3", VICUNA, 60),
        ("llama2-7b", "LLaMA2-Chat 7B", "meta-llama/Llama-2-7b-chat-hf", "llama2-chat-7B", LLAMA2, 60),
        ("llama2-13b", "LLaMA2-Chat 13B", "meta-llama/Llama-2-13b-chat-hf", "llama2-chat-13B", LLAMA2, 50),
        ("llama2-70b", "LLaMA2-Chat 70B", "meta-llama/Llama-2-70b-chat-hf", "llama2-chat-70B", LLAMA2, 48),
        ("llama3-8b", "LLaMA3-Instruct 8B", "meta-llama/Meta-Llama-3-8B-Instruct", "LLaMA3-Instruct-8B", LLAMA3, 60),
        ("llama3-70b", "LLaMA3-Instruct 70B", "meta-llama/Meta-Llama-3-70B-Instruct", "LLaMA3-Instruct-70B", LLAMA3, 48),
    )
}
PRESETS |= {
    f"{name}-eagle3": Preset(model, target, f"yuhuili/EAGLE3-{head}", chat_format, Eagle3(k=10, depth=8, m=59))
    for name, model, target, head, chat_format in (
        ("vicuna-13b", "Vicuna 13B", "lmsys/vicuna-13b-v1.3", "Vicuna1.3-13B", VICUNA),
        ("llama3.1-8b", "LLaMA3.1-Instruct 8B", "meta-llama/Llama-3.1-8B-Instruct", "LLaMA3.1-Instruct-8B", LLAMA3),
        ("llama3.3-70b", "LLaMA3.3-Instruct 70B", "meta-llama/Llama-3.3-70B-Instruct", "LLaMA3.3-Instruct-70B", LLAMA3),
        (
            "deepseek-r1-8b",
            "DeepSeek-R1-Distill-LLaMA 8B",
            "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
            "DeepSeek-R1-Distill-LLaMA-8B",
            PLAIN,  # its tokenizer has a chat template
        ),
    )
}
"""Budgets of EAGLE-2 are the paper's (EAGLE-2, appendix A); its 60, 50 and 48 tokens count the root, as its code does. The paper
gives no budget for Vicuna 33B; Spec-Bench measures all sizes with 60. Those of EAGLE-3 are the defaults of the published code,
`EaModel.from_pretrained`: 60 tokens with the root, and 7 layers after the first."""


def preset(name: str) -> Preset:
    """The preset with this name."""
    if name not in PRESETS:
        raise BadInput(f"preset {name!r} is not known", f"known are {', '.join(PRESETS)}")
    return PRESETS[name]
