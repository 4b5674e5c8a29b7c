"""What the tests of bad input share: a server of its own for each, a pair that must feel nothing, and clients that
say what no SDK would say.

`undisturbed` keeps two participants of the SDK in one room, one sending pictures to the other, while something bad
happens. Then it looks at the longest time between two pictures, at the server's memory, and at its log: what was bad
must stand there, as a few lines with fields and without a secret.
"""

import asyncio
import base64
import gzip
import re
import time
from contextlib import asynccontextmanager, contextmanager

import aiohttp
import pytest
from conftest import token, until
from livekit import rtc
from livekit.protocol import models, rtc as signal
from terrace_server import Server

PICTURES_PER_SECOND = 15

LONGEST_GAP = 1.5
"""How long the healthy pair's picture may stand still, in seconds. The machine runs the tests too: a stall that a
person would call an interruption is longer than this, a busy core is not."""

MEGABYTE = 1 << 20

MEMORY_BOUND = 12 * MEGABYTE
"""How much the server may grow during one test, in bytes, unless the test says what must be kept."""

LOG_BOUND = 40
"""Lines that the server may log during one test, unless the test says what is worth more of them. Joins and leaves
of the test's own participants are some twenty."""

LOG_INTERVAL = 10
"""How often the server logs one kind of warning, in seconds."""

SOON = 5
"""How long the server may take to end a connection that sent something bad, in seconds."""


@pytest.fixture
def settings():
    """Settings of the test's server; a test file or parameter may say otherwise."""
    return {}


@pytest.fixture
def server(settings):
    """A server for this test alone: its log and its memory tell of nothing else."""
    running = Server(**settings)
    yield running
    running.stop()


class Healthy:
    """A pair in a room, and when each picture arrived."""

    def __init__(self):
        self.arrivals = []

    async def watch(self, track):
        stream = rtc.VideoStream(track)
        async for _ in stream:
            self.arrivals.append(time.monotonic())

    def longest_gap(self, since):
        times = [since, *(t for t in self.arrivals if t > since), time.monotonic()]
        return max(later - earlier for earlier, later in zip(times, times[1:]))


