"""The target: for every kind of model a tree in one pass equals its paths alone, and the cache equals a fresh one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from eagle2_ref.coins import SeededCoins
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.errors import BadInput
from eagle2_ref.model.network import ModelOutput
from eagle2_ref.model.target import DTYPES, Target, load_model
from eagle2_ref.rules import reject
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from properties.meta.helpers import tiny

LEAN = ["llama", "llama, tied embedding", "llama, scaled rope"]
"""Kinds that our own forward pass knows."""

TREE = DraftTree.of([7, 1, 2, 3, 1, 5, 9, 11, 0], [-1, 0, 0, 1, 1, 2, 3, 6, 7])
TEXT = tiny.tokens(13)
ROUNDING = dict.fromkeys(tiny.KINDS, 1e-9) | {"gemma2, capped logits": 1e-5}
"""Gemma 2 has an attention of its own, whose softmax rounds to float32 for every dtype."""


@torch.inference_mode()
def plain(model: PreTrainedModel, text: list[int]) -> tuple[Tensor, Tensor]:
    """Logits and features [n, …] of a text, by one pass of transformers."""
    ids = torch.tensor([text])
    return model(ids, use_cache=False).logits[0], model.base_model(ids, use_cache=False).last_hidden_state[0]


WAYS = [
    *(pytest.param(kind, False, id=f"{kind}, hosted") for kind in tiny.KINDS),
    *(pytest.param(kind, True, id=f"{kind}, lean") for kind in LEAN),
]


@pytest.mark.parametrize(("kind", "lean"), WAYS)
def test_a_tree_in_one_pass_equals_its_paths(kind: str, lean: bool) -> None:
    """Logits and features at every node, before and after a commit."""
    model = tiny.target(kind)
    target, text = tiny.running(model, lean), list(TEXT)
    cache = target.cache()
    (first,) = target.prefill([cache], [text])
    logits, features = plain(model, text)
    assert first.logits.shape == (1, 64) and (first.logits[0] - logits[-1]).abs().max() <= ROUNDING[kind]
    assert first.features.shape == (13, 16) and (first.features - features).abs().max() <= ROUNDING[kind]
    for path in ([1, 3, 6, 7], [], [2]):
        (rows,) = target.verify([cache], [TREE])
        for node in range(len(TREE)):
            logits, features = plain(model, [*text, TREE.token(0), *(TREE.token(i) for i in TREE.path(node))])
            assert (rows.logits[node] - logits[-1]).abs().max() <= ROUNDING[kind], (path, node)
            assert (rows.features[node] - features[-1]).abs().max() <= ROUNDING[kind], (path, node)
        target.commit(cache, path)
        text += [TREE.token(node) for node in (0, *path)]
    assert cache.length == len(text)


@pytest.mark.parametrize(("kind", "lean"), WAYS)
@pytest.mark.parametrize("path", [[], [2, 5], [1, 3, 6, 7, 8]], ids=str)
@torch.inference_mode()
def test_the_cache_after_a_commit_equals_a_fresh_one(kind: str, lean: bool, path: list[int]) -> None:
    model = tiny.target(kind)
    target, fresh = tiny.running(model, lean), DynamicCache()
    cache = target.cache()
    target.prefill([cache], [TEXT])
    target.verify([cache], [TREE])
    target.commit(cache, path)
    text = [*TEXT, *(TREE.token(node) for node in (0, *path))]
    model(torch.tensor([text]), past_key_values=fresh, use_cache=True)
    assert len(cache.entries()) == len(fresh.layers) == 3
    for ours, theirs in zip(cache.entries(), fresh.layers, strict=True):
        expected = torch.stack([theirs.keys, theirs.values])
        assert ours.shape == expected.shape and (ours - expected).abs().max() <= ROUNDING[kind]


@pytest.mark.parametrize(("kind", "lean"), WAYS)
@pytest.mark.parametrize("penalty", [None, 1.4])
def test_greedy_text_equals_that_of_generate(kind: str, lean: bool, penalty: float | None) -> None:
    """With draft trees, against `generate(do_sample=False)` of transformers."""
    model = tiny.target(kind)
    decoder = tiny.decoder(model, Budget(3, 3, 8), reject, lean)
    for n in (1, 13):
        text = tiny.tokens(n, seed=n)
        ours = decoder.generate(text, SamplingParams(0.0, repetition_penalty=penalty, max_new_tokens=24), SeededCoins(0)).tokens
        assert ours == tiny.greedy(model, text, 24, repetition_penalty=penalty or 1.0)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_every_kind_loads_from_disk(tmp_path: Path, kind: str) -> None:
    model = tiny.target(kind)
    model.save_pretrained(tmp_path)
    target = Target.load(tmp_path, "float64")
    assert (tiny.prefilled(target, TEXT).logits[0] - plain(model, TEXT)[0][-1]).abs().max() <= ROUNDING[kind]


@pytest.mark.parametrize("rows", [1, 2, 8, 26])
def test_lm_head_in_bfloat16_is_that_of_a_copied_matrix(rows: int) -> None:
    """To the last bit, and without the copy: a tied embedding is in memory once."""
    target = tiny.running(tiny.target("llama, tied embedding", vocab_size=1000, hidden_size=64, num_attention_heads=4).bfloat16())
    network: Any = target.network
    features = torch.randn(1, rows, 64, generator=torch.Generator().manual_seed(rows)).bfloat16()
    with torch.inference_mode():
        assert torch.equal(network.lm_head(features), features @ network.embedding.t().contiguous())
    assert network.unembedding.data_ptr() == network.embedding.data_ptr()


def test_one_row_in_bfloat16_attends_as_with_heads_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, for one sequence and for several of different lengths, whose masks differ. The logits are the model's."""
    shape: dict[str, Any] = {"hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 3, "num_key_value_heads": 1}
    lean, plain = (tiny.running(tiny.target(**shape).bfloat16(), lean) for lean in (True, False))
    attention, grouped = F.scaled_dot_product_attention, list[int]()

    def compared(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, is_causal: bool, enable_gqa: bool) -> Tensor:
        found: Tensor = attention(q, k, v, mask, is_causal=is_causal, enable_gqa=enable_gqa)
        if not enable_gqa:
            apart = attention(q.reshape(len(q), 3, 1, 32), k, v, mask, enable_gqa=True)
            assert torch.equal(found.reshape(apart.shape), apart)
            grouped.append(len(q))
        return found

    def logits(target: Target) -> list[Tensor]:
        caches = [target.cache() for _ in range(3)]
        target.prefill(caches, [TEXT[:n] for n in (2, 4, 6)])
        together = target.prefill(caches, [[1], [2], [3]])
        return [output.logits.float() for output in (*together, *target.prefill(caches[:1], [[1]]))]

    expected = logits(plain)
    monkeypatch.setattr("eagle2_ref.model.llama.F.scaled_dot_product_attention", compared)
    found = logits(lean)
    assert set(grouped) == {1, 3}
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=0.02 * float(other.abs().max()))


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_matrices_in_bfloat16_multiply_like_copies(rows: int) -> None:
    """Logits and features of a pass are the same to the last bit with contiguous matrices."""
    model = tiny.target(hidden_size=96, intermediate_size=160, num_attention_heads=3, num_key_value_heads=1).bfloat16()
    target, tree = tiny.running(model), DraftTree.of(TREE.tokens.tolist()[:rows], TREE.parents.tolist()[:rows])
    network: Any = target.network

    def verified() -> ModelOutput:
        cache = target.cache()
        target.prefill([cache], [TEXT])
        return target.verify([cache], [tree])[0]

    views = verified()
    for layer in network.layers:
        assert not layer.down.is_contiguous()
        for name in ("qkv", "out", "gate_up", "down"):
            setattr(layer, name, getattr(layer, name).contiguous())
    copies = verified()
    assert torch.equal(views.logits, copies.logits) and torch.equal(views.features, copies.features)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_runs(tmp_path: Path, dtype: str) -> None:
    """Logits of a tree are close to those in float64."""
    model = tiny.target()
    model.save_pretrained(tmp_path)
    target = Target.load(tmp_path, dtype)
    assert target.network.embedding.dtype == DTYPES[dtype]
    cache = target.cache()
    target.prefill([cache], [TEXT])
    logits = target.verify([cache], [TREE])[0].logits
    near = {"float64": 1e-9, "float32": 1e-4, "float16": 0.05, "bfloat16": 0.4}[dtype]
    for node in range(len(TREE)):
        truth = plain(model, [*TEXT, 7, *(TREE.token(i) for i in TREE.path(node))])[0][-1]
        assert (logits[node].double() - truth).abs().max() <= near


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "mamba": ({"state_size": 4}, "layers of type linear_attention"),
    "rwkv": ({"attention_hidden_size": 16}, "takes no positions"),
    "qwen3_next": ({"head_dim": 4}, "layers of type linear_attention"),
    "llama4_text": ({"head_dim": 4, "attention_chunk_size": 8}, "layers of type chunked_attention"),
    "mpt": ({"d_model": 16, "n_layers": 2, "n_heads": 4}, "takes no positions"),
    "falcon": ({"alibi": True}, "layers of type alibi"),
    "gpt_neo": (
        {"num_layers": 2, "num_hidden_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
        "layers of type local",
    ),
    "openai-gpt": ({"n_embd": 16, "n_layer": 2, "n_head": 4}, "cannot be rolled back"),
    "opt": ({"ffn_dim": 24, "word_embed_proj_dim": 16}, "does not show the features"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_cannot_verify_trees_are_refused(kind: str) -> None:
    """A state that cannot be rolled back, or attention that ignores positions or the mask."""
    changes, message = REFUSED[kind]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**tiny.SHAPE, **changes})).double()
    with pytest.raises(BadInput, match=message):
        tiny.prefilled(Target(model, "the model"), TEXT)


