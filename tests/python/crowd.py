"""Participants by the thousand that only speak signalling: a WebSocket, a roster kept as SDKs keep theirs, and pings."""

import asyncio
import functools
import os
import time
from pathlib import Path

import aiohttp
from bad_input import join_request
from conftest import token
from livekit.protocol import models, rtc as signal

PING_INTERVAL = 5
"""How often a client pings, in seconds; the server gives up after three times as long."""

DISCONNECTED = models.ParticipantInfo.State.DISCONNECTED


def processor_time(server):
    """Seconds of processor time that the server has taken."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@functools.lru_cache(maxsize=64)
def decoded(data):
    """A message; most go to all alike."""
    return signal.SignalResponse.FromString(data)


class Member:
    """One client. `faults` says what no client of the protocol should have been told."""

    def __init__(self, identity):
        self.identity = identity
        self.known = {}
        self.count = 0
        self.messages = self.bytes = self.turned_away = 0
        self.faults = []
        self.left = None
        self._running = None

    async def join(self, session, server, room, grants):
        """Comes in; returns when it has been answered."""
        parameters = {"access_token": token(room, self.identity, grants), "join_request": join_request(signal.JoinRequest())}
        while True:
            try:
                self.socket = await session.ws_connect(
                    f"{server.socket_url}/rtc/v1", params=parameters, max_msg_size=0, compress=0
                )
                break
            except aiohttp.WSServerHandshakeError as refused:
                # A machine that runs much besides may be overloaded for a while, and says so.
                if refused.status != 503:
                    raise
                self.turned_away += 1
                await asyncio.sleep(int(refused.headers["Retry-After"]))
        message = await self.socket.receive()
        self.take(decoded(message.data))
        self._running = [asyncio.create_task(self.listen()), asyncio.create_task(self.ping())]

    async def ping(self):
        request = signal.SignalRequest(ping_req=signal.Ping(timestamp=1)).SerializeToString()
        while True:
            await asyncio.sleep(PING_INTERVAL)
            await self.socket.send_bytes(request)

    async def listen(self):
        async for message in self.socket:
            self.messages += 1
            self.bytes += len(message.data)
            self.take(decoded(message.data))

    def take(self, response):
        kind = response.WhichOneof("message")
        if kind == "join":
            self.count = response.join.room.num_participants
            for info in response.join.other_participants:
                self.fault(info.identity in self.known, info, "is there twice")
                self.known[info.identity] = (info.sid, info.version)
        elif kind == "update":
            for info in response.update.participants:
                self.update(info)
        elif kind == "room_update":
            self.count = response.room_update.room.num_participants
        elif kind == "leave":
            self.left = response.leave

    def update(self, info):
        gone = info.state == DISCONNECTED
        if info.identity == self.identity:
            self.fault(gone, info, "is told that it left")
            return
        if before := self.known.get(info.identity):
            self.fault(gone and before[0] != info.sid, info, "is told of another's going")
            self.fault(before[0] == info.sid and before[1] > info.version, info, "goes back in time")
        if gone:
            self.known.pop(info.identity, None)
        else:
            self.known[info.identity] = (info.sid, info.version)

    def fault(self, is_fault, info, words):
        if is_fault:
            self.faults.append(f"{info.identity} {words}, as {self.identity} hears")

    async def leave(self):
        for task in self._running or ():
            task.cancel()
        await self.socket.send_bytes(signal.SignalRequest(leave=signal.LeaveRequest()).SerializeToString())
        await self.socket.close()


class Crowd:
    """Members of one room, who come at a steady rate."""

    def __init__(self, server, room):
        self.server, self.room = server, room
        self.members = {}
        self.session = None

    async def __aenter__(self):
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *_):
        await asyncio.gather(*(member.leave() for member in self.members.values()), return_exceptions=True)
        await self.session.close()

    async def come(self, count, seconds, prefix="member", grants=None):
        """`count` of them within so many seconds; returns how long it took until the last was in."""
        begin = time.monotonic()

        async def one(number):
            await asyncio.sleep(max(0, begin + seconds * number / count - time.monotonic()))
            member = Member(f"{prefix}-{number}")
            await member.join(self.session, self.server, self.room, grants)
            self.members[member.identity] = member

        await asyncio.gather(*(one(number) for number in range(count)))
        return time.monotonic() - begin

    @property
    def faults(self):
        return [fault for member in self.members.values() for fault in member.faults]

    @property
    def left(self):
        return [member.identity for member in self.members.values() if member.left is not None]
