"""Bad input costs the packet or the connection it came by; a healthy pair in the room feels nothing.

Each test keeps two participants of the SDK in one room, one sending pictures to the other, does something bad
meanwhile, and then looks at the longest time between two pictures and at the server's memory.
"""

import asyncio
import gzip
import os
import random
import socket
import struct
import sys
import time
from contextlib import asynccontextmanager

import aiohttp
import pytest
from conftest import token, until
from livekit import rtc
from livekit.protocol import models, rtc as signal

PICTURES_PER_SECOND = 15

LONGEST_GAP = 1.5
"""How long the healthy pair's picture may stand still, in seconds. The machine runs the tests too: a stall that a
person would call an interruption is longer than this, a busy core is not."""

MEMORY_BOUND = 200 * 1024 * 1024
"""How much the server may grow during one test, in bytes: well under what is thrown at it."""


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
def undisturbed(server, join):
    """`async with undisturbed() as pair:` — fails when the pair felt what happened inside, or memory ran away."""

    @asynccontextmanager
    async def _undisturbed():
        sender, receiver = await join("healthy-sender"), await join("healthy-receiver")
        await sender.publish_camera(9, width=320, height=180)
        track = await receiver.track_of("healthy-sender", rtc.TrackSource.SOURCE_CAMERA)
        pair = Healthy()
        pair.sender, pair.receiver = sender, receiver
        watching = asyncio.create_task(pair.watch(track))
        await until("pictures flow", lambda: len(pair.arrivals) > PICTURES_PER_SECOND)
        begin, memory = time.monotonic(), server.resident_memory()
        yield pair
        # Some of what bad input does shows only afterwards.
        await asyncio.sleep(1.5)
        gap, grown = pair.longest_gap(begin), server.resident_memory() - memory
        watching.cancel()
        assert gap < LONGEST_GAP, f"the healthy pair's picture stood still for {gap:.2f} s"
        assert grown < MEMORY_BOUND, f"the server grew by {grown / 1e6:.0f} MB"
        assert receiver.disconnected_because is None and sender.disconnected_because is None

    return _undisturbed


class Raw:
    """A WebSocket at the signalling endpoint, without an SDK behind it."""

    def __init__(self, socket_):
        self.socket = socket_

    async def send(self, **request):
        await self.socket.send_bytes(signal.SignalRequest(**request).SerializeToString())

    async def receive(self, kind, patience=10):
        """The next message of `kind`; None when the server closes first."""
        async with asyncio.timeout(patience):
            async for message in self.socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    response = signal.SignalResponse.FromString(message.data)
                    if response.WhichOneof("message") == kind:
                        return getattr(response, kind)
        return None

    async def until_closed(self, patience=20):
        """Reads until the server closes; returns the kinds of what was read."""
        kinds = []
        async with asyncio.timeout(patience):
            async for message in self.socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    kinds.append(signal.SignalResponse.FromString(message.data).WhichOneof("message"))
        return kinds

    async def still_answers(self):
        await self.send(ping_req=signal.Ping(timestamp=1))
        return await self.receive("pong_resp") is not None


@asynccontextmanager
async def raw(server, room, identity, **options):
    async with aiohttp.ClientSession() as session:
        parameters = {"access_token": token(room, identity), "protocol": "16", "auto_subscribe": "1", "sdk": "python"}
        async with session.ws_connect(f"{server.socket_url}/rtc", params=parameters, max_msg_size=0, **options) as opened:
            client = Raw(opened)
            assert await client.receive("join") is not None
            yield client


def some_sdp(media_lines, padding=0):
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


NONSENSE = dict(
    [
        ("empty", b""),
        ("truncated", signal.SignalRequest(add_track=signal.AddTrackRequest(cid="x" * 50)).SerializeToString()[:-7]),
        ("unknown fields", b"\xfa\x7f\x05hello" + b"\xf8\x7f\x01"),
        ("wrong wire types", b"\x0d\x00\x00\x00\x00\x0b\x0c"),
        ("length beyond the end", b"\x0a\xff\xff\xff\xff\x0f"),
        ("noise", random.Random(4).randbytes(4096)),
        ("a megabyte of noise", random.Random(5).randbytes(1 << 20)),
    ]
)


