"""A participant for other tests: `member.py URL TOKEN [NUMBER HERTZ]` sends a picture of that number and a tone, if they are
given, and prints four times a second, as JSON: `people`, the others in the room; `sees` and `hears`, the numbers and tones
of whom it saw and heard in the last second; `joins`, how often it came into the room. It leaves when its input closes."""

import asyncio
import json
import sys
import time

import numpy as np
from livekit import rtc

import media

FRESH = 1.0
"""Seconds that what was seen or heard counts."""

TONE = media.SAMPLE_RATE // 4
"""Samples that a tone is told from."""


async def main(url, token, number=None, hertz=None):
    loop = asyncio.get_running_loop()
    room = rtc.Room()
    seen, heard, joins, tasks, following = {}, {}, 1, [], {}

    async def watch(track, identity):
        stream = rtc.VideoStream(track)
        try:
            async for event in stream:
                if (shown := media.number_shown(event.frame)) is not None:
                    seen[identity] = (time.monotonic(), shown)
        finally:
            await stream.aclose()

    async def listen(track, identity):
        stream = rtc.AudioStream(track, sample_rate=media.SAMPLE_RATE, num_channels=1)
        samples = np.zeros(0, np.int16)
        try:
            async for event in stream:
                samples = np.concatenate([samples, np.frombuffer(event.frame.data, np.int16)])
                if len(samples) >= TONE:
                    if (tone := media.loudest(samples)) is not None:
                        heard[identity] = (time.monotonic(), tone)
                    samples = np.zeros(0, np.int16)
        finally:
            await stream.aclose()

    @room.on("track_subscribed")
    def _(track, publication, participant):
        follow = watch if track.kind == rtc.TrackKind.KIND_VIDEO else listen
        following[track.sid] = asyncio.create_task(follow(track, participant.identity))

    # An m-line that is used again brings somebody else's picture or sound to the same track.
    @room.on("track_unsubscribed")
    def _(track, publication, participant):
        if track.sid in following:
            following.pop(track.sid).cancel()

    @room.on("reconnected")
    def _():
        nonlocal joins
        joins += 1

    gone = asyncio.Event()
    # Nothing is read: what ends it is the end of the input.
    loop.run_in_executor(None, lambda: (sys.stdin.read(), loop.call_soon_threadsafe(gone.set)))
    await room.connect(url, token, rtc.RoomOptions(single_peer_connection=True))

    if number is not None:
        pictures = rtc.VideoSource(320, 180)
        camera = rtc.LocalVideoTrack.create_video_track("camera", pictures)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, simulcast=False)
        options.video_encoding.max_bitrate = 200_000
        options.video_encoding.max_framerate = 10
        tasks.append(asyncio.create_task(media.send_pictures(pictures, int(number), 320, 180, 10)))
        await room.local_participant.publish_track(camera, options)
        sound = rtc.AudioSource(media.SAMPLE_RATE, 1)
        microphone = rtc.LocalAudioTrack.create_audio_track("microphone", sound)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
        tasks.append(asyncio.create_task(media.send_tone(sound, float(hertz))))
        await room.local_participant.publish_track(microphone, options)

    def fresh(noted):
        now = time.monotonic()
        return {identity: what for identity, (at, what) in noted.items() if now - at < FRESH}

    while not gone.is_set():
        people = sorted(room.remote_participants)
        told = {"people": people, "sees": fresh(seen), "hears": fresh(heard), "joins": joins}
        print(json.dumps(told), flush=True)
        await asyncio.sleep(0.25)
    for task in [*tasks, *following.values()]:
        task.cancel()
    await room.disconnect()


asyncio.run(main(*sys.argv[1:]))
