"""What every test gets: one server for the run, participants that leave by themselves, and waiting for conditions."""

import asyncio
import time
import uuid

import pytest
from livekit import api, rtc

import media
from terrace_server import DEV_KEY, DEV_SECRET, Server

PATIENCE = 20
"""How long a condition may take before the test fails, in seconds, unless the test says otherwise."""


async def until(what, condition, patience=PATIENCE):
    """Waits until `condition()` is truthy and returns that."""
    end = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"gave up after {patience} s waiting until {what}")
        await asyncio.sleep(0.05)
    return value


@pytest.fixture(scope="session")
def server():
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def room_name():
    return f"room-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def clients():
    """Takes clients, each of which is closed when the test ends."""
    made = []
    yield made
    for client in made:
        await client.close()


def token(room, identity, grants=None, key=DEV_KEY, secret=DEV_SECRET, **claims):
    made = api.AccessToken(key, secret).with_identity(identity).with_name(claims.get("name", identity))
    given = {"room_join": True, "room": room, "can_update_own_metadata": True, **(grants or {})}
    made = made.with_grants(api.VideoGrants(**given))
    if "lifetime" in claims:
        made = made.with_ttl(claims["lifetime"])
    return made.to_jwt()


class Person:
    """A participant of the Python SDK, with what it noticed."""

    def __init__(self, identity):
        self.identity = identity
        self.room = rtc.Room()
        self.tracks = {}
        self.data = []
        self.disconnected_because = None
        self._tasks = []

        @self.room.on("track_subscribed")
        def _(track, publication, participant):
            self.tracks[(participant.identity, publication.source)] = track

        @self.room.on("track_unsubscribed")
        def _(track, publication, participant):
            self.tracks.pop((participant.identity, publication.source), None)

        @self.room.on("data_received")
        def _(packet):
            self.data.append(packet)

        @self.room.on("disconnected")
        def _(reason):
            self.disconnected_because = reason

    @property
    def local(self):
        return self.room.local_participant

    def sees(self, identity):
        return identity in self.room.remote_participants

    async def track_of(self, identity, source):
        return await until(
            f"{self.identity} is subscribed to {identity}", lambda: self.tracks.get((identity, source))
        )

    async def publish_camera(self, number, codec=rtc.VideoCodec.VP8, simulcast=False, width=640, height=360):
        source = rtc.VideoSource(width, height)
        track = rtc.LocalVideoTrack.create_video_track("camera", source)
        options = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA, video_codec=codec, simulcast=simulcast
        )
        self._tasks.append(asyncio.create_task(media.send_pictures(source, number, width, height)))
        return await self.local.publish_track(track, options)

    async def publish_tone(self, hertz):
        source = rtc.AudioSource(media.SAMPLE_RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        self._tasks.append(asyncio.create_task(media.send_tone(source, hertz)))
        return await self.local.publish_track(
            track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)
        )

    async def leave(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.room.disconnect()


@pytest.fixture
async def join(server, room_name):
    """Joins somebody to this test's room."""
    people = []

    async def _join(identity, grants=None, single_connection=True, room=None, **claims):
        person = Person(identity)
        people.append(person)
        await person.room.connect(
            server.socket_url,
            token(room or room_name, identity, grants, **claims),
            rtc.RoomOptions(single_peer_connection=single_connection),
        )
        return person

    yield _join
    for person in people:
        await person.leave()


@pytest.fixture
async def rooms(server):
    """The room service with an administrator's key."""
    client = api.LiveKitAPI(server.url, DEV_KEY, DEV_SECRET)
    yield client.room
    await client.aclose()
