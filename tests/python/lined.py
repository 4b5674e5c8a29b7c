"""A line of `tests/line`, and threads that live at its ends."""

import asyncio
import ctypes
import json
import os
import subprocess
import tempfile
import threading

import pytest

from terrace_server import built

CLONE_NEWNET = 0x4000_0000

SKIPPED = 77
"""What `line` ends with where no line can be set up."""


class End:
    """A thread in a namespace with an event loop of its own: what it opens and starts lives there."""

    def __init__(self, namespace, address):
        self.namespace, self.address = namespace, address
        self.loop = asyncio.new_event_loop()
        entered = threading.Event()

        def live():
            with open(f"/var/run/netns/{namespace}") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"can't enter {namespace}")
            entered.set()
            self.loop.run_forever()

        self.thread = threading.Thread(target=live, daemon=True)
        self.thread.start()
        assert entered.wait(5), f"{namespace} could not be entered"

    def run(self, coroutine):
        """Runs a coroutine there; awaited here."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.loop))

    def call(self, function, *arguments):
        """Calls a function there."""

        async def called():
            return function(*arguments)

        return self.run(called())

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)


class Line:
    """Two namespaces and what lies between them."""

    def __init__(self, description):
        binary = built("line", "LINE_BIN")
        if binary is None:
            raise RuntimeError('no line binary: run "cargo build --release -p line" first')
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(description)
            file.flush()
            self.process = subprocess.Popen(
                [binary, "up", "--config", file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            ready = self.process.stdout.readline()
        if not ready:
            if self.process.wait() == SKIPPED:
                pytest.skip("no line can be set up here")
            raise RuntimeError(f"line ended with {self.process.returncode}")
        ends = json.loads(ready)["ready"]
        self.a, self.b = (End(ends[name]["namespace"], ends[name]["ipv4"]) for name in ("a", "b"))

    def ask(self, **request):
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())["ok"]

    def close(self):
        self.a.close()
        self.b.close()
        self.process.stdin.close()
        self.process.wait(10)
