"""What a subscriber is sent over a line that loses packets, looked at datagram by datagram: recorded as it came, opened
with the keys of its DTLS connection, and compared with itself."""

import asyncio
import struct
import time
from collections import defaultdict

import aioice
import aiortc.codecs
import pytest
from aiortc import RTCRtpHeaderExtensionParameters
from aiortc.rtp import RtcpByePacket, RtcpPacket, RtcpSdesPacket, RtcpSrPacket

from conftest import until
from http_media import encoder, player
from lined import Line
from opened import Opener
from terrace_server import Server

SECONDS = 12
"""How long is recorded."""

LOSSY = """
seed = 11
[[change]]
delay_ms = 15
loss = 0.02
"""

TRANSPORT = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
TRANSPORT_ID = 9

HIDDEN = 40
"""One big packet in so many is kept from the player, which asks for it again, so that a repair can be compared."""

NTP_BEFORE_UNIX = 2_208_988_800


@pytest.fixture
def line():
    made = Line(LOSSY)
    yield made
    made.close()


@pytest.fixture
def offers_transport_numbers():
    """aiortc offers no transport-wide numbers by itself."""
    for extensions in aiortc.codecs.HEADER_EXTENSIONS.values():
        numbers = RTCRtpHeaderExtensionParameters(id=TRANSPORT_ID, uri=TRANSPORT)
        extensions.append(numbers)
    yield
    for extensions in aiortc.codecs.HEADER_EXTENSIONS.values():
        extensions.pop()


@pytest.fixture
def recorded(monkeypatch, line):
    """Every datagram that comes to clients at the line's end A, with the Unix time when it did."""
    datagrams = []
    receive = aioice.Connection.recv
    big = 0

    async def recording(self):
        nonlocal big
        while True:
            datagram = await receive(self)
            if asyncio.get_running_loop() is not line.a.loop:
                return datagram
            datagrams.append((time.time(), datagram))
            is_big = 128 <= datagram[0] < 192 and len(datagram) > 400
            big += is_big
            if not is_big or big % HIDDEN:
                return datagram

    monkeypatch.setattr(aioice.Connection, "recv", recording)
    return datagrams


def unwrapped(numbers):
    """16-bit numbers in their order of arrival, without their wrap."""
    whole = []
    for number in numbers:
        last = whole[-1] if whole else number
        whole.append(last + (number - last + 0x8000) % 0x10000 - 0x8000)
    return whole


