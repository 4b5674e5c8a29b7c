"""Pictures and tones made for sending, and recognised again after the way through the server."""

import asyncio

import numpy as np
from livekit import rtc

SAMPLE_RATE = 48_000
TONE_BLOCK = SAMPLE_RATE // 100
"""Samples per audio frame: 10 ms."""


def picture(number: int, width: int = 640, height: int = 360, turn: int = 0) -> rtc.VideoFrame:
    """A picture that shows `number` (0 to 15): upper row its bits, lower row their complement."""
    luma = np.full((height, width), 128, np.uint8)
    third = height // 3
    for bit in range(4):
        left, right = bit * width // 4, (bit + 1) * width // 4
        one = (number >> (3 - bit)) & 1
        luma[:third, left:right] = 235 if one else 16
        luma[-third:, left:right] = 16 if one else 235
    luma[third:-third, :] = (np.arange(width) + turn * 8) % 200 + 20
    chroma = np.full(width * height // 2, 128, np.uint8)
    return rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, luma.tobytes() + chroma.tobytes())


def number_of(luma: np.ndarray) -> int | None:
    """The number that a picture's brightness shows, or None when it shows none."""
    height, width = luma.shape
    number = 0
    for bit in range(4):
        x = int((bit + 0.5) * width / 4)
        upper = luma[height // 6, x - 2 : x + 2].mean()
        lower = luma[height * 5 // 6, x - 2 : x + 2].mean()
        if abs(upper - lower) < 90:
            return None
        number = number * 2 + int(upper > lower)
    return number


def number_shown(frame: rtc.VideoFrame) -> int | None:
    """The number in a received picture, or None when it shows none."""
    frame = frame.convert(rtc.VideoBufferType.I420)
    luma = np.frombuffer(frame.data, np.uint8)[: frame.width * frame.height]
    return number_of(luma.reshape(frame.height, frame.width))


async def send_pictures(source: rtc.VideoSource, number: int, width: int, height: int, rate: int = 15) -> None:
    """Sends pictures of `number` until cancelled."""
    turn = 0
    while True:
        source.capture_frame(picture(number, width, height, turn))
        turn += 1
        await asyncio.sleep(1 / rate)


async def send_tone(source: rtc.AudioSource, hertz: float) -> None:
    """Sends a tone until cancelled."""
    position = 0
    while True:
        time = (np.arange(TONE_BLOCK) + position) / SAMPLE_RATE
        samples = (np.sin(2 * np.pi * hertz * time) * 12_000).astype(np.int16)
        await source.capture_frame(rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, TONE_BLOCK))
        position += TONE_BLOCK


def loudest(samples: np.ndarray) -> float | None:
    """The loudest frequency, or None in silence."""
    if np.abs(samples).max() < 300:
        return None
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * SAMPLE_RATE / len(samples))


async def first_tone(track: rtc.Track) -> float:
    """The loudest frequency in the first half second that is not silence."""
    stream = rtc.AudioStream(track, sample_rate=SAMPLE_RATE, num_channels=1)
    heard = np.zeros(0, np.int16)
    try:
        async for event in stream:
            block = np.frombuffer(event.frame.data, np.int16)
            if len(heard) == 0 and np.abs(block).max() < 300:
                continue
            heard = np.concatenate([heard, block])
            if len(heard) >= SAMPLE_RATE // 2 and (hertz := loudest(heard[-SAMPLE_RATE // 2 :])):
                return hertz
    finally:
        await stream.aclose()
    raise AssertionError("the audio ended before a tone was heard")


async def first_number(track: rtc.Track) -> tuple[int, int, int]:
    """The first number seen, with the picture's width and height."""
    stream = rtc.VideoStream(track)
    try:
        async for event in stream:
            if (number := number_shown(event.frame)) is not None:
                return number, event.frame.width, event.frame.height
    finally:
        await stream.aclose()
    raise AssertionError("the video ended before a number was seen")
