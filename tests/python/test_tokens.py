"""Who may join and do what: the server enforces every grant."""

import asyncio
import base64
import datetime
import json

import aiohttp
import pytest
from conftest import token, until
from livekit import api, rtc


async def refused(server, bearer):
    """The status with which each endpoint refuses `bearer`."""
    statuses = []
    async with aiohttp.ClientSession() as session:
        for path in ("/rtc", "/rtc/v1"):
            try:
                async with session.ws_connect(f"{server.socket_url}{path}", params={"access_token": bearer}):
                    statuses.append(101)
            except aiohttp.WSServerHandshakeError as refusal:
                statuses.append(refusal.status)
        for path in ("/rtc/validate",):
            async with session.get(f"{server.url}{path}", params={"access_token": bearer}) as answer:
                assert answer.headers.get("Access-Control-Allow-Origin"), "browsers elsewhere can't read the reason"
                statuses.append(answer.status)
    return set(statuses)


def unsigned(claims, algorithm="none", signature=""):
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims)}.{signature}"


CLAIMS = {"iss": "devkey", "sub": "x", "exp": 4102444800, "video": {"roomJoin": True, "room": "r"}}


async def test_an_expired_token_is_refused(server, room_name):
    assert await refused(server, token(room_name, "x", lifetime=datetime.timedelta(hours=-1))) <= {401}


async def test_a_token_signed_by_another_secret_is_refused(server, room_name):
    assert await refused(server, token(room_name, "x", secret="another")) <= {401}


async def test_a_token_of_an_unknown_key_is_refused(server, room_name):
    assert await refused(server, token(room_name, "x", key="nobody")) <= {401}


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS256"])
async def test_a_token_without_signature_is_refused(server, algorithm):
    assert await refused(server, unsigned(CLAIMS, algorithm)) <= {401}


@pytest.mark.parametrize("garbage", ["", "x", "a.b.c", "." * 3, "e30.e30.e30"])
async def test_what_is_no_token_is_refused(server, garbage):
    assert await refused(server, garbage) <= {400, 401}


async def test_a_token_without_the_right_to_join_is_refused(server, room_name):
    assert await refused(server, token(room_name, "x", {"room_join": False})) <= {401, 403}


async def test_a_token_opens_only_the_room_it_names(join, room_name):
    """The room is the token's; there is no way to name another."""
    inside = await join("inside")
    outside = await join("outside", room=f"{room_name}-next-door")
    await asyncio.sleep(1)
    assert not inside.sees("outside") and not outside.sees("inside")


async def test_who_may_not_publish_does_not(join):
    listener = await join("listener", {"can_publish": False})
    other = await join("other")
    with pytest.raises(Exception):
        await asyncio.wait_for(listener.publish_camera(1), 8)
    await until("they know each other", lambda: other.sees("listener"))
    assert not other.tracks
    assert not other.room.remote_participants["listener"].track_publications


async def test_who_may_publish_only_sound_publishes_no_picture(join):
    speaker = await join("speaker", {"can_publish_sources": ["microphone"]})
    other = await join("other")
    await speaker.publish_tone(500)
    await other.track_of("speaker", rtc.TrackSource.SOURCE_MICROPHONE)
    with pytest.raises(Exception):
        await asyncio.wait_for(speaker.publish_camera(1), 8)
    assert ("speaker", rtc.TrackSource.SOURCE_CAMERA) not in other.tracks


async def test_who_may_not_subscribe_gets_no_track(join):
    sender = await join("sender")
    deaf = await join("deaf", {"can_subscribe": False})
    control = await join("control")
    await sender.publish_tone(600)
    await control.track_of("sender", rtc.TrackSource.SOURCE_MICROPHONE)
    await asyncio.sleep(1)
    assert not deaf.tracks


async def test_who_may_not_send_data_is_not_heard(join):
    mute = await join("mute", {"can_publish_data": False})
    sender = await join("sender")
    receiver = await join("receiver")
    await until("all know each other", lambda: mute.sees("receiver") and sender.sees("receiver"))
    try:
        await asyncio.wait_for(mute.local.publish_data("unheard"), 5)
    except Exception:
        pass  # A client that knows its grant refuses by itself.
    await sender.local.publish_data("heard")
    await until("the permitted message arrives", lambda: receiver.data)
    await asyncio.sleep(0.5)
    assert [packet.data for packet in receiver.data] == [b"heard"]


async def test_a_hidden_participant_is_seen_by_nobody(join):
    watcher = await join("watcher", {"hidden": True})
    other = await join("other")
    await until("the watcher sees the other", lambda: watcher.sees("other"))
    await asyncio.sleep(0.5)
    assert not other.sees("watcher")


async def test_the_second_of_one_identity_takes_the_place_of_the_first(join):
    witness = await join("witness")
    first = await join("same")
    await until("the first is seen", lambda: witness.sees("same"))
    await join("same")
    await until("the first is told", lambda: first.disconnected_because is not None)
    assert first.disconnected_because == rtc.DisconnectReason.DUPLICATE_IDENTITY
    await until("the second is seen", lambda: witness.sees("same"))


@pytest.mark.parametrize("grants", [{}, {"room_join": True, "room": "r"}, {"room_admin": True, "room": "elsewhere"}])
async def test_the_room_service_refuses_who_is_not_its_administrator(server, grants):
    bearer = api.AccessToken("devkey", "secret").with_identity("x").with_grants(api.VideoGrants(**grants)).to_jwt()
    calls = {
        "CreateRoom": {"name": "r"},
        "ListRooms": {},
        "DeleteRoom": {"room": "r"},
        "ListParticipants": {"room": "r"},
        "GetParticipant": {"room": "r", "identity": "x"},
        "RemoveParticipant": {"room": "r", "identity": "x"},
        "UpdateParticipant": {"room": "r", "identity": "x", "metadata": "m"},
        "MutePublishedTrack": {"room": "r", "identity": "x", "track_sid": "TR_x", "muted": True},
        "UpdateSubscriptions": {"room": "r", "identity": "x", "track_sids": ["TR_x"]},
        "SendData": {"room": "r", "data": "aGk="},
        "UpdateRoomMetadata": {"room": "r", "metadata": "m"},
    }
    async with aiohttp.ClientSession() as session:
        for call, body in calls.items():
            for headers in ({}, {"Authorization": f"Bearer {bearer}"}):
                url = f"{server.url}/twirp/livekit.RoomService/{call}"
                async with session.post(url, json=body, headers=headers) as answer:
                    assert answer.status in (401, 403), f"{call} with {headers and grants}: {answer.status}"
