"""Encoders by WHIP (RFC 9725): aiortc in the place of OBS, and every status of the protocol by hand."""

import asyncio
import os
import re
import textwrap

import media
import pytest
from conftest import token, until
from http_media import (
    CANDIDATE, FRAGMENT, PUBLISHES, RESTART, SDP, WATCHES, Client, encoder, some_offer,
)
from livekit import api, rtc
from terrace_server import REPOSITORY

CAMERA, MICROPHONE = rtc.TrackSource.SOURCE_CAMERA, rtc.TrackSource.SOURCE_MICROPHONE


@pytest.fixture
async def hand(server, room_name, clients):
    """A client that says by hand what the tests want; its token lets it publish in this test's room."""
    client = Client(server, token(room_name, "hand"))
    clients.append(client)
    return client


async def number_seen(track):
    stream = rtc.VideoStream(track)
    async for event in stream:
        if (number := media.number_shown(event.frame)) is not None:
            await stream.aclose()
            return number


async def listed(rooms, room):
    found = await rooms.list_participants(api.ListParticipantsRequest(room=room))
    return {participant.identity: participant for participant in found.participants}


async def test_an_encoder_is_seen_and_heard_as_a_participant(server, room_name, join, rooms, clients):
    witness = await join("witness")
    studio = await encoder(server, room_name, "studio", number=9, hertz=700)
    clients.append(studio)
    camera = await witness.track_of("studio", CAMERA)
    microphone = await witness.track_of("studio", MICROPHONE)
    assert await asyncio.wait_for(number_seen(camera), 20) == 9
    assert abs(await asyncio.wait_for(media.first_tone(microphone), 20) - 700) < 20
    participant = (await listed(rooms, room_name))["studio"]
    assert {track.source for track in participant.tracks} == {CAMERA, MICROPHONE}
    assert (await studio.delete()).status == 200
    await until("it is gone", lambda: not witness.sees("studio"))
    assert (await studio.delete()).status == 404


async def test_the_room_service_mutes_and_removes_an_encoder(server, room_name, join, rooms, clients):
    witness = await join("witness")
    studio = await encoder(server, room_name, "studio", number=3)
    clients.append(studio)
    await witness.track_of("studio", CAMERA)
    sid = (await listed(rooms, room_name))["studio"].tracks[0].sid
    await rooms.mute_published_track(
        api.MuteRoomTrackRequest(room=room_name, identity="studio", track_sid=sid, muted=True)
    )
    remote = witness.room.remote_participants["studio"]
    await until("the mute is known", lambda: remote.track_publications[sid].muted)
    await rooms.remove_participant(api.RoomParticipantIdentity(room=room_name, identity="studio"))
    await until("it is gone", lambda: not witness.sees("studio"))
    await until("its media ends", lambda: studio.pc.connectionState in ("closed", "failed", "disconnected"))
    assert (await studio.delete()).status == 404


async def test_an_encoder_whose_media_ends_leaves(server, room_name, join, clients):
    witness = await join("witness")
    studio = await encoder(server, room_name, "studio", number=3)
    clients.append(studio)
    await until("it is there", lambda: witness.sees("studio"))
    await studio.pc.close()
    await until("it is gone", lambda: not witness.sees("studio"))
    assert (await studio.delete()).status == 404


async def test_an_encoder_that_comes_again_takes_its_own_place(server, room_name, join, rooms, clients):
    witness = await join("witness")
    for number in (3, 12):
        clients.append(await encoder(server, room_name, "studio", number=number))
    camera = await witness.track_of("studio", CAMERA)

    async def shows_the_second():
        return await number_seen(camera) == 12

    await asyncio.wait_for(shows_the_second(), 20)
    assert set(await listed(rooms, room_name)) == {"witness", "studio"}
    assert (await clients[0].delete()).status == 404


async def test_a_hidden_encoder_is_named_to_nobody(server, room_name, join, rooms, clients):
    witness = await join("witness")
    clients.append(await encoder(server, room_name, "studio", number=3, grants={"hidden": True}))
    assert "studio" in await listed(rooms, room_name)
    assert not witness.sees("studio")


async def test_data_for_all_does_not_wait_for_an_encoder(server, room_name, join, clients):
    sender = await join("sender")
    studio = await encoder(server, room_name, "studio", number=3)
    clients.append(studio)
    for _ in range(1200):
        await sender.local.publish_data(b"x" * 15_000, reliable=True)
    await asyncio.sleep(1)
    assert sender.sees("studio") and studio.pc.connectionState == "connected"


