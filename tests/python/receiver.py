"""A receiver of the Python SDK for other tests: `receiver.py URL TOKEN` prints four times in a second how many pictures
and samples came, how long the longest picture stood since `begin` came on standard input, and the SDK's statistics of
what it receives, named as in browsers. `low`, `medium` or `high` on standard input is the layer wanted of pictures."""

import asyncio
import json
import sys
import time

from livekit import rtc


async def main(url, token):
    told = {"frames": 0, "samples": 0, "longest": 0.0}
    shown = None

    async def watch(track):
        nonlocal shown
        async for _ in rtc.VideoStream(track):
            now = time.monotonic()
            told["longest"] = max(told["longest"], now - (shown or now))
            shown = now
            told["frames"] += 1

    async def listen(track):
        async for event in rtc.AudioStream(track):
            told["samples"] += event.frame.samples_per_channel

    room = rtc.Room()
    tasks = []
    tracks = {}

    async def inbound(track):
        for one in await track.get_stats():
            if one.HasField("inbound_rtp"):
                parts = (one.inbound_rtp.received, one.inbound_rtp.inbound)
                return {field.json_name: getattr(part, field.name) for part in parts for field in part.DESCRIPTOR.fields}
        return None

    @room.on("track_subscribed")
    def _(track, publication, participant):
        tracks["camera" if track.kind == rtc.TrackKind.KIND_VIDEO else "microphone"] = track
        follow = watch if track.kind == rtc.TrackKind.KIND_VIDEO else listen
        tasks.append(asyncio.create_task(follow(track)))

    def obey():
        word = sys.stdin.readline().strip()
        if word == "begin":
            told["longest"] = 0.0
        elif word:
            wish(rtc.VideoQuality.Value(f"VIDEO_QUALITY_{word.upper()}"))

    def wish(quality):
        for participant in room.remote_participants.values():
            for publication in participant.track_publications.values():
                if publication.kind == rtc.TrackKind.KIND_VIDEO:
                    publication.set_video_quality(quality)

    asyncio.get_running_loop().add_reader(sys.stdin, obey)
    await room.connect(url, token, rtc.RoomOptions(single_peer_connection=True))
    while True:
        await asyncio.sleep(0.25)
        reports = {kind: {"inbound": await inbound(track)} for kind, track in list(tracks.items())}
        print(json.dumps(told | reports), flush=True)


asyncio.run(main(*sys.argv[1:]))
