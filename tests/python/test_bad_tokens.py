"""What a token does not grant is refused with words, at every door, and the log says so without the token."""

import base64
import dataclasses
import datetime
import json

import aiohttp
import jwt
import pytest
from bad_input import join_request, raw, refusal, server, settings, undisturbed
from conftest import token, until
from livekit import api
from livekit.protocol import rtc as signal
from terrace_server import DEV_KEY, DEV_SECRET


def unsigned(algorithm="none", signature="", **claims):
    part = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    claims = {"iss": DEV_KEY, "sub": "x", "exp": 4102444800, "video": {"roomJoin": True, "room": "r"}, **claims}
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims)}.{signature}"


def bad_tokens(room):
    good = token(room, "x")
    head, body, signature = good.split(".")
    other = token(f"{room}-next-door", "x").split(".")[1]
    return {
        "expired": (token(room, "x", lifetime=datetime.timedelta(hours=-1)), "has expired"),
        "of another secret": (token(room, "x", secret="another"), "signature is wrong"),
        "of an unknown key": (token(room, "x", key="nobody"), "API key that this server does not have"),
        "unsigned": (unsigned(), "can't be read"),
        "unsigned, in capitals": (unsigned("NONE"), "can't be read"),
        "unsigned, with a signature": (unsigned("none", signature), "can't be read"),
        "with an empty signature": (unsigned("HS256"), "signature is wrong"),
        "of another algorithm": (unsigned("RS256", signature), "can't be read"),
        "of another hash": (unsigned("HS512", signature), "can't be read"),
        "for another room under this signature": (f"{head}.{other}.{signature}", "signature is wrong"),
        "cut short": (good[:-5], "can't be read"),
        "for later": (signed(room, nbf=4102444000), "not valid yet"),
        "without a room": (signed(""), "does not grant joining"),
        "without the right to join": (token(room, "x", {"room_join": False}), "does not grant joining"),
        "without an identity": (signed(room, sub=""), "does not grant an identity"),
        "nothing": ("", "no access token"),
        "noise": ("x" * 15_000, "can't be read"),
        "longer than any": ("x" * 40_000, "can't be read"),
    }


def signed(room, **claims):
    """A rightly signed token that the SDK's own maker would not make."""
    claims = {"iss": DEV_KEY, "sub": "x", "exp": 4102444800, "video": {"roomJoin": True, "room": room}, **claims}
    return jwt.encode(claims, DEV_SECRET, "HS256")


async def test_a_bad_token_is_refused_with_words_at_every_door(server, room_name, undisturbed):
    more = {"/rtc": {}, "/rtc/v1": {"join_request": join_request(signal.JoinRequest())}}
    async with undisturbed(lines=10, logged=[r'WARN .*a client\'s access token was refused error=']):
        for name, (bad, words) in bad_tokens(room_name).items():
            for path, parameters in more.items():
                status, told = await refusal(server, path, access_token=bad, **parameters)
                assert status == 401 and words in told, (name, path, status, told)
                assert not bad or bad not in told
            async with aiohttp.ClientSession() as session:
                url = f"{server.url}/twirp/livekit.RoomService/ListRooms"
                headers = {"Authorization": f"Bearer {bad}"} if bad else {}
                async with session.post(url, json={}, headers=headers) as answer:
                    told = await answer.json()
                    granted = "does not grant" in words
                    expected = (403, "permission_denied") if granted else (401, "unauthenticated")
                    assert (answer.status, told["code"]) == expected, (name, told)


async def test_a_token_for_another_room_reaches_this_one_by_no_name(server, room_name, undisturbed):
    """The room is the token's: what a client writes beside it is not looked at."""
    async with undisturbed() as pair:
        other = f"{room_name}-next-door"
        for more in ({"room": room_name}, {"room_name": room_name}, {"roomName": room_name}):
            async with raw(server, other, "stranger", **more) as stranger:
                assert stranger.join.room.name == other and not stranger.join.other_participants
        assert not pair.receiver.sees("stranger")


