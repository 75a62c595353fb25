"""How a conversation becomes a prompt: the formats that chat models were trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eagle2_ref.errors import BadInput
from harness.pairs import Pair, tokenizer_of


@dataclass(frozen=True)
class Family:
    """Models that are asked alike. system: the message that their format begins with. ends: tokens that end an answer.

    template: Jinja, for a tokenizer that brings none of its own; what a text begins with is left to the tokenizer.
    """

    template: str
    system: str = ""
    ends: tuple[str, ...] = ()


VICUNA = Family(
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }} "
    "{% elif message.role == 'user' %}USER: {{ message.content }} "
    "{% else %}ASSISTANT: {{ message.content }}</s>{% endif %}"
    "{% endfor %}ASSISTANT:",
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite"
    " answers to the user's questions.",
    ("</s>",),
)

# (The evaluation of the EAGLE-2 paper puts one more space behind a prompt; the format has none.)
LLAMA2 = Family(
    "{% for message in messages %}"
    "{% if message.role == 'system' %}[INST] <<SYS>>\n{{ message.content }}\n<</SYS>>\n\n"
    "{% elif message.role == 'user' %}"
    "{{ '[INST] ' if loop.first or loop.previtem.role != 'system' }}{{ message.content }} [/INST]"
    "{% else %} {{ message.content }} </s><s>{% endif %}"
    "{% endfor %}",
    ends=("</s>",),
)

LLAMA3 = Family(
    "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n{{ message.content }}<|eot_id|>"
    "{% endfor %}<|start_header_id|>assistant<|end_header_id|>{{ '\n\n' }}",  # Jinja drops a template's last line break
    ends=("<|end_of_text|>", "<|eot_id|>"),
)

PLAIN = Family("{% for message in messages %}{{ message.content }}\n{% endfor %}")
"""For any other model. One that was never taught to chat is given one turn below the other, and no token ends an answer."""


@dataclass(frozen=True)
class Chat:
    """A family's way to ask, in the tokens of one target. system: the message that stands before all turns."""

    tokenizer: Any
    family: Family = PLAIN
    system: str = ""

    @classmethod
    def of(cls, pair: Pair, family: Family = PLAIN, system: str = "") -> Chat:
        tokenizer = tokenizer_of(pair)
        if tokenizer is None:
            raise BadInput(f"{pair.target} has no tokenizer", "a conversation needs one: download its files too")
        return cls(tokenizer, family, system or family.system)

    def prompt(self, turns: Sequence[str]) -> tuple[str, list[int]]:
        """Text and tokens of a conversation whose turns are the user's and the model's by turns; the model's is next."""
        own = bool(self.tokenizer.chat_template)
        system = [{"role": "system", "content": self.system}] if self.system else []
        said = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
        text = self.tokenizer.apply_chat_template(
            [*system, *said], chat_template=None if own else self.family.template, tokenize=False, add_generation_prompt=True
        )
        # A tokenizer's own template writes what a text begins with; ours leave it to the tokenizer.
        return text, [int(token) for token in self.tokenizer(text, add_special_tokens=not own)["input_ids"]]

    def said(self, tokens: Sequence[int]) -> str:
        """What an answer says, without the token that ends it."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end an answer: the family's, or the one of a tokenizer that brings a template for a model of none."""
        if not self.family.ends and self.tokenizer.chat_template and self.tokenizer.eos_token_id is not None:
            return (int(self.tokenizer.eos_token_id),)
        known = self.tokenizer.get_vocab()
        if lacking := [token for token in self.family.ends if token not in known]:
            raise BadInput(
                f"the tokenizer of {self.tokenizer.name_or_path} has no token {', '.join(lacking)}",
                "the preset is for another family of models",
            )
        return tuple(known[token] for token in self.family.ends)
