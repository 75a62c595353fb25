"""Checkpoints that are damaged, that contradict their configuration, or that hold what no decoder should load."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from eagle2_ref.coins import SeededCoins
from eagle2_ref.decode import Decoder
from eagle2_ref.drafters.base import Method
from eagle2_ref.drafters.eagle2 import Budget
from eagle2_ref.drafters.medusa import Medusa
from eagle2_ref.drafters.small_model import Speculative
from eagle2_ref.rules import reject, rule_for
from eagle2_ref.sampling import SamplingParams
from harness.cli.options import report_user_errors
from harness.pairs import find_pair, shipped
from harness.verdict import USAGE
from properties.meta.hardening import case, promise
from properties.meta.helpers.command import eagle2, fork

DAMAGED = "exit code 2; one message names the file and what is wrong with it"
FIELD = "exit code 2; the message names the field, its value and what the weights or the format say"
TENSOR = "exit code 2; the message names the tensor and what was expected"
UNSAFE = "exit code 2; refused, and none of its code is run"

Spoil = Callable[[Path], object]

METHODS: dict[str, Method] = {"draft": Budget(2, 2, 4), "small": Speculative(2), "medusa": Medusa(2, 2, 4)}
"""The method that loads each kind of draft checkpoint."""

app = typer.Typer()


@app.command()
@report_user_errors
def decode(pair: Path, part: str) -> None:
    """Print some tokens of a pair, with its target or a draft checkpoint damaged. Errors are reported as by every command."""
    found = find_pair("", str(pair / "target"), str(pair / ("draft" if part == "target" else part)))
    method = METHODS.get(part, METHODS["draft"])
    decoder = Decoder.load(found.target, found.draft, method, rule_for if part == "small" else reject)
    result = decoder.generate([1, 2, 3], SamplingParams(eos_token_id=found.config.get("eos_token_id")), SeededCoins(1))
    typer.echo(" ".join(map(str, result.tokens)))


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A copy of coin4, to be damaged."""
    return Path(shutil.copytree(shipped("coin4").target.parent, tmp_path / "pair"))


def run(pair: Path, part: str = "target") -> Result:
    return CliRunner().invoke(app, [str(pair), part], env={"COLUMNS": "200"})


def refused(result: Result, *words: str, code: int = USAGE, lines: int = 6) -> None:
    """The command ended with an exit code, and a message of a few lines that contains some words."""
    assert result.exit_code == code, (result.exit_code, result.exception, result.output)
    assert all(word in result.output for word in words), result.output
    assert "Traceback" not in result.output
    assert len(result.output.splitlines()) <= lines and len(result.output) < 1500, result.output


# --- ways to spoil a checkpoint --------------------------------------------------------------------------------------


def config(**changes: Any) -> Spoil:
    """Change fields of config.json; `...` removes one."""

    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        fields = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({name: value for name, value in fields.items() if value is not ...}))

    return spoil


def rope(**changes: Any) -> Spoil:
    return config(rope_parameters={"rope_theta": 10000.0, "rope_type": "default", **changes})


def weights(change: Callable[[dict[str, Tensor]], object]) -> Spoil:
    """Change the tensors of a checkpoint."""

    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return spoil


def cast(name: str, dtype: torch.dtype) -> Spoil:
    return weights(lambda tensors: tensors.update({name: tensors[name].to(dtype)}))


def fill(name: str, value: float) -> Spoil:
    return weights(lambda tensors: tensors[name].view(-1)[3:4].fill_(value))


