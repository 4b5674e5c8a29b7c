"""Measures what participants by the thousand cost the server when they only speak signalling.

Run by `cargo xtask bench crowd`; prints its results as JSON. Each row is measured with a server of its own.
"""

import argparse
import asyncio
import json
import sys
import time
import uuid

from crowd import Crowd, processor_time
from terrace_server import Server

SIZES = ((1000, True), (1000, False), (3000, False))
"""How many join, and whether they may publish. Three more who may are always there first."""

SPEAKERS = 3

JOINS_PER_SECOND = 250
"""Faster than the hundred a second that a hall fills with: media must be connected within 40 s, and none is here."""

SETTLE = 5
"""How long the room is left alone before memory is read, in seconds; its processor time then is the time at rest."""


async def measured(count, may_publish):
    server = Server(limits__participants="5000", limits__sessions_per_address="0", limits__connections_per_address="0")
    try:
        await asyncio.sleep(1)
        idle = server.resident_memory()
        async with Crowd(server, uuid.uuid4().hex) as crowd:
            await crowd.come(SPEAKERS, 0, "speaker")
            cpu, begin = processor_time(server), time.monotonic()
            await crowd.come(count, count / JOINS_PER_SECOND, grants={"can_publish": may_publish})
            while any(member.count != count + SPEAKERS for member in crowd.members.values()):
                assert time.monotonic() - begin < 35, "the machine is too slow for so many"
                await asyncio.sleep(0.05)
            took, cpu = time.monotonic() - begin, processor_time(server) - cpu
            rest = processor_time(server)
            await asyncio.sleep(SETTLE)
            rest = (processor_time(server) - rest) / SETTLE
            memory = server.resident_memory() - idle
            assert crowd.faults == [] and crowd.left == [], "somebody was lost"
            members = [member for member in crowd.members.values() if member.identity.startswith("member")]
            return {
                "joined_s": took,
                "cpu_s": cpu,
                "rest": rest,
                "memory": memory,
                "messages": sum(member.messages for member in members) / count,
                "told": sum(member.bytes for member in members) / count,
                "known": max(len(member.known) for member in members),
            }
    finally:
        server.stop()


async def main():
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3, help="how often each row is measured")
    options = options.parse_args()
    rows = [{"count": count, "may_publish": may_publish, "rounds": []} for count, may_publish in SIZES]
    for number in range(options.rounds):
        for row in rows:
            row["rounds"].append(await measured(row["count"], row["may_publish"]))
            print(f"{row['count']}, round {number + 1} of {options.rounds}: {row['rounds'][-1]}", file=sys.stderr, flush=True)
    print(json.dumps(rows))


asyncio.run(main())
