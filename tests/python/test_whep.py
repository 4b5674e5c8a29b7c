"""Players by WHEP: aiortc watches participants of the SDK, each in its place, without a second offer."""

import asyncio

import pytest
from conftest import token, until
from http_media import (
    CANDIDATE, FRAGMENT, PUBLISHES, RESTART, SDP, WATCHES, Client, encoder, player, some_offer,
)
from livekit import api
from test_whip import is_problem, listed

FOUR_LINES = some_offer(*[(kind, "recvonly") for _ in range(2) for kind in ("video", "audio")])


@pytest.fixture
async def hand(server, room_name, clients):
    client = Client(server, token(room_name, "hand"))
    clients.append(client)
    return client


async def shows(place, number, hertz, patience=60):
    # aiortc waits for numbers that a publisher spent on probing, and asks for a keyframe only then.
    await until(
        f"{number} is seen and {hertz} Hz are heard (last {place.number()}, {place.hertz()})",
        lambda: place.is_(number, hertz),
        patience,
    )


async def test_each_participant_has_a_place_in_the_order_asked_for(server, room_name, join, clients):
    for identity, number, hertz in (("ana", 5, 600), ("bo", 10, 900)):
        person = await join(identity)
        await person.publish_camera(number)
        await person.publish_tone(hertz)
    watcher = await player(server, room_name, "watcher", ["bo", "ana"])
    clients.append(watcher)
    await shows(watcher.shown[0], 10, 900)
    await shows(watcher.shown[1], 5, 600)
    answer = await watcher.opened.text()
    assert answer.count("a=sendonly") == 4 and answer.count("a=inactive") == 0
    assert all(f"a=msid:view-{pair} view-{pair}-{kind}" in answer for pair in (0, 1) for kind in ("video", "audio"))


async def test_a_place_waits_for_its_participant_and_outlives_it(server, room_name, join, clients):
    watcher = await player(server, room_name, "watcher", ["late", "never"])
    clients.append(watcher)
    place, empty = watcher.shown
    late = await join("late")
    await late.publish_tone(800)
    await until("the sound comes", lambda: place.hertz() and abs(place.hertz() - 800) < 20)
    assert place.pictures == 0
    camera = await late.publish_camera(7)
    await shows(place, 7, 800)
    await late.local.unpublish_track(camera.sid)
    await asyncio.sleep(0.5)
    before = place.pictures
    await asyncio.sleep(1)
    assert place.pictures == before, "the picture ended"
    await late.publish_camera(12)
    await shows(place, 12, 800)
    await late.leave()
    again = await encoder(server, room_name, "late", number=3, hertz=1200)
    clients.append(again)
    await shows(place, 3, 1200)
    assert empty.pictures == 0 and watcher.pc.connectionState == "connected"


async def test_without_a_list_the_picture_follows_the_speaker_and_holds_in_silence(
    server, room_name, join, rooms, clients
):
    people = {}
    for identity, number, hertz in (("ana", 5, 600), ("bo", 10, 900)):
        people[identity] = await join(identity)
        await people[identity].publish_camera(number)
        people[identity].tone = await people[identity].publish_tone(hertz)
        people[identity].tone.track.mute()
    watcher = await player(server, room_name, "watcher")
    clients.append(watcher)
    (place,) = watcher.shown
    await asyncio.sleep(1)
    assert place.pictures == 0, "nobody has spoken"
    for identity, number, hertz in (("ana", 5, 600), ("bo", 10, 900), ("ana", 5, 600)):
        people[identity].tone.track.unmute()
        await shows(place, number, hertz)
        people[identity].tone.track.mute()
        await asyncio.sleep(3)
        assert place.number() == number, "the last speaker stays while nobody speaks"


async def test_a_player_is_a_participant_and_hidden_if_its_token_says_so(server, room_name, join, rooms, clients):
    witness = await join("witness")
    shown = await player(server, room_name, "shown", ["witness"])
    hidden = await player(server, room_name, "hidden", ["witness"], {"hidden": True})
    clients += [shown, hidden]
    await until("one is there", lambda: witness.sees("shown"))
    assert not witness.sees("hidden")
    assert {"witness", "shown", "hidden"} == set(await listed(rooms, room_name))
    assert (await shown.delete()).status == 200
    await until("it is gone", lambda: not witness.sees("shown"))
    await rooms.remove_participant(api.RoomParticipantIdentity(room=room_name, identity="hidden"))
    assert (await hidden.delete()).status == 404


