"""Messages, streams, calls and what participants say about themselves."""

import asyncio

from conftest import until


async def pair(join):
    sender, receiver = await join("sender"), await join("receiver")
    await until("they know each other", lambda: sender.sees("receiver") and receiver.sees("sender"))
    return sender, receiver


async def test_reliable_data_arrives_complete_and_in_order(join):
    sender, receiver = await pair(join)
    for number in range(200):
        await sender.local.publish_data(str(number), reliable=True, topic="count")
    await until("all arrived", lambda: len(receiver.data) == 200)
    assert [int(packet.data) for packet in receiver.data] == list(range(200))
    assert {packet.topic for packet in receiver.data} == {"count"}
    assert {packet.participant.identity for packet in receiver.data} == {"sender"}


async def test_lossy_data_arrives(join):
    sender, receiver = await pair(join)
    for _ in range(50):
        await sender.local.publish_data("now", reliable=False)
        if receiver.data:
            break
        await asyncio.sleep(0.1)
    await until("one arrived", lambda: receiver.data)


async def test_data_for_one_reaches_only_that_one(join):
    sender, receiver = await pair(join)
    other = await join("other")
    await until("the other is known", lambda: sender.sees("other"))
    await sender.local.publish_data("private", destination_identities=["receiver"])
    await sender.local.publish_data("public")
    await until("both have the public one", lambda: len(receiver.data) == 2 and other.data)
    assert [packet.data for packet in other.data] == [b"public"]


async def test_a_text_stream_arrives_whole(join):
    sender, receiver = await pair(join)
    text = "梯田视联" * 5000
    read = asyncio.get_running_loop().create_future()

    def on_stream(reader, identity):
        async def take():
            read.set_result((await reader.read_all(), identity))

        receiver.reading = asyncio.create_task(take())

    receiver.room.register_text_stream_handler("record", on_stream)
    await sender.local.send_text(text, topic="record")
    assert await asyncio.wait_for(read, 20) == (text, "sender")


async def test_a_byte_stream_arrives_whole(join):
    sender, receiver = await pair(join)
    content = bytes(range(256)) * 1000
    read = asyncio.get_running_loop().create_future()

    def on_stream(reader, identity):
        async def take():
            read.set_result(b"".join([chunk async for chunk in reader]))

        receiver.reading = asyncio.create_task(take())

    receiver.room.register_byte_stream_handler("file", on_stream)
    writer = await sender.local.stream_bytes("scan.bin", topic="file", total_size=len(content))
    await writer.write(content)
    await writer.aclose()
    assert await asyncio.wait_for(read, 20) == content


async def test_a_remote_procedure_is_called_and_answers(join):
    sender, receiver = await pair(join)

    async def greet(call):
        return f"{call.caller_identity} said {call.payload}"

    receiver.local.register_rpc_method("greet", greet)
    assert await sender.local.perform_rpc(destination_identity="receiver", method="greet", payload="hello") == "sender said hello"


async def test_metadata_name_and_attributes_reach_the_others(join):
    sender, receiver = await pair(join)
    seen = receiver.room.remote_participants["sender"]
    await sender.local.set_metadata("seat 4")
    await sender.local.set_attributes({"hand": "raised"})
    await sender.local.set_name("王主任")
    await until("metadata arrived", lambda: seen.metadata == "seat 4")
    await until("attributes arrived", lambda: seen.attributes.get("hand") == "raised")
    await until("the name arrived", lambda: seen.name == "王主任")
    late = await join("late")
    await until("a later participant knows all that", lambda: late.sees("sender"))
    assert late.room.remote_participants["sender"].attributes["hand"] == "raised"


async def test_who_leaves_is_gone_for_the_others(join):
    sender, receiver = await pair(join)
    await sender.room.disconnect()
    await until("the sender is gone", lambda: not receiver.sees("sender"))