def test_a_checkpoint_that_does_not_match_is_refused(tmp_path: Path) -> None:
    """transformers gives random weights to tensors that are missing or misshapen."""
    tiny.target().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)

    def refused(changed: dict[str, Tensor], message: str) -> None:
        save_file(changed, weights, metadata={"format": "pt"})
        with pytest.raises(BadInput, match=message):
            Target.load(tmp_path)

    refused({name.replace("layers.0.", "layer_0."): t for name, t in tensors.items()}, r"missing tensor model\.layers\.0\.")
    refused({name: t for name, t in tensors.items() if name != "lm_head.weight"}, r"missing tensor lm_head\.weight")
    refused({**tensors, "lm_head.weight": torch.ones(3, 16)}, r"tensor lm_head\.weight is \[3, 16\], expected \[64, 16\]")
    save_file(tensors, weights, metadata={"format": "pt"})
    assert Target.load(tmp_path).vocab_size == 64


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 4}),
        ("mixtral", {"num_local_experts": 4}),  # transformers converts the names of experts
        ("longcat_flash", {"num_layers": 1, "n_routed_experts": 4, "expert_ffn_hidden_size": 24, "ffn_hidden_size": 24}),
    ],
)
def test_checkpoints_of_other_kinds_load_as_saved(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    """Names that are converted, fields of other names, and a number of layers that is derived from another."""
    saved = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**tiny.SHAPE, **changes}))
    saved.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, "float32").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in saved.state_dict().items())


