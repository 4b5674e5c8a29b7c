//! RTP payloads: valid packetisation of VP8, H.264 and Opus around made-up pictures, each with a stamp at its end.
//!
//! A server must find keyframes, picture ids and frame borders where the formats have them; what lies between
//! is noise, or a clip. The stamp stands at the end because servers rewrite what is at the beginning.

use std::sync::Arc;

use crate::clip::Clip;
use crate::scenario::Codec;

/// The first bytes of a stamp.
const MAGIC: [u8; 4] = *b"trS2";

/// Bytes of a stamp's fields, and of these with seven bits to a byte.
const FIELDS: usize = 29;
const SPREAD: usize = FIELDS + FIELDS.div_ceil(7);

/// Width and height told in keyframes.
const PICTURE: (u16, u16) = (1280, 720);

/// How many times more packets a keyframe has than another frame.
const KEYFRAME_FACTOR: u32 = 4;

/// H.264 constrained baseline 3.1, 1280×720, as an encoder writes it.
const SEQUENCE_PARAMETERS: [u8; 14] = [
    0x67, 0x42, 0xe0, 0x1f, 0x8c, 0x8d, 0x40, 0x50, 0x05, 0xba, 0x10, 0x00, 0x00, 0x03,
];
const PICTURE_PARAMETERS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];

/// What a packet says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The number of the source within this run.
    pub source: u32,
    /// How often the source was turned on before: turns of a roll call.
    pub turn: u16,
    /// Whether the source is a camera.
    pub is_video: bool,
    /// Whether it belongs to a keyframe.
    pub is_key: bool,
    /// Packets of the source before this one.
    pub sequence: u64,
    /// When it was about to be sent, in nanoseconds since 1970.
    pub sent: u64,
    /// Frames of the source before this one.
    pub frame: u32,
    /// Packets of this frame.
    pub packets: u16,
}

impl Stamp {
    /// Bytes of a stamp.
    pub const LENGTH: usize = MAGIC.len() + SPREAD;

    /// Writes it over the end of a payload.
    ///
    /// # Panics
    /// When the payload is shorter than [`Stamp::LENGTH`].
    pub fn write(&self, payload: &mut [u8]) {
        let mut fields = [0; FIELDS];
        fields[0..4].copy_from_slice(&self.source.to_be_bytes());
        fields[4..6].copy_from_slice(&self.turn.to_be_bytes());
        fields[6] = u8::from(self.is_key) | u8::from(self.is_video) << 1;
        fields[7..15].copy_from_slice(&self.sequence.to_be_bytes());
        fields[15..23].copy_from_slice(&self.sent.to_be_bytes());
        fields[23..27].copy_from_slice(&self.frame.to_be_bytes());
        fields[27..29].copy_from_slice(&self.packets.to_be_bytes());
        let at = payload.len() - Self::LENGTH;
        let (magic, spread) = payload[at..].split_at_mut(MAGIC.len());
        magic.copy_from_slice(&MAGIC);
        // Seven bits to a byte and the eighth set: no decoder finds a start code in it.
        for (seven, eight) in fields.chunks(7).zip(spread.chunks_mut(8)) {
            let mut tops = 0x80;
            for (at, byte) in seven.iter().enumerate() {
                eight[at] = byte | 0x80;
                tops |= byte >> 7 << at;
            }
            eight[seven.len()] = tops;
        }
    }

