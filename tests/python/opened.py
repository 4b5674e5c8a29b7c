"""Opens a capture of SRTP and SRTCP with nothing but ciphers: key derivation, indices and tags are RFC 3711's and
RFC 7714's, written down again."""

import hmac
import struct
from dataclasses import dataclass

from aiortc.rtp import unpack_header_extensions
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TAG = 10
"""Bytes of HMAC-SHA1 that are sent."""


def keystream(key, counter, length):
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(length))


def mixed(one, other):
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


@dataclass
class Rtp:
    index: int
    """The 48 bits: roll-over counter and sequence number."""
    ssrc: int
    payload_type: int
    marker: bool
    timestamp: int
    payload: bytes
    extensions: dict[int, bytes]
    sealed: bytes
    at: float


class Opener:
    """The direction of one master key."""

    def __init__(self, key, salt):
        self.is_gcm = len(salt) == 12

        def derive(label, length):
            begin = bytearray(salt.ljust(14, b"\0"))
            begin[7] ^= label
            return keystream(key, bytes(begin) + b"\0\0", length)

        self.rtp, self.rtcp = (
            (derive(at, len(key)), derive(at + 1, 20), derive(at + 2, len(salt))) for at in (0, 3)
        )
        self.highest = {}

    def _open(self, keys, head, sealed, after, ssrc, index, signed):
        """`after` is authenticated behind the sealed part; `signed` is what HMAC covers."""
        key, key_of_tag, salt = keys
        if self.is_gcm:
            if signed is None:
                vector = mixed(struct.pack("!HIIH", 0, ssrc, index >> 16, index & 0xFFFF), salt)
            else:
                vector = mixed(struct.pack("!HIHI", 0, ssrc, 0, index), salt)
            return AESGCM(key).decrypt(vector, sealed, head + after)
        body, tag = sealed[:-TAG], sealed[-TAG:]
        covered = head + body + (struct.pack("!I", index >> 16) if signed is None else signed)
        if not hmac.compare_digest(hmac.digest(key_of_tag, covered, "sha1")[:TAG], tag):
            raise ValueError("a tag is wrong")
        vector = int.from_bytes(salt) << 16 ^ ssrc << 64 ^ index << 16
        return mixed(body, keystream(key, vector.to_bytes(16), len(body)))

    def open_rtp(self, at, datagram):
        first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", datagram)
        end, extensions = 12 + 4 * (first & 15), {}
        if first & 16:
            profile, words = struct.unpack_from("!HH", datagram, end)
            extensions = dict(unpack_header_extensions(profile, datagram[end + 4 : end + 4 + 4 * words]))
            end += 4 + 4 * words
        # The index nearest to the highest one so far; a stream begins at roll-over 0.
        near = self.highest.get(ssrc, sequence)
        index = near + (sequence - near + 0x8000) % 0x10000 - 0x8000
        payload = self._open(self.rtp, datagram[:end], datagram[end:], b"", ssrc, index, None)
        self.highest[ssrc] = max(near, index)
        if first & 32:
            payload = payload[: -payload[-1]]
        return Rtp(index, ssrc, second & 127, bool(second & 128), timestamp, payload, extensions, datagram, at)

    def open_rtcp(self, datagram):
        """Returns the sender's SSRC, the index, and the packet in clear."""
        (ssrc,) = struct.unpack_from("!I", datagram, 4)
        if self.is_gcm:
            sealed, trailer = datagram[8:-4], datagram[-4:]
        else:
            sealed, trailer = datagram[8 : -TAG - 4] + datagram[-TAG:], datagram[-TAG - 4 : -TAG]
        index = struct.unpack("!I", trailer)[0]
        assert index >> 31, "a report is not encrypted"
        index &= 0x7FFF_FFFF
        return ssrc, index, datagram[:8] + self._open(self.rtcp, datagram[:8], sealed, trailer, ssrc, index, trailer)
