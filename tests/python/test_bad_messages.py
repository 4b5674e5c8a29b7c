"""Bad input on the WebSocket costs its message or its connection, which hears why; the others feel nothing."""

import asyncio
import gzip
import random

import aiohttp
import pytest
from bad_input import (
    MEGABYTE, case, join_request, metric, raw, refusal, server, settings, short_lines, shove, some_sdp, undisturbed,
)
from conftest import token, until
from livekit.protocol import models, rtc as signal

MESSAGE_BOUND = MEGABYTE
"""The server's own bound of one message."""

Reason = signal.RequestResponse.Reason

BROKEN = r'WARN .*a client broke the protocol: its session was ended room="room-\w+" participant="bad" reason="[^"]+"'


NONSENSE = {
    "truncated": signal.SignalRequest(add_track=signal.AddTrackRequest(cid="x" * 50)).SerializeToString()[:-7],
    "wrong wire types": b"\x0d\x00\x00\x00\x00\x0b\x0c",
    "length beyond the end": b"\x0a\xff\xff\xff\xff\x0f",
    "noise": random.Random(4).randbytes(4096),
    "nearly the longest noise": random.Random(5).randbytes(MESSAGE_BOUND),
    "not UTF-8 where text must be": b"\x22\x04\x0a\x02\xff\xfe",
}


async def test_what_is_no_message_ends_its_session_with_the_reason(server, room_name, undisturbed):
    async with undisturbed(logged=[BROKEN]):
        for kind, message in NONSENSE.items():
            with case(kind):
                async with raw(server, room_name, "bad") as bad:
                    await shove(bad.socket.send_bytes(message))
                    await bad.is_refused(1007, "not a SignalRequest")


UNKNOWN = {"empty": b"", "unknown fields": b"\xfa\x7f\x05hello" + b"\xf8\x7f\x01"}


async def test_a_message_of_a_newer_protocol_is_let_be(server, room_name, undisturbed):
    async with undisturbed():
        async with raw(server, room_name, "newer") as newer:
            for kind, message in UNKNOWN.items():
                with case(kind):
                    for _ in range(20):
                        await newer.socket.send_bytes(message)
                    await newer.still_answers()


async def test_text_is_not_spoken(server, room_name, undisturbed):
    async with undisturbed(logged=[BROKEN]):
        async with raw(server, room_name, "bad") as bad:
            await bad.socket.send_str('{"this is": "no protobuf"}')
            await bad.is_refused(1003, "binary protobuf")


async def test_what_is_no_websocket_frame_ends_the_connection(server, room_name, undisturbed):
    async with undisturbed(logged=[BROKEN]):
        async with raw(server, room_name, "bad") as bad:
            # Reserved bits set, an opcode that is none, and no mask (RFC 6455 5.2).
            bad.socket._writer.transport.write(b"\x7b\x05hello")
            await bad.is_refused(1002, "not a WebSocket frame")


MONSTERS = {
    "16 MB": (lambda: some_sdp(1, 16 << 20), 1009, f"over {MESSAGE_BOUND} bytes"),
    "16 MB of m-lines": (lambda: short_lines(1 << 20), 1009, f"over {MESSAGE_BOUND} bytes"),
    "10,000 m-lines, well-formed": (lambda: some_sdp(10_000), 1009, f"over {MESSAGE_BOUND} bytes"),
    "10,000 m-lines, short": (lambda: short_lines(10_000), 1008, "over 256 m-lines"),
    "257 m-lines": (lambda: some_sdp(257), 1008, "over 256 m-lines"),
    "a line over the bound": (lambda: some_sdp(1, 300_000), 1008, "over 262144 bytes"),
}


@pytest.mark.parametrize("kind", ["offer", "answer"])
async def test_a_monstrous_description_is_refused_soon_and_clearly(server, room_name, undisturbed, kind):
    # Nothing of 16 MB is kept but the bound of one message.
    async with undisturbed(memory=8 * MEGABYTE, logged=[BROKEN]):
        for monster, (make, code, reason) in MONSTERS.items():
            sdp = make()
            with case(monster):
                async with raw(server, room_name, "bad") as bad:
                    sending = asyncio.create_task(
                        shove(bad.send(**{kind: signal.SessionDescription(type=kind, sdp=sdp, id=1)}))
                    )
                    await bad.is_refused(code, reason)
                    sending.cancel()


