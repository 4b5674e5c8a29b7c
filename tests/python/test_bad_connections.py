"""Connections that ask for nothing, too slowly, or too many of them, cost themselves."""

import asyncio
import time

import aiohttp
import pytest
from bad_input import MEGABYTE, metric, raw, server, settings, undisturbed
from conftest import token, until
from livekit import api
from terrace_server import DEV_KEY, DEV_SECRET, Server

HEADER_TIME = 10
"""The server's own bound for a request's headers and for the handshake of TLS, in seconds."""

ANSWER_TIME = 30
"""The server's own bound for a request as a whole, in seconds."""


async def closed_after(port, beginning=b"", drip=b""):
    """Opens a connection, sends `beginning` and then `drip` every half second; returns what came back, and after
    how many seconds the server closed it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begin = time.monotonic()

    async def send():
        writer.write(beginning)
        while drip:
            await asyncio.sleep(0.5)
            writer.write(drip)

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(60):
            heard = await reader.read()
    except ConnectionError:
        heard = b"reset"
    sending.cancel()
    writer.close()
    return heard, time.monotonic() - begin


SLOW = {
    "silence": (b"", b""),
    "half a request": (b"GET /rtc", b""),
    "half the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n", b""),
    "a header that never ends": (b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ", b"x"),
    "headers without end": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"a: b\r\n"),
    "a letter now and then": (b"", b"G"),
}


async def test_who_does_not_say_what_it_wants_is_cut_off(server, undisturbed):
    slow = r'WARN .*a connection was closed: it is too slow reason="[^"]+" suppressed=0'
    body = b"POST /api/meetings/x/join HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
    async with undisturbed(memory=8 * MEGABYTE, logged=[slow]):
        before = server.open_files()
        cases = [(name, *how) for name, how in SLOW.items() for _ in range(15)]
        tasks = [asyncio.create_task(closed_after(server.port, beginning, drip)) for _, beginning, drip in cases]
        slow_body = asyncio.create_task(closed_after(server.port, body, b"x"))
        await until("all are open", lambda: server.open_files() >= before + len(cases))
        for (name, *_), (heard, after) in zip(cases, await asyncio.gather(*tasks)):
            assert after < HEADER_TIME * 2, f"{name}: {after:.0f} s"
            assert b"200 OK" not in heard
        heard, after = await slow_body
        assert heard.startswith(b"HTTP/1.1 408 ") and after < ANSWER_TIME * 1.5, (heard, after)
        await until("nothing is left of them", lambda: server.open_files() <= before + 2)


async def test_who_does_not_finish_the_handshake_of_tls_is_cut_off():
    running = Server(tls__mode="self-made")
    try:
        cases = [(b"", b""), (b"\x16\x03\x01\x02\x00", b""), (b"\x16\x03\x01\x02\x00\x01", b"x")] * 5
        tasks = [closed_after(running.port, *how) for how in cases]
        tasks += [closed_after(running.port, b"GET / HTTP/1.1\r\n\r\n")]
        for _, after in await asyncio.gather(*tasks):
            assert after < HEADER_TIME * 2
        assert sum('reason="the handshake of TLS took too long"' in line for line in running.log_lines()) == 1
    finally:
        running.stop()


async def test_headers_without_measure_are_refused(server, undisturbed):
    requests = {
        "a long header": b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (1 << 20) + b"\r\n\r\n",
        "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(5000)) + b"\r\n",
        "a long address": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "noise": bytes(range(128, 256)) * 100,
    }
    async with undisturbed(memory=6 * MEGABYTE):
        for name, request in requests.items():
            heard, _ = await closed_after(server.port, request)
            assert heard == b"reset" or heard.split(b" ")[1] in (b"400", b"414", b"431"), (name, heard[:100])


@pytest.mark.parametrize("settings", [{"limits__connections_per_address": "30"}, {"limits__connections": "30"}])
async def test_one_connection_too_many_is_refused_and_a_free_place_is_given_again(server, undisturbed, settings):
    (bound,) = (name.replace("__", ".") for name in settings)
    logged = [rf'WARN .*a connection was refused: too many are open address=127.0.0.1 bound="{bound}" suppressed=0']
    async with undisturbed(memory=4 * MEGABYTE, logged=logged):
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(60)]

        async def is_refused(reader):
            try:
                async with asyncio.timeout(3):
                    heard = await reader.read()
            except TimeoutError:
                return False
            assert heard.startswith(b"HTTP/1.1 503 ") and heard.endswith(b"too many connections are open\n"), heard
            return True

        refused = sum(await asyncio.gather(*(is_refused(reader) for reader, _ in opened)))
        # The pair has two at least.
        assert 60 - 28 <= refused < 60
        for _, writer in opened:
            writer.close()

        async def served():
            async with aiohttp.ClientSession() as session:
                async with session.get(f"{server.url}/healthz") as answer:
                    return answer.status == 200

        for _ in range(50):
            if await served():
                break
            await asyncio.sleep(0.1)
        assert await served()


@pytest.mark.parametrize("settings", [{"limits__sessions_per_address": "4"}])
async def test_one_session_too_many_of_an_address_is_refused_with_words(server, room_name, undisturbed, settings):
    logged = [r'WARN .*a client was turned away reason=too many sessions are open from this address suppressed=0']
    async with undisturbed(logged=logged):
        async with raw(server, room_name, "third"), aiohttp.ClientSession() as session:
            async with raw(server, room_name, "fourth"):
                for _ in range(20):
                    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                        parameters = {"access_token": token(room_name, "fifth")}
                        await session.ws_connect(f"{server.socket_url}/rtc", params=parameters)
                    assert refused.value.status == 429 and refused.value.headers["Retry-After"]

            for _ in range(50):
                try:
                    async with raw(server, room_name, "fifth") as fifth:
                        await fifth.still_answers()
                    break
                except aiohttp.WSServerHandshakeError:
                    await asyncio.sleep(0.1)
            else:
                raise AssertionError("the free place is not given again")


@pytest.mark.parametrize("settings", [{"limits__participants": "3", "limits__rooms": "2"}])
async def test_a_full_server_says_so(server, room_name, undisturbed, settings):
    async with undisturbed(logged=[r'WARN .*a client was turned away reason=the server is full suppressed=0']):
        async with raw(server, f"{room_name}-next-door", "third"), aiohttp.ClientSession() as session:
            for path, room in (("/rtc", room_name), ("/rtc", "one-room-more")):
                parameters = {"access_token": token(room, "fourth")}
                async with session.get(f"{server.url}{path}/validate", params=parameters) as answer:
                    assert (answer.status, await answer.text()) == (503, "the server is full")
                    assert answer.headers["Retry-After"]
        assert await metric(server, "participants") <= 3


async def test_a_call_to_the_service_without_measure_is_refused(server, room_name, undisturbed):
    bearer = api.AccessToken(DEV_KEY, DEV_SECRET).with_grants(api.VideoGrants(room_create=True)).to_jwt()
    url = f"{server.url}/twirp/livekit.RoomService/CreateRoom"
    calls = [
        ({"name": "x" * 2_000_000}, bearer, 400, "malformed"),
        ({"name": "x" * 2_000_000}, "", 401, "unauthenticated"),
        ({"name": "x" * 10_000}, bearer, 400, "invalid_argument"),
        ({"name": "a\nb"}, bearer, 400, "invalid_argument"),
        ({"name": "\u202ex"}, bearer, 400, "invalid_argument"),
        ({"name": ""}, bearer, 400, "invalid_argument"),
        ({"name": room_name, "metadata": "x" * 100_000}, bearer, 400, "invalid_argument"),
        ({"name": {"a": "secret-of-mine " * 1000}}, bearer, 400, "malformed"),
        ([[[[]]]] * 1000, bearer, 400, "malformed"),
    ]
    logged = [r'WARN .*a server API call was refused method="CreateRoom" code="malformed" reason="the request can\'t be read" suppressed=0']
    async with undisturbed(memory=8 * MEGABYTE, logged=logged):
        # A connection for each: one whose request was not read to the end is closed behind the answer.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
            for body, access, status, code in calls:
                headers = {"Authorization": f"Bearer {access}"} if access else {}
                # The server need not take a body whose sender it refuses.
                async with session.post(url, json=body, headers=headers, expect100=True) as answer:
                    told = await answer.json()
                    assert (answer.status, told["code"]) == (status, code), (body if len(str(body)) < 99 else "", told)
                    assert 0 < len(told["msg"]) < 300
        assert not any("secret-of-mine" in line for line in server.log_lines())
