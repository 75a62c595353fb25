"""What a figure depends on and does not say: machine, versions, commit, memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import torch

import eagle2_ref
from harness.record.recorder import machine, versions


def commit() -> str:
    """Of the checkout that this code runs from; `+` behind it if files have changed since."""
    folder = Path(eagle2_ref.__file__).parent
    try:
        said = [
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "--", "."])
        ]
    except (OSError, subprocess.CalledProcessError):
        return f"version {eagle2_ref.__version__}"
    return said[0] + ("+" if said[1] else "")


def of_machine(device: str, threads: int) -> dict[str, str]:
    """Processor, cores, threads used, device."""
    return {**machine(device), "threads": str(threads), "device": device}


def of_versions() -> dict[str, str]:
    found = versions()
    return {name: found[name] for name in ("eagle2-ref", "python", "torch", "transformers")}


def memory(device: torch.device) -> dict[str, float]:
    """Peak, in MiB: of this process, and on its CUDA device."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    found = {"process": round(peak, 1)}
    if device.type == "cuda":
        found["device"] = round(torch.cuda.max_memory_allocated(device) / (1 << 20), 1)
    return found
