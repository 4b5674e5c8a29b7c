"""GStreamer's webrtcbin, whose certificates are RSA ones, as an encoder and as a player."""

import asyncio
import json
import socket
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import token, until

import media
from terrace_server import SHARDS, Server, free_port

PROGRAM = Path(__file__).with_name("gstreamer.py")

SHOWN = (90, 160)
"""Rows and columns of a picture that the player writes."""


@pytest.fixture(scope="module")
def server():
    # GStreamer offers no loopback addresses.
    port = free_port(socket.SOCK_DGRAM, SHARDS)
    running = Server(media__listen=f"0.0.0.0:{port}")
    yield running
    running.stop()


class Gstreamer:
    """A running encoder or player."""

    def __init__(self):
        self.told = []

    async def start(self, *arguments):
        self.process = await asyncio.create_subprocess_exec(
            "/usr/bin/python3", PROGRAM, *map(str, arguments),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        self.reading = asyncio.create_task(self.read())
        return self

    async def read(self):
        async for line in self.process.stdout:
            self.told.append(json.loads(line))

    def heard_of(self, **what):
        assert not any("error" in said for said in self.told), self.told
        return what in self.told

    async def close(self):
        self.process.stdin.close()
        await asyncio.wait_for(self.process.wait(), 30)
        await self.reading


@pytest.fixture
async def gstreamer(server, room_name, tmp_path, clients):
    async def encode(identity, codec, number, hertz):
        picture = tmp_path / f"{number}.i420"
        picture.write_bytes(bytes(media.picture(number).data))
        client = await Gstreamer().start(
            "encode", f"{server.url}/whip/{room_name}", token(room_name, identity), codec, picture, hertz
        )
        clients.append(client)
        await until("the encoder is connected", lambda: client.heard_of(state="connected"), 40)
        return client

    async def play(identity, watched):
        folder = tmp_path / identity
        folder.mkdir()
        url = f"{server.url}/whep/{room_name}?participants={watched}"
        client = await Gstreamer().start("play", url, token(room_name, identity), folder)
        clients.append(client)
        await until("the player is connected", lambda: client.heard_of(state="connected"), 40)

        def last(name, size):
            file = folder / name
            whole = file.stat().st_size // size if file.exists() else 0
            if whole == 0:
                return None
            with file.open("rb") as opened:
                opened.seek((whole - 1) * size)
                return opened.read(size)

        def number():
            rows, columns = SHOWN
            luma = last("pictures", rows * columns)
            return luma and media.number_of(np.frombuffer(luma, np.uint8).reshape(rows, columns))

        def hertz():
            samples = last("sound", media.SAMPLE_RATE)
            return samples and media.loudest(np.frombuffer(samples, np.int16))

        client.number, client.hertz = number, hertz
        return client

    return types.SimpleNamespace(encode=encode, play=play)


def close_to(heard, hertz):
    return heard is not None and abs(heard - hertz) < 20


@pytest.mark.parametrize("codec", ["vp8", "h264"])
async def test_an_encoder_is_seen_and_heard(server, room_name, join, gstreamer, codec):
    person = await join("person")
    encoder = await gstreamer.encode("encoder", codec, 9, 700)
    camera = await person.track_of("encoder", 1)
    microphone = await person.track_of("encoder", 2)
    number, width, height = await media.first_number(camera)
    assert (number, width, height) == (9, 640, 360)
    assert close_to(await media.first_tone(microphone), 700)
    await encoder.close()
    assert {"ended": 200} in encoder.told, encoder.told
    await until("the encoder is gone", lambda: not person.sees("encoder"))


async def test_a_player_sees_and_hears_a_participant(server, room_name, join, gstreamer):
    person = await join("person")
    await person.publish_camera(6)
    await person.publish_tone(900)
    player = await gstreamer.play("player", "person")
    await until("its picture is seen", lambda: player.number() == 6, 40)
    await until("its sound is heard", lambda: close_to(player.hertz(), 900), 40)
    await player.close()
    assert {"ended": 200} in player.told, player.told


async def test_an_encoder_is_seen_by_a_player(gstreamer):
    await gstreamer.encode("encoder", "vp8", 12, 500)
    player = await gstreamer.play("player", "encoder")
    await until("its picture is seen", lambda: player.number() == 12, 40)
    await until("its sound is heard", lambda: close_to(player.hertz(), 500), 40)
