"""The machine, the versions and the commit that a measurement was made with."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import eagle2_ref

if TYPE_CHECKING:
    import torch

PACKAGES = ("eagle2-ref", "torch", "transformers", "scipy", "hypothesis")


def machine(device: str) -> dict[str, str]:
    """System, number of cores, processor and, for a CUDA device, the GPU."""
    found = {"system": f"{platform.system()} {platform.machine()}", "cores": str(os.cpu_count()), "processor": _processor()}
    if device.startswith("cuda"):
        import torch

        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def commit() -> str:
    """Commit of the checkout that this code runs from, followed by `+` if tracked files were changed since."""
    folder = Path(eagle2_ref.__file__).parent
    try:
        head, changes = (
            subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S607
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "--", "."])
        )
    except (OSError, subprocess.CalledProcessError):
        return f"version {eagle2_ref.__version__}"
    return head + ("+" if changes else "")


def peak_memory(device: torch.device) -> dict[str, float]:
    """Peak memory in MiB of this process and, for a CUDA device, of its allocator."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    found = {"process": round(peak, 1)}
    if device.type == "cuda":
        import torch

        found["device"] = round(torch.cuda.max_memory_allocated(device) / (1 << 20), 1)
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