    /// Reads it from the end of a payload; `None` if there is none.
    pub fn read(payload: &[u8]) -> Option<Stamp> {
        let from = payload.last_chunk::<{ Self::LENGTH }>()?;
        let (magic, spread) = from.split_at(MAGIC.len());
        if magic != MAGIC {
            return None;
        }
        let mut fields = [0; FIELDS];
        for (seven, eight) in fields.chunks_mut(7).zip(spread.chunks(8)) {
            let tops = eight[seven.len()];
            for (at, byte) in seven.iter_mut().enumerate() {
                *byte = eight[at] & 0x7f | (tops >> at & 1) << 7;
            }
        }
        let word = |at: usize| u32::from_be_bytes(fields[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_be_bytes(fields[at..at + 8].try_into().expect("8 bytes"));
        Some(Stamp {
            source: word(0),
            turn: u16::from_be_bytes([fields[4], fields[5]]),
            is_key: fields[6] & 1 != 0,
            is_video: fields[6] & 2 != 0,
            sequence: long(7),
            sent: long(15),
            frame: word(23),
            packets: u16::from_be_bytes([fields[27], fields[28]]),
        })
    }
}

/// Makes the payloads of one source, frame by frame.
#[derive(Debug)]
pub struct Packetiser {
    codec: Codec,
    bytes: usize,
    picture: u16,
    clip: Option<Playing>,
}

#[derive(Debug)]
struct Playing {
    clip: Arc<Clip>,
    frame: usize,
}

/// Where a packet stands in its frame.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Packets of the frame before this one.
    pub index: u32,
    /// Packets of the frame.
    pub packets: u32,
    /// Whether it is a keyframe.
    pub is_key: bool,
}

impl Packetiser {
    /// For payloads of so many bytes each.
    pub fn new(codec: Codec, bytes: u32) -> Packetiser {
        Packetiser {
            codec,
            bytes: (bytes as usize).max(Stamp::LENGTH + 16),
            picture: 0,
            clip: None,
        }
    }

    /// Plays a clip.
    pub fn of_clip(clip: Arc<Clip>) -> Packetiser {
        Packetiser {
            clip: Some(Playing { clip, frame: 0 }),
            ..Packetiser::new(Codec::H264, 0)
        }
    }

    /// Begins a frame; returns how many packets it has, if an ordinary one has `packets`, and
    /// whether it is a keyframe.
    pub fn begin(&mut self, packets: u32, wants_key: bool) -> (u32, bool) {
        if let Some(playing) = &mut self.clip {
            if wants_key {
                playing.frame = 0;
            }
            let packets = playing.clip.packets(playing.frame).len() as u32;
            return (packets, playing.frame == 0);
        }
        let packets = match (self.codec, wants_key) {
            (Codec::Opus, _) => 1,
            (_, false) => packets,
            // At least two: H.264 has its parameter sets in a packet of their own.
            (_, true) => (packets * KEYFRAME_FACTOR).max(2),
        };
        (packets, wants_key)
    }

    /// The payload at a place of the current frame, without its stamp.
    pub fn payload(&self, place: Place) -> Vec<u8> {
        if let Some(playing) = &self.clip {
            return playing.clip.packets(playing.frame)[place.index as usize].clone();
        }
        let mut payload = Vec::with_capacity(self.bytes);
        match self.codec {
            Codec::Vp8 => self.vp8(&mut payload, place),
            Codec::H264 => h264(&mut payload, place),
            // A TOC byte: fullband, 20 ms, mono, one frame.
            Codec::Opus => payload.push(0xf8),
        }
        // Noise that no compression or emulation prevention cares for.
        let mut byte = self.picture as u8;
        payload.resize_with(self.bytes, || {
            byte = byte.wrapping_mul(197).wrapping_add(91) | 1;
            byte
        });
        payload
    }

    /// Goes on to the next frame.
    pub fn next_frame(&mut self) {
        self.picture = (self.picture + 1) & 0x7fff;
        if let Some(playing) = &mut self.clip {
            playing.frame = (playing.frame + 1) % playing.clip.frames();
        }
    }

