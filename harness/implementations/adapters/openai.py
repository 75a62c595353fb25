"""Any server with an OpenAI-compatible completions API that accepts and returns token ids: vLLM, SGLang, …"""

from __future__ import annotations

from typing import Any

from .http_api import ServerEngine, describe_server, model_name, sampling_fields

TOKEN_ID = "token_id:"  # noqa: S105  how vLLM writes a token where text is expected


class Engine(ServerEngine):
    """A model at /v1/completions.

    Options:
        url, control_url: addresses of the server that speculates, and of one that does not.
        model: id of the entry of /v1/models. By default the entry is found by the name of the pair's target, which must be
            its id or the end of its path.
        serves: name of the pair, if the server calls it otherwise.
        depth: longest chain of drafted tokens, as the server was started with.
        logprobs: raw or processed, the distribution that the server's log-probabilities are of; without it they are not judged.
        timeout, retries, concurrency: seconds of a request, how often it is retried, requests in flight.
    """

    @classmethod
    def describe(cls, url: str = "", depth: int = 4, logprobs: str = "", **_options: Any) -> dict[str, Any]:
        description = describe_server("server", url, "/version", depth)
        if logprobs:
            description |= {"capabilities": [*description["capabilities"], "logprobs"], "logprobs": logprobs}
        return description

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        *,
        url: str,
        control_url: str = "",
        model: str = "",
        serves: str = "",
        depth: int = 4,  # noqa: ARG002  used by `describe`
        logprobs: str = "",
        timeout: float = 60.0,
        retries: int = 3,
        concurrency: int = 8,
    ) -> None:
        super().__init__(draft, url, control_url, timeout, retries, concurrency)
        self.model, self.logprobs = self._find_model(target, str(model), str(serves)), bool(logprobs)

    def _find_model(self, target: str, model: str, serves: str) -> str:
        """The id under which the server has this target."""
        entries = self.server.request(
            "/v1/models", lambda reply: {str(entry["id"]): str(entry.get("root", "")) for entry in reply["data"]}
        )
        name = model_name(target)
        for entry, root in entries.items():
            if name in ({serves} if serves else {model_name(entry), model_name(root)}) and model in ("", entry):
                return entry
        ids = ", ".join(entries)
        raise NotImplementedError(f"{self.server.url} serves {ids}, not {name}; if it does by another name, give serves={name}")

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
        bodies = [self._body(*row) for row in zip(prompts, params, seeds, strict=True)]
        return self.server.post_all("/v1/completions", bodies, self._output)

    def _body(self, prompt: list[int], params: dict[str, Any], seed: int) -> dict[str, Any]:
        return {
            **sampling_fields(params),
            "model": self.model,
            "prompt": prompt,
            "seed": seed,
            "max_tokens": params["max_new_tokens"],
            "ignore_eos": True,  # the model's own end-of-text token; stop_token_ids still end a text
            "logprobs": 1,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    def _output(self, body: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
        (choice,) = reply["choices"]
        prompt, continued = body["prompt"], choice.get("prompt_token_ids")
        if continued is not None and continued != prompt:
            raise ValueError(f"the server continued the tokens {continued[:8]}…, the request was {prompt[:8]}…")
        logprobs = choice.get("logprobs") or {}
        tokens = choice.get("token_ids")
        if tokens is None:
            tokens = _parse_tokens(logprobs.get("tokens", []))
        return {"tokens": tokens, "logprobs": logprobs["token_logprobs"]} if self.logprobs else {"tokens": tokens}


def _parse_tokens(tokens: list[str]) -> list[int]:
    if not tokens or not all(token.startswith(TOKEN_ID) for token in tokens):
        raise NotImplementedError(
            "the server returns text without token ids: a text cannot be mapped back to the tokens that were sampled"
        )
    return [int(token.removeprefix(TOKEN_ID)) for token in tokens]