SENSELESS = {"noise": "v=0\r\n" + "\x00ÿ" * 1000, "nothing": "", "only a version": "v=0\r\n", "a secret": "v=0\r\na=ice-pwd:eyJabc"}


async def test_a_senseless_offer_calls_for_a_fresh_start(server, room_name, undisturbed):
    async with undisturbed() as pair:
        at = len(server.log_lines())
        for kind, sdp in SENSELESS.items():
            with case(kind):
                async with raw(server, room_name, "bad") as bad:
                    await bad.send(offer=signal.SessionDescription(type="offer", sdp=sdp, id=1))
                    end = await bad.is_refused(1008, "session description refused")
                    assert end.leave.action == signal.LeaveRequest.RECONNECT
                    assert "answer" not in end.kinds
                    assert pair.receiver.disconnected_because is None
        refused = [line for line in server.log_lines()[at:] if "a session description was refused" in line]
        assert 1 <= len(refused) <= 5 and all('participant="bad" reason="' in line for line in refused)


async def test_answers_and_candidates_nobody_asked_for_are_harmless(server, room_name, undisturbed):
    async with undisturbed():
        async with raw(server, room_name, "odd") as odd:
            for sdp in ("", "v=0", some_sdp(2)):
                await odd.send(answer=signal.SessionDescription(type="answer", sdp=sdp, id=77))
                for target in (0, 1, 9):
                    for candidate in ("{", "null", '{"candidate": 1}', '{"candidate": "candidate:x"}', "x" * 100_000):
                        await odd.send(trickle=signal.TrickleRequest(candidateInit=candidate, target=target))
                await odd.send(mute=signal.MuteTrackRequest(sid="TR_nobody", muted=True))
                await odd.send(subscription=signal.UpdateSubscription(track_sids=["TR_nobody"] * 20_000, subscribe=True))
                await odd.send(track_setting=signal.UpdateTrackSettings(track_sids=["TR_nobody"] * 20_000, width=1 << 31))
            await odd.still_answers()


GZIPPED = {
    "a bomb of 32 MB": (lambda: join_request(packed=gzip.compress(b"\x00" * (32 << 20), 9)), "is too long"),
    "a bomb in a bomb": (
        lambda: join_request(packed=gzip.compress(gzip.compress(b"\x00" * (1 << 30), 1), 9)), "is too long"
    ),
    "16 MB of SDP": (lambda: joining(some_sdp(1, 16 << 20)), "is too long"),
    "10,000 m-lines": (lambda: joining(short_lines(10_000)), "over 256 m-lines"),
    "a long line": (lambda: joining(some_sdp(1, 300_000)), "over 262144 bytes"),
    "a megabyte of metadata": (lambda: join_request(signal.JoinRequest(metadata="x" * 1_000_000)), "too much metadata"),
    "half a megabyte of attributes": (
        lambda: join_request(signal.JoinRequest(participant_attributes={str(n): "x" * 1000 for n in range(500)})),
        "too much metadata",
    ),
    "a thousand tracks": (
        lambda: join_request(signal.JoinRequest(add_track_requests=[signal.AddTrackRequest(cid=str(n)) for n in range(1000)])),
        "too many tracks",
    ),
    "noise": (lambda: join_request(packed=b"\x1f\x8b" + random.Random(3).randbytes(2000)), "is not gzip"),
    "no base64": (lambda: "!" * 1000, "is not base64"),
    "nothing": (lambda: "", "is missing"),
}


def joining(sdp):
    return join_request(signal.JoinRequest(publisher_offer=signal.SessionDescription(type="offer", sdp=sdp)))


async def test_a_compressed_join_that_is_not_what_it_seems_is_refused(server, room_name, undisturbed):
    """The newer endpoint takes its first offer gzip'd in the address: a small address may unpack to anything."""
    made = {what: (make(), reason) for what, (make, reason) in GZIPPED.items()}
    access = token(room_name, "bad")
    async with undisturbed(memory=6 * MEGABYTE, logged=[r'WARN .*a client\'s join was refused reason="[^"]+"']):
        for what, (request, reason) in made.items():
            with case(what):
                for _ in range(5):
                    status, words = await refusal(server, "/rtc/v1", access_token=access, join_request=request)
                    assert (status, words.startswith("join_request: ")) == (400, True) and reason in words, (status, words)