@pytest.mark.parametrize("kind", NONSENSE)
async def test_a_message_that_is_no_message_costs_at_most_its_connection(server, room_name, undisturbed, kind):
    async with undisturbed():
        async with raw(server, room_name, "bad") as bad:
            for _ in range(20):
                if bad.socket.closed:
                    break
                try:
                    await bad.socket.send_bytes(NONSENSE[kind])
                except ConnectionError:
                    break
            try:
                await bad.still_answers()
            except (ConnectionError, TimeoutError):
                pass


async def test_a_text_message_costs_at_most_its_connection(server, room_name, undisturbed):
    async with undisturbed():
        async with raw(server, room_name, "bad") as bad:
            await bad.socket.send_str('{"this is": "no protobuf"}')
            await asyncio.sleep(0.5)


MONSTERS = {
    "16 MB": lambda: some_sdp(1, 16 << 20),
    "10,000 m-lines": lambda: some_sdp(10_000),
    "noise": lambda: "v=0\r\n" + "\x00ÿ" * 1000,
}


@pytest.mark.parametrize("monster", MONSTERS)
async def test_a_monstrous_offer_gets_no_answer_and_costs_at_most_its_connection(server, room_name, undisturbed, monster):
    async with undisturbed():
        async with raw(server, room_name, "bad") as bad:
            try:
                await bad.send(offer=signal.SessionDescription(type="offer", sdp=MONSTERS[monster]()))
                assert await bad.receive("answer", patience=5) is None
            except (ConnectionError, TimeoutError):
                pass


async def test_a_compressed_join_that_unpacks_to_gigabytes_is_refused(server, room_name, undisturbed):
    """The newer endpoint takes its first offer gzip'd in the address: a small address may unpack to anything."""
    import base64

    bomb = gzip.compress(b"\x00" * (64 << 20), 9)
    wrapped = signal.WrappedJoinRequest(compression=signal.WrappedJoinRequest.GZIP, join_request=bomb)
    async with undisturbed():
        async with aiohttp.ClientSession() as session:
            parameters = {
                "access_token": token(room_name, "bad"),
                "join_request": base64.urlsafe_b64encode(wrapped.SerializeToString()).decode(),
            }
            with pytest.raises((aiohttp.WSServerHandshakeError, aiohttp.ClientError)):
                async with session.ws_connect(f"{server.socket_url}/rtc/v1", params=parameters) as opened:
                    await opened.receive(timeout=5)
                    raise AssertionError("the bomb was let in")


async def test_who_never_answers_the_offer_is_let_go_alone(server, room_name, undisturbed):
    async with undisturbed() as pair:
        async with raw(server, room_name, "silent") as silent:
            assert await silent.receive("offer") is not None
            await until("the others know of it", lambda: pair.receiver.sees("silent"))
            # It never answers; the room does not wait for it.
            await asyncio.sleep(3)
            await silent.still_answers()
        await until("it is gone for the others", lambda: not pair.receiver.sees("silent"), 60)


async def test_answers_nobody_asked_for_are_harmless(server, room_name, undisturbed):
    async with undisturbed():
        async with raw(server, room_name, "bad") as bad:
            for sdp in ("", "v=0", some_sdp(2)):
                try:
                    await bad.send(answer=signal.SessionDescription(type="answer", sdp=sdp))
                    await bad.send(trickle=signal.TrickleRequest(candidateInit="{", target=0))
                    await bad.send(mute=signal.MuteTrackRequest(sid="TR_nobody", muted=True))
                    await bad.send(subscription=signal.UpdateSubscription(track_sids=["TR_nobody"] * 100, subscribe=True))
                except ConnectionError:
                    break


async def test_a_thousand_announced_tracks_are_not_kept(server, room_name, undisturbed):
    async with undisturbed():
        async with raw(server, room_name, "bad") as bad:
            try:
                for number in range(1000):
                    await bad.send(
                        add_track=signal.AddTrackRequest(
                            cid=f"track-{number}", name="x" * 1000, type=models.TrackType.VIDEO, width=640, height=360
                        )
                    )
                await bad.still_answers()
            except (ConnectionError, TimeoutError):
                pass


