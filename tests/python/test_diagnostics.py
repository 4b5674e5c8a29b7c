"""What a participant is sent and why, read over HTTP by who may moderate its room."""

import asyncio

import aiohttp
import pytest
from livekit import rtc

from conftest import PATIENCE, token

ADMIN = {"room_admin": True}


@pytest.fixture
async def diagnostics(server, room_name):
    """Asks for a participant's diagnostics; returns the status and the answer."""
    async with aiohttp.ClientSession() as session:

        async def _diagnostics(identity, grants=ADMIN, room=None):
            url = f"{server.url}/rooms/{room or room_name}/participants/{identity}/diagnostics"
            bearer = {"Authorization": f"Bearer {token(room_name, 'chair', grants)}"}
            async with session.get(url, headers=bearer) as answer:
                return answer.status, await answer.json()

        yield _diagnostics


async def until_told(diagnostics, identity, is_so):
    """Asks until what is said of a participant is so, and returns it."""
    told = None
    for _ in range(PATIENCE * 5):
        status, told = await diagnostics(identity)
        assert status == 200, told
        if is_so(told):
            return told
        await asyncio.sleep(0.2)
    raise AssertionError(f"not told of {identity}, but {told}")


def picture(told):
    return next(iter((told["receives"] or {}).get("pictures", [])), None)


@pytest.mark.parametrize("single_connection", [True, False], ids=["one connection", "two connections"])
async def test_what_is_wanted_sent_and_why_can_be_read(diagnostics, join, single_connection):
    ana = await join("ana", single_connection=single_connection)
    bo = await join("bo", single_connection=single_connection)
    camera = await ana.publish_camera(5, simulcast=True, width=1280, height=720)
    microphone = await ana.publish_tone(500)
    await bo.track_of("ana", rtc.TrackSource.SOURCE_CAMERA)
    await bo.track_of("ana", rtc.TrackSource.SOURCE_MICROPHONE)

    told = await until_told(
        diagnostics, "bo", lambda told: picture(told) and picture(told)["sent"] and told["receives"]["sounds"][0]["sent"]
    )
    assert (told["identity"], told["publishes"]) == ("bo", [])
    seen, heard = picture(told), told["receives"]["sounds"][0]
    assert (seen["track"], seen["publisher"], seen["source"]) == (camera.sid, "ana", "camera")
    assert (heard["track"], heard["source"], heard["reason"]) == (microphone.sid, "microphone", "all")
    assert seen["wanted"]["enabled"] and seen["wanted"]["quality"] == "high"
    prices = [step["bitrate"] for step in seen["steps"]]
    assert prices == sorted(prices) and len(prices) > 1
    assert told["receives"]["processor"] == "all"

    publication = bo.room.remote_participants["ana"].track_publications[camera.sid]
    publication.set_video_quality(rtc.VideoQuality.VIDEO_QUALITY_LOW)

    # The lowest layer may be sent before, while the line is not measured yet.
    def is_low(told):
        seen = picture(told)
        return seen["wanted"]["quality"] == "low" and seen["reason"] == "all"

    seen = picture(await until_told(diagnostics, "bo", is_low))
    assert (seen["steps"][-1]["quality"], seen["given"]["quality"], seen["sent"]["quality"]) == ("low", "low", "low")

    def published(told):
        return {track["source"]: track for track in told["publishes"]}

    told = await until_told(
        diagnostics, "ana", lambda told: (published(told)["camera"]["layers"][0]["bitrate"] or 0) > 10_000
    )
    sent = published(told)
    assert (sent["camera"]["codec"], sent["microphone"]["codec"]) == ("video/VP8", "audio/opus")
    assert (sent["camera"]["wanted"], sent["camera"]["subscribers"]) == ("low", 1)
    low = sent["camera"]["layers"][0]
    assert (low["quality"], low["received"], low["subscribers"]) == ("low", True, 1)

    await ana.local.unpublish_track(microphone.sid)
    await until_told(diagnostics, "bo", lambda told: told["receives"]["sounds"] == [])


async def test_only_who_may_moderate_the_room_may_ask(diagnostics, join):
    await join("ana")
    for grants, room, identity, status, code in [
        ({}, None, "ana", 403, "not_granted"),
        (ADMIN, "another", "ana", 403, "not_granted"),
        (ADMIN, None, "nobody", 404, "no_participant"),
    ]:
        found, problem = await diagnostics(identity, grants, room)
        assert (found, problem["code"]) == (status, code)