async def test_an_endless_address_is_refused(server, room_name, undisturbed):
    async with undisturbed(memory=4 * MEGABYTE):
        async with aiohttp.ClientSession() as session:
            parameters = {"access_token": token(room_name, "bad"), "join_request": "A" * 200_000}
            async with session.get(f"{server.url}/rtc/v1/validate", params=parameters) as answer:
                assert answer.status == 414


IDENTITIES = {
    "a line break": "a\nb",
    "a nul": "a\0b",
    "an escape": "\x1b[2Ja",
    "right-to-left": "a\u202ebc",
    "10 kB": "x" * 10_000,
    "257 bytes": "花" * 85 + "xx",
}


async def test_an_identity_name_or_room_that_lies_is_refused(server, room_name, undisturbed):
    async with undisturbed(logged=[r"WARN .*a client's join was refused reason=\"the token's identity, name"]):
        for what, bad in IDENTITIES.items():
            for field in ("identity", "room", "name"):
                access = token(
                    bad if field == "room" else room_name,
                    bad if field == "identity" else "bad",
                    name=bad if field == "name" else "x",
                )
                with case((what, field)):
                    for path, more in (("/rtc", {}), ("/rtc/v1", {"join_request": join_request(signal.JoinRequest())})):
                        status, words = await refusal(server, path, access_token=access, **more)
                        assert status == 400, (status, words)
                        assert "control characters" in words or "too long" in words, words


async def test_an_identity_of_letters_far_away_is_fine(server, room_name):
    async with raw(server, room_name, "王 主任 👍") as fine:
        assert fine.join.participant.identity == "王 主任 👍"


TEXTS = {
    "metadata": dict(metadata="x" * 900_000),
    "a name": dict(name="x" * 900_000),
    "one attribute": dict(attributes={"a": "x" * 900_000}),
    "attributes": dict(attributes={str(n): "x" * 100 for n in range(5000)}),
    "an attribute's name": dict(attributes={"x" * 900_000: "a"}),
    "a name with a line break": dict(name="a\nb"),
}


async def test_metadata_of_a_megabyte_is_answered_with_the_limit(server, room_name, undisturbed):
    refused = r'WARN .*metadata, a name or attributes were refused room="room-\w+" participant="bad" reason="[^"]+"'
    async with undisturbed(logged=[refused]) as pair:
        async with raw(server, room_name, "bad") as bad:
            for what, texts in TEXTS.items():
                with case(what):
                    await bad.send(update_metadata=signal.UpdateParticipantMetadata(request_id=7, **texts))
                    answer = await bad.receive("request_response")
                    expected = Reason.INVALID_REQUEST if "line break" in what else Reason.LIMIT_EXCEEDED
                    assert (answer.request_id, answer.reason) == (7, expected) and answer.message
                    assert answer.ByteSize() < 5000, "the answer repeats the request"
            await until("the others see it", lambda: pair.receiver.sees("bad"))
            seen = pair.receiver.room.remote_participants["bad"]
            assert (seen.metadata, seen.name, seen.attributes) == ("", "bad", {})
            await bad.still_answers()


async def test_more_metadata_than_a_message_may_have_ends_its_session(server, room_name, undisturbed):
    async with undisturbed(logged=[BROKEN]):
        async with raw(server, room_name, "bad") as bad:
            request = signal.UpdateParticipantMetadata(metadata="x" * (8 << 20))
            sending = asyncio.create_task(shove(bad.send(update_metadata=request)))
            await bad.is_refused(1009, f"over {MESSAGE_BOUND} bytes")
            sending.cancel()


async def test_who_may_not_change_its_metadata_does_not(server, room_name, undisturbed):
    async with undisturbed() as pair:
        async with raw(server, room_name, "bad", {"can_update_own_metadata": False}) as bad:
            await bad.send(update_metadata=signal.UpdateParticipantMetadata(request_id=5, metadata="m", name="n"))
            answer = await bad.receive("request_response")
            assert (answer.request_id, answer.reason) == (5, Reason.NOT_ALLOWED)
            await until("the others see it", lambda: pair.receiver.sees("bad"))
            assert pair.receiver.room.remote_participants["bad"].metadata == ""


