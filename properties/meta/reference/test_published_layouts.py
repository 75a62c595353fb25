"""Checkpoints in the layouts of published model families: they load, and speculative text is the target's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from eagle2_ref.coins import KeyedCoins, SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.checkpoint import load_head
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.model.llama import Llama
from eagle2_ref.rules import walk
from eagle2_ref.sampling import SamplingParams
from fixtures.converters.published import write_published
from harness.benchmark.chat import LLAMA2, LLAMA3, VICUNA, Chat
from harness.pairs import Pair, prompts, shipped
from properties.meta.helpers import families, tiny

BUDGET = Budget(3, 4, 12)
ASKED = {"vicuna": VICUNA, "llama2": LLAMA2, "llama3": LLAMA3}


def loaded(pair: Pair) -> tuple[Decoder, Decoder]:
    """The decoder with the head, and without, in float64."""
    decoder = Decoder.load(pair.target, pair.draft, BUDGET, walk, "float64")
    return decoder, Decoder(decoder.target)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_pairs_in_published_layouts_decode_as_transformers_does(tmp_path: Path, family: str) -> None:
    """Greedy text equals that of transformers. Sampled text does not depend on drafts."""
    pair, model = families.FAMILIES[family](tmp_path)
    assert len(list(pair.target.glob("*-of-*"))) > 1 and len(list(pair.target.glob("*.index.json"))) == 1
    decoder, bare = loaded(pair)
    assert isinstance(decoder.target.network, Llama)
    text = Chat.of(pair, ASKED[family.partition(",")[0]]).prompt(["How high?", "Two feet.", "And now?"])[1][-70:]
    params = SamplingParams(0.0, max_new_tokens=20)
    expected = tiny.greedy(model, text, 20)
    for arm in (decoder, bare):
        assert arm.generate(text, params, SeededCoins(0)).tokens == expected
    sampled = SamplingParams(1.0, max_new_tokens=20)
    assert decoder.generate(text, sampled, KeyedCoins(3)).tokens == bare.generate(text, sampled, KeyedCoins(3)).tokens


@pytest.mark.parametrize(("family", "bias"), [("vicuna", True), ("llama2", True), ("llama3", False)])
def test_heads_in_published_layouts_load(tmp_path: Path, family: str, bias: bool) -> None:
    """One .bin in float16; the configuration says whether fc has a bias and how many key-value heads there are."""
    pair, model = families.FAMILIES[family](tmp_path)
    assert [path.name for path in sorted(pair.draft.iterdir())] == ["config.json", "pytorch_model.bin"]
    config = json.loads((pair.draft / "config.json").read_text())
    assert config.get("bias") == (None if bias else False) and ("num_key_value_heads" in config) == (family != "vicuna")
    head = load_head(pair.draft, model.get_input_embeddings().weight)
    assert (head.fc.bias is not None) == bias and head.fc.weight.dtype == torch.float16
    assert head.config.num_key_value_heads == (4 if family == "vicuna" else 2)
    assert head.config.rope_theta == (500000.0 if family == "llama3" else 10000.0)


@pytest.mark.parametrize("family", ["vicuna", "llama3"])
def test_each_end_of_text_token_of_a_family_ends_the_text(tmp_path: Path, family: str) -> None:
    """The LM head is changed so that it is emitted."""
    pair, model = families.FAMILIES[family](tmp_path)
    chat, weights = Chat.of(pair, ASKED[family]), model.lm_head.weight.detach()
    text = chat.prompt(["Well then?"])[1][-40:]
    plain = tiny.greedy(model, text, 12)
    place = next(i for i in range(3, 12) if plain[i] not in plain[:i])
    for end in chat.end_tokens:
        assert end not in plain[:place]
        swapped = weights.clone()
        swapped[[end, plain[place]]] = weights[[plain[place], end]]
        decoder, bare = loaded(changed(pair, tmp_path / str(end), swapped))
        for arm in (decoder, bare):
            result = arm.generate(text, SamplingParams(0.0, max_new_tokens=12, eos_token_id=chat.end_tokens), SeededCoins(0))
            assert result.tokens == [*plain[:place], end] and result.finish == "eos"
            assert len(arm.generate(text, SamplingParams(0.0, max_new_tokens=12), SeededCoins(0)).tokens) == 12


def changed(pair: Pair, folder: Path, unembedding: torch.Tensor) -> Pair:
    """The pair with another LM head, in whichever shard it is."""
    shutil.copytree(pair.target, folder)
    index = json.loads(next(folder.glob("*.index.json")).read_text())["weight_map"]
    shard = folder / index["lm_head.weight"]
    safe = shard.suffix == ".safetensors"
    tensors = load_file(shard) if safe else torch.load(shard)
    tensors["lm_head.weight"] = unembedding.to(tensors["lm_head.weight"])
    save_file(tensors, shard, metadata={"format": "pt"}) if safe else torch.save(tensors, shard)
    return Pair(pair.name, folder, pair.draft, own=True)


@pytest.mark.parametrize("layout", ["bin", "safetensors"])
def test_a_trained_pair_gives_the_same_text_in_every_layout(tmp_path: Path, layout: str) -> None:
    """In shards, or with the head in one .bin; with the same acceptance length."""
    pair = shipped("stdlib")
    target, draft = tmp_path / "target", tmp_path / "draft"
    write_published(pair.target, target, shards=3)
    if layout == "bin":
        families.write_head(draft, load_head(pair.draft))
    else:
        write_published(pair.draft, draft)
    text, params = prompts(pair)[0].tokens, SamplingParams(0.0, max_new_tokens=24)
    ours, theirs = (
        Decoder.load(folder, head, Budget(4, 5, 16)).generate(text, params, SeededCoins(0))
        for folder, head in ((pair.target, pair.draft), (target, draft))
    )
    assert theirs.tokens == ours.tokens and theirs.tau == ours.tau > 2
    assert theirs.tokens == Decoder.load(target).generate(text, params, SeededCoins(0)).tokens
