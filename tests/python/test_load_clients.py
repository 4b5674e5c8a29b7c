"""The load test's clients and another WebRTC implementation, aiortc, in one room."""

import asyncio
import json
import os
import subprocess

import numpy as np
import pytest
from conftest import until
from http_media import encoder, player
from livekit import api
from terrace_server import built

VIEWERS = 4
"""Players of aiortc that watch its encoder."""

MEASURED = 4
"""How long is measured, in seconds."""

REFERENCE = (192, 108)
"""Size in which pictures are compared."""


@pytest.fixture
async def play(server, room_name, tmp_path):
    """Plays a scenario with the generator in the room `room_name`-0; its `report` comes at the end."""
    program = built("load-test", "LOAD_TEST_BIN")
    if program is None:
        pytest.skip('no load-test binary: run "cargo build -p load-tests" first')
    running = []

    async def _play(scenario, seconds):
        process = await asyncio.create_subprocess_exec(
            program, "run", scenario, "--server", server.url, "--rooms", room_name, "--seconds", str(seconds),
            "--out", tmp_path, "--quiet",
        )
        running.append(process)

        async def report():
            assert await process.wait() == 0
            return json.loads((tmp_path / "report.json").read_text())

        return report

    yield _play
    for process in running:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def is_in(rooms, room, identity):
    """Waits until somebody is in the room and sends."""

    async def sends():
        found = await rooms.list_participants(api.ListParticipantsRequest(room=room))
        return any(one.identity == identity and one.tracks for one in found.participants)

    for _ in range(400):
        if await sends():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{identity} did not come")


async def received(client):
    """Packets that a player received and that it missed."""
    stats = [one for one in (await client.pc.getStats()).values() if one.type == "inbound-rtp"]
    return sum(one.packetsReceived for one in stats), sum(one.packetsLost for one in stats)


def quantiles(values):
    return {name: float(np.quantile(values, at)) for name, at in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1))}


async def test_another_implementation_and_the_generator_share_a_room(server, room_name, rooms, clients, play):
    room = f"{room_name}-0"
    report = await play("smoke", MEASURED + 12)
    await is_in(rooms, room, "speaker-0-0")
    clients.append(await encoder(server, room, "studio", number=9, hertz=700))
    watchers, pictures = [], []
    for number in range(VIEWERS):
        begin = asyncio.get_running_loop().time()
        watcher = await player(server, room, f"watcher-{number}", ["studio"])
        clients.append(watcher)
        watchers.append(watcher)
        (place,) = watcher.shown
        await until("it is seen and heard", lambda: place.is_(9, 700))
        pictures.append((asyncio.get_running_loop().time() - begin) * 1000)
    before = [await received(watcher) for watcher in watchers]
    shown = [watcher.shown[0].pictures for watcher in watchers]
    used, sent = server.processor_time(), server.metric("media_datagrams_out_total")
    await asyncio.sleep(MEASURED)
    used, sent = server.processor_time() - used, server.metric("media_datagrams_out_total") - sent
    after = [await received(watcher) for watcher in watchers]
    got = sum(now[0] - then[0] for now, then in zip(after, before))
    lost = sum(now[1] - then[1] for now, then in zip(after, before))
    row = {
        "server": "terrace",
        "scenario": "aiortc",
        "repetition": 1,
        # Of all that is sent in the room: to the generator's clients too.
        "cpu_us_per_packet": used * 1e6 / sent,
        "floor_ratio": None,
        "loss": lost / (got + lost),
        "packets_expected": got + lost,
        "packets_received": got,
        "packets_lost": lost,
        "latency_ms": None,
        "first_keyframe_ms": quantiles(pictures),
        "rss_kb": server.resident_memory() // 1024,
        "cores": used / MEASURED,
    }
    if rows := os.environ.get("AIORTC_ROWS"):
        with open(rows, "a") as file:
            print(json.dumps(row), file=file)
    print(json.dumps(row))
    for watcher, pictures_before in zip(watchers, shown):
        (place,) = watcher.shown
        assert place.is_(9, 700)
        # The encoder makes 15 a second.
        assert place.pictures - pictures_before > MEASURED * 10
    # About 50 of the microphone and at least one for each picture, a second.
    assert got > VIEWERS * MEASURED * 45
    assert row["loss"] < 0.005, row
    total = (await report())["total"]
    # What is not the generator's own is none of its business.
    assert total["expected"] > 0 and total["lost"] == 0 and total["duplicates"] == 0, total


def made_picture():
    """The clip's pictures, small and grey."""
    width, height = REFERENCE
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=30:duration=4"]
        + ["-vf", f"scale={width}:{height}", "-pix_fmt", "gray", "-f", "rawvideo", "-"],
        check=True, capture_output=True,
    )
    return np.frombuffer(raw.stdout, np.uint8).reshape(-1, height, width).astype(np.int16)


async def test_the_generators_clip_is_a_picture_that_others_decode(server, room_name, rooms, clients, play):
    pattern = await asyncio.to_thread(made_picture)
    report = await play("hd-clip", 15)
    await is_in(rooms, f"{room_name}-0", "speaker-0-0")
    watcher = await player(server, f"{room_name}-0", "watcher", ["speaker-0-0"])
    clients.append(watcher)
    (place,) = watcher.shown
    places, nearest, sizes = [], [], set()

    def look(frame):
        sizes.add((frame.width, frame.height))
        width, height = REFERENCE
        small = frame.reformat(width, height, "gray").to_ndarray().astype(np.int16)
        distances = np.abs(pattern - small).mean(axis=(1, 2))
        places.append(int(distances.argmin()))
        nearest.append(distances.min())

    place.look = look
    await until("it has come round", lambda: len(places) > 150)
    assert sizes == {(1920, 1080)}
    assert max(nearest) < 8, nearest
    steps = [(after - before) % len(pattern) for before, after in zip(places, places[1:])]
    # Pictures follow each other; only a request for a keyframe makes it begin again.
    assert sum(step == 1 for step in steps) > len(steps) * 0.9, steps
    total = (await report())["total"]
    assert total["expected"] > 0 and total["lost"] == 0, total
