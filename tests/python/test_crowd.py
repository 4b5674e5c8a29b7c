"""A thousand come within seconds, and nobody is lost or there twice: for the server, and for each of them."""

import asyncio

import pytest
from bad_input import metric, settings
from conftest import until
from crowd import Crowd, processor_time
from livekit import api
from terrace_server import Server

THOUSAND = 1000
WITHIN = 10
"""In how many seconds they come."""

BOUND = 3 * WITHIN
"""How long they may take on a machine that runs the clients too, in seconds."""

ANNOUNCED = 100
"""With more participants than this, who may not publish is counted and not announced."""

VIEWER = {"can_publish": False}


@pytest.fixture
def server():
    """A server that lets one address have all sessions."""
    running = Server(limits__sessions_per_address="0", limits__participants="5000")
    yield running
    running.stop()


async def listed(rooms, room_name):
    answer = await rooms.list_participants(api.ListParticipantsRequest(room=room_name))
    return [info.identity for info in answer.participants]


async def test_a_thousand_join_in_ten_seconds_and_all_know_each_other(server, room_name, rooms, record_property):
    before, cpu = server.resident_memory(), processor_time(server)
    async with Crowd(server, room_name) as crowd:
        took = await crowd.come(THOUSAND, WITHIN)
        assert took < BOUND, f"the last was in after {took:.1f} s"
        everybody = set(crowd.members)
        roster = await listed(rooms, room_name)
        assert len(roster) == THOUSAND and set(roster) == everybody
        for member in crowd.members.values():
            await until(
                f"{member.identity} knows all others",
                lambda: set(member.known) | {member.identity} == everybody and member.count == THOUSAND,
            )
        each = (server.resident_memory() - before) / THOUSAND / 1024
        cpu = processor_time(server) - cpu
        record_property("joined_in_s", round(took, 1))
        record_property("server_cpu_s", round(cpu, 2))
        record_property("kB_each", round(each))
        print(f"{THOUSAND} joined in {took:.1f} s; the server took {cpu:.1f} s of processor time and {each:.0f} kB each")
        assert crowd.faults == [] and crowd.left == []
        assert await metric(server, "joins_total") == THOUSAND
        assert await metric(server, "sessions_slow_total") == 0

        # A tenth leaves, and the rest hears of each.
        going = [crowd.members.pop(f"member-{number}") for number in range(0, THOUSAND, 10)]
        await asyncio.gather(*(member.leave() for member in going))
        everybody -= {member.identity for member in going}
        for member in crowd.members.values():
            await until(f"{member.identity} knows who left", lambda: set(member.known) | {member.identity} == everybody)
        assert crowd.faults == [] and set(await listed(rooms, room_name)) == everybody


async def test_viewers_of_a_crowd_are_counted_and_a_speaker_among_them_is_announced(server, room_name, rooms):
    async with Crowd(server, room_name) as crowd:
        await crowd.come(3, 0, "speaker")
        await crowd.come(300, 2, "viewer", VIEWER)
        await until("all hear the number", lambda: {member.count for member in crowd.members.values()} == {303})
        roster = {identity for member in crowd.members.values() for identity in member.known}
        assert len(roster) <= ANNOUNCED and {f"speaker-{number}" for number in range(3)} <= roster
        for member in crowd.members.values():
            await until(f"{member.identity} knows the announced", lambda: set(member.known) == roster - {member.identity})
        assert len(await listed(rooms, room_name)) == 303, "RoomService knows them all"

        silent = next(identity for identity in crowd.members if identity not in roster)
        permission = api.ParticipantPermission(can_publish=True, can_subscribe=True)
        request = api.UpdateParticipantRequest(room=room_name, identity=silent, permission=permission)
        await rooms.update_participant(request)
        others = [member for identity, member in crowd.members.items() if identity != silent]
        await until("all know who may speak now", lambda: all(silent in member.known for member in others))

        # When few are left, all of them know each other.
        for identity in [identity for identity in crowd.members if identity.startswith("viewer")][:250]:
            await crowd.members.pop(identity).leave()
        everybody = set(crowd.members)
        assert len(everybody) < ANNOUNCED / 2 + 10
        for member in crowd.members.values():
            await until(f"{member.identity} knows all", lambda: set(member.known) | {member.identity} == everybody)
        assert crowd.faults == []


__all__ = ["server", "settings"]
