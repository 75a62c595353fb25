"""An SGLang server, by its native /generate: token ids in and out, and counters of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .http_api import Server, ends, model_of, version

COUNTERS = {
    "passes": ("spec_verify_ct",),
    "drafted": ("spec_num_proposed_drafts", "spec_draft_token_num"),
    "accepted": ("spec_num_correct_drafts", "spec_accept_token_num"),
}
"""What a finished request tells of its speculation: names of newer releases, then of older ones."""


class Engine:
    """A model behind /generate. The server at `url` speculates; the one at `control_url` has the same model and does not.

    A pair is served where the server's model_path ends in the name of its target; `serves` says the pair's name where it does
    not. depth: longest path of drafted tokens (--speculative-num-steps).
    """

    @classmethod
    def describe(cls, url: str = "", depth: int = 4, **_options: Any) -> dict[str, Any]:
        law = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "eos"]
        return {
            "capabilities": [*law, "counters"],
            "version": f"sglang {version(url, '/get_server_info')}".strip(),
            "checkpoint": "none",
            "budget": {"k": 1, "depth": depth, "m": depth},
        }

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        *,
        url: str,
        control_url: str = "",
        serves: str = "",
        depth: int = 4,  # noqa: ARG002  told to the harness by `describe`
        timeout: float = 60.0,
        retries: int = 3,
        concurrency: int = 8,
    ) -> None:
        if draft is None and not control_url:
            raise NotImplementedError("no control_url: the address of a server of the same model that does not speculate")
        self.server = Server(control_url if draft is None else url, timeout, retries, concurrency)
        name, path = model_of(target), str(self.server.ask("/get_model_info")["model_path"])
        if name != (serves or model_of(path)):
            raise NotImplementedError(f"{self.server.url} serves {path}, not {name}; serves={name} says that it does")
        self.own_ends = _own_ends(Path(target))
        self._counted = dict.fromkeys(COUNTERS, 0)

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        bodies = [self._body(*row) for row in zip(prompts, params, seeds, strict=True)]
        return [self._tokens(reply) for reply in self.server.post_all("/generate", bodies)]

    def _body(self, prompt: list[int], params: dict[str, Any], seed: int) -> dict[str, Any]:
        asked = ends(params)
        if asked and self.own_ends - set(asked):
            # ignore_eos would switch stop_token_ids off too.
            raise NotImplementedError(f"a text cannot end at {asked} and go on at the model's own {sorted(self.own_ends)}")
        sampling = {
            "temperature": params["temperature"],
            "top_k": params.get("top_k", -1),
            "top_p": params.get("top_p", 1.0),
            "min_p": params.get("min_p", 0.0),
            "repetition_penalty": params.get("repetition_penalty", 1.0),
            "max_new_tokens": params["max_new_tokens"],
            "stop_token_ids": asked,
            "ignore_eos": not asked,
            "sampling_seed": seed,
            "skip_special_tokens": False,
        }
        return {"input_ids": prompt, "sampling_params": sampling, "return_logprob": True}

    def _tokens(self, reply: dict[str, Any]) -> list[int]:
        told = reply["meta_info"]
        if told["finish_reason"]["type"] == "abort":
            raise RuntimeError(f"the server gave up: {told['finish_reason'].get('message', '')}")
        for counter, names in COUNTERS.items():
            if found := [told[name] for name in names if name in told]:
                self._counted[counter] += int(found[0])
        if "output_ids" in reply:
            return [int(token) for token in reply["output_ids"]]
        return [int(token) for _logprob, token, *_text in told["output_token_logprobs"]]

    def counters(self) -> dict[str, int]:
        return dict(self._counted)

    def close(self) -> None:
        self.server.close()


def _own_ends(target: Path) -> set[int]:
    """End-of-text tokens that a checkpoint names."""
    files = [target / name for name in ("config.json", "generation_config.json")]
    return {token for file in files if file.exists() for token in ends(json.loads(file.read_text()))}
