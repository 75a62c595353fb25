"""openvino-genai 2026.4.1.0: sampling with an EAGLE-3 chain has a wrong distribution.
.engines/openvino/bin/python 011-openvino-eagle3-sampling.py [seed] [size of the vocabulary]"""

import sys
import tempfile

import openvino
import openvino_genai as og
import torch
from optimum.exporters.openvino.convert import export_from_model
from optimum.exporters.openvino.model_patcher import LlamaEagle3ForCausalLM
from transformers import LlamaConfig, LlamaForCausalLM

Head = type("Head", (LlamaEagle3ForCausalLM,), {"__module__": "__main__"})  # the exporter rejects classes of optimum
SEED, V = (int(value) for value in (*sys.argv[1:], *(0, 8)[len(sys.argv) - 1 :]))
folder, f32 = tempfile.mkdtemp(), {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
PROMPT, N, schedule = torch.tensor([[1, 2, 3, 1, 2]]), 2000, og.SchedulerConfig()
shape = {"vocab_size": V, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2, "eos_token_id": None}
head = {"draft_vocab_size": V, "num_hidden_layers": 1, "architectures": ["LlamaForCausalLMEagle3"]}
for name, make, more in ("head", Head, head), ("target", LlamaForCausalLM, {"num_hidden_layers": 10}):
    torch.manual_seed(SEED)
    target = make(LlamaConfig(max_position_embeddings=64, initializer_range=0.2, **shape, **more)).eval()
    export_from_model(target, output=f"{folder}/{name}", task="text-generation-with-past")
schedule.max_num_batched_tokens = schedule.max_num_seqs = N * 16  # as in 010
for arm, drafter in ("control", {}), ("speculation", {"draft_model": og.draft_model(f"{folder}/head", "CPU", **f32)}):
    tokenizer = og.Tokenizer(f"{folder}/target")
    pipe = og.ContinuousBatchingPipeline(f"{folder}/target", tokenizer, schedule, "CPU", **f32, **drafter)
    for opts in {"temperature": 1.0}, {"temperature": 0.7, "top_k": 3}:
        fixed = {"do_sample": True, "max_new_tokens": 5, "ignore_eos": True, "eos_token_id": 0, "stop_token_ids": {0}, **opts}
        fixed |= {"num_assistant_tokens": 3} if drafter else {}
        configs = [og.GenerationConfig(**fixed, rng_seed=N * SEED + i) for i in range(N)]
        results = pipe.generate([openvino.Tensor(PROMPT.numpy())] * N, configs)
        text = torch.tensor([result.m_generation_ids[0] for result in results])
        logits = target(torch.cat([PROMPT.expand(N, -1), text], 1)).logits[:, 4:-1] / opts["temperature"]
        logits = logits.masked_fill(logits < logits.topk(opts.get("top_k", V)).values[..., -1:], -torch.inf)
        p, counts = logits.softmax(-1), torch.nn.functional.one_hot(text, V).sum(0)
        off, impossible = (counts / N - p.mean(0)).abs().sum(-1) / 2, (p.gather(2, text[..., None]) == 0).sum((0, 2))
        print(f"{arm}, {opts}: total variation by token {[round(x, 3) for x in off.tolist()]}, impossible {impossible.tolist()}")
        print(f"  second token: counts {counts[1].tolist()}, expected {(p.sum(0)[1]).round().long().tolist()}", flush=True)