def content(name: str, data: bytes | str) -> Spoil:
    """Replace the content of a file."""
    return lambda folder: (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def edited(change: Callable[[bytes], bytes]) -> Spoil:
    """Change the bytes of model.safetensors."""
    return lambda folder: (file := folder / "model.safetensors").write_bytes(change(file.read_bytes()))


def header(change: Callable[[dict[str, Any]], object]) -> Spoil:
    """Change the header of model.safetensors."""

    def rewritten(data: bytes) -> bytes:
        end = 8 + int.from_bytes(data[:8], "little")
        fields = json.loads(data[8:end])
        text = json.dumps(change(fields) or fields).encode()
        return len(text).to_bytes(8, "little") + text + data[end:]

    return edited(rewritten)


def link(name: str, to: str) -> Spoil:
    """Replace a file by a symbolic link."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(to)

    return spoil


def directory(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return spoil


def pipe(name: str) -> Spoil:
    """Replace a file by a pipe, of which no reader sees an end."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return spoil


def index(data: Any, keep: bool = False) -> Spoil:
    """Replace model.safetensors by an index, and keep it as the only shard if `keep`."""

    def spoil(folder: Path) -> None:
        names = list(load_file(folder / "model.safetensors"))
        (folder / "model.safetensors").rename(folder / "shard.safetensors")
        if not keep:
            (folder / "shard.safetensors").rename(folder.parent / "shard.safetensors")
        text = json.dumps(data(names) if callable(data) else data)
        (folder / "model.safetensors.index.json").write_text(text)

    return spoil


def instead(part: str) -> Spoil:
    """Replace a checkpoint by another one of the pair."""

    def spoil(folder: Path) -> None:
        shutil.rmtree(folder)
        shutil.copytree(folder.parent / part, folder)

    return spoil


class Trap:
    """A pickled call: loading it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / "sprung"),)


def trap(folder: Path, zipped: bool = True) -> None:
    """Replace the weights by a pickle that calls a function."""
    tensors = {**load_file(folder / "model.safetensors"), "x": Trap(folder)}
    (folder / "model.safetensors").unlink()
    if zipped:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Trap(folder)}))


def renamed(tensors: dict[str, Tensor]) -> None:
    for name in list(tensors):
        tensors[f"x.{name}"] = tensors.pop(name)


def without_layers(tensors: dict[str, Tensor]) -> None:
    for name in [name for name in tensors if name.startswith("layers.")]:
        del tensors[name]


def remote(folder: Path) -> None:
    """A configuration that names code in its own folder."""
    config(model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"})(folder)
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(folder / 'sprung')!r})\n")


Q, DOWN, EMBED = "self_attn.q_proj.weight", "mlp.down_proj.weight", "embed_tokens.weight"
T, D = "model.layers.0.", "layers.0."

BROKEN_FILES = [
    ("cut in half", edited(lambda data: data[: len(data) // 2]), ["model.safetensors"]),
    ("of five bytes", content("model.safetensors", b"abcde"), ["model.safetensors"]),
    ("that is empty", content("model.safetensors", b""), ["model.safetensors"]),
    ("with a header of 2^62 bytes", edited(lambda d: (1 << 62).to_bytes(8, "little") + d[8:]), ["model.safetensors"]),
    ("with a header of 2^64 - 1 bytes", edited(lambda d: b"\xff" * 8 + d[8:]), ["model.safetensors"]),
    ("with a flipped bit in the header", edited(lambda d: d[:9] + bytes([d[9] ^ 1]) + d[10:]), ["model.safetensors"]),
    (
        "with overlapping tensors",
        header(lambda fields: [f.update(data_offsets=[0, 128]) for n, f in fields.items() if n != "__metadata__"] and None),
        ["model.safetensors"],
    ),
    (
        "with offsets beyond its end",
        header(lambda fields: [f.update(data_offsets=[0, 1 << 50]) for n, f in fields.items() if n != "__metadata__"] and None),
        ["model.safetensors"],
    ),
    ("with a tensor twice in the header", edited(lambda d: twice(d)), ["model.safetensors"]),
    ("that is a folder", directory("model.safetensors"), ["model.safetensors"]),
    ("that is a pipe", pipe("model.safetensors"), ["model.safetensors"]),
    ("that links to itself", link("model.safetensors", "model.safetensors"), ["model.safetensors"]),
    ("that links to a file that is gone", link("model.safetensors", "gone"), ["model.safetensors"]),
    ("that is /dev/zero", link("model.safetensors", "/dev/zero"), ["model.safetensors"]),
    ("that cannot be read", link("model.safetensors", "/proc/self/mem"), ["model.safetensors"]),
]
"""Damages of the file of weights, the same for every kind of checkpoint."""


def twice(data: bytes) -> bytes:
    """The first tensor of a header once more, with other offsets."""
    end = 8 + int.from_bytes(data[:8], "little")
    text = data[8:end].rstrip()
    name = next(name for name in json.loads(text) if name != "__metadata__")
    text = text[:-1] + b"," + json.dumps({name: {"dtype": "F64", "shape": [2], "data_offsets": [0, 16]}}).encode()[1:]
    return len(text).to_bytes(8, "little") + text + data[end:]


BROKEN_CONFIGS = [
    ("that is missing", lambda folder: (folder / "config.json").unlink(), ["config.json"]),
    ("that is HTML", content("config.json", "<html>not found</html>"), ["config.json is not JSON"]),
    ("that is binary", content("config.json", b"\x00\xff\xfe" * 99), ["config.json is not JSON"]),
    ("that is empty", content("config.json", ""), ["config.json is not JSON"]),
    ("that is a list", content("config.json", "[]"), ["config.json is not a JSON object"]),
    ("nested 100,000 deep", content("config.json", "[" * 100_000), ["config.json is not JSON", "deep"]),
    ("with a byte order mark", lambda f: recode(f, "utf-8-sig"), ["config.json is not JSON", "BOM"]),
    ("in UTF-16", lambda f: recode(f, "utf-16"), ["config.json is not JSON"]),
    ("that is a folder", directory("config.json"), ["config.json is not a file"]),
    ("that is a pipe", pipe("config.json"), ["config.json is not a file"]),
    ("that links to itself", link("config.json", "config.json"), ["config.json"]),
    ("that is /dev/zero", link("config.json", "/dev/zero"), ["config.json is not a file"]),
    ("that cannot be read", link("config.json", "/proc/self/mem"), ["config.json cannot be read"]),
]
"""Damages of config.json, the same for every kind of checkpoint."""


def recode(folder: Path, encoding: str) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text(), encoding=encoding)


@pytest.mark.parametrize("part", ["target", "draft", "small", "medusa"])
def test_an_undamaged_pair_decodes(pair: Path, part: str) -> None:
    result = run(pair, part)
    assert result.exit_code == 0 and len(result.stdout.split()) == 21 and not result.stderr


@pytest.mark.parametrize("part", ["target", "draft"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        *(case(f"weights {fault}", DAMAGED, spoil, words) for fault, spoil, words in BROKEN_FILES),
        *(case(f"a config.json {fault}", DAMAGED, spoil, words) for fault, spoil, words in BROKEN_CONFIGS),
    ],
)
def test_a_damaged_file_is_refused(pair: Path, part: str, spoil: Spoil, words: list[str]) -> None:
    spoil(pair / part)
    refused(run(pair, part), str(pair / part), *words)


def everything(names: list[str], shard: str) -> dict[str, Any]:
    return {"weight_map": dict.fromkeys(names, shard)}


@pytest.mark.parametrize("part", ["target", "draft"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        case(
            "an index of shards that names a file that is gone",
            DAMAGED,
            index(lambda n: everything(n, "gone.safetensors")),
            ["gone.safetensors", "missing"],
        ),
        case("an index without weight_map", DAMAGED, index({"metadata": {}}), ["index.json has no weight_map"]),
        case("an index whose weight_map is empty", DAMAGED, index({"weight_map": {}}), ["index.json has no weight_map"]),
        case("an index whose weight_map is a list", DAMAGED, index({"weight_map": []}), ["index.json has no weight_map"]),
        case("an index with numbers for files", DAMAGED, index({"weight_map": {"a": 3}}), ["index.json", "a"]),
        case(
            "an index of files outside the folder",
            UNSAFE,
            index(lambda n: everything(n, "../shard.safetensors")),
            ["../shard.safetensors", "outside"],
        ),
        case("an index of /etc/passwd", UNSAFE, index(lambda n: everything(n, "/etc/passwd")), ["/etc/passwd", "outside"]),
        case(
            "an index of 300,000 files",
            DAMAGED,
            index(lambda _: {"weight_map": {f"t{i}": f"s{i}.safetensors" for i in range(300_000)}}),
            ["s0.safetensors", "missing"],
        ),
        case(
            "an index of a tensor that its shard lacks",
            DAMAGED,
            index(lambda n: everything([*n, "extra.weight"], "shard.safetensors"), keep=True),
            ["extra.weight", "shard.safetensors"],
        ),
        case(
            "an index that is HTML",
            DAMAGED,
            lambda f: (index({})(f), content("model.safetensors.index.json", "<html>")(f)),
            ["index.json is not JSON"],
        ),
    ],
)
def test_a_wrong_index_of_shards_is_refused(pair: Path, part: str, spoil: Spoil, words: list[str]) -> None:
    spoil(pair / part)
    refused(run(pair, part), *words)


@pytest.mark.parametrize(
    ("part", "spoil"),
    [
        case("a pickle in the target", UNSAFE, "target", trap),
        case("a pickle in the EAGLE head", UNSAFE, "draft", trap),
        case("a pickle in the Medusa heads", UNSAFE, "medusa", trap),
        case("a bare pickle in the target", UNSAFE, "target", lambda folder: trap(folder, zipped=False)),
        case("a bare pickle in the EAGLE head", UNSAFE, "draft", lambda folder: trap(folder, zipped=False)),
        case("a target that brings its own code", UNSAFE, "target", remote),
        case("a small model that brings its own code", UNSAFE, "small", remote),
    ],
)
def test_code_in_a_checkpoint_is_not_run(pair: Path, part: str, spoil: Spoil) -> None:
    spoil(pair / part)
    result = run(pair, part)
    assert not (pair / part / "sprung").exists()
    refused(result, str(pair / part))
    assert "weights_only" not in result.output and "trust_remote_code" not in result.output


LIES = [
    ("vocab_size one too many", "target", config(vocab_size=5), ["vocab_size", "5", "4"]),
    ("vocab_size one too few", "target", config(vocab_size=3), ["vocab_size", "3", "4"]),
    ("vocab_size of 10^12", "target", config(vocab_size=10**12), ["vocab_size is 1000000000000"]),
    ("vocab_size of 10^7", "target", config(vocab_size=10**7), ["vocab_size", "10000000", "4"]),
    ("vocab_size 0", "target", config(vocab_size=0), ["vocab_size is 0"]),
    ("vocab_size left out", "target", config(vocab_size=...), ["vocab_size", "4"]),
    ("vocab_size a string", "target", config(vocab_size="4"), ["vocab_size is '4'"]),
    ("vocab_size a fraction", "target", config(vocab_size=4.5), ["vocab_size is 4.5"]),
    ("vocab_size null", "target", config(vocab_size=None), ["vocab_size is null"]),
    ("vocab_size a list", "target", config(vocab_size=[4]), ["vocab_size is [4]"]),
    ("hidden_size doubled", "target", config(hidden_size=32), ["hidden_size", "32", "16"]),
    ("hidden_size negative", "target", config(hidden_size=-16), ["hidden_size is -16"]),
    ("intermediate_size doubled", "target", config(intermediate_size=64), ["intermediate_size", "64", "32"]),
    ("intermediate_size true", "target", config(intermediate_size=True), ["intermediate_size is true"]),
    ("num_attention_heads doubled", "target", config(num_attention_heads=4), ["num_attention_heads", "32", "16"]),
    ("num_attention_heads 0", "target", config(num_attention_heads=0), ["num_attention_heads is 0"]),
    ("num_attention_heads 3", "target", config(num_attention_heads=3), ["number of attention heads (3)"]),
    ("num_key_value_heads doubled", "target", config(num_key_value_heads=2), ["num_key_value_heads", "16", "8"]),
    ("head_dim halved", "target", config(head_dim=4), ["head_dim", "16", "8"]),
    ("head_dim a string", "target", config(head_dim="8"), ["head_dim is '8'"]),
    ("head_dim odd", "target", config(head_dim=7), ["head_dim", "7"]),
    ("a layer too many", "target", config(num_hidden_layers=3), ["num_hidden_layers is 3", "2 layers"]),
    ("a layer too few", "target", config(num_hidden_layers=1), ["num_hidden_layers is 1", "2 layers"]),
    ("a million layers", "target", config(num_hidden_layers=1_000_000), ["num_hidden_layers is 1000000", "21 tensors"]),
    ("no layers", "target", config(num_hidden_layers=0), ["num_hidden_layers is 0"]),
    ("max_position_embeddings 0", "target", config(max_position_embeddings=0), ["max_position_embeddings is 0"]),
    ("max_position_embeddings negative", "target", config(max_position_embeddings=-5), ["max_position_embeddings is -5"]),
    ("max_position_embeddings 10^30", "target", config(max_position_embeddings=10**30), ["max_position_embeddings is 1000"]),
    ("max_position_embeddings true", "target", config(max_position_embeddings=True), ["max_position_embeddings is true"]),
    ("max_position_embeddings a fraction", "target", config(max_position_embeddings=24.5), ["max_position_embeddings is 24.5"]),
    ("max_position_embeddings null", "target", config(max_position_embeddings=None), ["max_position_embeddings is null"]),
    ("rope of an unknown type", "target", rope(rope_type="spiral"), ["rope_type", "spiral"]),
    ("yarn without its factor", "target", rope(rope_type="yarn"), ["factor"]),
    ("linear rope without its factor", "target", rope(rope_type="linear"), ["factor"]),
    ("rope_theta 0", "target", rope(rope_theta=0), ["rope_theta is 0"]),
    ("rope_theta negative", "target", rope(rope_theta=-1.0), ["rope_theta is -1.0"]),
    ("rope_theta a string", "target", rope(rope_theta="10000"), ["rope_theta is '10000'"]),
    ("rope_theta NaN", "target", rope(rope_theta=float("nan")), ["rope_theta is NaN"]),
    ("a rope factor of 0", "target", rope(rope_type="linear", factor=0), ["factor is 0"]),
    ("rope_parameters a string", "target", config(rope_parameters="default"), ["rope_parameters"]),
    (
        "tie_word_embeddings true, with an LM head of its own",
        "target",
        config(tie_word_embeddings=True),
        ["tie_word_embeddings", "lm_head.weight"],
    ),
    ("tie_word_embeddings a string", "target", config(tie_word_embeddings="false"), ["tie_word_embeddings"]),
    (
        "tie_word_embeddings false, without an LM head",
        "target",
        weights(lambda t: t.pop("lm_head.weight")),
        ["missing", "lm_head.weight"],
    ),
    ("num_labels of 2^63", "target", config(num_labels=2**63), ["num_labels is 9223372036854775808"]),
    ("rms_norm_eps 10^400", "target", config(rms_norm_eps=10**400), ["rms_norm_eps is 1000"]),
    ("rms_norm_eps negative", "target", config(rms_norm_eps=-1.0), ["rms_norm_eps is -1.0"]),
    ("rms_norm_eps a string", "target", config(rms_norm_eps="small"), ["rms_norm_eps"]),
    ("eos_token_id outside the vocabulary", "target", config(eos_token_id=99), ["eos_token_id is 99", "0 to 3"]),
    ("eos_token_id negative", "target", config(eos_token_id=-1), ["eos_token_id is -1", "0 to 3"]),
    ("eos_token_id in a list outside the vocabulary", "target", config(eos_token_id=[1, 7]), ["eos_token_id", "7", "0 to 3"]),
    ("eos_token_id a string", "target", config(**{"eos_token_id": "</s>"}), ["eos_token_id is '</s>'"]),
    ("an unknown activation", "target", config(hidden_act="wavy"), ["hidden_act", "wavy"]),
    ("an unknown model type", "target", config(model_type="nothing"), ["nothing"]),
    ("model_type left out", "target", config(model_type=...), ["model_type"]),
    ("vocab_size of the head one too many", "draft", config(vocab_size=5), ["vocabulary 5", "4"]),
    ("vocab_size of the head a fraction", "draft", config(vocab_size=4.5), ["vocab_size is 4.5"]),
    ("vocab_size of the head a string", "draft", config(vocab_size="4"), ["vocab_size is '4'"]),
    ("hidden_size of the head doubled", "draft", config(hidden_size=32), ["hidden size 32", "16"]),
    ("hidden_size of the head null", "draft", config(hidden_size=None), ["hidden_size is null"]),
    ("intermediate_size of the head doubled", "draft", config(intermediate_size=64), ["intermediate_size", "64", "32"]),
    ("intermediate_size of the head 10^12", "draft", config(intermediate_size=10**12), ["intermediate_size is 1000000000000"]),
    ("intermediate_size of the head 10^7", "draft", config(intermediate_size=10**7), ["intermediate_size", "10000000", "32"]),
    ("num_key_value_heads of the head doubled", "draft", config(num_key_value_heads=2), ["num_key_value_heads", "16", "8"]),
    ("num_key_value_heads of the head 0", "draft", config(num_key_value_heads=0), ["num_key_value_heads is 0"]),
    ("head_dim of the head that its shape denies", "draft", config(head_dim=4), ["head_dim is 4", "8"]),
    ("a layer of the head too many", "draft", config(num_hidden_layers=2), ["num_hidden_layers is 2", "1 layer"]),
    ("a million layers of the head", "draft", config(num_hidden_layers=1_000_000), ["num_hidden_layers is 1000000", "1 layer"]),
    ("no layers of the head", "draft", config(num_hidden_layers=0), ["num_hidden_layers is 0"]),
    ("rope_theta of the head 0", "draft", config(rope_theta=0), ["rope_theta is 0"]),
    ("rope_theta of the head a string", "draft", config(rope_theta="10000"), ["rope_theta is '10000'"]),
    ("a rope factor of the head of 0", "draft", config(rope_scaling={"type": "linear", "factor": 0}), ["factor is 0"]),
    ("rope_scaling of the head a string", "draft", config(rope_scaling="linear"), ["rope_scaling"]),
    ("rms_norm_eps of the head NaN", "draft", config(rms_norm_eps=float("nan")), ["rms_norm_eps is NaN"]),
    ("bias of the head a string", "draft", config(bias="false"), ["bias is 'false'"]),
    ("vocab_size of the small model one too many", "small", config(vocab_size=5), ["vocab_size", "5", "4"]),
    ("hidden_size of the small model a string", "small", config(hidden_size="16"), ["hidden_size is '16'"]),
    ("num_heads of Medusa a fraction", "medusa", config(num_heads=2.5), ["num_heads is 2.5"]),
    ("num_heads of Medusa a million", "medusa", config(num_heads=1_000_000), ["num_heads is 1000000", "6 tensors"]),
    ("hidden_size of Medusa null", "medusa", config(hidden_size=None), ["hidden_size is null"]),
    ("medusa_fc_bias a string", "medusa", config(medusa_fc_bias="no"), ["medusa_fc_bias is 'no'"]),
]


@pytest.mark.parametrize(("part", "spoil", "words"), [case(f"config.json: {fault}", FIELD, *row) for fault, *row in LIES])
def test_a_config_that_lies_is_refused(pair: Path, part: str, spoil: Spoil, words: list[str]) -> None:
    spoil(pair / part)
    refused(run(pair, part), str(pair / part), *words, lines=9)


@pytest.mark.parametrize(
    ("part", "spoil", "words"),
    [
        *(
            case(
                f"{str(dtype).removeprefix('torch.')} weights in the {part}",
                TENSOR,
                part,
                cast(name, dtype),
                [name, str(dtype).removeprefix("torch.")],
            )
            for dtype in (torch.int32, torch.int8, torch.uint8, torch.bool)
            for part, name in (("target", T + Q), ("draft", D + Q))
        ),
        case("int8 weights in the small model", TENSOR, "small", cast(T + Q, torch.int8), [T + Q, "int8"]),
        case(
            "int64 weights in the Medusa heads",
            TENSOR,
            "medusa",
            cast("lm_heads.0.weight", torch.int64),
            ["lm_heads.0.weight", "int64"],
        ),
        case(
            "float8 weights without a scale in the target",
            TENSOR,
            "target",
            cast(T + Q, torch.float8_e4m3fn),
            [T + Q, "float8_e4m3"],
        ),
        case("complex weights in the head", TENSOR, "draft", cast(D + Q, torch.complex64), [D + Q, "complex64"]),
        case(
            "quantised weights in the target",
            TENSOR,
            "target",
            lambda f: (
                cast(T + Q, torch.uint8)(f),
                config(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})(f),
            ),
            ["quantised", "bitsandbytes", "not supported"],
        ),
        case("NaN in a weight of the target", TENSOR, "target", fill(T + DOWN, float("nan")), [T + DOWN, "NaN"]),
        case("infinity in a weight of the target", TENSOR, "target", fill(T + DOWN, float("inf")), [T + DOWN, "infinite"]),
        case("NaN in a weight of the head", TENSOR, "draft", fill(D + DOWN, float("nan")), [D + DOWN, "NaN"]),
        case(
            "infinity in a weight of the small model",
            TENSOR,
            "small",
            fill("lm_head.weight", float("inf")),
            ["lm_head.weight", "infinite"],
        ),
        case(
            "NaN in a weight of the Medusa heads",
            TENSOR,
            "medusa",
            fill("lm_heads.1.weight", float("nan")),
            ["lm_heads.1.weight", "NaN"],
        ),
        case(
            "a tensor missing in the target", TENSOR, "target", weights(lambda t: t.pop(T + DOWN)), ["missing tensor " + T + DOWN]
        ),
        case("a tensor missing in the head", TENSOR, "draft", weights(lambda t: t.pop(D + DOWN)), ["missing tensor " + D + DOWN]),
        case("all tensors missing in the target", TENSOR, "target", weights(lambda t: t.clear()), ["have no tensors"]),
        case("other names for all tensors of the target", TENSOR, "target", weights(renamed), ["missing tensor", "more"]),
        case("a head without layers", TENSOR, "draft", weights(without_layers), ["missing tensor " + D + Q]),
        case(
            "a bias in the target that its config denies",
            TENSOR,
            "target",
            weights(lambda t: t.update({T + "self_attn.q_proj.bias": torch.ones(16)})),
            [T + "self_attn.q_proj.bias", "unexpected"],
        ),
        case(
            "a misshapen tensor in the target",
            TENSOR,
            "target",
            weights(lambda t: t.update({T + Q: torch.ones(8, 8)})),
            [T + Q, "[8, 8]", "[16, 16]"],
        ),
        case(
            "a tensor of one number in the target",
            TENSOR,
            "target",
            weights(lambda t: t.update({T + Q: torch.ones(())})),
            [T + Q, "[]", "[16, 16]"],
        ),
        case(
            "an extra tensor in the head",
            TENSOR,
            "draft",
            weights(lambda t: t.update(x=torch.ones(3))),
            ["unexpected tensor x [3]"],
        ),
        case(
            "the target as its own head",
            TENSOR,
            "draft",
            instead("target"),
            ["does not match", "more"],
        ),
        case(
            "an EAGLE head as a small model",
            TENSOR,
            "small",
            instead("draft"),
            ["missing tensor", str(Path("pair") / "small")],
        ),
        case(
            "an EAGLE head as the target",
            TENSOR,
            "target",
            instead("draft"),
            ["missing tensor"],
        ),
    ],
)
def test_weights_that_are_not_the_models_are_refused(pair: Path, part: str, spoil: Spoil, words: list[str]) -> None:
    spoil(pair / part)
    result = run(pair, part)
    refused(result, str(pair / part), *words, lines=12)
    assert "--dtype" not in result.output


@promise("tensors in the target that its model does not have", "a line names them; the text is unchanged")
def test_extra_tensors_are_listed(pair: Path) -> None:
    plain = run(pair)
    weights(lambda tensors: tensors.update({f"other.{i}.weight": torch.ones(3) for i in range(40)}))(pair / "target")
    result = fork(_decode, [str(pair), "target"], pair, 60, {})  # logging is as in a terminal, not as under pytest
    assert result.returncode == 0 and result.stdout == plain.stdout
    (line,) = result.stderr.splitlines()
    assert "has 40 tensors that its model lacks: other.0.weight and 39 more" in line


def _decode(words: list[str]) -> None:
    transformers.utils.logging.disable_progress_bar()
    app(words)


FIELDS = [*sorted(shipped("coin4").config), "rope_scaling", "layer_types", "num_labels"]
JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 1 << 70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["rope_type", "factor", "x"]), st.sampled_from(["linear", "yarn", 2, None]), max_size=2),
)


@promise("any value in any field of config.json", "the pair decodes, or exit code 2 with a message; never a traceback")
@settings(max_examples=25)
@given(part=st.sampled_from(["target", "draft", "small", "medusa"]), field=st.sampled_from(FIELDS), value=JSON)
def test_no_value_of_a_field_ends_in_a_traceback(part: str, field: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(shutil.copytree(shipped("coin4").target.parent, Path(folder, "pair")))
        config(**{field: value})(pair / part)
        result = run(pair, part)
        if result.exit_code:
            refused(result, str(pair), lines=12)


@promise("a damaged target in `verify`", "exit code 2 and the same message as from `generate`; nothing is written")
def test_verify_refuses_as_generate_does(pair: Path) -> None:
    config(vocab_size=5)(pair / "target")
    folders = ["--target", str(pair / "target"), "--draft", str(pair / "draft"), "--out", str(pair / "out")]
    result = eagle2(["verify", "ref:k=2,depth=2,m=4", *folders, "--only", "SMOKE", "-n", "0"], pair)
    assert result.returncode == USAGE and not (pair / "out").exists()
    assert "vocab_size" in result.stderr and "Traceback" not in result.stdout + result.stderr