async def test_few_cannot_fill_a_room_with_text_until_nobody_can_join(server, room_name, undisturbed, join):
    """Everybody who comes is told what everybody says of itself, in one message."""
    async with undisturbed(memory=40 * MEGABYTE, lines=150):
        async with asyncio.TaskGroup() as group:
            go, fillers = asyncio.Event(), 30

            async def fill(number):
                async with raw(server, room_name, f"filler-{number}") as filler:
                    request = signal.UpdateParticipantMetadata(
                        request_id=1, metadata="x" * 64_000, attributes={"a": "x" * 64_000}
                    )
                    await filler.send(update_metadata=request)
                    await filler.receive("request_response", 20)
                    nonlocal fillers
                    fillers -= 1
                    reading = asyncio.create_task(filler.end(60))
                    await go.wait()
                    reading.cancel()

            for number in range(fillers):
                group.create_task(fill(number))
            await until("all have said much", lambda: fillers == 0, 30)
            async with raw(server, room_name, "late") as late:
                assert len(late.join.other_participants) == 32
                assert late.join.ByteSize() < 1.5 * MEGABYTE
            sdk = await join("late-sdk")
            assert len(sdk.room.remote_participants) >= 32
            go.set()


async def test_quick_changes_of_one_reach_the_others_at_leisure(server, room_name, undisturbed):
    """Who changes its metadata a thousand times at once must not make others lose their sessions by it."""
    async with undisturbed(lines=60) as pair:
        async with raw(server, room_name, "hasty") as hasty, raw(server, room_name, "witness") as witness:
            reading = asyncio.create_task(hasty.end(60))
            heard = []

            async def listen():
                while True:
                    for info in (await witness.receive("update", 60)).participants:
                        if info.identity == "hasty":
                            heard.append(info)

            listening = asyncio.create_task(listen())
            for number in range(1000):
                await hasty.send(
                    update_metadata=signal.UpdateParticipantMetadata(metadata=f"{number} " + "x" * 6_000)
                )
            await until("the last is told", lambda: heard and heard[-1].metadata.startswith("999 "), 40)
            assert sum(info.ByteSize() for info in heard) < 4 * MEGABYTE
            seen = pair.receiver.room.remote_participants["hasty"]
            await until("the SDK has it too", lambda: seen.metadata.startswith("999 "))
            reading.cancel(), listening.cancel()


FLOODS = {
    "AddTrack requests": lambda n: dict(
        add_track=signal.AddTrackRequest(cid=f"track-{n}", name="x" * 200, type=models.TrackType.VIDEO, width=640, height=360)
    ),
    "subscription updates": lambda n: dict(
        subscription=signal.UpdateSubscription(track_sids=[f"TR_{n}"], subscribe=bool(n % 2))
    ),
    "pings": lambda n: dict(ping_req=signal.Ping(timestamp=n)),
    "mutes": lambda n: dict(mute=signal.MuteTrackRequest(sid="TR_x", muted=bool(n % 2))),
    "permissions": lambda n: dict(
        subscription_permission=signal.SubscriptionPermission(all_participants=bool(n % 2))
    ),
    "states": lambda n: dict(sync_state=signal.SyncState(track_sids_disabled=[f"TR_{n}"])),
    "settings": lambda n: dict(track_setting=signal.UpdateTrackSettings(track_sids=[f"TR_{n}"], width=n)),
}


async def test_ten_thousand_messages_at_once_end_their_session(server, room_name, undisturbed):
    async with undisturbed(memory=16 * MEGABYTE, lines=80, logged=[BROKEN]):
        for what, make in FLOODS.items():
            with case(what):
                async with raw(server, room_name, "bad") as bad:
                    ending = asyncio.create_task(bad.is_refused(1008, "too many messages", patience=30))

                    async def flood():
                        for number in range(10_000):
                            await bad.send(**make(number))

                    await shove(flood())
                    end = await ending
                    # Each is answered or done until there are too many, and what is kept of them is bounded.
                    assert end.kinds.count("track_published") <= 32


