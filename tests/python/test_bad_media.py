"""Bad datagrams and bad data messages cost themselves; at most their sender's connection ends."""

import asyncio
import random
import re
import socket
import struct
import time

import pytest
from bad_input import MEGABYTE, metric, peer, raw, server, settings, undisturbed
from conftest import until
from livekit import api
from livekit.protocol import models, rtc as signal
from terrace_server import DEV_KEY, DEV_SECRET

DATA_BOUND = 64 * 1024
"""The server's own bound of one data message."""

CHANNEL_BOUND = 256 * 1024
"""What the server's answer says that one message on a data channel may have, in bytes."""

Reason = signal.RequestResponse.Reason


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


def binding_request(source, name):
    """A STUN binding request with a made-up transaction id and a wrong integrity (RFC 8489)."""
    attributes = struct.pack("!HH", 0x0006, len(name)) + name + b"\0" * (-len(name) % 4)
    attributes += struct.pack("!HHI", 0x0024, 4, 1) + struct.pack("!HH", 0x0025, 0)
    attributes += struct.pack("!HH", 0x0008, 20) + source.randbytes(20)
    return struct.pack("!HHI", 0x0001, len(attributes), 0x2112A442) + source.randbytes(12) + attributes


def binding_requests(names=None):
    source = random.Random(7)
    while True:
        made_up = b"%08x:%08x" % (source.getrandbits(32), source.getrandbits(32))
        yield binding_request(source, source.choice(names) if names else made_up)


def rtp(source, payload_type=96, ssrc=None, sequence=None):
    """RTP for an SSRC that nobody announced (RFC 3550)."""
    numbers = (
        source.getrandbits(16) if sequence is None else sequence,
        source.getrandbits(32),
        source.getrandbits(32) if ssrc is None else ssrc,
    )
    return struct.pack("!BBHII", 0x80, payload_type, *numbers) + source.randbytes(200)


def unknown_rtp():
    source = random.Random(8)
    while True:
        yield rtp(source)


def hellos():
    """The beginning of DTLS handshakes (RFC 6347) from nobody known, and of RTCP."""
    source = random.Random(9)
    while True:
        yield b"\x16\xfe\xfd" + bytes(8) + struct.pack("!H", 200) + source.randbytes(200)
        yield struct.pack("!BBHI", 0x81, 201, 7, source.getrandbits(32)) + source.randbytes(24)


@pytest.mark.parametrize("datagrams", [noise, binding_requests, unknown_rtp, hellos])
async def test_a_flood_on_the_media_port_disturbs_nobody(server, undisturbed, datagrams):
    async with undisturbed(memory=4 * MEGABYTE, lines=5):
        before = await metric(server, "media_strangers_total")
        assert await asyncio.to_thread(throw, server, datagrams(), 3) > 1000
        assert await metric(server, "media_strangers_total") - before > 500, "they are counted"


async def test_checks_with_a_known_name_and_a_wrong_password_move_nobodys_connection(server, room_name, undisturbed):
    """The name is in every offer; who knows it without the password must not become the connection's address."""
    async with undisturbed(memory=4 * MEGABYTE) as pair:
        async with peer(server, room_name, "victim") as victim:
            await until("it is in the room", lambda: pair.sender.sees("victim"))
            ours = re.search(r"a=ice-ufrag:(\S+)", victim.answer)[1]
            theirs = re.search(r"a=ice-ufrag:(\S+)", victim.pc.localDescription.sdp)[1]
            names = [f"{ours}:{theirs}".encode(), f"{ours}:".encode(), f"{ours}:x".encode()]
            flood = asyncio.create_task(asyncio.to_thread(throw, server, binding_requests(names), 4))
            for number in range(20):
                await pair.sender.local.publish_data(b"%d" % number, reliable=True)
                await until("the victim hears all the while", lambda: len(victim.heard) == number + 1, 3)
                await asyncio.sleep(0.15)
            assert await flood > 1000
            assert await metric(server, "media_strangers_total") > 500
            await victim.raw.still_answers()


