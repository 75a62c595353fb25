"""The reference decoder as an implementation: the two methods of the protocol, and access for checks that look inside."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import transformers
from torch import Tensor

import eagle2_ref
from eagle2_ref.coins import Coins, SeededCoins
from eagle2_ref.decode import Decoder, Generation
from eagle2_ref.drafters.base import Drafter
from eagle2_ref.drafters.eagle3 import Eagle3
from eagle2_ref.errors import BadInput
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.methods import LOSSY, METHODS, MethodSpec, method
from eagle2_ref.model.network import Network
from eagle2_ref.model.target import Target
from eagle2_ref.rules import RULES, Accepted, Rule
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import Tree
from harness.implementations import SHAPE, fit_vocabulary
from harness.implementations.engine import is_unread

transformers.utils.logging.disable_progress_bar()  # they would be printed among the results

Accept = Callable[[list[int], list[int], Tensor, Coins], tuple[list[int], int]]
"""A rule without our types: (tokens [m + 1], parents [m + 1], p [m + 1, V], coins) -> (accepted nodes, one more token)."""

LAW = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "eos"}
REPORTED = {"blocks", "logprobs", "counters"}
COMMON = frozenset({*LAW, *REPORTED, "context", "coins", "budget", "batch", "decoder"})
HEADS = ("draft", "eagle3")
"""Checkpoints that are EAGLE heads."""
RULE_CAPABILITIES = COMMON | {"accept", "deterministic", "dynamic", "head"}


class Reference:
    """eagle2_ref as an implementation, with any drafting method. Its capabilities are explained in protocol.CAPABILITIES."""

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
        loaded = load_target(target, dtype, device)
        self.network = loaded.network  # keeps it shared: a decoder may hold a copy that reads other layers
        drafter = None if draft is None else self.family.make(**self.fitted(own, loaded.vocab_size)).drafter(loaded, draft)
        self.decoder = self.make_decoder(loaded, drafter, self.rule)
        self.batch = checked_batch(batch)
        self.counted = Counter(passes=0, drafted=0, accepted=0)

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:
        """The decoder of these parts. A decoder that differs in one part overrides this."""
        return Decoder(target, drafter, rule)

    @classmethod
    def fitted(cls, given: dict[str, Any], vocab_size: int) -> dict[str, Any]:
        """Options of the drafter. Bounds of an EAGLE tree that are left to their defaults fit the vocabulary.

        A draft vocabulary that is larger than the whole one is cut, since checks open small pairs too.
        """
        if given.get("draft_vocab", 0) > vocab_size:
            given = {**given, "draft_vocab": vocab_size - 1}
        if cls.family.checkpoint not in HEADS or "k" in given:
            return given
        defaults = {name: option.default for name, option in inspect.signature(cls.family.make).parameters.items()}
        return {**fit_vocabulary({name: defaults[name] for name in SHAPE}, vocab_size), **given}

    @classmethod
    def describe(cls, rule: str = "", **others: Any) -> dict[str, Any]:
        """Capabilities and version, before it is opened. A warm drafter is excluded from checks of repeated texts."""
        lossy = LOSSY.get(rule, "")
        unable = {"rules", "accept"} if lossy else set()
        unable |= {"sampled"} if rule in RULES else set()
        unable |= {"deterministic", "batch", "tau"} if others.get("warm") else set()
        unable |= {"tau"} if others.get("draft_vocab") else set()
        description = {"checkpoint": cls.family.checkpoint, "lossy": lossy, "method": cls.family.name}
        return {"capabilities": cls.capabilities - unable, "version": cls.version, **description}

    def generate(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], seeds: Sequence[int]
    ) -> list[dict[str, Any]]:
        return self.decode_all(prompts, params, [SeededCoins(seed) for seed in seeds])

    def decode_all(
        self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]], coins: Sequence[Coins]
    ) -> list[dict[str, Any]]:
        if self.batch == 1:
            return [self.decode(*request) for request in zip(prompts, params, coins, strict=True)]
        generations = self.decoder.generate_batch(prompts, [SamplingParams.of(param) for param in params], coins, self.batch)
        return [self._count(to_answer(generation)) for generation in generations]

    def decode(self, prompt: list[int], params: dict[str, Any], coins: Coins) -> dict[str, Any]:
        return self._count(to_answer(self.decoder.generate(prompt, SamplingParams.of(params), coins)))

    def counters(self) -> dict[str, int]:
        return dict(self.counted)

    def _count(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Add the passes of an answer to the counters: all but that over the prompt, with or without drafts."""
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
        k: int | None = None,
        depth: int | None = None,
        m: int | None = None,
        head_temperature: float = 1.0,
        node: float = 0.0,
        layer: float = 0.0,
        draft_vocab: int = 0,
        dtype: str = "float32",
        device: str = "cpu",
        batch: int = 1,
        accept: Accept | None = None,
    ) -> None:
        bounds = {name: bound for name, bound in (("k", k), ("depth", depth), ("m", m)) if bound is not None}
        others = {"head_temperature": head_temperature, "node": node, "layer": layer, "draft_vocab": draft_vocab}
        super().__init__(target, draft, rule, dtype, device, batch, accept, **bounds, **others)


