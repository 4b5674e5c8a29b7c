"""Measures what one participant costs the server in memory, and how soon somebody who joins sees a picture.

Run by `cargo xtask bench session`; prints its results as JSON. What is compared is measured in turn, not one after
the other, so that a slow minute of the machine falls on all alike.
"""

import argparse
import asyncio
import json
import sys
import time
import uuid

from livekit import rtc

import media
from conftest import Person, token, until
from terrace_server import Server

SIZES = (10, 25, 50)
"""Participants in the room when memory is read. A hundred of the SDK, who all decode, are more than two cores have."""

PUBLISHERS = 1
"""How many participants send a camera and a microphone to all others."""

SETTLE = 4
"""How long a room is left alone before memory is read, in seconds: handshakes leave buffers that are freed late."""

JOINS_AT_ONCE = 10


async def joined(server, room, identity, single_connection=True):
    person = Person(identity)
    await person.room.connect(
        server.socket_url, token(room, identity), rtc.RoomOptions(single_peer_connection=single_connection)
    )
    return person


async def memory(publishing):
    """The server's resident memory in bytes, by the number of participants."""
    server = Server()
    room = uuid.uuid4().hex
    people = []
    found = {}
    try:
        await asyncio.sleep(SETTLE)
        found[0] = server.resident_memory()
        for size in SIZES:
            while len(people) < size:
                batch = range(len(people), min(size, len(people) + JOINS_AT_ONCE))
                people += await asyncio.gather(*(joined(server, room, f"participant-{number}") for number in batch))
                if publishing and len(people) == JOINS_AT_ONCE:
                    for number, person in enumerate(people[:PUBLISHERS]):
                        await person.publish_camera(number + 1, width=320, height=180)
                        await person.publish_tone(440 + 220 * number)
            tracks = 2 * PUBLISHERS if publishing else 0
            await until(
                f"all {size} receive all tracks",
                lambda: all(len(person.tracks) >= tracks for person in people[PUBLISHERS:]),
                patience=120,
            )
            await asyncio.sleep(SETTLE)
            found[size] = server.resident_memory()
    finally:
        await asyncio.gather(*(person.leave() for person in people))
        server.stop()
    return found


async def first_frame(server, room, single_connection):
    """Seconds from the call of `connect` to the first decoded picture."""
    begin = time.monotonic()
    person = await joined(server, room, f"watcher-{uuid.uuid4().hex[:8]}", single_connection)
    try:
        track = await person.track_of("sender", rtc.TrackSource.SOURCE_CAMERA)
        await media.first_number(track)
        return time.monotonic() - begin
    finally:
        await person.leave()


async def main():
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3, help="how often memory is measured")
    options.add_argument("--joins", type=int, default=30, help="joins per endpoint")
    options = options.parse_args()

    def tell(words):
        print(words, file=sys.stderr, flush=True)

    result = {"memory": {"idle": [], "publishing": []}, "first_frame": {"one": [], "two": []}}
    for number in range(options.rounds):
        for kind in result["memory"]:
            result["memory"][kind].append(await memory(kind == "publishing"))
            tell(f"memory, {kind}, round {number + 1} of {options.rounds}")
    server = Server()
    try:
        room = uuid.uuid4().hex
        sender = await joined(server, room, "sender")
        await sender.publish_camera(5)
        for number in range(options.joins):
            for kind in result["first_frame"]:
                result["first_frame"][kind].append(await first_frame(server, room, kind == "one"))
            if number % 10 == 9:
                tell(f"{number + 1} of {options.joins} joins on each endpoint")
        await sender.leave()
    finally:
        server.stop()
    print(json.dumps(result))


asyncio.run(main())