CALLS = {
    "CreateRoom": ({"name": "r"}, "room_create"),
    "ListRooms": ({}, "room_list"),
    "DeleteRoom": ({"room": "r"}, "room_create"),
    "ListParticipants": ({"room": "r"}, "room_admin"),
    "GetParticipant": ({"room": "r", "identity": "x"}, "room_admin"),
    "RemoveParticipant": ({"room": "r", "identity": "x"}, "room_admin"),
    "UpdateParticipant": ({"room": "r", "identity": "x", "metadata": "m"}, "room_admin"),
    "MutePublishedTrack": ({"room": "r", "identity": "x", "track_sid": "TR_x", "muted": True}, "room_admin"),
    "UpdateSubscriptions": ({"room": "r", "identity": "x", "track_sids": ["TR_x"]}, "room_admin"),
    "SendData": ({"room": "r", "data": "aGk="}, "room_admin"),
    "UpdateRoomMetadata": ({"room": "r", "metadata": "m"}, "room_admin"),
}

GRANTS = [
    field.name
    for field in dataclasses.fields(api.VideoGrants)
    if field.name not in ("room", "destination_room", "can_publish_sources")
]


async def test_every_call_of_the_service_needs_its_own_grant_and_no_other_stands_in(server, undisturbed):
    refused = r'WARN .*a server API call was refused method="\w+" code="permission_denied" reason="the access token does not grant [^"]+"'
    async with undisturbed(logged=[refused]), aiohttp.ClientSession() as session:

        async def call(name, body, grants, content_type="application/json"):
            access = api.AccessToken(DEV_KEY, DEV_SECRET).with_identity("x").with_grants(api.VideoGrants(**grants)).to_jwt()
            headers = {"Authorization": f"Bearer {access}", "Content-Type": content_type}
            url = f"{server.url}/twirp/livekit.RoomService/{name}"
            async with session.post(url, data=json.dumps(body), headers=headers) as answer:
                return answer.status, (await answer.json()).get("code")

        denied = (403, "permission_denied")
        for name, (body, needed) in CALLS.items():
            for grant in GRANTS:
                if grant != needed:
                    assert await call(name, body, {grant: True, "room": "r"}) == denied, (name, grant)
            # All but the one, and the one for another room or for none.
            others = {grant: True for grant in GRANTS if grant != needed}
            assert await call(name, body, {**others, "room": "r"}) == denied, name
            if needed == "room_admin":
                for room in ("elsewhere", "", "R", "r "):
                    assert await call(name, body, {"room_admin": True, "room": room}) == denied, (name, room)
            status, _ = await call(name, body, {needed: True, "room": "r"})
            assert status not in (401, 403), f"{name} with {needed}: {status}"
            for content_type in ("text/plain", "", "application/xml"):
                status, code = await call(name, body, {needed: True, "room": "r"}, content_type)
                assert (status, code) == (404, "bad_route")


async def test_who_was_removed_comes_back_with_its_token_until_that_expires(server, room_name, undisturbed):
    """As with LiveKit: whoever shall stay out needs a token that ends soon, or a meeting that is closed."""
    async with undisturbed() as pair, api.LiveKitAPI(server.url, DEV_KEY, DEV_SECRET) as service:
        async with raw(server, room_name, "guest") as guest:
            await service.room.remove_participant(api.RoomParticipantIdentity(room=room_name, identity="guest"))
            end = await guest.end()
            assert (end.code, end.reason) == (1000, "it was removed from the room")
            # Its session it can not resume.
            async with raw(server, room_name, "guest", reconnect="1", sid=guest.join.participant.sid) as again:
                assert (await again.end()).reason == "nothing to resume: join anew"
        async with raw(server, room_name, "guest") as guest:
            await guest.still_answers()
            await until("it is seen", lambda: pair.receiver.sees("guest"))


@pytest.mark.parametrize("settings", [{}])
async def test_a_token_that_allows_nothing_allows_nothing(server, room_name, undisturbed, settings):
    nothing = {
        "can_publish": False, "can_subscribe": False, "can_publish_data": False, "can_update_own_metadata": False,
        "hidden": True,
    }
    Reason = signal.RequestResponse.Reason
    async with undisturbed() as pair:
        async with raw(server, room_name, "nobody", nothing) as nobody:
            await nobody.send(add_track=signal.AddTrackRequest(cid="c", type=1, source=1))
            assert (await nobody.receive("request_response")).reason == Reason.NOT_ALLOWED
            await nobody.send(update_metadata=signal.UpdateParticipantMetadata(request_id=1, name="n"))
            assert (await nobody.receive("request_response")).reason == Reason.NOT_ALLOWED
            sids = list(pair.sender.local.track_publications)
            await nobody.send(subscription=signal.UpdateSubscription(track_sids=sids, subscribe=True))
            await nobody.still_answers()
            assert not pair.receiver.sees("nobody")
