"""transformers 5.23.0: speculation with `guidance_scale` decodes from a wrong distribution."""

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

transformers.utils.logging.set_verbosity_error()


def model(seed):
    torch.manual_seed(seed)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=24, num_key_value_heads=1, **shape)).double().eval()
    for weight in made.parameters():
        weight.data *= 10 if weight.ndim == 2 else 1
    made.generation_config = GenerationConfig(pad_token_id=0, num_assistant_tokens=3)
    return made


@torch.no_grad()
def expected(prompt, scale):
    """By the definition: l = log p(x | prompt, text), u = log p(x | the prompt's last token, text); u + scale (l - u)."""
    text = prompt
    for _ in range(20):
        rows = [target(ids).logits[0, -1].log_softmax(-1) for ids in (text, text[:, prompt.shape[1] - 1 :])]
        text = torch.cat([text, (rows[1] + scale * (rows[0] - rows[1])).argmax().view(1, 1)], dim=1)
    return text


target, assistant = model(0), model(1)
ways = {"control": {}, "prompt lookup": {"prompt_lookup_num_tokens": 3}, "assisted": {"assistant_model": assistant}}
for scale in (1.0, 1.5):
    for name, way in ways.items():
        right = 0
        for seed in range(20):
            prompt = torch.randint(0, 24, (1, 6), generator=torch.Generator().manual_seed(seed)).repeat(1, 2)
            ask = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 20, "guidance_scale": scale}
            right += target.generate(prompt, **ask, **way).equal(expected(prompt, scale))
        print(f"guidance_scale {scale}, {name:14} {right} of 20 texts are the greedy ones")
