"""Any server with an OpenAI-compatible completions API, if it takes token ids and tells token ids: vLLM, SGLang, …"""

from __future__ import annotations

from typing import Any

from .http_api import Server, ends, model_of, version

TOKEN_ID = "token_id:"  # noqa: S105  how vLLM spells a token where text is expected


class Engine:
    """A model behind /v1/completions. The server at `url` speculates; the one at `control_url` has the same model and does not.

    A pair is served where /v1/models has an entry of its target's name, as id or as the end of its path; `model` chooses an
    entry by id, `serves` says the pair's name where the server calls it otherwise. depth: longest chain of drafted tokens, as
    the server was started with. logprobs: the law that its log-probabilities are of, `raw` or `processed`; not judged without.
    """

    @classmethod
    def describe(cls, url: str = "", depth: int = 4, logprobs: str = "", **_options: Any) -> dict[str, Any]:
        law = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty", "eos"]
        told = {"logprobs": logprobs} if logprobs else {}
        return {
            "capabilities": law + list(told),
            "version": f"server {version(url, '/version')}".strip(),
            "checkpoint": "none",
            "budget": {"k": 1, "depth": depth, "m": depth},
            **told,
        }

    def __init__(
        self,
        target: str,
        draft: str | None = None,
        *,
        url: str,
        control_url: str = "",
        model: str = "",
        serves: str = "",
        depth: int = 4,  # noqa: ARG002  told to the harness by `describe`
        logprobs: str = "",
        timeout: float = 60.0,
        retries: int = 3,
        concurrency: int = 8,
    ) -> None:
        if draft is None and not control_url:
            raise NotImplementedError("no control_url: the address of a server of the same model that does not speculate")
        self.server = Server(control_url if draft is None else url, timeout, retries, concurrency)
        self.model, self.logprobs = self._model(target, str(model), str(serves)), bool(logprobs)

    def _model(self, target: str, model: str, serves: str) -> str:
        """The id under which the server has this target."""
        entries = self.server.ask("/v1/models")["data"]
        name = model_of(target)
        for entry in entries:
            names = {serves} if serves else {model_of(str(entry.get(key, ""))) for key in ("id", "root")}
            if name in names and model in ("", entry["id"]):
                return str(entry["id"])
        ids = ", ".join(entry["id"] for entry in entries)
        raise NotImplementedError(f"{self.server.url} serves {ids}, not {name}; serves={name} says that it does, by another name")

    def generate(self, prompts: list[list[int]], params: list[dict[str, Any]], seeds: list[int]) -> list[dict[str, Any]]:
        bodies = [self._body(*row) for row in zip(prompts, params, seeds, strict=True)]
        replies = self.server.post_all("/v1/completions", bodies)
        return [self._output(*row) for row in zip(prompts, replies, strict=True)]

    def _body(self, prompt: list[int], params: dict[str, Any], seed: int) -> dict[str, Any]:
        """Every parameter is sent: a server may have defaults of its own, or of the model's generation_config.json."""
        return {
            "model": self.model,
            "prompt": prompt,
            "seed": seed,
            "max_tokens": params["max_new_tokens"],
            "temperature": params["temperature"],
            "top_k": params.get("top_k", -1),
            "top_p": params.get("top_p", 1.0),
            "min_p": params.get("min_p", 0.0),
            "repetition_penalty": params.get("repetition_penalty", 1.0),
            "stop_token_ids": ends(params),
            "ignore_eos": True,  # the model's own: stop_token_ids end a text all the same
            "logprobs": 1,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "skip_special_tokens": False,
        }

    def _output(self, prompt: list[int], reply: dict[str, Any]) -> dict[str, Any]:
        (choice,) = reply["choices"]
        continued = choice.get("prompt_token_ids")
        if continued is not None and continued != prompt:
            raise ValueError(f"the server continued the tokens {continued[:8]}…, asked were {prompt[:8]}…")
        told = choice.get("logprobs") or {}
        tokens = choice.get("token_ids")
        if tokens is None:
            tokens = _spelled(told.get("tokens", []))
        return {"tokens": tokens, "logprobs": told["token_logprobs"]} if self.logprobs else {"tokens": tokens}

    def close(self) -> None:
        self.server.close()


def _spelled(tokens: list[str]) -> list[int]:
    if not tokens or not all(token.startswith(TOKEN_ID) for token in tokens):
        raise NotImplementedError(
            "the server tells texts, no token ids: a text cannot be mapped back to the tokens that were drawn"
        )
    return [int(token.removeprefix(TOKEN_ID)) for token in tokens]
