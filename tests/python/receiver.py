"""A receiver of the Python SDK for other tests: `receiver.py URL TOKEN` prints once in a second how many pictures and
samples came, and how long the longest picture stood since a line came on standard input."""

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

    @room.on("track_subscribed")
    def _(track, publication, participant):
        follow = watch if track.kind == rtc.TrackKind.KIND_VIDEO else listen
        tasks.append(asyncio.create_task(follow(track)))

    def begin():
        sys.stdin.readline()
        told["longest"] = 0.0

    asyncio.get_running_loop().add_reader(sys.stdin, begin)
    await room.connect(url, token, rtc.RoomOptions(single_peer_connection=True))
    while True:
        await asyncio.sleep(0.25)
        print(json.dumps(told))


asyncio.run(main(*sys.argv[1:]))
