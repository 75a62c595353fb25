"""The decoding loop: propose, verify, accept, commit."""

from __future__ import annotations

from collections import abc, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from eagle2_ref.coins import Coins
from eagle2_ref.drafters.base import Drafter, Method
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.model.target import Target
from eagle2_ref.rules import Rule, reject
from eagle2_ref.sampling import SamplingParams, apply_processors, probabilities
from eagle2_ref.sequence import Block, Finish, Generation, Sequence
from eagle2_ref.tree import ROOT, DraftTree, Tree

__all__ = ["Block", "Decoder", "Finish", "Generation", "Sequence"]


class Decoder:
    """A target, a drafter and an acceptance rule.

    Without a drafter every tree is the root alone, and the same loop is ordinary decoding. Every part of a step is a public
    method, so that a variant overrides one of them.
    """

    sequence_type: type[Sequence] = Sequence
    """The class of sequences, which decides where they end."""

    def __init__(self, target: Target, drafter: Drafter | None = None, rule: Rule = reject) -> None:
        self.target, self.drafter, self.rule = target.reading(drafter.layers) if drafter else target, drafter, rule

    @classmethod
    def load(
        cls,
        target: Path | str,
        draft: Path | str | None = None,
        method: Method | None = None,
        rule: Rule = reject,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> Self:
        """Load a decoder from checkpoint directories. The defaults are EAGLE-2 as published.

        Args:
            target: directory of the target, as transformers saves it.
            draft: directory of the draft head, or of what else the method drafts with; None for ordinary decoding.
            method: drafting method with its options; without it EAGLE-2 with its default budget.
            rule: acceptance rule, see rules.py.
            dtype: float64, float32, bfloat16 or float16.
            device: cpu, cuda, cuda:N, or auto to spread the target over all devices.

        Raises:
            BadInput: a checkpoint is missing or damaged, does not fit, or an option is out of range.
        """
        loaded = Target.load(target, dtype, device)
        return cls(loaded, None if draft is None else (method or Budget()).drafter(loaded, draft), rule)

    # --- whole texts -------------------------------------------------------------------------------------------------

    def generate(self, prompt: abc.Sequence[int], params: SamplingParams, coins: Coins) -> Generation:
        """Continue a prompt.

        The tokens are distributed as ordinary samples from the target with the same parameters, cut after the first
        end-of-text token, at `max_new_tokens`, or where the context of the model is full.

        Args:
            prompt: token ids, at least one.
            params: sampling parameters.
            coins: source of randomness, e.g. SeededCoins(0).

        Raises:
            BadInput: the prompt is empty or too long, or has a token outside the vocabulary.
        """
        sequence = self.start(prompt, params, coins)
        for _ in self.blocks(sequence):
            pass
        return sequence.generation()

    def stream(self, prompt: abc.Sequence[int], params: SamplingParams, coins: Coins) -> Iterator[Block]:
        """As `generate`, block by block."""
        yield from self.blocks(self.start(prompt, params, coins))

    def generate_batch(
        self,
        prompts: abc.Sequence[abc.Sequence[int]],
        params: abc.Sequence[SamplingParams],
        coins: abc.Sequence[Coins],
        size: int = 32,
    ) -> list[Generation]:
        """Continue several prompts, with at most `size` sequences in a pass. A new one starts when another one ends.

        Each result is what `generate` returns for the prompt alone, with the same coins. Only the order of additions in a
        padded pass differs: in float64 tokens are the same, in lower precision two tokens that are nearly equally likely can
        be exchanged.
        """
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise BadInput(f"batch is {size!r}", "batch must be a whole number of 1 or more")
        if not len(prompts) == len(params) == len(coins):
            raise BadInput(
                f"a batch of {len(prompts)} prompts, {len(params)} sets of parameters and {len(coins)} coins",
                "give one of each for every prompt",
            )
        for prompt in prompts:
            self.check_prompt(prompt)
        waiting = deque(enumerate(zip(prompts, params, coins, strict=True)))
        running, results = list[tuple[int, Sequence]](), dict[int, Generation]()
        while waiting or running:
            started = [waiting.popleft() for _ in range(min(size - len(running), len(waiting)))]
            new = [(number, self.start(*request)) for number, request in started]
            self.prefill([sequence for _, sequence in new])
            running += new
            self.step([sequence for _, sequence in running if not sequence.finish])
            for row in reversed(range(len(running))):
                number, sequence = running[row]
                if sequence.finish:
                    results[number] = sequence.generation()
                    sequence.cache.release()
                    running[row] = running[-1]  # the last one moves to this row of the cache, all others keep their rows
                    running.pop()
        return [results[number] for number in range(len(results))]

    # --- the loop ----------------------------------------------------------------------------------------------------

    def start(self, prompt: abc.Sequence[int], params: SamplingParams, coins: Coins) -> Sequence:
        """A new sequence, of which nothing has been computed."""
        self.check_prompt(prompt)
        sequence = self.sequence_type(prompt, params, coins, self.target.cache(), self.target.context)
        if self.drafter:
            sequence.draft = self.drafter.start(sequence)
        return sequence

    def blocks(self, sequence: Sequence) -> Iterator[Block]:
        """Decode a sequence to the end of its turn: a new one, one that was set aside, or one that was extended."""
        if not sequence.blocks:
            self.prefill([sequence])
            yield sequence.blocks[-1]
        while not sequence.finish:
            self.step([sequence])
            yield sequence.blocks[-1]

    def prefill(self, sequences: abc.Sequence[Sequence]) -> None:
        """Read the prompt of each sequence, in one target pass, and emit its first token."""
        prompts = [sequence.unread for sequence in sequences]
        outputs = self.target.prefill([sequence.cache for sequence in sequences], prompts)
        for sequence, prompt, output in zip(sequences, prompts, outputs, strict=True):
            sequence.target_passes += 1
            block = sequence.append(self.accept(sequence, self.root_tree(sequence), output.logits))
            if self.drafter:
                # A feature goes together with the token that follows it.
                self.drafter.observe(sequence, [*prompt[1:], *sequence.tokens[block.start :]], output.features)

    def step(self, sequences: abc.Sequence[Sequence]) -> None:
        """Emit one block for each sequence, in one target pass."""
        trees = self.propose(sequences)
        outputs = self.verify(sequences, trees)
        for sequence, tree, output in zip(sequences, trees, outputs, strict=True):
            block = sequence.append(self.accept(sequence, tree, output.logits))
            self.commit(sequence, block)
            self.observe(sequence, block, output)

    def propose(self, sequences: abc.Sequence[Sequence]) -> abc.Sequence[Tree]:
        """A draft tree for each sequence."""
        if self.drafter is None:
            return [self.root_tree(sequence) for sequence in sequences]
        return self.drafter.propose(sequences)

    def verify(self, sequences: abc.Sequence[Sequence], trees: abc.Sequence[Tree]) -> list[ModelOutput]:
        """The target's logits [m + 1, V] and features [m + 1, H] at every node, for each sequence."""
        for sequence in sequences:
            sequence.target_passes += 1
        return self.target.verify([sequence.cache for sequence in sequences], trees)

    def accept(self, sequence: Sequence, tree: Tree, logits: Tensor) -> Block:
        """Apply the acceptance rule to a verified tree. The block is not yet cut at an end of text.

        Args:
            sequence: the sequence up to the root.
            tree: the verified tree.
            logits: the target's logits at every node, [m + 1, V].
        """
        proposals = tree.proposals
        p, scores = self.target_distribution(sequence, proposals, logits[: len(proposals)])
        sequence.coins.seek(len(sequence.tokens))
        accepted = self.rule(proposals, p, sequence.coins)
        tokens = accepted.tokens(proposals)
        logprobs = self.logprobs(scores, [ROOT, *accepted.path], tokens)
        return Block(len(sequence.tokens), tokens, len(accepted.path), tree, accepted.path, logprobs)

    def target_distribution(self, sequence: Sequence, tree: Tree, logits: Tensor) -> tuple[Tensor, Tensor]:
        """What the rule and the caller learn of the target.

        Returns:
            p [m + 1, V], the target distribution after every node, from which the rule samples; and scores [m + 1, V], whose
            log-softmax is reported as log-probabilities. They differ at temperature 0, where p is a point mass.
        """
        scores = apply_processors(logits, tree, sequence.tokens, sequence.params)
        return probabilities(scores, sequence.params), scores

    def logprobs(self, scores: Tensor, nodes: abc.Sequence[int], tokens: abc.Sequence[int]) -> list[float]:
        """Log-probability of each token, which follows the node of the same index; none for tokens without a value."""
        last: object = tokens[-1]
        if not isinstance(last, int):
            return []
        rows, columns = (torch.tensor(indices, device=scores.device) for indices in (nodes, tokens))
        logprobs: list[float] = scores.index_select(0, rows).log_softmax(-1).gather(1, columns[:, None])[:, 0].tolist()
        return logprobs

    def commit(self, sequence: Sequence, block: Block) -> None:
        """Keep the root and the accepted tokens in the target's cache, but for the newest token."""
        self.target.commit(sequence.cache, block.path[: len(block.tokens) - 1])

    def observe(self, sequence: Sequence, block: Block, output: ModelOutput) -> None:
        """Pass the result of a step on to the drafter: the target's output at every node, and the features of new tokens."""
        if self.drafter:
            self.drafter.learn(sequence, block.tree, output.logits, block.path)
            nodes = [ROOT, *block.path][: len(block.tokens)]
            self.drafter.observe(sequence, sequence.tokens[block.start :], output.features[nodes])

    def root_tree(self, sequence: Sequence) -> Tree:
        """The tree without proposals."""
        return (self.drafter.tree_type if self.drafter else DraftTree).root_only(sequence.tokens[-1])

    def check_prompt(self, prompt: abc.Sequence[int]) -> None:
        """Raise BadInput for a prompt that cannot be continued."""
        if not isinstance(prompt, abc.Sequence) or isinstance(prompt, str | bytes):
            raise BadInput(f"the prompt is a {type(prompt).__name__}", "give a list of token ids")
        if not prompt:
            raise BadInput("the prompt is empty", "give at least one token")
        if strange := [token for token in prompt if not (_is_whole(token) and 0 <= token < self.target.vocab_size)]:
            raise BadInput(
                f"the prompt has token {strange[0]!r}", f"{self.target.name} has tokens 0 to {self.target.vocab_size - 1}"
            )
        if len(prompt) >= self.target.context:
            raise BadInput(
                f"the prompt has {len(prompt)} tokens, {self.target.name} can hold {self.target.context}",
                "give a prompt that leaves room for an answer",
            )


def _is_whole(token: object) -> bool:
    """Whether a token is a whole number: an int, or one of numpy or torch."""
    return hasattr(token, "__index__") and not isinstance(token, bool)
