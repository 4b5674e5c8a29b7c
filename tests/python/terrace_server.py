"""Starts the real `terrace` binary on free ports with a data folder of its own, and ends it again."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

DEV_KEY = "devkey"
DEV_SECRET = "secret"

READY_WITHIN = 30
"""How long a server may take to become ready, in seconds."""


def built(name: str, variable: str) -> Path | None:
    """A program of this repository, if it was built: the one that `variable` names, else in the usual places."""
    if named := os.environ.get(variable):
        return Path(named)
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    found = (target / profile / name for profile in ("release", "debug"))
    return next((binary for binary in found if binary.exists()), None)


def terrace_binary() -> Path:
    """The binary under test."""
    if binary := built("terrace", "TERRACE_BIN"):
        return binary
    raise RuntimeError('no terrace binary: run "cargo build --release -p server" first')


SHARDS = 2
"""Threads of the media core, so that rooms lie on different ones on every machine."""


def free_port(kind: int, count: int = 1) -> int:
    """A free port; the first of several that follow one another."""
    while True:
        with contextlib.ExitStack() as probes:
            port = 0
            for number in range(count):
                probe = probes.enter_context(socket.socket(socket.AF_INET, kind))
                try:
                    probe.bind(("127.0.0.1", port + number if port else 0))
                except (OSError, OverflowError):
                    break
                port = port or probe.getsockname()[1]
            else:
                return port


def is_ready(metrics_port: int) -> bool:
    """Whether the server with these metrics says that it is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/readyz", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


class Server:
    """A server under test."""

    def __init__(self, host: str = "127.0.0.1", **settings: str) -> None:
        """`settings` are variables of the server without their common beginning, as `limits__rooms="2"`."""
        self.process = None
        # For working on the tests themselves: an already running server that speaks the same protocol.
        if (url := os.environ.get("TERRACE_TEST_URL")) and not settings:
            self.url = url
            self.port = int(url.rsplit(":", 1)[1])
            self.udp_port = int(os.environ.get("TERRACE_TEST_UDP_PORT", "7882"))
            self.pid = int(os.environ.get("TERRACE_TEST_PID", "0"))
            return
        self.port = free_port(socket.SOCK_STREAM)
        self.udp_port = free_port(socket.SOCK_DGRAM, SHARDS)
        self.metrics_port = free_port(socket.SOCK_STREAM)
        self.url = f"http://{host}:{self.port}"
        self.data = tempfile.mkdtemp(prefix="terrace-test-")
        self.log_path = Path(self.data) / "test.log"
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(
            [terrace_binary(), "serve", "--dev"],
            cwd=self.data,
            env={
                # Settings of whoever runs the tests must not reach the server under test.
                **{name: value for name, value in os.environ.items() if not name.startswith("TERRACE_")},
                "TERRACE_HTTP__LISTEN": f"{host}:{self.port}",
                "TERRACE_METRICS__LISTEN": f"127.0.0.1:{self.metrics_port}",
                "TERRACE_MEDIA__LISTEN": f"{host}:{self.udp_port}",
                "TERRACE_MEDIA__SHARDS": str(SHARDS),
                "TERRACE_DATA_DIR": self.data,
                "NO_COLOR": "1",
                **{f"TERRACE_{name.upper()}": value for name, value in settings.items()},
            },
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        self.pid = self.process.pid
        end = time.monotonic() + READY_WITHIN
        while not is_ready(self.metrics_port):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"terrace did not become ready:\n{self.log_path.read_text(errors='replace')}")
            time.sleep(0.1)

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    def resident_memory(self) -> int:
        """The process's resident memory in bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("the server process is gone")

    def processor_time(self) -> float:
        """Seconds that all its threads have run."""
        runs = (path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/schedstat"))
        return sum(int(run.split()[0]) for run in runs) / 1e9

    def metric(self, name: str) -> float:
        """A number of its metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=2) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"terrace_{name} "))

    def log_lines(self) -> list[str]:
        """What the server has logged so far."""
        return self.log_path.read_text(errors="replace").splitlines()

    def open_files(self) -> int:
        """How many file descriptors the process has, connections among them."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        self.log.close()
        shutil.rmtree(self.data, ignore_errors=True)
