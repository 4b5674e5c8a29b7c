"""Who does not do its part (answers no offer, connects no media, reads nothing, dies) costs only itself."""

import asyncio
import os
import signal as system
import socket
import sys
from contextlib import asynccontextmanager

import aiohttp
from aiortc import RTCPeerConnection, RTCSessionDescription
from bad_input import MEGABYTE, Raw, join_request, metric_is, peer, raw, server, settings, undisturbed
from conftest import token, until
from livekit import api
from livekit.protocol import models, rtc as signal
from terrace_server import DEV_KEY, DEV_SECRET

ANSWER_TIME = 20
"""The server's own bound for the answer to an offer, in seconds."""

JOIN_TIME = 40
"""The server's own bound for media to be connected after a join, in seconds."""

CONNECT_TIME = 30
"""The server's own bound for ICE and DTLS once there is a description, in seconds."""

RESUME_TIME = 20
"""How long the server waits for a lost WebSocket to come back, in seconds."""

OUTGOING_BYTES = 4 * MEGABYTE
"""The server's own bound of what waits for one WebSocket."""

DATA_BACKLOG = 16 * MEGABYTE
"""The server's own bound of what waits for one data channel."""

JOIN_FAILURE = models.DisconnectReason.JOIN_FAILURE

async def keep_pinging(client):
    while True:
        await client.send(ping_req=signal.Ping(timestamp=1))
        await asyncio.sleep(2)

async def never_answers(server, room_name):
    async with raw(server, room_name, "mute") as mute:
        await mute.receive("offer")
        pinging = asyncio.create_task(keep_pinging(mute))
        end = await mute.is_refused(1008, "first offer was not answered in time", JOIN_FAILURE, patience=ANSWER_TIME * 2)
        pinging.cancel()
        assert end.leave.action == signal.LeaveRequest.DISCONNECT
        assert end.kinds.count("pong_resp") > ANSWER_TIME / 2 / 2, "it was there all the time"


async def never_connects(server, room_name):
    # Without the right to subscribe it gets one offer only.
    async with raw(server, room_name, "deaf", {"can_subscribe": False}) as deaf:
        offer = await deaf.receive("offer")
        pc = RTCPeerConnection()
        await pc.setRemoteDescription(RTCSessionDescription(offer.sdp, "offer"))
        # A real answer, without any of the connecting that setLocalDescription would begin.
        answer = await pc.createAnswer()
        await deaf.send(answer=signal.SessionDescription(type="answer", sdp=answer.sdp, id=offer.id))
        pinging = asyncio.create_task(keep_pinging(deaf))
        end = await deaf.is_refused(1008, "UDP port", JOIN_FAILURE, patience=CONNECT_TIME * 2)
        pinging.cancel()
        await pc.close()
        assert end.leave.action == signal.LeaveRequest.DISCONNECT


async def never_offers(server, room_name):
    async with aiohttp.ClientSession() as session:
        parameters = {"access_token": token(room_name, "idle"), "join_request": join_request(signal.JoinRequest())}
        async with session.ws_connect(f"{server.socket_url}/rtc/v1", params=parameters) as opened:
            idle = Raw(opened)
            pinging = asyncio.create_task(keep_pinging(idle))
            await idle.is_refused(1008, "media was not connected in time", JOIN_FAILURE, patience=JOIN_TIME * 2)
            pinging.cancel()


async def never_says_anything(server, room_name):
    async with raw(server, room_name, "still") as still:
        end = await still.end(30)
        assert (end.code, end.reason) == (1000, "nothing was heard within the ping time-out")


async def test_who_does_not_do_its_part_is_sent_away_with_the_reason(server, room_name, undisturbed):
    """Though it pings: an offer that is not answered, media that is not connected, an offer that does not come. And
    who does not even ping."""
    timed_out = r'INFO .*participant timed out room="room-\w+" participant="%s" reason="%s'
    logged = [
        timed_out % ("mute", "the first offer was not answered in time"),
        timed_out % ("deaf", "media could not connect"),
        timed_out % ("idle", "media was not connected in time"),
        r'INFO .*session closed .*participant="still" .*reason="nothing was heard within the ping time-out"',
    ]
    async with undisturbed(logged=logged) as pair:
        badly = (never_answers, never_connects, never_offers, never_says_anything)
        async with asyncio.timeout(80):
            tasks = [asyncio.create_task(one(server, room_name)) for one in badly]
            await until("the others know of them", lambda: len(pair.receiver.room.remote_participants) == 1 + len(badly))
            await asyncio.gather(*tasks)
        await until("they are gone for the others", lambda: len(pair.receiver.room.remote_participants) == 1, 25)
        await metric_is(server, "media_connections", 2)


