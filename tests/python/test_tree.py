"""A conference over five levels: five servers and their NATS servers, each level in a network namespace, the lines between
them as long and as bad as real ones."""

import asyncio
import time

import pytest

from conftest import until
from tree import LEVELS, Tree

LINE = """
[[change]]
delay_ms = 15
loss = 0.005
rate_kbit = 20000
"""

pytestmark = pytest.mark.timeout(300)


class Conference:
    """A chair at the province and a hall in the village speak; at each level somebody watches."""

    SPEAKERS = {"chair": (5, 440), "village-hall": (10, 700)}

    def __init__(self, tree):
        self.tree, self.members = tree, {}

    async def begin(self):
        join = self.tree.join
        self.chair = await join("province", "chair", *self.SPEAKERS["chair"], chair_of="province")
        hall = await join("village", "village-hall", *self.SPEAKERS["village-hall"])
        self.members = {"chair": self.chair, "village-hall": hall}
        for level in LEVELS:
            self.members[f"{level}-viewer"] = await join(level, f"{level}-viewer")
        province = self.tree.nodes["province"]
        await until("the chair is in", lambda: self.chair.state)

        async def is_on_roster():
            page = await province.roster(self.chair.token)
            return page["total"] == len(self.members)

        await waited("everybody is on the roster", is_on_roster)
        for speaker in self.SPEAKERS:
            await province.act(self.chair.token, {"stage": speaker})

    def missing(self, members=None, speakers=None):
        """Who does not see or hear whom of those who speak, or knows of somebody who is not there."""
        missing = []
        for identity in members or self.members:
            member = self.members[identity]
            others = {speaker for speaker in speakers or self.SPEAKERS if speaker != identity}
            for speaker in others:
                number, hertz = self.SPEAKERS[speaker]
                if not member.sees(speaker, number):
                    missing.append(f"{identity} does not see {speaker}: {member.state}")
                if not member.hears(speaker, hertz):
                    missing.append(f"{identity} does not hear {speaker}: {member.state}")
            missing += [f"{identity} knows of {ghost}" for ghost in member.people() - set(self.members)]
        return missing

    def went_on_beside_the_county(self, since):
        """Above it and below it, who needs it not for that saw and heard who speaks, all the time."""
        for identity, speaker in (("village-viewer", "village-hall"), ("township-viewer", "village-hall"), ("city-viewer", "chair")):
            for told in self.members[identity].since(since + 0.5):
                assert speaker in told["sees"] and speaker in told["hears"], f"{identity}: {told}"

    async def whole(self, patience=20):
        """Waits until everybody sees and hears everybody who speaks; how long that took."""
        begin = time.monotonic()
        while missing := self.missing():
            if time.monotonic() - begin >= patience:
                told = [f"--- {node.level}\n{node.told()[-6000:]}" for node in self.tree.nodes.values()]
                raise AssertionError("\n".join([*missing, *told]))
            await asyncio.sleep(0.05)
        return time.monotonic() - begin


async def waited(what, condition, patience=20):
    end = time.monotonic() + patience
    while not await condition():
        assert time.monotonic() < end, f"gave up after {patience} s waiting until {what}"
        await asyncio.sleep(0.1)


@pytest.fixture
async def conference():
    tree = Tree(LINE)
    try:
        await tree.set_up()
        conference = Conference(tree)
        await conference.begin()
        await conference.whole()
        yield conference
    except Exception:
        for node in tree.nodes.values():
            print(f"--- {node.level}\n{node.told()[-4000:]}")
        raise
    finally:
        tree.close()


async def test_everybody_sees_and_hears_who_speaks_and_nobody_who_does_not(conference):
    tree = conference.tree
    upper = tree.nodes["province"]

    async def crossing(seconds=6):
        """Bytes down and up each line in so long."""
        before = [line.ask(counts={}) for line in tree.lines.values()]
        await asyncio.sleep(seconds)
        after = [line.ask(counts={}) for line in tree.lines.values()]
        return [
            tuple(new[way]["sent"]["bytes"] - old[way]["sent"]["bytes"] for way in ("a_to_b", "b_to_a"))
            for old, new in zip(before, after)
        ]

    few = await crossing()
    # More who watch, and a hall that sends without being on the stage.
    for number in range(2):
        for level in LEVELS:
            identity = f"{level}-more-{number}"
            conference.members[identity] = await tree.join(level, identity)
    conference.members["quiet-hall"] = await tree.join("county", "quiet-hall", 3, 1000)
    await conference.whole(40)
    many = await crossing()
    for name, old, new in zip(tree.lines, few, many):
        print(f"{name}: bytes in 6 s {old}, with three times as many who watch {new}")
        for one, other in zip(old, new):
            # A second copy of a picture or a sound would be seen; encoders are not even.
            assert other < 1.25 * one
    elsewhere = [member for member in tree.members if member.level != "county"]
    for member in elsewhere:
        told = set().union(*(set(told["people"]) for _, told in member.history))
        assert "quiet-hall" not in told, f"{member.identity} was told of who is not on stage"
    assert not conference.missing()
    # On the stage it is seen at every level, and off it no more.
    await upper.act(conference.chair.token, {"stage": "quiet-hall"})
    for member in elsewhere:
        await until(
            f"{member.identity} sees the hall", lambda: member.sees("quiet-hall", 3) and member.hears("quiet-hall", 1000)
        )
    await upper.act(conference.chair.token, {"off_stage": "quiet-hall"})
    for member in elsewhere:
        await until("the hall is gone", lambda: "quiet-hall" not in member.people())


async def test_a_node_that_is_killed_comes_back_with_everybody_in_their_places(conference):
    county = conference.tree.nodes["county"]
    killed = time.monotonic()
    county.process.kill()
    county.process.wait()
    await until(
        "the chair is gone below",
        lambda: all("chair" not in conference.members[f"{level}-viewer"].people() for level in ("township", "village")),
        6,
    )
    print(f"known below {time.monotonic() - killed:.1f} s after the end")
    conference.went_on_beside_the_county(killed)
    await county.start()
    print(f"whole {await conference.whole():.1f} s after it runs again")


async def test_without_nats_talk_goes_on_and_somebody_new_comes_in_afterwards(conference):
    county = conference.tree.nodes["county"]
    begin = time.monotonic()
    county.nats.kill()
    county.nats.wait()
    await asyncio.sleep(5)
    conference.went_on_beside_the_county(begin)
    await county.start_nats()
    print(f"whole {await conference.whole():.1f} s after NATS runs again")
    assert all(member.state["joins"] == 1 for member in conference.members.values()), "somebody had to come in again"
    conference.members["new"] = await conference.tree.join("village", "new")
    await conference.whole()