@pytest.mark.parametrize("damage", ["no folder", "no weights", "cut off", "config is not JSON", "unknown kind", "encoder"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    """The error names the folder."""
    folder = tmp_path / "target"
    tiny.target().save_pretrained(folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if damage == "no folder":
        folder = tmp_path / "nowhere"
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:5000])
    else:
        config.write_text(
            {"config is not JSON": "{", "unknown kind": '{"model_type": "x"}', "encoder": '{"model_type": "t5"}'}[damage]
        )
    with pytest.raises(BadInput, match=str(folder)):
        Target.load(folder)


def test_unknown_devices_and_dtypes_are_refused(tmp_path: Path) -> None:
    tiny.target().save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"dtype 'int8' is not known\n  known are float64, float32, bfloat16, float16"):
        Target.load(tmp_path, "int8")
    with pytest.raises(BadInput, match=r"device 'gpu' is not known\n  give cpu, cuda, or cuda:N"):
        Target.load(tmp_path, device="gpu")
    for device in ("meta", "mps"):
        with pytest.raises(BadInput, match=rf"device '{device}' is not known\n  give cpu, cuda, or cuda:N"):
            Target.load(tmp_path, device=device)
    absent = "cuda:64" if torch.cuda.is_available() else "cuda"
    with pytest.raises(BadInput, match="requested, but"):
        Target.load(tmp_path, device=absent)