async def test_what_a_subscriber_is_sent_over_a_lossy_line_is_right(line, offers_transport_numbers, recorded):
    server = await line.b.call(lambda: Server(host=line.b.address))
    try:
        publisher = await line.b.run(encoder(server, "line", "ana", 5, 600))
        watcher = await line.a.run(player(server, "line", "watcher", ["ana"]))
        (shown,) = watcher.shown
        await until("ana is seen and heard", lambda: shown.is_(5, 600), 30)
        await asyncio.sleep(SECONDS)
        dtls = watcher.pc.getReceivers()[0].transport
        answer = watcher.pc.remoteDescription.sdp
        profile = next(p for p in dtls._srtp_profiles if p.openssl_profile == dtls._ssl.get_selected_srtp_profile())
        material = dtls._ssl.export_keying_material(
            b"EXTRACTOR-dtls_srtp", 2 * (profile.key_length + profile.salt_length)
        )
        of_server = profile.get_key_and_salt(material, 0 if dtls._role == "server" else 1)
        lost = line.ask(counts={})["b_to_a"]["lost"]["packets"]
        await line.a.run(watcher.close())
        await line.b.run(publisher.close())
    finally:
        await line.b.call(server.stop)

    opener = Opener(of_server[: profile.key_length], of_server[profile.key_length :])
    packets, reports = [], []
    # An exception here: a datagram that is not authentic.
    for at, datagram in recorded:
        if 128 <= datagram[0] < 192:
            if 192 <= datagram[1] < 224:
                reports.append((at, len(packets), *opener.open_rtcp(datagram)))
            else:
                packets.append(opener.open_rtp(at, datagram))
    streams = defaultdict(list)
    for packet in packets:
        streams[packet.ssrc].append(packet)
    originals, repairs = sort_out(streams, answer)

    # No index was used twice.
    indices = [(packet.ssrc, packet.index) for packet in packets]
    assert len(indices) == len(set(indices)), "an index was sealed twice"
    report_indices = [(ssrc, index) for _, _, ssrc, index, _ in reports]
    assert len(report_indices) == len(set(report_indices)), "an index of reports was sealed twice"

    # Numbers go on by one, but for what the line lost.
    missing = {}
    for ssrc, stream in streams.items():
        numbers = [packet.index for packet in stream]
        assert numbers == sorted(numbers), "the order is wrong"
        missing[ssrc] = numbers[-1] - numbers[0] + 1 - len(numbers)
    assert sum(missing.values()) <= lost, f"{missing} numbers were skipped, and the line lost {lost}"

    # Transport-wide numbers count everything in the order in which it left.
    transport = unwrapped(struct.unpack("!H", packet.extensions[TRANSPORT_ID])[0] for packet in packets)
    assert transport == sorted(set(transport)), "transport-wide numbers are out of order"
    skipped = transport[-1] - transport[0] + 1 - len(transport)
    # What was lost at the end of a stream is missed by the transport's numbers alone.
    assert 0 <= skipped - sum(missing.values()) <= 4, f"{skipped} transport-wide numbers were skipped, {missing} others"
    assert sum(missing.values()) > 0, "the line lost nothing: this run says little"

    # Repairs carry what they repair.
    by_number = {(packet.ssrc, packet.index & 0xFFFF): packet for packet in originals}
    compared = 0
    for video, repair in repairs:
        number = struct.unpack_from("!H", repair.payload)[0]
        original = by_number.get((video, number))
        if original:
            compared += 1
            assert repair.payload[2:] == original.payload
            assert (repair.timestamp, repair.marker) == (original.timestamp, original.marker)
    assert compared > 0, "no repair could be compared"
    assert len(repairs) > compared, "nothing that the line lost was repaired"

    # Reports tell what was sent and when.
    cnames, reported = set(), set()
    for at, before, ssrc, _, compound in reports:
        for report in RtcpPacket.parse(compound):
            if isinstance(report, RtcpSdesPacket):
                cnames |= {(chunk.ssrc, value) for chunk in report.chunks for kind, value in chunk.items if kind == 1}
            if not isinstance(report, RtcpSrPacket):
                assert isinstance(report, (RtcpSdesPacket, RtcpByePacket))
                continue
            reported.add(ssrc)
            ntp = report.sender_info.ntp_timestamp / 2**32 - NTP_BEFORE_UNIX
            assert -0.2 < at - ntp < 1, f"a report's clock is {at - ntp} s behind"
            came = [packet for packet in packets[:before] if packet.ssrc == ssrc]
            gone = came[-1].index - came[0].index + 1 - len(came)
            # What was lost before the first and after the last is not seen.
            unseen = report.sender_info.packet_count - len(came) - gone
            assert 0 <= unseen <= 3, f"{report.sender_info} after {len(came)} packets and {gone} losses"
            octets = sum(len(packet.payload) for packet in came)
            assert octets <= report.sender_info.octet_count <= octets + (gone + unseen) * 1500
            # The clock of the stream, where it stands now.
            rate = 90_000 if ssrc in {video for video, _ in repairs} else 48_000
            apart = (report.sender_info.rtp_timestamp - came[-1].timestamp + 2**31) % 2**32 - 2**31
            assert -0.5 < apart / rate < 1, f"the report is {apart / rate} s after the last packet"
    assert reported == {packet.ssrc for packet in originals}, "a stream has no reports"
    said = {(ssrc, name) for ssrc, name in names_said(answer) if ssrc in reported}
    assert {(ssrc, value.decode() if isinstance(value, bytes) else value) for ssrc, value in cnames} == said
    assert len({name for _, name in said}) == 1, "sound and picture have different names"
    print(
        f"{len(originals)} packets, {len(repairs)} repairs ({compared} compared), {len(reports)} reports, "
        f"{sum(missing.values())} lost, {profile.openssl_profile.decode()}"
    )


def names_said(sdp):
    """SSRCs and canonical names in a description."""
    for line in sdp.splitlines():
        words = line.removeprefix("a=ssrc:").split(" ", 1)
        if line.startswith("a=ssrc:") and words[1].startswith("cname:"):
            yield int(words[0]), words[1].removeprefix("cname:")


def sort_out(streams, sdp):
    """Packets that were sent first, and repairs, each with the SSRC that it repairs."""
    repaired = {}
    for line in sdp.splitlines():
        if line.startswith("a=ssrc-group:FID "):
            original, repair = line.removeprefix("a=ssrc-group:FID ").split()
            repaired[int(repair)] = int(original)
    originals = [packet for ssrc, stream in streams.items() if ssrc not in repaired for packet in stream]
    repairs = [(repaired[ssrc], packet) for ssrc, stream in streams.items() if ssrc in repaired for packet in stream]
    return originals, repairs