async def test_a_player_that_may_no_longer_watch_sees_nothing(server, room_name, rooms, clients):
    clients.append(await encoder(server, room_name, "person", number=5))
    watcher = await player(server, room_name, "watcher", ["person"])
    clients.append(watcher)
    (place,) = watcher.shown
    await until("it sees", lambda: place.number() == 5)

    async def let(may):
        permission = api.ParticipantPermission(can_subscribe=may, can_publish=False)
        await rooms.update_participant(
            api.UpdateParticipantRequest(room=room_name, identity="watcher", permission=permission)
        )

    await let(False)
    await asyncio.sleep(0.5)
    before = place.pictures
    await asyncio.sleep(1)
    assert place.pictures == before
    await let(True)
    await until("it sees again", lambda: place.pictures > before + 5)


async def test_ice_is_restarted_and_the_picture_goes_on(server, room_name, clients):
    clients.append(await encoder(server, room_name, "person", number=5))
    watcher = await player(server, room_name, "watcher", ["person"])
    clients.append(watcher)
    (place,) = watcher.shown
    await until("it sees", lambda: place.number() == 5)
    patch = lambda body, tag: watcher.request("PATCH", watcher.location, body, FRAGMENT, If_Match=tag)  # noqa: E731
    assert (await patch(CANDIDATE, watcher.etag)).status == 204
    restarted = await patch(RESTART, "*")
    assert restarted.status == 200 and "a=ice-pwd:" in await restarted.text()
    assert (await patch(CANDIDATE, watcher.etag)).status == 412
    before = place.pictures
    await until("the picture goes on", lambda: place.pictures > before + 20)


OFFERS = {
    "no SDP": (400, "", "hello"),
    "a name twice": (400, "?participants=a,a", FOUR_LINES),
    "an empty name": (400, "?participants=a,", FOUR_LINES),
    "too many names": (400, "?participants=" + ",".join(map(str, range(65))), WATCHES),
    "an encoder's": (406, "", PUBLISHES),
    "too few m-lines": (406, "?participants=a,b", WATCHES),
    "too many m-lines": (406, "", FOUR_LINES),
    "10,000 m-lines": (406, "", "v=0\r\n" + "m=video 9 X 96\r\n" * 10_000),
    "an unknown codec": (406, "", some_offer(("video", "recvonly", "H261/90000"))),
    "16 MB": (413, "", "x" * (16 << 20)),
    "a payload type of two codecs": (422, "", WATCHES.replace("97", "96")),
    "a DTLS server": (422, "", some_offer(("video", "recvonly"), setup="passive")),
}


@pytest.mark.parametrize("case", OFFERS)
async def test_an_offer_that_can_not_be_answered_hears_why(hand, room_name, rooms, case):
    status, query, body = OFFERS[case]
    await is_problem(await hand.request("POST", f"/whep/{room_name}{query}", body, SDP), status)
    await asyncio.sleep(0.2)
    assert await listed(rooms, room_name) == {}


async def test_only_pictures_or_only_sound_may_be_watched(hand, room_name):
    for line in (("video", "recvonly"), ("audio", "sendrecv")):
        answer = await hand.request("POST", f"/whep/{room_name}", some_offer(line), SDP)
        assert answer.status == 201 and "a=sendonly" in await answer.text()


async def test_who_may_not_watch_hears_so(hand, room_name):
    post = lambda bearer, kind=SDP: hand.request("POST", f"/whep/{room_name}", WATCHES, kind, bearer)  # noqa: E731
    await is_problem(await post("nonsense"), 401)
    await is_problem(await post(token(room_name, "x", {"can_subscribe": False})), 403)
    await is_problem(await post(token("another-room", "x")), 403)
    await is_problem(await post(token(room_name, "x"), "text/plain"), 415)


async def test_a_players_session_is_its_participants_alone(hand, room_name):
    opened = await hand.request("POST", f"/whep/{room_name}", WATCHES, SDP)
    location = opened.headers["Location"]
    await is_problem(await hand.request("DELETE", location, bearer=token(room_name, "another")), 403)
    await is_problem(await hand.request("PATCH", location, CANDIDATE, FRAGMENT), 428)
    await is_problem(await hand.request("DELETE", location.replace("whep", "whip")), 404)
    assert (await hand.request("DELETE", location)).status == 200
