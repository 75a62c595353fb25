"""Messages between the harness and an engine in another process: one JSON object per line, a reply for every request.

The schema is a contract with engines in other languages; it is committed as reports/schema/protocol.schema.json.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SkipValidation, TypeAdapter

CAPABILITIES = {
    **dict.fromkeys(("temperature", "top_k", "top_p", "min_p", "repetition_penalty"), "the sampling parameter is supported"),
    "eos": "stops at eos_token_id",
    "blocks": "outputs contain blocks",
    "context": "stops where the model's context is full",
    "deterministic": "draft trees depend on the text alone, not on random numbers",
    "logprobs": "reports log-probabilities",
    "counters": "reports counts of passes and drafts",
    "coins": "`decode` takes the random numbers",
    "accept": "`accept` is the acceptance rule alone",
    "rules": "the option `rule` chooses among lossless rules",
    "budget": "the options k, depth and m, as far as it has them, bound its draft trees",
    "batch": "the option `batch` is the number of sequences in a target pass; a text does not depend on it",
    "sampled": "trees have sampled tokens, and the rule is the one for such trees",
    "dynamic": "trees are those of EAGLE-2, the m nodes of highest value",
    "head": "the drafter is an EAGLE head",
    "tau": "acceptance lengths are those committed for the method",
    "decoder": "`decoder` is an eagle2_ref Decoder whose parts may be inspected",
}
"""All capabilities with their meanings. Those from `coins` on need an engine in the harness's process."""


class Message(BaseModel):
    """One line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int | None = Field(None, description="Number of a request, which its reply repeats. Only for an engine that is numbered.")


class DescribeRequest(Message):
    """Sent first, in a process of its own; the engine must answer without loading a checkpoint."""

    do: Literal["describe"] = "describe"
    options: dict[str, Any] = Field({}, description="Options of the connectable string.")


class OpenRequest(Message):
    """Load the checkpoints. `draft` null: decode without speculation."""

    do: Literal["open"] = "open"
    target: str
    draft: str | None
    options: dict[str, Any]


class GenerateRequest(Message):
    """Continue prompts: three lists of one length."""

    do: Literal["generate"] = "generate"
    prompts: list[list[int]]
    params: list[dict[str, Any]]
    seeds: list[int]


class CountersRequest(Message):
    """Sent only to an engine with the capability `counters`."""

    do: Literal["counters"] = "counters"


class Description(Message):
    """What the engine is and can do. All fields but `capabilities` are optional.

    parameters: names of the engine's options; null if it accepts any. checkpoint: the drafter of a pair that it needs.
    logprobs: whether its log-probabilities are of the model's own distribution (raw) or of the one after the sampling
    parameters (processed). lossy: what its documentation says about a lossy mode. method: its drafting method, by the
    reference's name. budget: bounds of its draft trees, of the keys k, depth and m. numbered: every other request carries an
    `id`, which its reply repeats, so that a second reply to one request is noticed.
    """

    capabilities: list[str]
    version: str = ""
    parameters: list[str] | None = None
    checkpoint: str = "draft"
    logprobs: Literal["processed", "raw"] = "processed"
    lossy: str = ""
    method: str = ""
    budget: dict[str, int] | None = None
    numbered: bool = False


class OpenReply(Message):
    """The checkpoints are loaded."""

    opened: Literal[True]


class GenerateReply(Message):
    """One output per prompt: a list of new token ids, or a dict with `tokens` and optionally `blocks` and `logprobs`."""

    outputs: list[SkipValidation[list[int] | dict[str, Any]]]  # engine.py validates each, as those of engines in this process


class CountersReply(Message):
    """passes, drafted, accepted: cumulative since opening."""

    counters: dict[str, Any]


class Refusal(Message):
    """The engine does not support the request: n/a, with this message as the reason."""

    refused: str


class Failure(Message):
    """The engine raised an error."""

    error: str
    traceback: str = ""


Request = Annotated[DescribeRequest | OpenRequest | GenerateRequest | CountersRequest, Field(discriminator="do")]
Reply = Description | OpenReply | GenerateReply | CountersReply | Refusal | Failure
REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)