async def test_a_flood_of_websocket_pings_ends_its_session(server, room_name, undisturbed):
    async with undisturbed(logged=[BROKEN]):
        async with raw(server, room_name, "bad") as bad:
            ending = asyncio.create_task(bad.is_refused(1008, "too many messages", patience=30))

            async def flood():
                for _ in range(10_000):
                    await bad.socket.ping(b"x" * 125)

            await shove(flood())
            await ending


async def test_more_bytes_than_anybody_has_to_say_end_their_session(server, room_name, undisturbed):
    async with undisturbed(memory=16 * MEGABYTE, logged=[BROKEN]):
        async with raw(server, room_name, "bad") as bad:
            ending = asyncio.create_task(bad.is_refused(1008, "too many messages", patience=30))

            async def flood():
                for _ in range(100):
                    await bad.send(trickle=signal.TrickleRequest(candidateInit="x" * 500_000))

            await shove(flood())
            await ending


async def test_the_thirty_third_track_is_refused_and_the_others_are_kept(server, room_name, undisturbed):
    logged = [r'WARN .*publishing was refused room="room-\w+" participant="bad" reason="too many tracks" suppressed=0']
    async with undisturbed(logged=logged):
        async with raw(server, room_name, "bad") as bad:
            for number in range(200):
                await bad.send(
                    add_track=signal.AddTrackRequest(cid=f"track-{number}", type=models.TrackType.VIDEO, width=640, height=360)
                )
                kind = "track_published" if number < 32 else "request_response"
                answer = await bad.receive(kind)
                if number >= 32:
                    assert answer.reason == Reason.LIMIT_EXCEEDED and answer.add_track.cid == f"track-{number}"
            await bad.still_answers()


async def test_two_of_one_identity_in_a_fast_loop_take_turns(server, room_name, undisturbed):
    async with undisturbed(lines=1000) as pair:
        before = len(server.log_lines())
        ends = []
        for number in range(150):
            async with aiohttp.ClientSession() as session:
                parameters = {"access_token": token(room_name, "twin"), "protocol": "16"}
                opened = await session.ws_connect(f"{server.socket_url}/rtc", params=parameters)
                ends.append(opened)
                if number % 10 == 9:
                    await opened.receive(timeout=5)
        async with raw(server, room_name, "twin") as last:
            await last.still_answers()
            twins = [p for p in pair.receiver.room.remote_participants.values() if p.identity == "twin"]
            assert len(twins) <= 1
        assert await metric(server, "participants") <= 3
        assert len(server.log_lines()) - before < 650, "two hundred openings and closings are worth their lines"


async def test_the_first_of_one_identity_is_told_why_it_ends(server, room_name, undisturbed):
    async with undisturbed():
        async with raw(server, room_name, "twin") as first, raw(server, room_name, "twin") as second:
            end = await first.is_refused(1000, "somebody with the same identity came", models.DisconnectReason.DUPLICATE_IDENTITY)
            assert end.leave.action == signal.LeaveRequest.DISCONNECT
            await second.still_answers()


async def test_nobody_resumes_the_session_of_another(server, room_name, undisturbed):
    async with undisturbed() as pair:
        async with raw(server, room_name, "victim") as victim:
            sid = victim.join.participant.sid
            foreign = [
                (room_name, "thief", sid),
                (f"{room_name}-next-door", "victim", sid),
                (room_name, "victim", "PA_made_up"),
                (room_name, "victim", ""),
                (room_name, "thief", "x" * 10_000),
                (room_name, "thief", pair.sender.local.sid),
            ]
            for room, identity, wanted in foreign:
                for path in ("/rtc", "/rtc/v1"):
                    async with aiohttp.ClientSession() as session:
                        parameters = {"access_token": token(room, identity)}
                        if path == "/rtc":
                            parameters |= {"reconnect": "1", "sid": wanted}
                        else:
                            parameters["join_request"] = join_request(
                                signal.JoinRequest(reconnect=True, participant_sid=wanted)
                            )
                        async with session.ws_connect(f"{server.socket_url}{path}", params=parameters) as opened:
                            message = await opened.receive(timeout=5)
                            response = signal.SignalResponse.FromString(message.data)
                            assert response.WhichOneof("message") == "leave", response
                            assert response.leave.reason == models.DisconnectReason.STATE_MISMATCH
                            message = await opened.receive(timeout=5)
                            assert (message.data, message.extra) == (1000, "nothing to resume: join anew")
            await victim.still_answers()
            # Its own session it may resume, and the WebSocket before hears so.
            async with raw(server, room_name, "victim", reconnect="1", sid=sid) as again:
                await again.receive("reconnect")
                end = await victim.end()
                assert (end.code, end.reason) == (1000, "resumed by another connection")
                await again.still_answers()