@asynccontextmanager
async def deaf_reader(server, room_name, identity):
    """Joins by a WebSocket of which nothing is read, with small buffers on its side."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(
        f"GET /rtc?access_token={token(room_name, identity)}&protocol=16 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    try:
        yield connection
    finally:
        connection.close()

async def test_who_stops_reading_its_websocket_loses_it_and_nobody_else_does(server, room_name, undisturbed):
    readers = 10
    logged = [r'WARN .*a client reads its messages too slowly.* room="room-\w+" participant="deaf-\d"']
    # What waits for each is shared where all are told the same; what the kernel keeps is not the server's.
    async with undisturbed(memory=2 * OUTGOING_BYTES, lines=80, logged=logged) as pair:
        async with asyncio.timeout(60), api.LiveKitAPI(server.url, DEV_KEY, DEV_SECRET) as service:
            stack = [deaf_reader(server, room_name, f"deaf-{number}") for number in range(readers)]
            for one in stack:
                await one.__aenter__()
            await until("all are in", lambda: sum(pair.receiver.sees(f"deaf-{n}") for n in range(readers)) == readers)
            for number in range(150):
                metadata = f"{number} " + "x" * 60_000
                await service.room.update_room_metadata(api.UpdateRoomMetadataRequest(room=room_name, metadata=metadata))
            await until("the others go on hearing news", lambda: pair.receiver.room.metadata.startswith("149 "))
            await metric_is(server, "sessions_slow_total", readers)
            await metric_is(server, "sessions", 2)
            await until(
                "they are gone for the others when they do not come back",
                lambda: not any(pair.receiver.sees(f"deaf-{n}") for n in range(readers)),
                RESUME_TIME * 2,
            )
            for one in stack:
                await one.__aexit__(None, None, None)

async def test_who_stops_reading_its_data_channel_alone_loses_its_connection_and_hears_why(server, room_name, undisturbed):
    logged = [r'media connection closed room="room-\w+" participant="deaf" reason="the client does not read its data channel"']
    count, size = 2000, 10_000
    async with undisturbed(memory=DATA_BACKLOG + 24 * MEGABYTE, logged=logged) as pair:
        async with peer(server, room_name, "deaf") as deaf:
            await until("it is in the room", lambda: pair.sender.sees("deaf"))
            await pair.sender.local.publish_data(b"first", reliable=True)
            await until("it hears", lambda: deaf.heard)

            async def nothing(_):
                pass

            # Its WebSocket, ICE and DTLS go on; SCTP takes and answers nothing any more.
            deaf.pc.sctp._handle_data = nothing
            pinging = asyncio.create_task(keep_pinging(deaf.raw))
            ending = asyncio.create_task(deaf.raw.end(60))
            for number in range(count):
                await pair.sender.local.publish_data(b"%d " % number + b"x" * size, reliable=True)
            await until("the healthy one has it all", lambda: len(pair.receiver.data) == count + 1, 40)
            numbers = [int(packet.data.split(b" ")[0]) for packet in pair.receiver.data[1:]]
            assert numbers == list(range(count)), "all of it, in order"
            end = await ending
            pinging.cancel()
            assert end.leave.action == signal.LeaveRequest.RECONNECT, end
            assert (end.code, end.reason) == (1008, "media was lost: the client does not read its data channel")

FROZEN = """
import asyncio, sys
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

async def test_who_is_frozen_or_killed_is_gone_for_the_others(server, room_name, undisturbed):
    async with undisturbed(memory=DATA_BACKLOG) as pair:
        async with (
            participant_process(server, room_name, "frozen") as frozen,
            participant_process(server, room_name, "killed") as killed,
        ):
            await until("they are in the room", lambda: pair.receiver.sees("frozen") and pair.receiver.sees("killed"))
            os.kill(frozen.pid, system.SIGSTOP)
            os.kill(killed.pid, system.SIGKILL)
            for number in range(500):
                await pair.sender.local.publish_data(b"%d " % number + b"x" * 10_000, reliable=True)
            await until("the healthy one has it all", lambda: len(pair.receiver.data) == 500, 30)
            await until("they are gone", lambda: len(pair.receiver.room.remote_participants) == 1, 60)
            os.kill(frozen.pid, system.SIGCONT)


async def test_what_an_idle_connection_costs_is_known(server, undisturbed, record_property):
    """A WebSocket with its room and its two media connections, nothing sent; and what is given back after it."""
    count, bound = 100, 400 * 1024
    async with undisturbed(memory=count * bound, lines=500):
        before = server.resident_memory()
        clients = [raw(server, f"own-room-{number}", "idle") for number in range(count)]
        for client in clients:
            await client.__aenter__()
        each = (server.resident_memory() - before) // count
        record_property("bytes_per_idle_connection", each)
        print(f"an idle connection costs {each / 1024:.0f} kB")
        assert each < bound
        for client in clients:
            await client.__aexit__(None, None, None)

__all__ = ["rtc", "server", "settings", "undisturbed"]