@pytest.fixture
def undisturbed(server, join, record_property):
    """`async with undisturbed() as pair:` — fails when the pair felt what happened inside, memory ran away, or the
    log did: `memory` bounds the first, in bytes, `lines` the second, and each of `logged` must be there, but no more
    often than the server logs one kind of warning."""

    @asynccontextmanager
    async def _undisturbed(memory=MEMORY_BOUND, lines=LOG_BOUND, logged=()):
        sender, receiver = await join("healthy-sender"), await join("healthy-receiver")
        await sender.publish_camera(9, width=320, height=180)
        track = await receiver.track_of("healthy-sender", rtc.TrackSource.SOURCE_CAMERA)
        pair = Healthy()
        pair.sender, pair.receiver = sender, receiver
        watching = asyncio.create_task(pair.watch(track))
        await until("pictures flow", lambda: len(pair.arrivals) > PICTURES_PER_SECOND)
        begin, before, at = time.monotonic(), server.resident_memory(), len(server.log_lines())
        yield pair
        # Some of what bad input does shows only afterwards.
        await asyncio.sleep(1)
        gap, grown = pair.longest_gap(begin), server.resident_memory() - before
        watching.cancel()
        record_property("longest_gap_s", round(gap, 2))
        record_property("grown_kB", grown // 1024)
        assert gap < LONGEST_GAP, f"the healthy pair's picture stood still for {gap:.2f} s"
        assert grown < memory, f"the server grew by {grown / MEGABYTE:.1f} MB"
        assert receiver.disconnected_because is None and sender.disconnected_because is None
        log = server.log_lines()[at:]
        text = "\n".join(log)
        assert len(log) <= lines, f"{len(log)} lines in the log, as {log[-1]}"
        most = 1 + (time.monotonic() - begin) // LOG_INTERVAL
        for pattern in logged:
            found = len(re.findall(pattern, text))
            assert 1 <= found <= most, f"{pattern!r} is {found} times in the log:\n{text}"
        # "eyJ" is how every token begins.
        for word in ("eyJ", "access_token", "panicked"):
            assert word not in text, f"{word!r} is in the log:\n{text}"

    return _undisturbed


@contextmanager
def case(name):
    """Names which of several cases failed."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case {name!r}")
        raise


class End:
    """How the server ended a connection."""

    def __init__(self, leave, code, reason, kinds):
        self.leave, self.code, self.reason, self.kinds = leave, code, reason, kinds

    def __repr__(self):
        return f"<{self.code} {self.reason!r} after {self.kinds}>"


class Raw:
    """A WebSocket at the signalling endpoint, without an SDK behind it."""

    def __init__(self, socket_):
        self.socket = socket_
        self.join = None

    async def send(self, **request):
        await self.socket.send_bytes(signal.SignalRequest(**request).SerializeToString())

    async def receive(self, kind, patience=10):
        """The next message of `kind`; fails when the server closes first."""
        async with asyncio.timeout(patience):
            while True:
                message = await self.socket.receive()
                assert message.type == aiohttp.WSMsgType.BINARY, f"{message} came instead of {kind}"
                response = signal.SignalResponse.FromString(message.data)
                if response.WhichOneof("message") == kind:
                    return getattr(response, kind)

    async def end(self, patience=SOON):
        """Reads until the server closes and says how it did."""
        leave, kinds = None, []
        async with asyncio.timeout(patience):
            while True:
                message = await self.socket.receive()
                if message.type == aiohttp.WSMsgType.BINARY:
                    response = signal.SignalResponse.FromString(message.data)
                    kinds.append(response.WhichOneof("message"))
                    if kinds[-1] == "leave":
                        leave = response.leave
                elif message.type == aiohttp.WSMsgType.CLOSE:
                    return End(leave, message.data, message.extra, kinds)
                else:
                    return End(leave, None, repr(message), kinds)

    async def is_refused(self, code, reason, cause=models.DisconnectReason.STATE_MISMATCH, patience=SOON):
        """Fails unless the server ends the connection with a leave, this code, and a reason with these words."""
        end = await self.end(patience)
        assert end.leave is not None and end.leave.reason == cause, f"{end} with {end.leave}"
        assert end.code == code and reason in end.reason, end
        return end

    async def still_answers(self, patience=10):
        await self.send(ping_req=signal.Ping(timestamp=1))
        await self.receive("pong_resp", patience)


@asynccontextmanager
async def raw(server, room, identity, grants=None, /, **more):
    """A raw client that has joined by the older endpoint."""
    async with aiohttp.ClientSession() as session:
        parameters = {"access_token": token(room, identity, grants), "protocol": "16", "auto_subscribe": "1", **more}
        async with session.ws_connect(
            f"{server.socket_url}/rtc", params=parameters, max_msg_size=0, compress=0
        ) as opened:
            client = Raw(opened)
            if not more.get("reconnect"):
                client.join = await client.receive("join")
            yield client


async def shove(sending):
    """Sends what the server may refuse to take."""
    try:
        await sending
    except (ConnectionError, aiohttp.ClientError):
        pass


def some_sdp(media_lines, padding=0):
    """A well-formed offer of so many pictures."""
    head = [
        "v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=group:BUNDLE " + " ".join(map(str, range(media_lines))),
        "a=ice-ufrag:abcd", "a=ice-pwd:abcdefghijklmnopqrstuvwx",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32), "a=setup:actpass",
    ]
    lines = [
        f"m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\na=rtcp-mux\r\na=sendonly\r\na=rtpmap:96 VP8/90000"
        for mid in range(media_lines)
    ]
    return "\r\n".join(head + ["a=x-padding:" + "x" * padding] + lines) + "\r\n"


def short_lines(count):
    """So many m-lines in little text."""
    return "v=0\r\n" + "m=video 9 X 96\r\n" * count


def join_request(request=None, gzipped=True, packed=None):
    """The parameter of the newer endpoint. `packed` stands in the place of what `request` packs to."""
    plain = request.SerializeToString() if request else b""
    wrapped = signal.WrappedJoinRequest(
        compression=signal.WrappedJoinRequest.GZIP if gzipped else signal.WrappedJoinRequest.NONE,
        join_request=packed or (gzip.compress(plain, 9) if gzipped else plain),
    )
    return base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()


async def refusal(server, path, **parameters):
    """Status and words with which a WebSocket is refused, as a browser's SDK finds them out: it can't read the
    answer to a WebSocket, so it asks the endpoint's `validate` with the same parameters."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(f"{server.socket_url}{path}", params=parameters):
                raise AssertionError("it was let in")
        except aiohttp.WSServerHandshakeError as refused:
            status = refused.status
        async with session.get(f"{server.url}{path}/validate", params=parameters) as answer:
            assert answer.status == status
            return status, await answer.text()


async def metric(server, name):
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{server.metrics_port}/metrics") as answer:
            return float(re.search(rf"^terrace_{name} (\S+)", await answer.text(), re.M)[1])


async def metric_is(server, name, wanted, patience=20):
    """Waits until a figure is as wanted."""
    end = time.monotonic() + patience
    while (value := await metric(server, name)) != wanted:
        assert time.monotonic() < end, f"{name} is {value} and not {wanted}"
        await asyncio.sleep(0.1)


class Peer:
    """A participant with a WebRTC stack that does as it is told: aiortc, over one connection."""

    def __init__(self, raw_, pc):
        self.raw, self.pc = raw_, pc
        self.reliable = self.lossy = None
        self.heard = []

    @property
    def dtls(self):
        return self.pc.sctp.transport

    def send_datagram(self, datagram):
        """Sends from the very address that the server knows, past DTLS."""
        return self.dtls.transport._connection.send(datagram)


@asynccontextmanager
async def peer(server, room, identity, grants=None, audio=False):
    from aiortc import RTCPeerConnection, RTCSessionDescription

    pc = RTCPeerConnection()
    reliable = pc.createDataChannel("_reliable")
    lossy = pc.createDataChannel("_lossy", ordered=False, maxRetransmits=0)
    if audio:
        pc.addTransceiver("audio", direction="sendonly")
    await pc.setLocalDescription(await pc.createOffer())
    request = signal.JoinRequest(
        connection_settings=signal.ConnectionSettings(auto_subscribe=True),
        publisher_offer=signal.SessionDescription(type="offer", sdp=pc.localDescription.sdp, id=1),
    )
    parameters = {"access_token": token(room, identity, grants), "join_request": join_request(request)}
    try:
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(f"{server.socket_url}/rtc/v1", params=parameters) as opened:
                client = Raw(opened)
                client.join = await client.receive("join")
                answer = await client.receive("answer")
                await pc.setRemoteDescription(RTCSessionDescription(answer.sdp, "answer"))
                self = Peer(client, pc)
                self.reliable, self.lossy, self.answer = reliable, lossy, answer.sdp
                reliable.on("message", self.heard.append)
                await until("the data channels are open", lambda: {reliable.readyState, lossy.readyState} == {"open"})
                yield self
    finally:
        await pc.close()


def twirp_url(server, call):
    return f"{server.url}/twirp/livekit.RoomService/{call}"