async def test_packets_that_nobody_announced_from_a_known_address_are_dropped(server, room_name, undisturbed):
    source = random.Random(10)
    async with undisturbed(memory=8 * MEGABYTE) as pair:
        async with peer(server, room_name, "bad", audio=True) as bad:
            await until("it is in the room", lambda: pair.sender.sees("bad"))
            end, sequence = time.monotonic() + 3, 0
            while time.monotonic() < end:
                for _ in range(10):
                    sequence += 1
                    # Without encryption, encrypted for unknown SSRCs, encrypted for unknown payload types.
                    await bad.send_datagram(rtp(source))
                    await bad.send_datagram(source.randbytes(300))
                    await bad.send_datagram(binding_request(source, b"a:b"))
                    await bad.dtls._send_rtp(rtp(source, source.choice([0, 96, 111, 127])))
                    await bad.dtls._send_rtp(rtp(source, 111, source.choice([0, 1, 0xFFFFFFFF]), sequence))
                await asyncio.sleep(0.02)
            # Nothing of it is a track of anybody's, and the connection that it came by still serves.
            assert not pair.receiver.room.remote_participants["bad"].track_publications
            assert await metric(server, "media_failures_total") == 0
            await pair.sender.local.publish_data(b"still", reliable=True)
            await until("it hears", lambda: bad.heard)
            await bad.raw.still_answers()


def user_packet(payload=b"x", **more):
    return models.DataPacket(user=models.UserPacket(payload=payload, topic="t"), **more).SerializeToString()


async def test_who_said_it_is_written_by_the_server(server, room_name, undisturbed):
    async with undisturbed() as pair:
        async with peer(server, room_name, "forger") as forger:
            await until("it is in the room", lambda: pair.receiver.sees("forger"))
            victim = pair.sender.local
            forged = models.DataPacket(
                participant_identity=victim.identity,
                participant_sid=victim.sid,
                user=models.UserPacket(
                    payload=b"forged", participant_identity=victim.identity, participant_sid=victim.sid
                ),
            )
            async with peer(server, room_name, "witness") as witness:
                await until("it is in the room too", lambda: pair.receiver.sees("witness"))
                for channel in (forger.reliable, forger.lossy):
                    channel.send(forged.SerializeToString())
                await until("the SDK heard both", lambda: len(pair.receiver.data) == 2)
                assert {packet.participant.identity for packet in pair.receiver.data} == {"forger"}
                await until("the witness heard one", lambda: witness.heard)
                heard = models.DataPacket.FromString(witness.heard[0])
                sid = pair.receiver.room.remote_participants["forger"].sid
                assert (heard.participant_identity, heard.participant_sid) == ("forger", sid)
                assert (heard.user.participant_identity, heard.user.participant_sid) == ("forger", sid)


async def test_data_messages_that_can_not_be_passed_on_are_answered(server, room_name, undisturbed):
    bad_messages = {
        "over the bound": (user_packet(b"x" * (DATA_BOUND + 1)), Reason.LIMIT_EXCEEDED, "over 65536 bytes"),
        "noise": (b"\xff" * 500, Reason.INVALID_REQUEST, "not a DataPacket"),
    }
    logged = [r'WARN .*a data message was not passed on room="room-\w+" participant="bad" reason="[^"]+" suppressed=0']
    async with undisturbed(logged=logged) as pair:
        for message, reason, words in bad_messages.values():
            async with peer(server, room_name, "bad") as bad:
                for _ in range(50):
                    bad.reliable.send(message)
                answer = await bad.raw.receive("request_response")
                assert answer.reason == reason and words in answer.message, answer
                # What is right after it arrives, and so does what it is told.
                bad.reliable.send(user_packet(b"right"))
                await until("the right one arrives", lambda: pair.receiver.data)
                assert [packet.data for packet in pair.receiver.data] == [b"right"]
                pair.receiver.data.clear()
        async with peer(server, room_name, "bad", {"can_publish_data": False}) as bad:
            bad.reliable.send(user_packet())
            answer = await bad.raw.receive("request_response")
            assert answer.reason == Reason.NOT_ALLOWED and "permission" in answer.message
        assert not pair.receiver.data


