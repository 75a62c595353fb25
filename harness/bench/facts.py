"""What the header of a benchmark says of its machine and versions."""

from __future__ import annotations

from harness.environment import machine, versions


def of_machine(device: str, threads: int) -> dict[str, str]:
    """Processor, cores, threads used, device."""
    return {**machine(device), "threads": str(threads), "device": device}


def of_versions() -> dict[str, str]:
    found = versions()
    return {name: found[name] for name in ("eagle2-ref", "python", "torch", "transformers")}
