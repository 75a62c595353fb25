"""EAGLE-3: what the head computes, which checkpoints load, what the target shows, and that texts are the target's."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding, apply_rotary_pos_emb

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.checkpoint import load_eagle3_head, save_head
from eagle2_ref.drafters.draft_vocabulary import from_offsets
from eagle2_ref.drafters.eagle2 import Budget, Eagle2
from eagle2_ref.drafters.eagle3 import Eagle3, Eagle3Drafter
from eagle2_ref.drafters.eagle_head import Eagle3Config, Eagle3Head, Llama3Rope
from eagle2_ref.errors import BadInput
from eagle2_ref.fixed_shape import FixedShapeDecoder
from eagle2_ref.model.target import Target
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from eagle2_ref.tree import DraftTree
from harness.pairs import shipped
from properties.meta.helpers import tiny
from properties.meta.helpers.drafting import drafted_blocks, summary
from properties.meta.reference.test_fixed_shape import assert_same
from properties.meta.reference.test_target import ROUNDING, WAYS

Tensors = dict[str, Tensor]
Change = Callable[[Tensors, dict[str, Any]], object]

# --- the head --------------------------------------------------------------------------------------------------------

SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one key-value head, other norm": {"num_key_value_heads": 1, "rms_norm_eps": 1e-3},
    "rope of Llama 3.1": {"rope_theta": 500000.0, "rope_llama3": Llama3Rope(8.0, 1.0, 4.0, 12)},
    "norm before the residual connection": {"norm_before_residual": True},
    "wider target": {"target_hidden_size": 24},
}


def norm(module: nn.RMSNorm, x: Tensor) -> Tensor:
    """The norm of transformers, which rounds to float32."""
    theirs = LlamaRMSNorm(x.shape[-1], module.eps)
    theirs.weight = module.weight
    return torch.as_tensor(theirs(x))


def by_hand(head: Eagle3Head, tokens: Tensor, fused: Tensor) -> Tensor:
    """One pass over a text [n, H], as the paper draws it (section 3.1, figure 5), with the rotation of transformers."""
    shape, layer, n = head.config, head.midlayer, len(tokens)
    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    rope |= {"rope_type": "llama3", **vars(shape.rope_llama3)} if shape.rope_llama3 else {}
    sizes = {"hidden_size": shape.hidden_size, "num_attention_heads": shape.num_attention_heads}
    angles = LlamaRotaryEmbedding(LlamaConfig(**sizes, rope_parameters=rope))(fused, torch.arange(n)[None])
    state = norm(layer.hidden_norm, fused)
    x = torch.cat([norm(layer.input_layernorm, head.embed_tokens(tokens)), state], dim=-1)
    q, k, v = (
        getattr(layer.self_attn, f"{name}_proj")(x).view(1, n, -1, shape.head_dim).transpose(1, 2) for name in ("q", "k", "v")
    )
    q, k = apply_rotary_pos_emb(q, k, *angles)
    seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    out = layer.self_attn.o_proj(seen.transpose(1, 2).reshape(n, -1)) + (state if shape.norm_before_residual else fused)
    normed = norm(layer.post_attention_layernorm, out)
    return torch.as_tensor(out + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(normed)) * layer.mlp.up_proj(normed)))


@pytest.mark.parametrize("shape", SHAPES)
@torch.inference_mode()
def test_head_computes_what_the_paper_draws(shape: str) -> None:
    """A pass over the target's states, one over its own output after it, and logits."""
    head = tiny.fitting_eagle3(tiny.target(), **SHAPES[shape])
    fused, tokens = head.fused(), torch.tensor(tiny.tokens(20))
    states = torch.randn(20, head.fc.in_features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    features = fused.fuse(states)
    assert (features - head.fc(states)).abs().max() <= 1e-12
    for _ in range(2):
        out = fused(tokens[None], features[None], torch.arange(20))[0]
        assert (out - by_hand(head, tokens, features)).abs().max() <= 1e-9
        assert (fused.lm_head(out) - head.lm_head(norm(head.norm, out))).abs().max() <= 1e-9
        features = out


@torch.inference_mode()
def test_passes_with_a_cache_equal_one_pass() -> None:
    head, tokens = tiny.fitting_eagle3(tiny.target()).fused(), torch.tensor(tiny.tokens(20))
    features = torch.randn(20, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole, cache = head(tokens[None], features[None], torch.arange(20))[0], head.cache(4)
    for piece in torch.split(torch.arange(20), [1, 7, 1, 11]):
        out = head(tokens[None, piece], features[None, piece], piece, None, cache)[0]
        cache.keep(range(len(piece)))
        assert (out - whole[piece]).abs().max() <= 1e-12


# --- checkpoints -----------------------------------------------------------------------------------------------------


def write(folder: Path, head: Eagle3Head, change: Change | None = None) -> Path:
    """Write a checkpoint, after `change` was applied to tensors and configuration."""
    save_head(head, folder)
    tensors, config = {name: t.clone() for name, t in head.state_dict().items()}, head.config.to_json()
    if change:
        change(tensors, config)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(folder: Path, n_layers: int = 3) -> Eagle3Head:
    return load_eagle3_head(folder, n_layers, tiny.target().get_input_embeddings().weight.detach())


def same(a: Eagle3Head, b: Eagle3Head) -> bool:
    left, right = a.state_dict(), b.state_dict()
    equal = left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
    return equal and a.config == b.config and torch.equal(a.d2t, b.d2t) and torch.equal(a.t2d, b.t2d)


def renamed(tensors: Tensors, old: str, new: str) -> None:
    for name in [name for name in tensors if name.startswith(old)]:
        tensors[new + name.removeprefix(old)] = tensors.pop(name)


def of_vllm(tensors: Tensors, config: dict[str, Any]) -> None:
    """Prefix `model.`, numbered layers, and the layer ids at the top."""
    renamed(tensors, "midlayer.", "layers.0.")
    for name in [name for name in tensors if name.split(".")[0] in ("layers", "embed_tokens", "fc", "norm")]:
        renamed(tensors, name, f"model.{name}")
    config |= config.pop("eagle_config")


def of_speculators(tensors: Tensors, config: dict[str, Any]) -> None:
    """Numbered layers, and the head's shape in a part of its own."""
    renamed(tensors, "midlayer.", "layers.0.")
    own = {name: config.pop(name) for name in ("draft_vocab_size", "eagle_config")}
    inner = dict(config)
    config.clear()
    config |= {"architectures": ["Eagle3Speculator"], "draft_vocab_size": own["draft_vocab_size"], **own["eagle_config"]}
    config |= {"transformer_layer_config": inner, "target_hidden_size": None}


LAYOUTS: dict[str, Change] = {
    "the authors'": lambda _t, _c: None,
    "vLLM's": of_vllm,
    "speculators'": of_speculators,
    "no embedding": lambda t, _: t.pop("embed_tokens.weight"),
    "no t2d": lambda t, _: t.pop("t2d"),
    "d2t of 32 bits": lambda t, _: t.update(d2t=t["d2t"].int()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_the_same_head(tmp_path: Path, layout: str) -> None:
    head = tiny.fitting_eagle3(tiny.target())
    assert same(load(write(tmp_path, head, LAYOUTS[layout])), head)


@pytest.mark.parametrize("changes", [{}, {"norm_before_residual": True}, {"rope_llama3": Llama3Rope(8.0, 1.0, 4.0, 64)}])
def test_saved_head_loads_bit_for_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    head = tiny.fitting_eagle3(tiny.target(), **changes).bfloat16()
    save_head(head, tmp_path)
    assert same(load(tmp_path), head)


def test_head_of_the_whole_vocabulary_needs_no_map(tmp_path: Path) -> None:
    target = tiny.target()
    config = replace(tiny.fitting_eagle3(target).config, draft_vocab_size=64)
    head = tiny.scatter(Eagle3Head(config, torch.arange(64)).double(), 3)
    save_head(head, tmp_path)
    read = load(tmp_path)
    assert same(read, head) and not {"d2t", "t2d"} & set(read.state_dict())
    assert Eagle3Drafter(read, Budget(3, 2, 5)).vocabulary is None


def test_map_of_the_whole_vocabulary_must_be_0(tmp_path: Path) -> None:
    """Its logits are not gathered, so a permutation would give each to another token."""
    target = tiny.target()
    head = tiny.fitting_eagle3(target, draft_vocab_size=64)
    folder = write(tmp_path, head, lambda t, _: t.update(d2t=torch.tensor([1, -1, *[0] * 62])))
    with pytest.raises(BadInput, match="is not 0, though draft_vocab_size is the whole vocabulary of 64"):
        load(folder)


def test_layers_have_the_published_default(tmp_path: Path) -> None:
    """2, n / 2 and n - 3, for targets that are deep enough for three of them."""
    folder = write(tmp_path, tiny.fitting_eagle3(tiny.target()), lambda _, c: c.pop("eagle_config"))
    assert [load(folder, n).config.layers for n in (32, 40, 9)] == [(2, 16, 29), (2, 20, 37), (2, 4, 6)]
    with pytest.raises(BadInput, match=r"has no eagle_aux_hidden_state_layer_ids, .* the target, which has 6"):
        load(folder, 6)


def ids(value: Any) -> Change:
    return lambda _, c: c["eagle_config"].update(eagle_aux_hidden_state_layer_ids=value)


STRICT: dict[str, tuple[Change, list[str]]] = {
    "no LM head": (lambda t, _: t.pop("lm_head.weight"), ["missing tensor lm_head.weight, expected [48, 16]"]),
    "LM head of the target": (
        lambda t, _: t.update({"lm_head.weight": torch.ones(64, 16)}),
        ["tensor lm_head.weight is [64, 16], expected [48, 16] (draft_vocab_size is 48)"],
    ),
    "no d2t": (lambda t, _: t.pop("d2t"), ["missing tensor d2t", "draft_vocab_size is 48 of 64"]),
    "d2t beyond the vocabulary": (lambda t, _: t["d2t"].__setitem__(-1, 17), ["d2t in", "has token 64", "tokens 0 to 63"]),
    "d2t below 0": (lambda t, _: t["d2t"].__setitem__(0, -1), ["d2t in", "has token -1"]),
    "d2t of token ids": (
        lambda t, _: t.update(d2t=t["d2t"] + torch.arange(48)),
        ["d2t in", "has token", "the target has tokens 0 to 63"],
    ),
    "d2t with a token twice": (lambda t, _: t["d2t"].__setitem__(1, -1), ["d2t in", "has token 0 twice"]),
    "d2t with fractions": (lambda t, _: t.update(d2t=t["d2t"].float()), ["tensor d2t in", "is float32 [48]"]),
    "d2t too short": (lambda t, _: t.update(d2t=t["d2t"][1:].clone()), ["tensor d2t in", "[47]", "draft_vocab_size is 48"]),
    "t2d that marks other tokens": (
        lambda t, _: t.update(t2d=t["t2d"].roll(1)),
        ["t2d and d2t in", "contradict each other: token 1 is"],
    ),
    "t2d of another length": (lambda t, _: t.update(t2d=t["t2d"][:9].clone()), ["tensor t2d in", "[9]", "vocab_size is 64"]),
    "another draft vocabulary": (lambda _, c: c.update(draft_vocab_size=47), ["tensor d2t in", "draft_vocab_size is 47"]),
    "a draft vocabulary above the target's": (lambda _, c: c.update(draft_vocab_size=65), ["draft_vocab_size is 65", "1 to 64"]),
    "two layers read": (ids([1, 2]), ["eagle_config.eagle_aux_hidden_state_layer_ids is [1, 2]", "three layers", "0 to 3"]),
    "a layer that is not there": (ids([1, 2, 4]), ["layer_ids is [1, 2, 4]", "0 to 3"]),
    "a negative layer": (ids([-1, 2, 3]), ["layer_ids is [-1, 2, 3]"]),
    "a layer twice": (ids([1, 1, 3]), ["layer_ids is [1, 1, 3]"]),
    "a layer that is no number": (ids([0, 1, "2"]), ["layer_ids is [0, 1"]),
    "no layers": (ids("all"), ["layer_ids is 'all'"]),
    "one feature": (lambda _, c: c["eagle_config"].update(use_aux_hidden_state=False), ["eagle_config.use_aux_hidden_state"]),
    "EAGLE-3.1": (lambda _, c: c.update(norm_output=True), ["norm_output is true", "EAGLE-3.1"]),
    "no hidden_norm": (lambda t, _: t.pop("midlayer.hidden_norm.weight"), ["missing tensor midlayer.hidden_norm.weight"]),
    "a layer under two names": (
        lambda t, _: t.update({"layers.1.mlp.up_proj.weight": torch.ones(2, 2)}),
        ["unexpected tensor layers.1.mlp.up_proj.weight"],
    ),
    "two decoder layers": (lambda _, c: c.update(num_hidden_layers=2), ["num_hidden_layers is 2", "one layer"]),
    "fc of a narrower target": (
        lambda t, _: t.update({"fc.weight": torch.ones(16, 24)}),
        ["fc.weight in", "is [16, 24]", "three states of the target, 3 * 16 = 48"],
    ),
    "a wider target in the config": (lambda _, c: c.update(target_hidden_size=32), ["target_hidden_size is 32", "is 16"]),
    "another vocabulary": (lambda _, c: c.update(vocab_size=128), ["head does not fit the target: vocabulary 128", "64 in"]),
    "NaN": (lambda t, _: t["norm.weight"].__setitem__(0, float("nan")), ["tensor norm.weight in", "has NaN"]),
    "an EAGLE-2 head": (
        lambda _, c: (c.pop("draft_vocab_size"), c.update(architectures=["EagleLlamaForCausalLM"])),
        ["describes no EAGLE-3 head", "--drafter eagle2"],
    ),
}


@pytest.mark.parametrize("case", STRICT)
def test_wrong_checkpoints_are_refused_by_name(tmp_path: Path, case: str) -> None:
    change, words = STRICT[case]
    folder = write(tmp_path, tiny.fitting_eagle3(tiny.target()), change)
    with pytest.raises(BadInput) as error:
        load(folder)
    assert not [word for word in words if word not in str(error.value)], str(error.value)


def test_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    folder = write(
        tmp_path, tiny.fitting_eagle3(tiny.target()), lambda t, _: t.update({"model.norm.weight": t["norm.weight"].clone()})
    )
    with pytest.raises(BadInput, match=r"has tensor norm\.weight under two names"):
        load(folder)


def test_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no head at .*\n.*the directory of an EAGLE-3 head"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["coin4", "dice8", "stdlib"])
def test_shipped_heads_load(name: str) -> None:
    pair = shipped(name)
    folder, expected = pair.drafter("eagle3"), {"coin4": ((0, 1, 2), 3), "dice8": ((2, 5, 7), 7), "stdlib": ((2, 12, 21), 128)}
    assert folder is not None
    drafter = Eagle3(k=2, m=5).drafter(Target.load(pair.target), folder)
    assert drafter.vocabulary is not None and (drafter.layers, len(drafter.vocabulary)) == expected[name]


# --- what the target shows -------------------------------------------------------------------------------------------

TEXT = tiny.tokens(13)


def states_of(model: Any, text: list[int]) -> list[Tensor]:
    """States before each layer and after the last, [n, H], recorded in transformers."""
    found, last = list[Tensor](), list[Tensor]()
    hooks = [layer.register_forward_pre_hook(lambda _, args: found.append(args[0][0])) for layer in model.model.layers]
    hooks.append(
        model.model.layers[-1].register_forward_hook(
            lambda _m, _a, out: last.append((out[0] if isinstance(out, tuple) else out)[0])
        )
    )
    model(torch.tensor([text]), use_cache=False)
    for hook in hooks:
        hook.remove()
    return [*found, *last]


@pytest.mark.parametrize(("kind", "lean"), WAYS)
@torch.inference_mode()
def test_target_shows_states_before_layers(kind: str, lean: bool) -> None:
    """In a prompt's pass, in a batch, and at each node of a tree; its logits, and the features of others, stay the same."""
    model = tiny.target(kind)
    plain, layers = tiny.running(model, lean), (0, 2, 3)
    target = plain.reading(layers)
    assert target.network.n_layers == 3
    expected = torch.cat([states_of(model, TEXT)[layer] for layer in layers], dim=-1)
    texts = [TEXT, TEXT[:4]]
    caches = [target.cache() for _ in texts]
    for text, output in zip(texts, target.prefill(caches, texts), strict=True):
        assert (output.features - expected[: len(text)]).abs().max() <= ROUNDING[kind]
    usual = tiny.prefilled(plain, TEXT)
    assert usual.features.shape == (13, 16) and expected.shape == (13, 48)
    assert (tiny.prefilled(target, TEXT).logits - usual.logits).abs().max() <= ROUNDING[kind]
    tree, cache = DraftTree.of([7, 1, 2, 3], [-1, 0, 0, 1]), target.cache()
    target.prefill([cache], [TEXT])
    (output,) = target.verify([cache], [tree])
    for node in range(len(tree)):
        text = [*TEXT, *(tree.token(i) for i in (0, *tree.path(node)))]
        one = torch.cat([states_of(model, text)[layer][-1] for layer in layers])
        assert (output.features[node] - one).abs().max() <= ROUNDING[kind]
    assert plain.reading(()) is plain


@pytest.mark.parametrize(("kind", "lean"), WAYS)
@torch.inference_mode()
def test_lm_head_of_some_tokens_equals_those_columns(kind: str, lean: bool) -> None:
    network, tokens = tiny.running(tiny.target(kind), lean).network, torch.tensor([3, 9, 60])
    features = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (network.lm_head_of(tokens)(features) - network.lm_head(features)[..., tokens]).abs().max() <= 1e-12


# --- decoding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "lean"), WAYS)
def test_greedy_text_equals_that_of_generate(kind: str, lean: bool) -> None:
    model = tiny.target(kind)
    decoder = tiny.eagle3_decoder(model, Budget(3, 3, 8), lean=lean)
    for n in (1, 13):
        text = tiny.tokens(n, seed=n)
        ours = decoder.generate(text, SamplingParams(0.0, max_new_tokens=24), SeededCoins(0)).tokens
        assert ours == tiny.greedy(model, text, 24)


def test_only_tokens_of_the_draft_vocabulary_are_proposed() -> None:
    """Nearly all of them somewhere, and texts have the others too."""
    decoder = tiny.eagle3_decoder(tiny.target(), Budget(4, 3, 20))
    assert isinstance(decoder.drafter, Eagle3Drafter) and decoder.drafter.vocabulary is not None
    vocabulary, proposed, emitted = set(decoder.drafter.vocabulary.tolist()), set[int](), set[int]()
    for seed in range(6):
        params = SamplingParams(1.0, max_new_tokens=40)
        for _, block, _ in drafted_blocks(decoder, tiny.tokens(5, seed=seed), params, SeededCoins(seed)):
            proposed |= set(block.tree.tokens[1:].tolist())
            emitted |= set(block.tokens)
    assert proposed <= vocabulary and len(proposed) > 40 and emitted - vocabulary
    assert vocabulary == set(from_offsets(tiny.fitting_eagle3(tiny.target()).d2t).tolist())


def test_batches_equal_sequences_alone() -> None:
    decoder = tiny.eagle3_decoder(tiny.target())
    prompts = [tiny.tokens(n, seed=n) for n in (3, 20, 1, 7, 12)]
    params = [SamplingParams(t, max_new_tokens=n) for t, n in ((0.0, 9), (1.0, 20), (1.0, 4), (0.0, 15), (0.7, 11))]
    together = decoder.generate_batch(prompts, params, [SeededCoins(i) for i in range(5)], size=3)
    alone = [decoder.generate(prompt, one, SeededCoins(i)) for i, (prompt, one) in enumerate(zip(prompts, params, strict=True))]
    assert [*map(summary, together)] == [*map(summary, alone)]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_fixed_shapes_give_the_text_of_the_plain_decoder(temperature: float) -> None:
    plain = tiny.eagle3_decoder(tiny.target())
    fixed = FixedShapeDecoder(plain.target, plain.drafter)
    for n in (13, 1, 40):
        params = SamplingParams(temperature, max_new_tokens=25)
        assert_same(*(one.generate(tiny.tokens(n, seed=n), params, SeededCoins(n)) for one in (plain, fixed)), depth=4)


def test_decoders_of_other_methods_share_the_network() -> None:
    """An EAGLE-3 drafter changes nothing for a decoder that was made before or after it on the same target."""
    model = tiny.target()
    target = tiny.running(model)

    def eagle2() -> Decoder:
        return Decoder(target, Eagle2(tiny.fitting(model), target.network.lm_head, tiny.BUDGET), walk)

    before, eagle3, after = eagle2(), Decoder(target, Eagle3Drafter(tiny.fitting_eagle3(model), tiny.BUDGET), walk), eagle2()
    params, text = SamplingParams(1.0, max_new_tokens=20), tiny.tokens(9)
    results = [one.generate(text, params, SeededCoins(1)) for one in (before, eagle3, after)]
    assert results[0].tokens == results[1].tokens and summary(results[0]) == summary(results[2])
    assert deepcopy(eagle3).generate(text, params, SeededCoins(1)).tokens == results[0].tokens


def test_config_is_written_under_published_names() -> None:
    config = Eagle3Config(64, 16, 24, 4, 2, draft_vocab_size=48, layers=(0, 2, 3), target_hidden_size=16).to_json()
    assert config["architectures"] == ["LlamaForCausalLMEagle3"] and config["draft_vocab_size"] == 48
    assert config["eagle_config"] == {"eagle_aux_hidden_state_layer_ids": [0, 2, 3]} and "target_hidden_size" not in config