async def test_a_message_above_what_the_channel_takes_costs_at_most_its_connection(server, room_name, undisturbed):
    async with undisturbed(memory=16 * MEGABYTE) as pair:
        async with peer(server, room_name, "bad") as bad:
            # aiortc keeps to what the answer says until it is told otherwise.
            assert bad.pc.sctp._remote_max_message_size == CHANNEL_BOUND
            bad.pc.sctp._remote_max_message_size = 0
            before = await metric(server, "media_bytes_in_total")
            bad.reliable.send(user_packet(b"x" * (4 << 20)))
            bad.lossy.send(user_packet(b"x" * (CHANNEL_BOUND + 1)))
            for _ in range(100):
                # What the server takes of it before it takes no more.
                if await metric(server, "media_bytes_in_total") - before > MEGABYTE:
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(2)
            assert not pair.receiver.data


async def test_a_flood_of_data_floods_nobody_away(server, room_name, undisturbed):
    async with undisturbed(memory=40 * MEGABYTE) as pair:
        async with peer(server, room_name, "bad") as bad:
            await until("it is in the room", lambda: pair.receiver.sees("bad"))
            end, sent = time.monotonic() + 4, 0
            while time.monotonic() < end:
                if bad.lossy.bufferedAmount < MEGABYTE:
                    # To nobody, to everybody, to ten thousand who are not there.
                    bad.lossy.send(user_packet(b"x" * 1000))
                    bad.reliable.send(user_packet(b"x" * 1000, destination_identities=["nobody"]))
                    bad.lossy.send(user_packet(b"x", destination_identities=[f"{n}" for n in range(1000)]))
                    sent += 3
                # The sender's stack is Python and shares its thread with the pair that must feel nothing.
                await asyncio.sleep(0.01)
            assert sent > 100
            await pair.sender.local.publish_data(b"right", reliable=True)
            await until("others are heard", lambda: any(packet.data == b"right" for packet in pair.receiver.data))


async def test_a_flood_of_data_by_the_service_reaches_who_reads(server, room_name, undisturbed):
    async with undisturbed(memory=24 * MEGABYTE) as pair:
        async with api.LiveKitAPI(server.url, DEV_KEY, DEV_SECRET) as service:
            for number in range(300):
                await service.room.send_data(
                    api.SendDataRequest(room=room_name, data=b"%d " % number + b"x" * 10_000, kind=models.DataPacket.RELIABLE)
                )
            with pytest.raises(api.TwirpError) as refused:
                await service.room.send_data(api.SendDataRequest(room=room_name, data=b"x" * (DATA_BOUND + 1)))
            assert refused.value.code == "invalid_argument"
        await until("the receiver has it all", lambda: len(pair.receiver.data) == 300, 40)


async def test_a_client_without_the_right_publishes_nothing_though_it_sends(server, room_name, undisturbed):
    """It does not announce its track but sends it: what nobody announced is nobody's track."""
    source = random.Random(11)
    async with undisturbed() as pair:
        async with peer(server, room_name, "bad", {"can_publish": False}, audio=True) as bad:
            await bad.raw.send(
                add_track=signal.AddTrackRequest(
                    cid=bad.pc.getSenders()[0]._track_id if bad.pc.getSenders() else "x",
                    type=models.TrackType.AUDIO,
                    source=models.TrackSource.MICROPHONE,
                )
            )
            answer = await bad.raw.receive("request_response")
            assert answer.reason == Reason.NOT_ALLOWED
            ssrc = bad.pc.getSenders()[0]._ssrc
            for sequence in range(200):
                await bad.dtls._send_rtp(rtp(source, 111, ssrc, sequence))
                await asyncio.sleep(0.01)
            await until("the others see it", lambda: pair.receiver.sees("bad"))
            assert not pair.receiver.room.remote_participants["bad"].track_publications
        async with raw(server, room_name, "other") as other:
            await other.still_answers()
