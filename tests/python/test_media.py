"""What the Python SDK sends arrives, in every codec, over both endpoints."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
from conftest import until
from livekit import rtc

import media

CODECS = {
    "vp8": rtc.VideoCodec.VP8,
    "h264": rtc.VideoCodec.H264,
    "vp9": rtc.VideoCodec.VP9,
    "av1": rtc.VideoCodec.AV1,
}


async def received_codec(track):
    """The codec of a received track, by the receiver's own statistics."""
    for _ in range(100):
        stats = await track.get_stats()
        codecs = [s.codec.codec.mime_type.lower() for s in stats if s.WhichOneof("stats") == "codec"]
        if codecs:
            return codecs
        await asyncio.sleep(0.1)
    return []


@pytest.mark.parametrize("single_connection", [True, False], ids=["one-connection", "two-connections"])
@pytest.mark.parametrize("simulcast", [False, True], ids=["single-layer", "simulcast"])
@pytest.mark.parametrize("codec", CODECS)
async def test_a_picture_arrives_in_the_codec_it_was_published_in(join, codec, simulcast, single_connection):
    sender = await join("sender", single_connection=single_connection)
    receiver = await join("receiver", single_connection=single_connection)
    await sender.publish_camera(11, CODECS[codec], simulcast)
    track = await receiver.track_of("sender", rtc.TrackSource.SOURCE_CAMERA)
    number, _, _ = await asyncio.wait_for(media.first_number(track), 30)
    assert number == 11
    assert f"video/{codec}" in await received_codec(track)


@pytest.mark.parametrize("single_connection", [True, False], ids=["one-connection", "two-connections"])
async def test_a_tone_is_heard_at_its_frequency(join, single_connection):
    sender = await join("sender", single_connection=single_connection)
    receiver = await join("receiver", single_connection=single_connection)
    await sender.publish_tone(1330)
    track = await receiver.track_of("sender", rtc.TrackSource.SOURCE_MICROPHONE)
    assert abs(await asyncio.wait_for(media.first_tone(track), 20) - 1330) < 10


async def test_who_comes_later_sees_what_is_already_published(join):
    sender = await join("sender")
    await sender.publish_camera(6)
    late = await join("late")
    track = await late.track_of("sender", rtc.TrackSource.SOURCE_CAMERA)
    number, _, _ = await asyncio.wait_for(media.first_number(track), 30)
    assert number == 6


async def test_an_unpublished_track_goes_away_for_the_others(join):
    sender = await join("sender")
    receiver = await join("receiver")
    publication = await sender.publish_camera(3)
    await receiver.track_of("sender", rtc.TrackSource.SOURCE_CAMERA)
    await sender.local.unpublish_track(publication.sid)
    await until("the track is gone", lambda: not receiver.tracks)


async def test_muting_is_known_to_the_others(join):
    sender = await join("sender")
    receiver = await join("receiver")
    publication = await sender.publish_tone(700)
    await receiver.track_of("sender", rtc.TrackSource.SOURCE_MICROPHONE)
    remote = next(iter(receiver.room.remote_participants["sender"].track_publications.values()))
    publication.track.mute()
    await until("the mute is known", lambda: remote.muted)
    publication.track.unmute()
    await until("the unmute is known", lambda: not remote.muted)


async def test_rooms_on_different_shards_are_seen_and_heard_at_once(server, join):
    """Each room's media goes through a thread and a UDP port of its own."""
    receivers = []
    for number in range(4):
        room = f"shard-{number}-{server.pid}"
        sender = await join(f"sender-{number}", room=room)
        receivers.append(await join(f"receiver-{number}", room=room))
        await sender.publish_camera(1 + number)
        await sender.publish_tone(600 + 200 * number)
    for number, receiver in enumerate(receivers):
        picture = await receiver.track_of(f"sender-{number}", rtc.TrackSource.SOURCE_CAMERA)
        shown, _, _ = await asyncio.wait_for(media.first_number(picture), 30)
        assert shown == 1 + number
        tone = await receiver.track_of(f"sender-{number}", rtc.TrackSource.SOURCE_MICROPHONE)
        assert abs(await asyncio.wait_for(media.first_tone(tone), 20) - (600 + 200 * number)) < 10
    ports = {server.udp_port, server.udp_port + 1}
    assert ports <= set(used_ports(server.pid)), "both shards listen"


def used_ports(process):
    """The UDP ports on which a process has sockets."""
    inodes = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(link))
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        words = line.split()
        if f"socket:[{words[9]}]" in inodes:
            yield int(words[1].rsplit(":", 1)[1], 16)
