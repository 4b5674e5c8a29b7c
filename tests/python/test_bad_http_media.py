"""Bad encoders and players cost themselves: a healthy pair in the room feels nothing, memory and log stay bounded."""

import asyncio

import aiohttp
import pytest
from bad_input import MEGABYTE, case, metric, metric_is, server, settings, shove, undisturbed
from conftest import token
from http_media import CANDIDATE, FRAGMENT, PUBLISHES, SDP, WATCHES, Client


async def flood(client, times, at_once, *request, **headers):
    """Statuses of many requests, some at once."""
    gate = asyncio.Semaphore(at_once)

    async def one():
        async with gate:
            try:
                return (await client.request(*request, **headers)).status
            except (ConnectionError, aiohttp.ClientError):
                return None

    return await asyncio.gather(*(one() for _ in range(times)))


@pytest.fixture
async def hand(server, room_name):
    client = Client(server, token(room_name, "hand"))
    yield client
    await client.close()


async def test_long_bodies_and_ten_thousand_m_lines_are_refused(undisturbed, hand, room_name):
    lines = "v=0\r\n" + "m=video 9 X 96\r\n" * 10_000
    async with undisturbed(logged=["an encoder's or player's request was refused"]):
        for protocol in ("whip", "whep"):
            path = f"/{protocol}/{room_name}"
            for name, body, status in (("16 MB", "x" * (16 * MEGABYTE), 413), ("10,000 m-lines", lines, 406)):
                with case(f"{name} to {protocol}"):
                    found = await flood(hand, 20, 4, "POST", path, body, SDP)
                    assert set(found) <= {status, None} and found.count(status) > 10, found
            with case("16 MB without a token"):
                found = await flood(hand, 5, 2, "POST", path, "x" * (16 * MEGABYTE), SDP, "nonsense")
                assert set(found) <= {401, None}, found


async def test_noise_and_foreign_tokens_for_a_session_change_nothing(undisturbed, server, hand, room_name):
    opened = await hand.request("POST", f"/whip/{room_name}", PUBLISHES, SDP)
    location = opened.headers["Location"]
    stranger = token(room_name, "stranger")
    async with undisturbed():
        noise = bytes(range(256)) * 60
        assert set(await flood(hand, 20, 4, "PATCH", location, noise, FRAGMENT, If_Match="*")) == {400}
        found = await flood(hand, 300, 10, "PATCH", location, CANDIDATE, FRAGMENT, If_Match="*")
        assert 204 in found and found.count(429) > 150, "the session's own share"
        assert set(await flood(hand, 200, 10, "DELETE", location, None, None, stranger)) == {403}
        guesses = f"/whip/{room_name}/AAAAAAAAAAAAAAAAAAAAAA"
        assert set(await flood(hand, 200, 10, "DELETE", guesses)) == {404}
        assert (await hand.request("DELETE", location)).status == 200


@pytest.mark.parametrize("protocol", ["whip", "whep"])
async def test_a_flood_of_offers_with_one_token_is_one_participant(undisturbed, server, hand, room_name, protocol):
    body = PUBLISHES if protocol == "whip" else WATCHES
    async with undisturbed(lines=120):
        found = await flood(hand, 300, 20, "POST", f"/{protocol}/{room_name}", body, SDP)
        assert found.count(429) > 250 and 201 in found, found
        assert await metric(server, "participants") == 3


@pytest.mark.parametrize("settings", [{"limits__sessions_per_address": "10"}])
async def test_sessions_of_one_address_are_bounded(room_name, undisturbed, server):
    clients = [Client(server, token(room_name, f"many-{number}")) for number in range(12)]
    try:
        async with undisturbed(lines=120):
            statuses = [
                (await client.request("POST", f"/whep/{room_name}", WATCHES, SDP)).status for client in clients
            ]
            assert statuses == [201] * 8 + [429] * 4, "ten sessions, two of them the healthy pair's"
            for client in clients:
                await shove(client.close())
        # Who never connects is gone within the bound for joining, and gives its place back.
        await metric_is(server, "participants", 2, patience=60)
    finally:
        for client in clients:
            await client.close()
