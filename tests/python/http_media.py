"""Encoders and players that are not LiveKit's: aiortc, with WHIP and WHEP spoken by hand."""

import asyncio
import fractions

import aiohttp
import av
import numpy as np
from aiortc import (
    MediaStreamTrack, RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription,
)

import media
from conftest import token, until

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"


class Camera(MediaStreamTrack):
    """Pictures of a number."""

    kind = "video"

    def __init__(self, number, rate=15):
        super().__init__()
        self.number, self.rate, self.turn = number, rate, 0

    async def recv(self):
        await asyncio.sleep(1 / self.rate)
        shown = media.picture(self.number, 640, 360, self.turn)
        planes = np.frombuffer(shown.data, np.uint8).reshape(360 * 3 // 2, 640)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = self.turn * 90_000 // self.rate, fractions.Fraction(1, 90_000)
        self.turn += 1
        return frame


class Microphone(MediaStreamTrack):
    """A tone."""

    kind = "audio"

    def __init__(self, hertz):
        super().__init__()
        self.hertz, self.position = hertz, 0

    async def recv(self):
        await asyncio.sleep(0.02)
        block = media.SAMPLE_RATE // 50
        time = (np.arange(block) + self.position) / media.SAMPLE_RATE
        samples = (np.sin(2 * np.pi * self.hertz * time) * 12_000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = media.SAMPLE_RATE, self.position
        frame.time_base = fractions.Fraction(1, media.SAMPLE_RATE)
        self.position += block
        return frame


def number_in(frame):
    """The number that a decoded picture shows, or None."""
    return media.number_of(frame.to_ndarray(format="gray"))


class Shown:
    """What one place of a player shows and sounds."""

    def __init__(self):
        self.numbers, self.samples = [], np.zeros(0, np.int16)
        self.pictures = 0
        self.look = lambda frame: self.numbers.append(number_in(frame))

    async def watch(self, track):
        while True:
            self.look(await track.recv())
            self.pictures += 1

    async def listen(self, track):
        while True:
            frame = await track.recv()
            channels = len(frame.layout.channels)
            block = frame.to_ndarray().reshape(-1, channels)[:, 0]
            self.samples = np.concatenate([self.samples, block])[-media.SAMPLE_RATE // 2 :]

    def number(self):
        """What the last three pictures agree on."""
        last = self.numbers[-3:]
        return last[0] if len(last) == 3 and len(set(last)) == 1 else None

    def hertz(self):
        return media.loudest(self.samples) if len(self.samples) == media.SAMPLE_RATE // 2 else None

    def is_(self, number, hertz):
        return self.number() == number and self.hertz() is not None and abs(self.hertz() - hertz) < 20


class Client:
    """An encoder or player and its session."""

    def __init__(self, server, bearer):
        self.server, self.bearer = server, bearer
        self.pc = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        # A connection each: one whose body was refused unread is closed by the server.
        self.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True))
        self.location = self.etag = self.opened = None
        self.tasks = []

    async def request(self, method, path, body=None, kind=None, bearer=None, **headers):
        """One request; returns the answer, read to its end."""
        sent = {"Authorization": f"Bearer {self.bearer if bearer is None else bearer}"}
        if kind:
            sent["Content-Type"] = kind
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        async with self.http.request(method, self.server.url + path, data=body, headers=sent) as answer:
            await answer.read()
            return answer

    async def offer(self, path):
        """Offers what the connection has and takes the answer."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        answer = await self.request("POST", path, self.pc.localDescription.sdp, SDP)
        assert answer.status == 201, f"{answer.status}: {await answer.text()}"
        self.opened = answer
        self.location, self.etag = answer.headers["Location"], answer.headers["ETag"]
        await self.pc.setRemoteDescription(RTCSessionDescription(await answer.text(), "answer"))
        await until("media is connected", lambda: self.pc.connectionState == "connected")

    async def delete(self):
        return await self.request("DELETE", self.location)

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await self.pc.close()
        await self.http.close()


async def encoder(server, room, identity, number=None, hertz=None, grants=None):
    """A client that publishes what is given."""
    self = Client(server, token(room, identity, grants))
    if number is not None:
        self.pc.addTrack(Camera(number))
    if hertz is not None:
        self.pc.addTrack(Microphone(hertz))
    await self.offer(f"/whip/{room}")
    return self


async def player(server, room, identity, watched=None, grants=None):
    """A client that watches participants, or else the speaker. `shown` tells of each."""
    self = Client(server, token(room, identity, grants))
    self.shown = [Shown() for _ in watched or [None]]
    found = {"video": 0, "audio": 0}

    @self.pc.on("track")
    def _(track):
        shown = self.shown[found[track.kind]]
        found[track.kind] += 1
        follow = shown.watch if track.kind == "video" else shown.listen
        self.tasks.append(asyncio.ensure_future(follow(track)))

    for _ in self.shown:
        self.pc.addTransceiver("video", direction="recvonly")
        self.pc.addTransceiver("audio", direction="recvonly")
    query = f"?participants={','.join(watched)}" if watched else ""
    await self.offer(f"/whep/{room}{query}")
    return self


def some_offer(*lines, setup="actpass", bundle=None, fingerprint=True):
    """A well-formed offer; each line is a kind and a direction, with a codec."""
    mids = " ".join(str(mid) for mid in range(len(lines)))
    head = [
        "v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", f"a=group:BUNDLE {mids if bundle is None else bundle}",
        "a=ice-ufrag:abcd", "a=ice-pwd:abcdefghijklmnopqrstuvwx", f"a=setup:{setup}",
    ]
    if fingerprint:
        head.append("a=fingerprint:sha-256 " + ":".join(["AB"] * 32))
    for mid, (kind, direction, *codec) in enumerate(lines):
        codec = codec[0] if codec else ("VP8/90000" if kind == "video" else "opus/48000/2")
        number = 96 + mid
        head += [
            f"m={kind} 9 UDP/TLS/RTP/SAVPF {number}", "c=IN IP4 0.0.0.0", f"a=mid:{mid}", "a=rtcp-mux",
            f"a={direction}", f"a=rtpmap:{number} {codec}",
        ]
    return "\r\n".join(head) + "\r\n"


PUBLISHES = some_offer(("video", "sendonly"), ("audio", "sendonly"))
WATCHES = some_offer(("video", "recvonly"), ("audio", "recvonly"))
CANDIDATE = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=end-of-candidates\r\n"
RESTART = "a=ice-ufrag:ysXw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n"