async def test_ice_is_trickled_and_restarted(server, room_name, join, clients):
    witness = await join("witness")
    studio = await encoder(server, room_name, "studio", number=6)
    clients.append(studio)
    camera = await witness.track_of("studio", CAMERA)
    patch = lambda body, tag: studio.request("PATCH", studio.location, body, FRAGMENT, If_Match=tag)  # noqa: E731
    taken = await patch(CANDIDATE, studio.etag)
    assert taken.status == 204 and "ETag" not in taken.headers
    restarted = await patch(RESTART + CANDIDATE, '"*"')
    assert restarted.status == 200 and restarted.headers["Content-Type"] == FRAGMENT
    fragment = await restarted.text()
    assert "a=ice-lite" in fragment and "a=candidate:" in fragment
    old = [line for line in (await studio.opened.text()).splitlines() if line.startswith("a=ice-ufrag")]
    assert "a=ice-ufrag:" in fragment and old[0] not in fragment.splitlines()
    assert restarted.headers["ETag"] not in (None, studio.etag)
    assert (await patch(CANDIDATE, studio.etag)).status == 412, "the former ICE session"
    assert (await patch(CANDIDATE, restarted.headers["ETag"])).status == 204
    again = await patch(RESTART, "*")
    assert again.status == 204, "the same credentials are the same ICE session"
    # The old path goes on until the client checks the new one.
    assert await asyncio.wait_for(number_seen(camera), 20) == 6


async def test_the_answer_tells_where_and_what(hand, room_name):
    answer = await hand.request("POST", f"/whip/{room_name}", PUBLISHES, SDP)
    text = await answer.text()
    assert answer.status == 201 and answer.headers["Content-Type"] == SDP
    location, etag = answer.headers["Location"], answer.headers["ETag"]
    prefix = f"/whip/{room_name}/"
    assert location.startswith(prefix) and len(location) - len(prefix) >= 22, location
    assert etag.startswith('"') and etag.endswith('"') and len(etag) >= 22
    assert "a=ice-lite" in text and "a=candidate:" in text and text.count("a=recvonly") == 2
    exposed = answer.headers["Access-Control-Expose-Headers"]
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert all(name in exposed for name in ("Location", "Link", "ETag"))
    assert "Link" not in answer.headers
    other = await hand.request("POST", f"/whip/{room_name}", PUBLISHES, SDP)
    assert other.headers["Location"] != location and other.headers["ETag"] != etag


async def test_ice_servers_are_told(room_name, clients):
    from terrace_server import Server

    told = "stun:stun.example.net,turn:turn.example.net?transport=udp user secret"
    server = Server(media__ice_servers=told)
    try:
        client = Client(server, token(room_name, "studio"))
        clients.append(client)
        answer = await client.request("POST", f"/whip/{room_name}", PUBLISHES, SDP)
        assert answer.headers.getall("Link") == [
            '<stun:stun.example.net>; rel="ice-server"',
            '<turn:turn.example.net?transport=udp>; rel="ice-server"; username="user"; credential="secret"; '
            'credential-type="password"',
        ]
    finally:
        server.stop()


@pytest.mark.parametrize("protocol", ["whip", "whep"])
async def test_pages_of_other_origins_may_use_it(hand, room_name, protocol):
    for path, methods in ((f"/{protocol}/{room_name}", "POST"), (f"/{protocol}/{room_name}/x", "PATCH, DELETE")):
        asked = {"Origin": "https://elsewhere.example", "Access_Control_Request_Method": methods.split(",")[0]}
        answer = await hand.request("OPTIONS", path, **asked)
        assert answer.status == 200 and answer.headers["Access-Control-Allow-Origin"] == "*"
        assert methods in answer.headers["Access-Control-Allow-Methods"]
        allowed = answer.headers["Access-Control-Allow-Headers"].lower()
        assert all(name in allowed for name in ("authorization", "content-type", "if-match"))
    answer = await hand.request("OPTIONS", f"/{protocol}/{room_name}")
    assert answer.headers["Accept-Post"] == SDP


GUIDE = (REPOSITORY / "docs/guide/operate.md").read_text()


