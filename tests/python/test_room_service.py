"""Every call of the room service, by the official client (protobuf) and once as JSON."""

import asyncio

import aiohttp
import pytest
from conftest import token, until
from livekit import api, rtc
from livekit.protocol.models import DataPacket, ParticipantPermission


async def test_rooms_are_created_listed_and_deleted(rooms, room_name):
    created = await rooms.create_room(api.CreateRoomRequest(name=room_name, metadata="agenda", max_participants=3))
    assert (created.name, created.metadata, created.max_participants) == (room_name, "agenda", 3)
    assert created.sid
    listed = await rooms.list_rooms(api.ListRoomsRequest(names=[room_name]))
    assert [room.sid for room in listed.rooms] == [created.sid]
    await rooms.delete_room(api.DeleteRoomRequest(room=room_name))
    assert not (await rooms.list_rooms(api.ListRoomsRequest(names=[room_name]))).rooms


async def test_deleting_a_room_sends_its_participants_away(rooms, room_name, join):
    person = await join("person")
    await rooms.delete_room(api.DeleteRoomRequest(room=room_name))
    await until("the person is told", lambda: person.disconnected_because is not None)
    assert person.disconnected_because == rtc.DisconnectReason.ROOM_DELETED


async def test_a_full_room_admits_nobody_more(rooms, room_name, join):
    await rooms.create_room(api.CreateRoomRequest(name=room_name, max_participants=1))
    await join("first")
    with pytest.raises(Exception):
        await join("second")


async def test_participants_are_listed_and_got(rooms, room_name, join):
    first = await join("first", name="甲")
    await join("second")
    await first.publish_tone(500)

    async def listed():
        return (await rooms.list_participants(api.ListParticipantsRequest(room=room_name))).participants

    assert sorted(p.identity for p in await listed()) == ["first", "second"]
    for _ in range(100):
        got = await rooms.get_participant(api.RoomParticipantIdentity(room=room_name, identity="first"))
        if got.tracks:
            break
        await asyncio.sleep(0.1)
    assert (got.name, len(got.tracks)) == ("甲", 1)
    with pytest.raises(api.TwirpError) as refusal:
        await rooms.get_participant(api.RoomParticipantIdentity(room=room_name, identity="nobody"))
    assert refusal.value.code == "not_found"


async def test_a_removed_participant_is_told_and_gone(rooms, room_name, join):
    victim, witness = await join("victim"), await join("witness")
    await until("they know each other", lambda: witness.sees("victim"))
    await rooms.remove_participant(api.RoomParticipantIdentity(room=room_name, identity="victim"))
    await until("the removed one is told", lambda: victim.disconnected_because is not None)
    assert victim.disconnected_because == rtc.DisconnectReason.PARTICIPANT_REMOVED
    await until("the others see it", lambda: not witness.sees("victim"))


async def test_an_updated_participant_is_updated_for_all(rooms, room_name, join):
    subject, witness = await join("subject"), await join("witness")
    await until("they know each other", lambda: witness.sees("subject"))
    await rooms.update_participant(
        api.UpdateParticipantRequest(
            room=room_name, identity="subject", name="新名字", metadata="seat 1", attributes={"role": "chair"}
        )
    )
    seen = witness.room.remote_participants["subject"]
    await until("the others see it", lambda: (seen.name, seen.metadata, seen.attributes.get("role")) == ("新名字", "seat 1", "chair"))
    await until("the subject sees it", lambda: subject.local.metadata == "seat 1")


async def test_the_right_to_publish_can_be_taken_away(rooms, room_name, join):
    subject, witness = await join("subject"), await join("witness")
    await subject.publish_tone(500)
    await witness.track_of("subject", rtc.TrackSource.SOURCE_MICROPHONE)
    await rooms.update_participant(
        api.UpdateParticipantRequest(
            room=room_name,
            identity="subject",
            permission=ParticipantPermission(can_subscribe=True, can_publish=False, can_publish_data=True),
        )
    )
    await until("the track is gone", lambda: not witness.tracks)


async def test_a_track_is_muted_by_the_service(rooms, room_name, join):
    subject, witness = await join("subject"), await join("witness")
    publication = await subject.publish_tone(500)
    await witness.track_of("subject", rtc.TrackSource.SOURCE_MICROPHONE)
    await rooms.mute_published_track(
        api.MuteRoomTrackRequest(room=room_name, identity="subject", track_sid=publication.sid, muted=True)
    )
    remote = witness.room.remote_participants["subject"].track_publications[publication.sid]
    await until("the mute is known", lambda: remote.muted)


async def test_subscriptions_are_changed_by_the_service(rooms, room_name, join):
    subject, witness = await join("subject"), await join("witness")
    publication = await subject.publish_tone(500)
    await witness.track_of("subject", rtc.TrackSource.SOURCE_MICROPHONE)

    async def subscribe(wanted):
        await rooms.update_subscriptions(
            api.UpdateSubscriptionsRequest(
                room=room_name, identity="witness", track_sids=[publication.sid], subscribe=wanted
            )
        )

    async def packets_in_a_second():
        # The SDK does not tell its application when the server ends a subscription, so packets are counted.
        async def count():
            track = witness.tracks.get(("subject", rtc.TrackSource.SOURCE_MICROPHONE))
            stats = await track.get_stats() if track else []
            return sum(s.inbound_rtp.received.packets_received for s in stats if s.WhichOneof("stats") == "inbound_rtp")

        before = await count()
        await asyncio.sleep(1)
        return await count() - before

    async def until_packets(flow):
        for _ in range(15):
            if (await packets_in_a_second() > 5) == flow:
                return
        raise AssertionError("packets still flow" if not flow else "no packets flow")

    await until_packets(True)
    await subscribe(False)
    await until_packets(False)
    await subscribe(True)
    await until_packets(True)


async def test_the_service_sends_data_to_all_or_to_some(rooms, room_name, join):
    first, second = await join("first"), await join("second")
    await rooms.send_data(
        api.SendDataRequest(room=room_name, data=b"one", kind=DataPacket.RELIABLE, destination_identities=["first"])
    )
    await rooms.send_data(api.SendDataRequest(room=room_name, data=b"all", kind=DataPacket.RELIABLE, topic="notice"))
    await until("both have what is theirs", lambda: len(first.data) == 2 and second.data)
    assert [packet.data for packet in second.data] == [b"all"]
    assert second.data[0].topic == "notice"


async def test_room_metadata_reaches_those_inside(rooms, room_name, join):
    person = await join("person")
    await rooms.update_room_metadata(api.UpdateRoomMetadataRequest(room=room_name, metadata="second item"))
    await until("it arrives", lambda: person.room.metadata == "second item")


async def test_the_service_speaks_json_too(server, room_name):
    bearer = (
        api.AccessToken("devkey", "secret")
        .with_grants(api.VideoGrants(room_create=True, room_list=True))
        .to_jwt()
    )
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {bearer}"}) as session:
        base = f"{server.url}/twirp/livekit.RoomService"
        async with session.post(f"{base}/CreateRoom", json={"name": room_name, "emptyTimeout": 60}) as answer:
            assert answer.status == 200, await answer.text()
            assert (await answer.json())["name"] == room_name
        async with session.post(f"{base}/ListRooms", json={"names": [room_name]}) as answer:
            assert [room["name"] for room in (await answer.json())["rooms"]] == [room_name]
        async with session.post(f"{base}/NoSuchCall", json={}) as answer:
            assert answer.status == 404
        async with session.post(f"{base}/CreateRoom", data=b"\xff\xff\xff", headers={"Content-Type": "application/protobuf"}) as answer:
            assert answer.status == 400
