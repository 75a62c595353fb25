"""The reference decoder as an implementation: what an outsider would write, and doors for the checks that look inside."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import transformers
from torch import Tensor

import eagle2_ref
from eagle2_ref.coins import Coins, SeededCoins
from eagle2_ref.decode import Decoder, Generation
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.errors import BadInput
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.methods import LOSSY, METHODS, MethodSpec, method
from eagle2_ref.model.target import Target
from eagle2_ref.rules import RULES, Accepted, Rule
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import Tree
from harness.enumeration.coins import is_symbolic

transformers.utils.logging.disable_progress_bar()  # bars of loading would stand among the results

Accept = Callable[[list[int], list[int], Tensor, Coins], tuple[list[int], int]]
"""A bare rule: (tokens [m + 1], parents [m + 1], p [m + 1, V], coins) -> (accepted nodes, top down; one more token)."""

LAW = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "eos"}
TOLD = {"blocks", "logprobs", "counters"}
COMMON = frozenset({*LAW, *TOLD, "context", "coins", "budget", "batch", "decoder"})
RULE_CAPABILITIES = COMMON | {"accept", "deterministic", "dynamic", "head"}


class Reference:
    """eagle2_ref behind the protocol of DESIGN's outsider, whatever the method: two methods and a list of what it can do.

    coins: `decode` takes the coins. accept: `accept` is the rule alone. rules: the option `rule` chooses among the lossless ones.
    budget: those of the options k, depth and m that there are bound the trees. batch: the option batch is, the number of texts
    that share a target pass, and a text with its seed, or with its coins in `decode_all`, is what it is alone. deterministic: its
    trees depend on the text alone, never on coins; or sampled: they are drawn, and its rule is that of drawn ones. dynamic: its
    trees are EAGLE-2's, the m nodes of highest value. head: it drafts with an EAGLE head. tau: it emits as many tokens a pass as
    are committed for its method. decoder: `decoder` is an eagle2_ref Decoder whose insides may be looked at.
    """

    family: MethodSpec
    capabilities = COMMON
    version = f"eagle2_ref {eagle2_ref.__version__}"

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        rule: str = "",
        dtype: str = "float32",
        device: str = "cpu",
        batch: int = 1,
        accept: Accept | None = None,
        **own: Any,
    ) -> None:
        self.rule = _from_outside(accept) if accept else self.family.rule_of(rule)
        loaded = Target.load(target, dtype, device)
        drafter = None if draft is None else self.family.make(**own).drafter(loaded, draft)
        self.decoder = self.make_decoder(loaded, drafter, self.rule)
        self.batch = checked_batch(batch)
        self.counted = Counter(passes=0, drafted=0, accepted=0)

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:
        """The decoder of these parts. A decoder that differs in one part overrides this."""
        return Decoder(target, drafter, rule)

    @classmethod
    def describe(cls, rule: str = "", **others: Any) -> dict[str, Any]:
        """What it says of itself before it is opened. A drafter that is kept warm drafts by the texts before, too."""
        lossy = LOSSY.get(rule, "")
        unable = {"rules", "accept"} if lossy else set()
        unable |= {"sampled"} if rule in RULES else set()
        unable |= {"deterministic", "batch", "tau"} if others.get("warm") else set()
        able = cls.capabilities - unable
        told = {"checkpoint": cls.family.checkpoint, "lossy": lossy, "method": cls.family.name}
        return {"capabilities": able, "version": cls.version, **told}

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        return self.decode_all(prompts, params, [SeededCoins(seed) for seed in seeds])

    def decode_all(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], coins: Sequence[Coins]
    ) -> list[dict[str, Any]]:
        if self.batch == 1:
            return [self.decode(*asked) for asked in zip(prompts, params, coins, strict=True)]
        made = self.decoder.generate_batch(prompts, [SamplingParams.of(param) for param in params], coins, self.batch)
        return [self._count(told(generation)) for generation in made]

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        return self._count(told(self.decoder.generate(prompt, SamplingParams.of(params), coins)))

    def counters(self) -> dict[str, int]:
        return dict(self.counted)

    def _count(self, answer: dict[str, Any]) -> dict[str, Any]:
        """All passes but the prompt's, with or without drafts."""
        for block in answer["blocks"][1:]:
            self.counted.update(passes=1, drafted=len(block["tokens"]) - 1, accepted=block["accepted"])
        return answer


