"""Start the demo's vLLM server on the loopback interface, wait until it answers, and stop it for certain.

Run as a script this file is the guard between the demo and vLLM: it ends the server when its standard
input closes, so that not even a killed demo leaves one behind.
"""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from equal.errors import PlatformError

ROOT = Path(__file__).resolve().parent.parent
SERVER_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
MODEL_NAME = "smollm2-135m-instruct"
#: requests the engine works on at once; the demo's endpoint.in_flight
MAX_NUM_SEQS = 24
_STOP_S = 20.0


@dataclass(frozen=True)
class Server:
    """A running or starting server.

    Attributes:
        url: base of the API, for endpoint.url.
        model: the served name, for endpoint.model.
        key: the bearer key, new for each start; never shown.
        pid: process id of the guard, which lives exactly as long as the server.
        log_path: what the server prints.
    """

    url: str
    model: str
    key: str = field(repr=False)
    pid: int
    log_path: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def wait_ready(self, deadline_s: float = 300.0) -> None:
        """Return when the server answers its health check.

        Raises:
            PlatformError: the server ended or did not answer in time; the message ends with its last log lines.
        """
        health = self.url.removesuffix("/v1") + "/health"
        give_up = time.monotonic() + deadline_s
        while time.monotonic() < give_up:
            if self.process.poll() is not None:
                raise PlatformError(f"vLLM server: ended with status {self.process.returncode}\n{self._last_lines()}")
            try:
                with urllib.request.urlopen(health, timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise PlatformError(f"vLLM server: no answer within {deadline_s:g} s\n{self._last_lines()}")

    def _last_lines(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return "\n".join([f"last lines of {self.log_path}:", *lines])


@contextmanager
def serve(model_dir: Path, log_path: Path, *, max_model_len: int = 4096) -> Iterator[Server]:
    """Start a server and yield at once, so that other work overlaps the minute it takes; stop it at the end.

    Args:
        model_dir: a Hugging Face folder with weights, tokenizer and chat template.
        log_path: file for all that the server prints; replaced.
        max_model_len: longest prompt and reply together, in tokens.

    Yields:
        The server; call `wait_ready()` before the first request.
    """
    if not SERVER_PYTHON.exists():
        raise PlatformError(f"{SERVER_PYTHON}: the server's environment is missing; run `make setup`")
    port, key = _free_port(), secrets.token_urlsafe(24)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, *_command(model_dir, port, max_model_len)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(key),
            start_new_session=True,
        )
    try:
        yield Server(f"http://127.0.0.1:{port}/v1", MODEL_NAME, key, process.pid, log_path, process)
    finally:
        _stop(process)


def _command(model_dir: Path, port: int, max_model_len: int) -> list[str]:
    return [
        str(SERVER_PYTHON),
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model_dir), "--served-model-name", MODEL_NAME),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", native_dtype(), "--max-model-len", str(max_model_len), "--max-num-seqs", str(MAX_NUM_SEQS)),
        # else a reply does not say what of its prompt the prefix cache held, and the ledger's column stays empty
        "--enable-prompt-tokens-details",
        # compiling takes a minute and a half and gains nothing at this size
        "--enforce-eager",
        # an engine apart from its worker polls it at full speed, which takes half a core from it
        *("--distributed-executor-backend", "uni"),
        # greedy decoding of a small model fills valid JSON with newlines until the budget is gone
        *("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}'),
    ]


def native_dtype() -> str:
    """What the processor computes in: without bfloat16 of its own it takes five times as long in that."""
    from equal.training.encoder import best_dtype  # the guard runs this file too, and needs no torch

    return str(best_dtype("auto")).removeprefix("torch.")


def _environment(key: str) -> dict[str, str]:
    return {
        **os.environ,
        # in the environment, not an argument: arguments are shown by `ps` to every user
        "VLLM_API_KEY": key,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let the guard end the server, by closing its standard input."""
    if process.stdin is not None:
        process.stdin.close()
    process.wait(timeout=_STOP_S + 10)


def _guard(command: list[str]) -> int:
    """Run the server until it ends or standard input closes, then leave no process of its group behind."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    while server.poll() is None and not select.select([sys.stdin], [], [], 1.0)[0]:
        pass
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(timeout=_STOP_S)
    # what the server started may outlive it
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    return server.wait()


if __name__ == "__main__":
    sys.exit(_guard(sys.argv[1:]))