def engine(drafter: str) -> type[Reference]:
    """The implementation class of a drafting method. Its options are those of the method, and those that all methods have."""
    family = method(drafter)
    if family is Engine.family:
        return Engine
    common = dict(inspect.signature(Reference).parameters)
    own = {name: option.replace(kind=option.KEYWORD_ONLY) for name, option in inspect.signature(family.make).parameters.items()}
    del common["accept"], common["own"]
    attributes = {
        "family": family,
        "capabilities": COMMON
        | {"tau"}
        | ({"rules", "deterministic"} if family.deterministic else {"sampled"})
        | ({"head"} if family.checkpoint in HEADS else set())
        | ({"dynamic"} if family.make is Eagle3 else set()),
        "__signature__": inspect.Signature([*common.values(), *own.values()]),
        "__doc__": f"{family.title}.",
    }
    return type(f"Drafting_{drafter}", (Reference,), attributes)


class FixedShapes(Engine):
    """The decoder with fixed shapes (eagle2_ref/fixed_shape.py), one sequence in a pass, with CUDA graphs on a GPU.

    Its rule is `walk`, and it has no repetition penalty. Its parts are not those of `Decoder`, so it does not declare `decoder`.
    """

    capabilities = frozenset({*LAW, *REPORTED, "context", "budget", "deterministic"}) - {"repetition_penalty"}

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        k: int | None = None,
        depth: int | None = None,
        m: int | None = None,
        head_temperature: float = 1.0,
        dtype: str = "float32",
        device: str = "cpu",
    ) -> None:
        super().__init__(target, draft, "walk", k, depth, m, head_temperature, dtype=dtype, device=device)

    def make_decoder(self, target: Target, drafter: Drafter | None, rule: Rule) -> Decoder:
        return FixedShapeDecoder(target, drafter, rule)


_networks: WeakValueDictionary[tuple[object, ...], Network] = WeakValueDictionary()
"""Networks of the engines of this process that are open."""


def load_target(directory: str, dtype: str, device: str) -> Target:
    """The target of a checkpoint. Engines of one dtype share its network, which has no state: a model may be large.

    The same files are the same checkpoint, also where a directory links to them.
    """
    files = sorted(path.resolve() for path in Path(directory).glob("*"))
    stamps = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files]
    key = (dtype, device, *stamps)
    network = _networks.get(key)
    if network is not None:
        return Target(network, directory)
    loaded = Target.load(directory, dtype, device)
    _networks[key] = loaded.network
    return loaded


def checked_batch(size: int) -> int:
    """The number of sequences in a pass. Raises BadInput unless it is a whole number of 1 or more."""
    if size < 1 or size != int(size):
        raise BadInput(f"batch is {size}", "batch must be a whole number of 1 or more")
    return int(size)


def between(network: Any, forward: Callable[..., Any]) -> Any:
    """A network whose passes are intercepted by `forward`, with all other attributes of the original."""
    return _Between(network, forward)


class _Between:
    def __init__(self, network: Any, forward: Callable[..., Any]) -> None:
        self._network, self._forward = network, forward

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def __call__(self, *arguments: Any) -> Any:
        return self._forward(*arguments)


def to_answer(generation: Generation) -> dict[str, Any]:
    """A generation in the format of the protocol: numbers and lists. Log-probabilities only if every token has one."""
    drafts = [(block.accepted, block.tree.proposals) for block in generation.blocks[1:]]
    blocks = [{"accepted": n, "tokens": tree.tokens.tolist(), "parents": tree.parents.tolist()} for n, tree in drafts]
    answer = {"tokens": generation.tokens, "blocks": [{"accepted": 0, "tokens": [], "parents": []}, *blocks]}
    logprobs = [value for block in generation.blocks for value in block.logprobs[: len(block.tokens)]]
    return answer | ({"logprobs": logprobs} if len(logprobs) == len(generation.tokens) else {})


def _from_outside(accept: Accept) -> Rule:
    def rule(tree: Tree, p: Tensor, coins: Coins) -> Accepted:
        path, token = accept(tree.tokens.tolist(), tree.parents.tolist(), p, coins)
        return Accepted(list(path), token if is_unread(token) else int(token))

    return rule