@pytest.mark.parametrize(("protocol", "offer"), [("whip", PUBLISHES), ("whep", WATCHES)], ids=["whip", "whep"])
async def test_the_command_in_the_guide_opens_a_session(server, room_name, rooms, tmp_path, protocol, offer):
    (line,) = [block for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.S) if f"https://HOST/{protocol}/" in block]
    line = textwrap.dedent(line).replace("https://HOST", server.url).replace("ROOM", room_name)
    (tmp_path / "offer.sdp").write_bytes(offer.encode())
    environment = {**os.environ, "TOKEN": token(room_name, "by-hand")}
    run = await asyncio.create_subprocess_exec(
        "sh", "-c", line, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(20):
        answer = (await run.communicate())[0].decode()
    assert run.returncode == 0 and answer.startswith("HTTP/1.1 201"), answer
    head, body = answer.split("\r\n\r\n", 1)
    assert re.search(rf"^location: /{protocol}/{room_name}/\S+", head, re.M | re.I) and body.startswith("v=0"), answer
    assert list(await listed(rooms, room_name)) == ["by-hand"]


TWO_CAMERAS = some_offer(("video", "sendonly"), ("video", "sendonly"))

OFFERS = {
    "no SDP": (400, "hello"),
    "empty": (400, ""),
    "no m-line": (400, "v=0\r\n"),
    "not text": (400, b"v=0\r\n\xff\xfe"),
    "two cameras": (406, TWO_CAMERAS),
    "a player's": (406, WATCHES),
    "inactive": (406, some_offer(("video", "inactive"))),
    "only data": (406, some_offer(("application", "sendrecv"))),
    "an unknown codec": (406, some_offer(("video", "sendonly", "H261/90000"))),
    "10,000 m-lines": (406, "v=0\r\n" + "m=video 9 X 96\r\n" * 10_000),
    "too long": (413, PUBLISHES + "a=x:" + "x" * 300_000),
    "16 MB": (413, "x" * (16 << 20)),
    "a DTLS server": (422, some_offer(("video", "sendonly"), setup="passive")),
    "a payload type of two codecs": (422, PUBLISHES.replace("97", "96")),
    "no fingerprint": (422, some_offer(("video", "sendonly"), fingerprint=False)),
    "not bundled": (422, some_offer(("video", "sendonly"), ("audio", "sendonly"), bundle="0")),
}


async def is_problem(answer, status):
    """Fails unless the answer is problem details (RFC 9457) with this status, readable by any page."""
    body = await answer.json(content_type="application/problem+json")
    assert answer.status == status, body
    assert body["status"] == status and body["title"] and body["detail"] and body["code"], body
    assert body["type"] == f"urn:terrace:problem:{body['code']}"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    return body


@pytest.mark.parametrize("case", OFFERS)
async def test_an_offer_that_can_not_be_answered_hears_why(hand, room_name, rooms, case):
    status, body = OFFERS[case]
    await is_problem(await hand.request("POST", f"/whip/{room_name}", body, SDP), status)
    await asyncio.sleep(0.2)
    assert await listed(rooms, room_name) == {}


@pytest.mark.parametrize("kind", [None, "text/plain", "application/json", FRAGMENT])
async def test_another_type_is_unsupported(hand, room_name, kind):
    await is_problem(await hand.request("POST", f"/whip/{room_name}", PUBLISHES.encode(), kind), 415)


async def test_who_may_not_hears_so(hand, room_name):
    post = lambda bearer: hand.request("POST", f"/whip/{room_name}", PUBLISHES, SDP, bearer)  # noqa: E731
    answer = await hand.http.post(f"{hand.server.url}/whip/{room_name}", data=PUBLISHES)
    await is_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    for bad in ("nonsense", token(room_name, "x", secret="another secret of at least thirty-two")):
        answer = await post(bad)
        await is_problem(answer, 401)
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    for forbidden in (
        token("another-room", "x"),
        token(room_name, "x", {"room_join": False}),
        token(room_name, "x", {"can_publish": False}),
        token(room_name, "x", {"can_publish_sources": ["microphone"]}),
    ):
        answer = await post(forbidden)
        await is_problem(answer, 403)
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    only_sound = some_offer(("audio", "sendonly"))
    bearer = token(room_name, "x", {"can_publish_sources": ["microphone"]})
    assert (await hand.request("POST", f"/whip/{room_name}", only_sound, SDP, bearer)).status == 201


@pytest.mark.parametrize("protocol", ["whip", "whep"])
async def test_other_methods_are_kept_for_later(hand, room_name, protocol):
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        answer = await hand.request(method, f"/{protocol}/{room_name}")
        assert answer.status == 405 and answer.headers["Allow"] == "POST, OPTIONS", method
    for method in ("GET", "HEAD", "PUT", "POST"):
        answer = await hand.request(method, f"/{protocol}/{room_name}/x")
        assert answer.status == 405 and answer.headers["Allow"] == "PATCH, DELETE, OPTIONS", method
    await is_problem(await hand.request("GET", f"/{protocol}/{room_name}"), 405)


async def test_a_session_is_its_participants_alone(hand, room_name, rooms):
    location = (await hand.request("POST", f"/whip/{room_name}", PUBLISHES, SDP)).headers["Location"]
    for bearer, status in (
        ("", 401),
        (token(room_name, "another"), 403),
        (token("another-room", "hand"), 403),
        (token(room_name, "hand", {"room_admin": True, "room_join": False}), 403),
    ):
        await is_problem(await hand.request("DELETE", location, bearer=bearer), status)
        patched = await hand.request("PATCH", location, CANDIDATE, FRAGMENT, bearer, If_Match="*")
        await is_problem(patched, status)
    await is_problem(await hand.request("DELETE", f"/whip/{room_name}/AAAAAAAAAAAAAAAAAAAAAA"), 404)
    await is_problem(await hand.request("DELETE", location.replace("whip", "whep")), 404)
    assert "hand" in await listed(rooms, room_name)
    # A fresh token of the same participant is as good.
    answer = await hand.request("DELETE", location, bearer=token(room_name, "hand", name="later"), If_Match='"other"')
    assert answer.status == 200
    assert "hand" not in await listed(rooms, room_name)


async def test_a_bad_patch_hears_why_and_changes_nothing(hand, room_name, rooms):
    opened = await hand.request("POST", f"/whip/{room_name}", PUBLISHES, SDP)
    location, etag = opened.headers["Location"], opened.headers["ETag"]
    for body, kind, condition, status in (
        (CANDIDATE, FRAGMENT, None, 428),
        (CANDIDATE, FRAGMENT, '"another"', 412),
        (CANDIDATE, FRAGMENT, f"W/{etag}", 412),
        (CANDIDATE.encode(), SDP, etag, 415),
        (CANDIDATE.encode(), None, etag, 415),
        ("noise", FRAGMENT, etag, 400),
        ("", FRAGMENT, etag, 400),
        (b"\xff\x00\xfe", FRAGMENT, etag, 400),
        ("a=ice-ufrag:ysXw\r\n", FRAGMENT, "*", 400),
        ("a=ice-ufrag:y\r\na=ice-pwd:p\r\n", FRAGMENT, "*", 400),
        ("a=candidate:1\r\n", FRAGMENT, etag, 400),
        (CANDIDATE * 1000, FRAGMENT, etag, 413),
    ):
        headers = {"If_Match": condition} if condition else {}
        await is_problem(await hand.request("PATCH", location, body, kind, **headers), status)
    assert (await hand.request("PATCH", location, CANDIDATE, FRAGMENT, If_Match=f'"x", {etag}')).status == 204
    assert "hand" in await listed(rooms, room_name)


async def test_too_many_patches_are_too_many(hand, room_name):
    opened = await hand.request("POST", f"/whip/{room_name}", PUBLISHES, SDP)
    location, etag = opened.headers["Location"], opened.headers["ETag"]
    found = [
        (await hand.request("PATCH", location, CANDIDATE, FRAGMENT, If_Match=etag)).status for _ in range(80)
    ]
    assert found[:40] == [204] * 40 and found[-1] == 429


async def test_a_client_that_goes_before_its_answer_leaves_nobody(hand, room_name, rooms):
    reader, writer = await asyncio.open_connection("127.0.0.1", hand.server.port)
    head = f"POST /whip/{room_name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {hand.bearer}\r\nContent-Type: {SDP}\r\n"
    writer.write(f"{head}Content-Length: {len(PUBLISHES)}\r\n\r\n{PUBLISHES}".encode())
    await writer.drain()
    writer.transport.abort()
    # Whether it came in and left at once or never came in, nobody stays beyond the bound for joining.
    async with asyncio.timeout(60):
        while await listed(rooms, room_name):
            await asyncio.sleep(0.5)


async def test_a_full_server_says_so(room_name, clients):
    from terrace_server import Server

    for settings, status, code in (
        ({"limits__participants": "1"}, 503, "server_full"),
        ({"limits__sessions_per_address": "1"}, 429, "address_full"),
        ({"limits__participants_per_room": "1"}, 403, "room_full"),
    ):
        server = Server(**settings)
        try:
            for identity, expected in (("first", 201), ("second", status)):
                client = Client(server, token(room_name, identity))
                clients.append(client)
                answer = await client.request("POST", f"/whip/{room_name}", PUBLISHES, SDP)
                if expected == 201:
                    assert answer.status == 201
                else:
                    body = await is_problem(answer, status)
                    assert body["code"] == code
                    assert status == 403 or int(answer.headers["Retry-After"]) > 0
        finally:
            server.stop()