    fn vp8(&self, payload: &mut Vec<u8>, place: Place) {
        // RFC 7741: X, S at the frame's first packet; 15-bit picture id, TL0PICIDX, TID 0, KEYIDX.
        payload.push(if place.index == 0 { 0x90 } else { 0x80 });
        payload.push(0b1111_0000);
        payload.extend((self.picture | 0x8000).to_be_bytes());
        payload.extend([self.picture as u8, 0]);
        if place.index > 0 {
            return;
        }
        // RFC 6386, 9.1: key or not, version 0, shown, size of the first partition.
        let size = self.bytes as u32 * place.packets / 2;
        let tag = u32::from(!place.is_key) | 1 << 4 | (size & 0x7_ffff) << 5;
        payload.extend(&tag.to_le_bytes()[..3]);
        if place.is_key {
            payload.extend([0x9d, 0x01, 0x2a]);
            payload.extend(PICTURE.0.to_le_bytes());
            payload.extend(PICTURE.1.to_le_bytes());
        }
    }
}

fn h264(payload: &mut Vec<u8>, place: Place) {
    let (unit, first) = if place.is_key { (5, 1) } else { (1, 0) };
    let header = 0x60 | unit;
    if place.is_key && place.index == 0 {
        // STAP-A of both parameter sets; what follows is a third unit, of filler data.
        payload.push(0x60 | 24);
        for set in [&SEQUENCE_PARAMETERS[..], &PICTURE_PARAMETERS[..]] {
            payload.extend((set.len() as u16).to_be_bytes());
            payload.extend(set);
        }
        let filler = Stamp::LENGTH as u16 + 1;
        payload.extend(filler.to_be_bytes());
        payload.push(12);
        payload.resize(payload.len() + Stamp::LENGTH, 0xff);
        return;
    }
    if place.packets - first == 1 {
        payload.push(header);
        return;
    }
    // FU-A.
    let start = if place.index == first { 0x80 } else { 0 };
    let end = if place.index + 1 == place.packets {
        0x40
    } else {
        0
    };
    payload.extend([0x60 | 28, start | end | unit]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use str0m::format::Codec as Format;

    fn frame(codec: Codec, packets: u32, is_key: bool) -> Vec<Vec<u8>> {
        let mut packetiser = Packetiser::new(codec, 1190);
        let (packets, is_key) = packetiser.begin(packets, is_key);
        (0..packets)
            .map(|index| {
                packetiser.payload(Place {
                    index,
                    packets,
                    is_key,
                })
            })
            .collect()
    }

    #[test]
    fn vp8_says_where_a_frame_begins_and_whether_it_is_key() {
        let key = frame(Codec::Vp8, 3, true);
        assert_eq!(key.len(), 12);
        assert_eq!(key[0][0] & 0x10, 0x10);
        assert_eq!(key[0][6] & 1, 0);
        assert_eq!(key[0][9..12], [0x9d, 0x01, 0x2a]);
        assert!(key[1..].iter().all(|packet| packet[0] & 0x10 == 0));
        let delta = frame(Codec::Vp8, 3, false);
        assert_eq!(delta.len(), 3);
        assert_eq!(delta[0][6] & 1, 1);
        assert_eq!(delta[0].len(), 1190);
    }

    #[test]
    fn h264_keyframes_have_parameter_sets_and_fragments() {
        let key = frame(Codec::H264, 3, true);
        assert_eq!(key[0][0] & 0x1f, 24);
        assert_eq!(key[0][3] & 0x1f, 7);
        assert_eq!(key[1][0] & 0x1f, 28);
        assert_eq!(key[1][1], 0x80 | 5);
        assert_eq!(key.last().unwrap()[1], 0x40 | 5);
        let single = frame(Codec::H264, 1, false);
        assert_eq!(single[0][0] & 0x1f, 1);
    }

    #[test]
    fn the_engine_knows_the_codecs() {
        assert!(Format::Vp8.is_video() && Format::H264.is_video() && Format::Opus.is_audio());
    }

    proptest! {
        #[test]
        fn a_stamp_is_read_as_it_was_written(
            source: u32, turn: u16, is_video: bool, is_key: bool, sequence: u64, sent: u64, frame: u32,
            packets: u16, before in proptest::collection::vec(any::<u8>(), 0..50),
        ) {
            let stamp = Stamp { source, turn, is_video, is_key, sequence, sent, frame, packets };
            let mut payload = before;
            payload.resize(payload.len() + Stamp::LENGTH, 0);
            stamp.write(&mut payload);
            prop_assert_eq!(Stamp::read(&payload), Some(stamp));
            prop_assert!(payload[payload.len() - Stamp::LENGTH..].iter().all(|byte| *byte != 0));
        }

        #[test]
        fn other_bytes_are_no_stamp(bytes in proptest::collection::vec(0u8..100, 0..100)) {
            prop_assert_eq!(Stamp::read(&bytes), None);
        }
    }
}
