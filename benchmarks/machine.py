"""What a benchmark ran on, in two lines: processor, cores, instruction sets, load, versions."""

import os
import platform
from importlib import metadata
from pathlib import Path

INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_vnni")


def describe(*packages: str) -> str:
    """The machine, and the versions of these packages."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    sets = " ".join(name if name in flags else f"no-{name}" for name in INSTRUCTION_SETS)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    gpu = _gpu() if "torch" in packages else ""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return (
        f"{model}, {os.cpu_count()} CPUs, {sets}; load {load} (more than the benchmark's own: a shared machine){gpu}\n"
        f"Python {platform.python_version()}, {versions}"
    )


def _gpu() -> str:
    import torch

    return f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
