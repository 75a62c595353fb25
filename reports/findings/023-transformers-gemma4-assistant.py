"""transformers 5.23.0: Gemma 4 assistants cannot be constructed, and sample from a wrong distribution if patched."""

from collections import Counter

import torch
from transformers import Gemma4AssistantConfig, Gemma4AssistantForCausalLM, Gemma4ForCausalLM, Gemma4TextConfig, GenerationConfig


def text_config(layers, shared, extra):
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
    inputs = {"vocab_size": 8, "vocab_size_per_layer_input": extra, "hidden_size_per_layer_input": extra, "global_head_dim": 16}
    kinds = ["sliding_attention", "full_attention"] * (layers // 2)
    return Gemma4TextConfig(**shape, **inputs, num_hidden_layers=layers, num_kv_shared_layers=shared, layer_types=kinds)


def assistant():
    return Gemma4AssistantForCausalLM(Gemma4AssistantConfig(text_config=text_config(2, 2, 0), backbone_hidden_size=32)).eval()


try:
    assistant()
except ValueError as error:
    print("as installed:", error)
modes = Gemma4TextConfig.kv_sharing_modes.fget  # fixed: if all layers are shared, all of them reuse
Gemma4TextConfig.kv_sharing_modes = property(lambda c: ["reuse"] * 2 if c.num_hidden_layers == 2 else modes(c))
torch.manual_seed(1)
target, drafter = Gemma4ForCausalLM(text_config(4, 2, 8)).eval(), assistant()
for model, scale in ((target, 20), (drafter, 4)):
    for weight in model.parameters():
        weight.data *= scale if weight.ndim == 2 else 1
    model.generation_config = GenerationConfig(pad_token_id=0, num_assistant_tokens=1)
prompt = torch.tensor([[1, 2, 3]])  # the first token is not drafted; the second is
for arm, way in {"control": {}, "assisted": {"assistant_model": drafter}}.items():
    ask = {"attention_mask": torch.ones_like(prompt), "do_sample": True, "top_k": 0, "max_new_tokens": 3, **way}
    texts = [torch.manual_seed(i) and tuple(target.generate(prompt, **ask)[0, 3:5].tolist()) for i in range(1000)]
    (first, n), after = Counter(x for x, _ in texts).most_common(1)[0], Counter(texts)
    law = target(torch.tensor([[1, 2, 3, first]])).logits[0, -1].softmax(-1).tolist()
    seen = [after[first, x] / n for x in range(8)]
    print(arm, f"after {first}, {n} texts, expected and seen:", *(f"{p:.3f}:{q:.3f}" for p, q in zip(law, seen, strict=True)))
    print(f"  total variation {sum(abs(p - q) for p, q in zip(law, seen, strict=True)) / 2:.3f}")
