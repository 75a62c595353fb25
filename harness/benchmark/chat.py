"""Chat formats: how a conversation becomes a prompt for models that were trained to chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eagle2_ref.errors import BadInput
from harness.pairs import Pair, tokenizer_of


@dataclass(frozen=True)
class ChatFormat:
    """The format of a family of models.

    template: Jinja template for a tokenizer without one. The tokenizer adds the begin-of-text token.
    system: system message that the format begins with. ends: tokens that end an answer.
    """

    template: str
    system: str = ""
    ends: tuple[str, ...] = ()


VICUNA = ChatFormat(
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }} "
    "{% elif message.role == 'user' %}USER: {{ message.content }} "
    "{% else %}ASSISTANT: {{ message.content }}</s>{% endif %}"
    "{% endfor %}ASSISTANT:",
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite"
    " answers to the user's questions.",
    ("</s>",),
)

# The evaluation of the EAGLE-2 paper appends one more space to a prompt; the documented format has none.
LLAMA2 = ChatFormat(
    "{% for message in messages %}"
    "{% if message.role == 'system' %}[INST] <<SYS>>\n{{ message.content }}\n<</SYS>>\n\n"
    "{% elif message.role == 'user' %}"
    "{{ '[INST] ' if loop.first or loop.previtem.role != 'system' }}{{ message.content }} [/INST]"
    "{% else %} {{ message.content }} </s><s>{% endif %}"
    "{% endfor %}",
    ends=("</s>",),
)

LLAMA3 = ChatFormat(
    "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n{{ message.content }}<|eot_id|>"
    "{% endfor %}<|start_header_id|>assistant<|end_header_id|>{{ '\n\n' }}",  # Jinja drops a template's last line break
    ends=("<|end_of_text|>", "<|eot_id|>"),
)

PLAIN = ChatFormat("{% for message in messages %}{{ message.content }}\n{% endfor %}")
"""For any other model: one turn per line. A model that was not trained to chat has no token that ends an answer."""


@dataclass(frozen=True)
class Chat:
    """A chat format with the tokenizer of one target. system: the system message; empty for none."""

    tokenizer: Any
    format: ChatFormat = PLAIN
    system: str = ""

    @classmethod
    def of(cls, pair: Pair, format: ChatFormat = PLAIN, system: str = "") -> Chat:  # noqa: A002
        """The format with the tokenizer of a pair's target. `system` replaces the format's own system message."""
        tokenizer = tokenizer_of(pair)
        if tokenizer is None:
            raise BadInput(f"{pair.target} has no tokenizer", "a conversation needs one: download its files too")
        return cls(tokenizer, format, system or format.system)

    def prompt(self, turns: Sequence[str]) -> tuple[str, list[int]]:
        """Text and tokens of a conversation in which the model speaks next. User and assistant take turns, the user first."""
        has_template = bool(self.tokenizer.chat_template)
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)]
        text = self.tokenizer.apply_chat_template(
            [*system, *messages],
            chat_template=None if has_template else self.format.template,
            tokenize=False,
            add_generation_prompt=True,
        )
        # A tokenizer's own template writes the begin-of-text token; the templates here leave it to the tokenizer.
        return text, [int(token) for token in self.tokenizer(text, add_special_tokens=not has_template)["input_ids"]]

    def answer(self, tokens: Sequence[int]) -> str:
        """The text of an answer, without the token that ends it."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()

    @property
    def end_tokens(self) -> tuple[int, ...]:
        """Tokens that end an answer: those of the format, or end-of-text if the tokenizer brings its own template."""
        if not self.format.ends and self.tokenizer.chat_template and self.tokenizer.eos_token_id is not None:
            return (int(self.tokenizer.eos_token_id),)
        known = self.tokenizer.get_vocab()
        if missing := [token for token in self.format.ends if token not in known]:
            raise BadInput(
                f"the tokenizer of {self.tokenizer.name_or_path} has no token {', '.join(missing)}",
                "the preset is for another family of models",
            )
        return tuple(known[token] for token in self.format.ends)