async def test_a_state_that_is_nonsense_calls_for_a_fresh_start(server, room_name, undisturbed):
    states = [
        signal.SyncState(publish_tracks=[signal.TrackPublishedResponse(cid="x", track=models.TrackInfo(sid="TR_x"))]),
        signal.SyncState(
            publish_tracks=[signal.TrackPublishedResponse(track=models.TrackInfo(sid=f"TR_{n}")) for n in range(10_000)],
            track_sids_disabled=["TR_y"] * 10_000,
            subscription=signal.UpdateSubscription(track_sids=["TR_z"] * 10_000),
        ),
    ]
    async with undisturbed():
        for state in states:
            async with raw(server, room_name, "bad") as bad:
                await bad.send(sync_state=state)
                end = await bad.end()
                assert end.leave.action == signal.LeaveRequest.RECONNECT, end
                assert end.leave.reason == models.DisconnectReason.STATE_MISMATCH
        async with raw(server, room_name, "odd") as odd:
            # Tracks of others that are not there, an answer to nothing, channels that never were.
            await odd.send(
                sync_state=signal.SyncState(
                    answer=signal.SessionDescription(type="answer", sdp="x" * 100_000),
                    offer=signal.SessionDescription(type="?", sdp="x"),
                    track_sids_disabled=["TR_nobody"] * 50_000,
                    data_channels=[signal.DataChannelInfo(label="x" * 100, id=n) for n in range(1000)],
                )
            )
            await odd.still_answers()


async def test_the_right_to_publish_is_asked_for_every_source(server, room_name, undisturbed):
    kinds = {
        "camera": (models.TrackSource.CAMERA, models.TrackType.VIDEO),
        "microphone": (models.TrackSource.MICROPHONE, models.TrackType.AUDIO),
        "screen_share": (models.TrackSource.SCREEN_SHARE, models.TrackType.VIDEO),
        "screen_share_audio": (models.TrackSource.SCREEN_SHARE_AUDIO, models.TrackType.AUDIO),
    }
    grants = [({"can_publish": False}, set()), ({"can_publish_sources": ["hologram"]}, set()), ({}, {*kinds, "unknown"})]
    grants += [({"can_publish_sources": [name]}, {name}) for name in kinds]
    logged = [r'WARN .*publishing was refused room="room-\w+" participant="bad" reason="does not have permission[^"]*" suppressed=0']
    async with undisturbed(logged=logged, lines=80) as pair:
        for grant, allowed in grants:
            async with raw(server, room_name, "bad", grant) as bad:
                for name, (source, kind) in {**kinds, "unknown": (models.TrackSource.UNKNOWN, models.TrackType.VIDEO)}.items():
                    await bad.send(add_track=signal.AddTrackRequest(cid=f"c-{name}", source=source, type=kind))
                    if name in allowed:
                        published = await bad.receive("track_published")
                        assert (published.cid, published.track.source) == (f"c-{name}", source)
                    else:
                        answer = await bad.receive("request_response")
                        assert (answer.reason, answer.add_track.cid) == (Reason.NOT_ALLOWED, f"c-{name}"), (grant, name)
                        assert "permission to publish" in answer.message
                # A picture that calls itself a microphone is refused whatever is granted.
                for source, kind in [(s, models.TrackType.AUDIO if k else models.TrackType.VIDEO) for s, k in kinds.values()]:
                    await bad.send(add_track=signal.AddTrackRequest(cid="lie", source=source, type=kind))
                    answer = await bad.receive("request_response")
                    assert answer.reason in (Reason.NOT_ALLOWED, Reason.INVALID_REQUEST)
        assert not pair.receiver.sees("bad") or not pair.receiver.room.remote_participants["bad"].track_publications
