"""An SGLang server, through its native /generate: token ids in both directions, and counters of its speculation."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

from .common import end_tokens, read_config
from .http_api import ServerEngine, describe_server, model_name, sampling_fields

COUNTERS = {
    "passes": ("spec_verify_ct",),
    "drafted": ("spec_num_proposed_drafts", "spec_draft_token_num"),
    "accepted": ("spec_num_correct_drafts", "spec_accept_token_num"),
}
"""Fields of a finished request that hold each counter: the name in newer releases first, then the name in older ones."""


class Engine(ServerEngine):
    """A model at /generate.

    Options:
        url, control_url: addresses of the server that speculates, and of one that does not.
        serves: name of the pair, if the server's model_path does not end in the name of its target.
        depth: longest path of drafted tokens (--speculative-num-steps).
        timeout, retries, concurrency: seconds of a request, how often it is retried, requests in flight.
    """

    @classmethod
    def describe(cls, url: str = "", depth: int = 4, **_options: Any) -> dict[str, Any]:
        description = describe_server("sglang", url, "/get_server_info", depth)
        return description | {"capabilities": [*description["capabilities"], "counters"]}

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        *,
        url: str,
        control_url: str = "",
        serves: str = "",
        depth: int = 4,  # noqa: ARG002  used by `describe`
        timeout: float = 60.0,
        retries: int = 3,
        concurrency: int = 8,
    ) -> None:
        super().__init__(draft, url, control_url, timeout, retries, concurrency)
        name, path = model_name(target), self.server.request("/get_model_info", lambda reply: str(reply["model_path"]))
        if name != (serves or model_name(path)):
            raise NotImplementedError(f"{self.server.url} serves {path}, not {name}; if they are the same, give serves={name}")
        self.model_ends = _model_ends(Path(target))
        self._counters = dict.fromkeys(COUNTERS, 0)

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[list[int]]:
        bodies = [self._body(*row) for row in zip(prompts, params, seeds, strict=True)]
        return self.server.post_all("/generate", bodies, self._tokens)

    def _body(self, prompt: list[int], params: dict[str, Any], seed: int) -> dict[str, Any]:
        ends = end_tokens(params)
        if ends and self.model_ends - set(ends):
            # SGLang's ignore_eos also switches stop_token_ids off, so the model's own tokens cannot be ignored alone.
            raise NotImplementedError(f"a text cannot end at {ends} and continue at the model's own {sorted(self.model_ends)}")
        sampling = {
            **sampling_fields(params),
            "max_new_tokens": params["max_new_tokens"],
            "ignore_eos": not ends,
            "sampling_seed": seed,
        }
        return {"input_ids": prompt, "sampling_params": sampling, "return_logprob": True}

    def _tokens(self, _body: dict[str, Any], reply: dict[str, Any]) -> list[int]:
        meta = reply["meta_info"]
        if meta["finish_reason"]["type"] == "abort":
            raise RuntimeError(f"the server aborted the request: {meta['finish_reason'].get('message', '')}")
        for counter, names in COUNTERS.items():
            if found := [meta[name] for name in names if name in meta]:
                self._counters[counter] += operator.index(found[0])
        if "output_ids" in reply:
            return list(reply["output_ids"])
        return [token for _logprob, token, *_text in meta["output_token_logprobs"]]

    def counters(self) -> dict[str, int]:
        return dict(self._counters)


def _model_ends(target: Path) -> set[int]:
    """End-of-text tokens of a checkpoint's own configuration."""
    files = [target / name for name in ("config.json", "generation_config.json")]
    return {token for file in files if file.exists() for token in end_tokens(read_config(file.parent, file.name))}
