"""Medusa: guesses and their places in the tree, the feature that the heads read, and checkpoints."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.medusa import PUBLISHED, Medusa, MedusaDrafter, MedusaHeads, load_heads
from eagle2_ref.drafters.tree_choices import Choice, prune
from eagle2_ref.errors import BadInput
from eagle2_ref.model.target import Target
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import ROOT, DraftTree
from harness.distributions.scoring import load_target
from harness.pairs import shipped
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import OneSequence, drafted_blocks

PAIR = shipped("dice8")
MEDUSA = PAIR.drafter("medusa")
PROMPT = [2, 3, 2]


def reference_logits(feature: Tensor) -> Tensor:
    """Logits [3, V] of the heads of dice8, from the tensors on disk."""
    assert MEDUSA
    weights = load_file(MEDUSA / "model.safetensors")
    rows = []
    for i in range(3):
        x = feature + F.silu(weights[f"blocks.{i}.layers.0.weight"].to(feature) @ feature)
        rows.append(weights[f"lm_heads.{i}.weight"].to(feature) @ x)
    return torch.stack(rows)


def choice_of(tree: DraftTree, node: int, ranks: Tensor) -> Choice:
    """The rank of each token on a node's path among the guesses of its head."""
    return tuple(ranks[i].tolist().index(tree.token(x)) for i, x in enumerate(tree.path(node)))


def test_the_published_tree_is_sound() -> None:
    """63 nodes, parents before children; any first nodes of the list are a tree."""
    assert Counter(map(len, PUBLISHED)) == {1: 10, 2: 28, 3: 23, 4: 2}
    assert prune(PUBLISHED, Medusa().k, Medusa().depth, Medusa().m) == PUBLISHED
    assert all(choice[:-1] in [(), *PUBLISHED[:i]] for i, choice in enumerate(PUBLISHED))
    assert all(choice[-1] == 0 or (*choice[:-1], choice[-1] - 1) in PUBLISHED[:i] for i, choice in enumerate(PUBLISHED))
    assert len(set(PUBLISHED)) == 63


@pytest.mark.parametrize("method", [Medusa(), Medusa(2, 3, 63), Medusa(8, 2, 9), Medusa(1, 1, 1)], ids=str)
def test_nodes_are_the_heads_best_guesses_from_the_right_feature(method: Medusa) -> None:
    """The feature is that of the position before the root, by a plain pass. Values are the products of confidences."""
    assert MEDUSA
    decoder = Decoder.load(PAIR.target, MEDUSA, method, walk, dtype="float64")
    model, accepted = load_target(PAIR, "float64"), set[int]()
    params = SamplingParams(temperature=1.0, max_new_tokens=30)
    for text, block, _ in drafted_blocks(decoder, PROMPT, params, SeededCoins(3)):
        tree, max_depth = block.tree, 33 - len(text) - 1
        if len(tree) > 1:
            assert isinstance(tree, DraftTree)
            with torch.inference_mode():
                feature = model.base_model(torch.tensor([text[:-1]])).last_hidden_state[0, -1]
            laws = reference_logits(feature).log_softmax(-1)
            ranks = laws.argsort(descending=True)
            found = [choice_of(tree, node, ranks) for node in range(1, len(tree))]
            assert found == prune(PUBLISHED, min(method.k, 8), min(method.depth, 3, max_depth), method.m)
            for node, choice in enumerate(found, start=1):
                due = sum(float(laws[i, ranks[i, rank]]) for i, rank in enumerate(choice))
                assert float(tree.values[node]) == pytest.approx(due, abs=1e-5)
            assert tree.token(ROOT) == text[-1]
        accepted.add(block.accepted)
    assert len(accepted) > 1


def test_the_heads_compute_what_their_tensors_say() -> None:
    """The training uses the same module."""
    assert MEDUSA
    ours, feature = load_heads(Target.load(PAIR.target), MEDUSA), torch.randn(64, generator=torch.Generator().manual_seed(0))
    for n in (1, 3):
        with torch.inference_mode():
            assert torch.allclose(ours(feature, n), reference_logits(feature)[:n], atol=1e-6)


def test_the_root_alone_costs_no_pass() -> None:
    drafter = OneSequence(MedusaDrafter(tiny.scatter(MedusaHeads(4, 64, 16), 0).double(), Medusa()))
    drafter.observe([5, 6], torch.ones(2, 16, dtype=torch.float64))
    for max_depth, nodes in enumerate((0, 10, 38, 61, 63, 63)):
        tree = drafter.propose(max_depth)
        assert (len(tree) - 1, max(tree.depths), tree.token(ROOT)) == (nodes, min(max_depth, 4), 6)
    assert drafter.state.passes == 5


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of dice8's heads, to be damaged."""
    assert MEDUSA
    return Path(shutil.copytree(MEDUSA, tmp_path / "medusa"))


def configure(folder: Path, **changes: Any) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps({k: v for k, v in {**json.loads(config.read_text()), **changes}.items() if v is not None}))


def tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    held = load_file(folder / "model.safetensors")
    change(held)
    save_file(held, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda at: (at / "config.json").unlink(), "no heads at .*: config.json is missing"),
        (lambda at: (at / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda at: configure(at, num_heads=None), "config.json lacks num_heads"),
        (lambda at: configure(at, num_heads="three"), "num_heads is 'three'"),
        (lambda at: configure(at, num_heads=0), "num_heads is 0"),
        (lambda at: configure(at, num_heads=2), r"unexpected tensor blocks\.2\.layers\.0\.weight \[64, 64\]"),
        (lambda at: configure(at, num_heads=4), r"missing tensor blocks\.3\.layers\.0\.weight, expected \[64, 64\]"),
        (lambda at: configure(at, medusa_fc_bias=True), r"missing tensor blocks\.0\.layers\.0\.bias, expected \[64\]"),
        (lambda at: configure(at, truncated_vocab_size=7), "a part of the vocabulary"),
        (lambda at: configure(at, original_lm_head=True), r"unexpected tensor lm_heads\.1\.weight(.|\n)*with original_lm_head"),
        (lambda at: configure(at, original_lm_head="yes"), "original_lm_head is 'yes'"),
        (lambda at: configure(at, vocab_size=9, truncated_vocab_size=9), "vocabulary 9 and hidden size 64 in .*, 8 and 64 in"),
        (lambda at: configure(at, hidden_size=32), "vocabulary 8 and hidden size 32"),
        (lambda at: (at / "model.safetensors").unlink(), "no weights in"),
        (lambda at: (at / "model.safetensors").write_bytes(b"x"), "cannot be read"),
        (
            lambda at: tensors(at, lambda held: held.update({"lm_heads.1.weight": torch.ones(7, 64)})),
            r"tensor lm_heads\.1\.weight is \[7, 64\], expected \[8, 64\]",
        ),
        (lambda at: tensors(at, lambda held: held.pop("lm_heads.0.weight")), r"missing tensor lm_heads\.0\.weight"),
    ],
)
def test_checkpoints_that_do_not_match_are_refused(spoil: Callable[[Path], object], what: str, folder: Path) -> None:
    spoil(folder)
    with pytest.raises(BadInput, match=what):
        Medusa().drafter(Target.load(PAIR.target), folder)


def test_deeper_blocks_and_biases_load(folder: Path) -> None:
    """x + silu(W x + b) in each of several layers, as in vLLM's configuration."""
    result = tiny.scatter(MedusaHeads(2, 8, 64, layers=2, bias=True), 3)
    save_file(result.state_dict(), folder / "model.safetensors")
    configure(folder, num_heads=2, num_hidden_layers=2, medusa_fc_bias=True)
    heads, x = load_heads(Target.load(PAIR.target), folder), torch.ones(64)
    state = result.state_dict()
    due = x
    for layer in range(2):
        due = due + F.silu(state[f"blocks.1.layers.{layer}.weight"] @ due + state[f"blocks.1.layers.{layer}.bias"])
    with torch.inference_mode():
        assert torch.allclose(heads(x, 2)[1], state["lm_heads.1.weight"] @ due, atol=1e-4)


@pytest.mark.parametrize("name", ["", "lm_head.weight", "lm_heads.0.weight"])
def test_heads_may_share_the_targets_lm_head(name: str, folder: Path) -> None:
    """`original_lm_head` of vLLM: no LM head in the checkpoint, or one for all heads under either of two names."""
    stored = load_file(folder / "model.safetensors")
    kept = {tensor: weight for tensor, weight in stored.items() if tensor.startswith("blocks.")}
    save_file(kept | ({name: stored["lm_heads.2.weight"]} if name else {}), folder / "model.safetensors")
    configure(folder, original_lm_head=True)
    target, feature = Target.load(PAIR.target), torch.randn(64, generator=torch.Generator().manual_seed(0))
    heads = load_heads(target, folder)
    assert [tensor for tensor in heads.state_dict() if "lm_head" in tensor] == (["lm_heads.0.weight"] if name else [])
    lm_head = stored["lm_heads.2.weight"].float() if name else load_target(PAIR, "float32").get_output_embeddings().weight
    with torch.inference_mode():
        guesses = torch.stack([feature + F.silu(kept[f"blocks.{i}.layers.0.weight"].float() @ feature) for i in range(3)])
        assert torch.allclose(heads(feature, 3), guesses @ lm_head.t(), atol=1e-5)
        assert torch.equal(heads(feature, 3)[:2], heads(feature, 2))


def test_decoding_with_the_targets_lm_head_is_greedy_decoding(folder: Path) -> None:
    """Its text is the target's, and guesses are accepted: the shared LM head reads heads that were trained with their own."""
    tensors(folder, lambda held: [held.pop(f"lm_heads.{i}.weight") for i in range(3)])
    configure(folder, original_lm_head=True)
    params = SamplingParams(temperature=0.0, max_new_tokens=40)
    plain, ours = (Decoder.load(PAIR.target, draft, Medusa(8, 3, 20), walk) for draft in (None, folder))
    text = ours.generate(PROMPT, params, SeededCoins(0))
    assert text.tokens == plain.generate(PROMPT, params, SeededCoins(0)).tokens and text.tau > 1
