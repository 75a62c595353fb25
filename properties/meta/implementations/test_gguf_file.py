"""The GGUF converter: the same numbers in llama.cpp's layout, and the same log-probabilities from llama.cpp itself."""

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
from harness.pairs import FIXTURES, shipped

PYTHON = FIXTURES.parent / ".engines" / "llama-cpp" / "bin" / "python"


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 4), (2, 8), (3, 32)])
def test_interleaved_rows_have_the_same_rotary_scores(heads: int, head_dim: int) -> None:
    """Rotating halves as transformers does, or neighbours as llama.cpp does, gives the same products of queries and keys."""
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((2, heads * head_dim, 16))
    x, y = rng.standard_normal((2, 16))
    angles = 7.0 * 10000.0 ** (-np.arange(head_dim // 2) / (head_dim // 2))
    rotation = np.exp(1j * angles)

    def halves(rows: Any) -> Any:
        first, second = rows.reshape(heads, 2, -1).swapaxes(0, 1)
        return first + 1j * second

    def neighbours(rows: Any) -> Any:
        first, second = rows.reshape(heads, -1, 2).transpose(2, 0, 1)
        return first + 1j * second

    expected = (halves(query @ x) * rotation * halves(key @ y).conj()).real.sum(-1)
    q, k = interleaved(query, heads) @ x, interleaved(key, heads) @ y
    found = (neighbours(q) * rotation * neighbours(k).conj()).real.sum(-1)
    assert found == pytest.approx(expected)
    assert (neighbours(query @ x) * rotation * neighbours(key @ y).conj()).real.sum(-1) != pytest.approx(expected)


@pytest.mark.parametrize(
    "change",
    [{"model_type": "gpt2"}, {"attention_bias": True}, {"rope_parameters": {"rope_type": "llama3"}}, {"hidden_act": "gelu"}],
)
def test_checkpoint_that_is_no_plain_llama_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    config = json.loads((shipped("coin4").target / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(NotImplementedError, match=next(iter(change)).removesuffix("_parameters")):
        write(tmp_path, tmp_path / "out.gguf")


@pytest.mark.skipif(not PYTHON.exists(), reason="needs the environment of llama.cpp: `make .engines/llama-cpp`")
@pytest.mark.parametrize("name", ["coin4", "dice8", "stdlib"])
def test_llama_cpp_has_the_log_probabilities_of_transformers(name: str) -> None:
    """llama.cpp on the converted file, transformers on the checkpoint."""
    pair = shipped(name)
    engine = connect(f"llama-cpp:python={PYTHON}").open(pair)
    prompt = [token % pair.vocab_size for token in (2, 3, 2, 40, 101)]
    (output,) = engine.raw.generate([prompt], [{"temperature": 1.0, "max_new_tokens": 12}], [3])
    engine.close()
    text = torch.tensor([[*prompt, *output["tokens"]]])
    with torch.inference_mode():
        logprobs = load_target(pair, "float64", "cpu")(text).logits[0].log_softmax(-1)
    expected = [float(logprobs[i - 1, text[0, i]]) for i in range(len(prompt), text.shape[1])]
    assert output["logprobs"] == pytest.approx(expected, abs=1e-4)