class Engine(Reference):
    """EAGLE-2."""

    family = METHODS["eagle2"]
    capabilities = RULE_CAPABILITIES | {"rules", "tau"}

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        rule: str = "reject",
        k: int = 8,
        depth: int = 6,
        m: int = 25,
        head_temperature: float = 1.0,
        node: float = 0.0,
        layer: float = 0.0,
        dtype: str = "float32",
        device: str = "cpu",
        batch: int = 1,
        accept: Accept | None = None,
    ) -> None:
        budget = {"k": k, "depth": depth, "m": m, "head_temperature": head_temperature, "node": node, "layer": layer}
        super().__init__(target, draft, rule, dtype, device, batch, accept, **budget)


def engine(drafter: str) -> type[Reference]:
    """The implementation that drafts by a method, of its name; its options are the method's own, and those that all have."""
    family = method(drafter)
    if family is Engine.family:
        return Engine
    common = dict(inspect.signature(Reference).parameters)
    own = {name: option.replace(kind=option.KEYWORD_ONLY) for name, option in inspect.signature(family.make).parameters.items()}
    del common["accept"], common["own"]
    told = {
        "family": family,
        "capabilities": COMMON
        | {"tau"}
        | ({"rules", "deterministic"} if family.deterministic else {"sampled"})
        | ({"head"} if family.checkpoint == "draft" else set()),
        "__signature__": inspect.Signature([*common.values(), *own.values()]),
        "__doc__": f"{family.title}.",
    }
    return type(f"Drafting_{drafter}", (Reference,), told)


class FixedShapes(Engine):
    """The loop of eagle2_ref/static.py, one text at a time: on CUDA a graph a step, elsewhere the same operations one by one.

    Its rule is `walk`. It knows no penalties, which look back; and what looks inside a Decoder looks for what is not there.
    """

    capabilities = frozenset({*LAW, *TOLD, "context", "budget", "deterministic"}) - {"repetition_penalty"}

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        k: int = 8,
        depth: int = 6,
        m: int = 25,
        head_temperature: float = 1.0,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(target, draft, "walk", k, depth, m, head_temperature, dtype=dtype, device=device)

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:
        return FixedShapeDecoder(target, drafter, rule)


def checked_batch(size: int) -> int:
    """Raise BadInput for a number of sequences in a pass that cannot be."""
    if size < 1 or size != int(size):
        raise BadInput(f"batch is {size}", "batch must be a whole number of 1 or more")
    return int(size)


def between(network: Any, forward: Callable[..., Any]) -> Any:
    """A network whose passes somebody else makes, or listens to; all else is its own."""
    return _Between(network, forward)


class _Between:
    def __init__(self, network: Any, forward: Callable[..., Any]) -> None:
        self._network, self._forward = network, forward

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *given: Any) -> Any:
        return self._forward(*given)


def told(generation: Generation) -> dict[str, Any]:
    """A generation in the words of the protocol: plain numbers and lists. Log-probabilities only where every token has one."""
    drafts = [(block.accepted, block.tree.proposals) for block in generation.blocks[1:]]
    blocks = [{"accepted": n, "tokens": tree.tokens.tolist(), "parents": tree.parents.tolist()} for n, tree in drafts]
    answer = {"tokens": generation.tokens, "blocks": [{"accepted": 0, "tokens": [], "parents": []}, *blocks]}
    logprobs = [value for block in generation.blocks for value in block.logprobs[: len(block.tokens)]]
    return answer | ({"logprobs": logprobs} if len(logprobs) == len(generation.tokens) else {})


def _from_outside(accept: Accept) -> Rule:
    def rule(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
        path, token = accept(tree.tokens.tolist(), tree.parents.tolist(), p, coins)
        return Accepted(list(path), token if is_symbolic(token) else int(token))

    return rule
