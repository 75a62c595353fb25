"""The GGUF converter: the same numbers under llama.cpp's layout, and the same log-probabilities from llama.cpp itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.distributions.scoring import load_target
from harness.implementations import connect
from harness.implementations.adapters.gguf_file import interleaved, write
from harness.implementations.ready import READY
from harness.pairs import FIXTURES, shipped

PYTHON = FIXTURES.parent / ".engines" / "llama-cpp" / "bin" / "python"


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 4), (2, 8), (3, 32)])
def test_rotary_scores_survive_the_layout(heads: int, head_dim: int) -> None:
    """Turning halves as transformers does, or neighbours as llama.cpp does, gives the same products of queries and keys."""
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, heads * head_dim, 16))
    x, y = rng.standard_normal((2, 16))
    angles = 7.0 * 10000.0 ** (-np.arange(head_dim // 2) / (head_dim // 2))
    turn = np.exp(1j * angles)

    def halves(rows: Any) -> Any:
        first, second = rows.reshape(heads, 2, -1).swapaxes(0, 1)
        return first + 1j * second

    def neighbours(rows: Any) -> Any:
        first, second = rows.reshape(heads, -1, 2).transpose(2, 0, 1)
        return first + 1j * second

    due = (halves(query @ x) * turn * halves(key @ y).conj()).real.sum(-1)
    q, k = interleaved(query, heads) @ x, interleaved(key, heads) @ y
    found = (neighbours(q) * turn * neighbours(k).conj()).real.sum(-1)
    assert found == pytest.approx(due)
    assert (neighbours(query @ x) * turn * neighbours(key @ y).conj()).real.sum(-1) != pytest.approx(due)


@pytest.mark.parametrize(
    "odd",
    [{"model_type": "gpt2"}, {"attention_bias": True}, {"rope_parameters": {"rope_type": "llama3"}}, {"hidden_act": "gelu"}],
)
def test_what_is_no_plain_llama_is_refused(odd: dict[str, Any], tmp_path: Path) -> None:
    config = json.loads((shipped("coin4").target / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **odd}))
    with pytest.raises(NotImplementedError, match=next(iter(odd)).removesuffix("_parameters")):
        write(tmp_path, tmp_path / "out.gguf")


@pytest.mark.skipif(not PYTHON.exists(), reason=f"`make .engines/{READY['llama-cpp'].name}` makes the environment of llama.cpp")
@pytest.mark.parametrize("name", ["coin4", "dice8", "stdlib"])
def test_the_engine_says_what_the_target_says(name: str) -> None:
    """Every token's log-probability, as llama.cpp has it from the converted file and transformers from the checkpoint."""
    pair = shipped(name)
    engine = connect(f"llama-cpp:python={PYTHON}").open(pair)
    prompt = [token % pair.vocab_size for token in (2, 3, 2, 40, 101)]
    (output,) = engine.raw.generate([prompt], [{"temperature": 1.0, "max_new_tokens": 12}], [3])
    engine.close()
    text = torch.tensor([[*prompt, *output["tokens"]]])
    with torch.inference_mode():
        logprobs = load_target(pair, "float64", "cpu")(text).logits[0].log_softmax(-1)
    due = [float(logprobs[i - 1, text[0, i]]) for i in range(len(prompt), text.shape[1])]
    assert output["logprobs"] == pytest.approx(due, abs=1e-4)