def throw(server, datagrams, seconds):
    """Sends made datagrams to the media port for a bounded time; returns how many."""
    count = 0
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("127.0.0.1", server.udp_port))
        out.setblocking(False)
        while time.monotonic() < end:
            for _ in range(50):
                try:
                    out.send(next(datagrams))
                    count += 1
                except OSError:
                    pass  # A full buffer or a refused port: the next one.
            time.sleep(0.005)
    return count


def noise():
    source = random.Random(6)
    while True:
        yield source.randbytes(source.randrange(0, 1400))


def binding_requests():
    """STUN binding requests with made-up user names and transaction ids (RFC 8489)."""
    source = random.Random(7)
    while True:
        name = b"%08x:%08x" % (source.getrandbits(32), source.getrandbits(32))
        attributes = struct.pack("!HH", 0x0006, len(name)) + name + b"\0" * (-len(name) % 4)
        attributes += struct.pack("!HH", 0x0008, 20) + source.randbytes(20)
        yield struct.pack("!HHI", 0x0001, len(attributes), 0x2112A442) + source.randbytes(12) + attributes


def unknown_rtp():
    """RTP for SSRCs that nobody announced (RFC 3550)."""
    source = random.Random(8)
    while True:
        yield struct.pack("!BBHII", 0x80, 96, source.getrandbits(16), source.getrandbits(32), source.getrandbits(32)) + source.randbytes(200)


@pytest.mark.parametrize("datagrams", [noise, binding_requests, unknown_rtp])
async def test_a_flood_on_the_media_port_disturbs_nobody(server, undisturbed, datagrams):
    async with undisturbed():
        assert await asyncio.to_thread(throw, server, datagrams(), 3) > 1000


async def test_who_stops_reading_its_websocket_costs_only_itself(server, room_name, undisturbed):
    """The raw client sends questions and metadata but never reads an answer."""
    async with undisturbed() as pair:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader._transport.pause_reading()
        writer.write(
            f"GET /rtc?access_token={token(room_name, 'deaf')}&protocol=16 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        await writer.drain()
        await until("it is in the room", lambda: pair.receiver.sees("deaf"))
        # Everybody's metadata is told to everybody: 60 kB, 300 times, is 18 MB that it does not read.
        for number in range(300):
            await pair.sender.local.set_metadata(f"{number} " + "x" * 60_000)
        await until("the others go on hearing news", lambda: pair.receiver.room.remote_participants["healthy-sender"].metadata.startswith("299 "))
        writer.close()


FROZEN = """
import asyncio, os, sys
from livekit import rtc
async def main():
    room = rtc.Room()
    await room.connect(sys.argv[1], sys.argv[2])
    print("in", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


@asynccontextmanager
async def participant_process(server, room_name, identity):
    """A participant in a process of its own, which can be frozen or killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FROZEN, server.socket_url, token(room_name, identity), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            assert (await process.stdout.readline()).strip() == b"in"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_who_stops_reading_its_data_channel_costs_only_itself(server, room_name, undisturbed):
    async with undisturbed() as pair:
        async with participant_process(server, room_name, "frozen") as frozen:
            await until("it is in the room", lambda: pair.receiver.sees("frozen"))
            os.kill(frozen.pid, 19)  # SIGSTOP: neither WebSocket nor data channel is read any more.
            for number in range(2000):
                await pair.sender.local.publish_data(b"%d " % number + b"x" * 10_000, reliable=True)
            await until("the healthy one has it all", lambda: len(pair.receiver.data) == 2000, 30)
            assert [int(packet.data.split(b" ")[0]) for packet in pair.receiver.data] == list(range(2000))
            os.kill(frozen.pid, 18)


async def test_who_is_killed_in_the_middle_is_gone_for_the_others(server, room_name, undisturbed):
    async with undisturbed() as pair:
        async with participant_process(server, room_name, "victim") as victim:
            await until("it is in the room", lambda: pair.receiver.sees("victim"))
            victim.kill()
        await until("it is gone", lambda: not pair.receiver.sees("victim"), 60)


async def test_a_hundred_connections_that_say_nothing_are_let_go(server, undisturbed):
    async with undisturbed():
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(100)]
        for _, writer in opened:
            writer.write(b"GET /rtc")
        await asyncio.sleep(1)
        for _, writer in opened:
            writer.close()
