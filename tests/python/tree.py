"""Nodes of a deployment, each in a network namespace with a NATS server of its own, joined by lines of `tests/line`; and
people at them, each a process of its own."""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from lined import Line
from terrace_server import READY_WITHIN, is_ready, terrace_binary

CONFERENCE = "0190a000-0000-7000-8000-00000000c0de"

LEVELS = ("province", "city", "county", "township", "village")

FIRST_NETWORK = 81
"""Of the lines' addresses; each line has the next one."""

HTTP, METRICS = 7880, 7889


def organisation(level: str) -> str:
    """The id of the organisation whose node the level's is."""
    return f"0190a000-0000-7000-8000-0000000000{LEVELS.index(level):02}"


class Node:
    """A node and its NATS server. A village has none: it uses its township's."""

    def __init__(self, level, place, address, parent=None):
        """`place` is the `End` where it lives, `address` the one at which nodes below reach it."""
        self.level, self.place, self.address, self.parent = level, place, address, parent
        self.data = Path(tempfile.mkdtemp(prefix=f"terrace-{level}-"))
        self.process = self.nats = None
        self.log = open(self.data / "test.log", "wb")
    @property
    def has_nats(self):
        return self.level != "village"

    @property
    def environment(self):
        nats = "127.0.0.1" if self.has_nats else self.parent.address
        variables = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "NO_COLOR": "1",
            "TERRACE_DATA_DIR": str(self.data),
            "TERRACE_HTTP__LISTEN": f"127.0.0.1:{HTTP}",
            "TERRACE_METRICS__LISTEN": f"127.0.0.1:{METRICS}",
            "TERRACE_MEDIA__LISTEN": "0.0.0.0:7882",
            "TERRACE_NODE__NAME": self.level,
            "TERRACE_NODE__LEVEL": self.level,
            "TERRACE_NODE__ORGANISATION": organisation(self.level),
            "TERRACE_NODE__NATS": f"tls://{nats}:4222",
            "TERRACE_NODE__HOSTS": self.address,
        }
        if self.has_nats:
            variables["TERRACE_NODE__LISTEN"] = "0.0.0.0:7887"
        if self.parent:
            variables["TERRACE_NODE__PARENT"] = f"{self.parent.address}:7887"
        return variables

    def command(self, *words):
        """Runs `terrace …` there; what it printed."""
        done = subprocess.run(
            [terrace_binary(), *words], env=self.environment, cwd=self.data, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, f"terrace {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    async def set_up(self):
        """Enrols it and starts it."""
        if self.parent:
            invited = ("--name", self.level, "--level", self.level, "--organisation", organisation(self.level))
            code = await self.parent.place.call(self.parent.command, "node", "invite", *invited)
            await self.place.call(self.command, "node", "enrol", code)
        if self.has_nats:
            await self.place.call(self.command, "nats", "config")
            await self.start_nats()
        await self.start()
        self.id = next(
            line.split("\t")[0]
            for line in (await self.place.call(self.command, "node", "list")).splitlines()
            if f"\t{self.level}\t" in line
        )

    async def start_nats(self):
        words = ["nats-server", "--config", str(self.data / "node" / "nats.conf")]
        self.nats = await self.place.call(self._spawn, words)

    async def start(self):
        self.process = await self.place.call(self._spawn, [terrace_binary(), "serve", "--dev"])
        end = time.monotonic() + READY_WITHIN
        while not await self.place.call(is_ready, METRICS):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.level} did not become ready:\n{self.told()}")
            await asyncio.sleep(0.1)

    def _spawn(self, words):
        return subprocess.Popen(words, env=self.environment, cwd=self.data, stdout=self.log, stderr=subprocess.STDOUT)

    def told(self):
        """What it and its NATS server have logged."""
        return (self.data / "test.log").read_text(errors="replace")

    def _request(self, path, token, body):
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{HTTP}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    async def act(self, token, deed):
        """Does something to the conference, as a chair who is here."""
        status, answer = await self.place.call(self._request, f"/conferences/{CONFERENCE}/acts", token, deed)
        assert status == 202, answer

    async def roster(self, token):
        status, answer = await self.place.call(self._request, f"/conferences/{CONFERENCE}/people", token, None)
        assert status == 200, answer
        return answer

    async def token(self, identity, level, *more):
        """A token for somebody of that level's organisation; only the province makes them."""
        words = ("--conference", CONFERENCE, "--organisation", organisation(level), "--identity", identity)
        return await self.place.call(self.command, "token", "create", *words, *more)

    def close(self):
        for process in (self.process, self.nats):
            if process:
                process.kill()
                process.wait()
        self.log.close()
        shutil.rmtree(self.data, ignore_errors=True)


class Member:
    """Somebody in the conference, as `member.py` tells of it."""

    def __init__(self, level, identity, token, process):
        self.level, self.identity, self.token, self.process = level, identity, token, process
        self.state, self.history = {}, []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            told = json.loads(line)
            self.history.append((time.monotonic(), told))
            self.state = told

    def sees(self, identity, number):
        return self.state.get("sees", {}).get(identity) == number

    def hears(self, identity, hertz):
        heard = self.state.get("hears", {}).get(identity)
        return heard is not None and abs(heard - hertz) < 50

    def people(self):
        return set(self.state.get("people", []))

    def since(self, moment):
        """What it told since then, four times a second."""
        return [told for at, told in self.history if at >= moment]

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Tree:
    """A row of nodes from the province down."""

    def __init__(self, line):
        """`line` describes each line between two levels, its end A above."""
        self.lines, self.nodes, self.members = {}, {}, []
        self.line = line

    async def set_up(self, levels=LEVELS):
        above = None
        for number, (upper, lower) in enumerate(zip(levels, levels[1:])):
            network = FIRST_NETWORK + number
            given = f'a = "{above}"\n' if above else ""
            line = Line(f"network = {network}\n{given}{self.line}")
            self.lines[(upper, lower)] = line
            above = line.b.namespace
            if number == 0:
                self.nodes[upper] = Node(upper, line.a, line.a.address)
            else:
                # Where those below reach it; those above it reaches.
                self.nodes[upper].address = line.a.address
            self.nodes[lower] = Node(lower, line.b, line.b.address, self.nodes[upper])
        for node in self.nodes.values():
            await node.set_up()

    @property
    def root(self):
        return next(iter(self.nodes.values()))

    async def join(self, level, identity, *sends, chair_of=None):
        """`sends`: the number that the picture shows, and the tone's frequency."""
        more = ("--chair-of", self.nodes[chair_of].id) if chair_of else ()
        node = self.nodes[level]
        token = await self.root.token(identity, level, *more)
        words = [sys.executable, Path(__file__).with_name("member.py"), f"ws://127.0.0.1:{HTTP}", token, *map(str, sends)]
        process = await node.place.call(
            lambda: subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        member = Member(level, identity, token, process)
        self.members.append(member)
        return member

    def close(self):
        for member in self.members:
            member.close()
        for node in reversed(self.nodes.values()):
            node.close()
        for line in reversed(self.lines.values()):
            line.close()
