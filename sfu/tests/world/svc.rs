//! Streams with temporal and spatial layers of their own, and what a decoder makes of what is left of
//! them.
//!
//! Temporal layers follow one another as 0-2-1-2 or 0-1, with frames among them after which, or with
//! which, nobody can go up: each fault of that kind shows as a frame that does not decode.

use std::collections::HashSet;

use sfu::Codec;
use str0m::rtp::{ExtensionSerializer, ExtensionValues, RtpHeader, RtpPacket};

const BODY: usize = 16;

/// What an encoder makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) codec: Codec,
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// Upper spatial layers are predicted from lower ones in keyframes only.
    pub(crate) is_key_only: bool,
    /// Bytes of a packet.
    pub(crate) size: usize,
    /// Packets of a frame, by its spatial layer.
    pub(crate) parts: [u8; 3],
    /// So many times as many packets has a keyframe.
    pub(crate) key: u8,
}

impl Shape {
    pub(crate) fn new(codec: Codec, spatial: u8, temporal: u8) -> Shape {
        Shape {
            codec,
            spatial,
            temporal,
            is_key_only: true,
            size: 600,
            parts: [2; 3],
            key: 1,
        }
    }

    /// The temporal layer of the picture that comes so many after a keyframe.
    pub(crate) fn temporal_of(self, position: u32) -> u8 {
        match self.temporal {
            1 => 0,
            2 => (position % 2) as u8,
            _ => [0, 2, 1, 2][position as usize % 4],
        }
    }

    /// How many pictures back those lie that it is predicted from.
    fn references(self, position: u32) -> &'static [u32] {
        match (self.temporal, position % 8) {
            (1, _) => &[1],
            (2, at) if at % 2 == 0 => &[2],
            (2, _) => &[1],
            (_, 0 | 4) => &[4],
            (_, 1 | 3) => &[1],
            (_, 2) => &[2],
            (_, 5 | 7) => &[1, 2],
            _ => &[2, 4],
        }
    }

    /// Whether no upper temporal layer needs anything from before it.
    fn lets_up(self, position: u32) -> bool {
        let at = position % 8;
        self.temporal_of(position) + 1 < self.temporal
            && (self.temporal == 2 || matches!(at, 0 | 2))
    }

    /// Whether it needs nothing but the base layer.
    fn is_sync(self, position: u32) -> bool {
        self.temporal_of(position) > 0 && (self.temporal == 2 || matches!(position % 8, 1 | 2))
    }
}

/// Where an encoder stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Position {
    pub(crate) picture: u32,
    pub(crate) since_key: u32,
    pub(crate) tl0: u8,
}

/// A packet to be sent.
pub(crate) struct Part {
    pub(crate) payload: Vec<u8>,
    pub(crate) marker: bool,
    pub(crate) descriptor: Option<Vec<u8>>,
}

/// The packets of a picture.
pub(crate) fn picture(shape: Shape, name: &str, at: Position) -> Vec<Part> {
    let is_key = at.since_key == 0;
    let temporal = shape.temporal_of(at.since_key);
    let mut parts = Vec::new();
    for spatial in 0..shape.spatial {
        let count = shape.parts[usize::from(spatial)] * if is_key { shape.key } else { 1 };
        for part in 0..count {
            let ends = part + 1 == count;
            let mut payload = match shape.codec {
                Codec::Vp8 => vp8(shape, at, part),
                Codec::Vp9 => vp9(shape, at, spatial, (part, ends)),
                _ => vec![if is_key && spatial == 0 && part == 0 {
                    0x18
                } else {
                    0x10
                }],
            };
            payload.resize(shape.size - BODY, 0x55);
            payload.extend(at.picture.to_be_bytes());
            payload.extend(at.since_key.to_be_bytes());
            payload.extend([spatial, temporal, part, u8::from(ends), name.as_bytes()[0]]);
            payload.resize(shape.size, 0);
            let descriptor = matches!(shape.codec, Codec::Av1).then(|| {
                let number = at.picture * u32::from(shape.spatial) + u32::from(spatial);
                descriptor(shape, at.since_key, spatial, (part, ends), number as u16)
            });
            parts.push(Part {
                payload,
                marker: ends && spatial + 1 == shape.spatial,
                descriptor,
            });
        }
    }
    parts
}

fn vp8(shape: Shape, at: Position, part: u8) -> Vec<u8> {
    let picture = at.picture as u16 & 0x7fff;
    let temporal = shape.temporal_of(at.since_key);
    vec![
        0x80 | if part == 0 { 0x10 } else { 0 },
        0xe0,
        0x80 | (picture >> 8) as u8,
        picture as u8,
        at.tl0,
        temporal << 6 | u8::from(shape.is_sync(at.since_key)) << 5,
        u8::from(at.since_key != 0),
    ]
}

fn vp9(shape: Shape, at: Position, spatial: u8, (part, ends): (u8, bool)) -> Vec<u8> {
    let is_key = at.since_key == 0;
    let has_structure = is_key && spatial == 0 && part == 0;
    let bit = |is: bool, bit: u8| if is { bit } else { 0 };
    let is_inter_layer = spatial > 0 && (is_key || !shape.is_key_only);
    let mut bytes = vec![
        0xa0 | bit(!is_key, 0x40)
            | bit(part == 0, 0x08)
            | bit(ends, 0x04)
            | bit(has_structure, 0x02),
        0x80 | (at.picture >> 8) as u8 & 0x7f,
        at.picture as u8,
        shape.temporal_of(at.since_key) << 5
            | bit(shape.lets_up(at.since_key), 0x10)
            | spatial << 1
            | bit(is_inter_layer, 0x01),
        at.tl0,
    ];
    if has_structure {
        bytes.push((shape.spatial - 1) << 5);
    }
    bytes
}

/// The positions after a keyframe that need templates of their own; the first is the keyframe's.
const KINDS: [Option<u32>; 6] = [None, Some(0), Some(4), Some(2), Some(6), Some(1)];

/// Templates, by spatial layer and kind, in the order in which a structure lists them.
fn templates(shape: Shape) -> Vec<(u8, Option<u32>)> {
    let mut templates: Vec<_> = (0..shape.spatial)
        .flat_map(|spatial| KINDS.map(|kind| (spatial, kind)))
        .filter(|(_, kind)| {
            kind.is_none_or(|at| shape.temporal > 2 || at < u32::from(shape.temporal))
        })
        .collect();
    templates.sort_by_key(|(spatial, kind)| (*spatial, shape.temporal_of(kind.unwrap_or(0))));
    templates
}

fn descriptor(
    shape: Shape,
    position: u32,
    spatial: u8,
    (part, ends): (u8, bool),
    number: u16,
) -> Vec<u8> {
    const OFFSET: u32 = 61;
    let templates = templates(shape);
    let kind = match position {
        0 => None,
        _ if shape.temporal < 3 => Some(position % u32::from(shape.temporal)),
        _ => Some([0, 1, 2, 1, 4, 1, 6, 1][position as usize % 8]),
    };
    let at = templates
        .iter()
        .position(|one| *one == (spatial, kind))
        .unwrap();
    let mut bits = Bits::default();
    bits.put(1, u32::from(part == 0));
    bits.put(1, u32::from(ends));
    bits.put(6, (OFFSET + at as u32) % 64);
    bits.put(16, u32::from(number));
    if position != 0 || spatial != 0 || part != 0 {
        return bits.bytes;
    }
    bits.put(5, 0b10000);
    bits.put(6, OFFSET);
    bits.put(5, u32::from(shape.spatial * shape.temporal) - 1);
    let layer = |at: usize| {
        let (spatial, kind) = templates[at];
        (spatial, shape.temporal_of(kind.unwrap_or(0)))
    };
    for at in 0..templates.len() {
        let next = match templates.get(at + 1) {
            None => 3,
            Some(_) if layer(at + 1) == layer(at) => 0,
            Some(_) if layer(at + 1).0 == layer(at).0 => 1,
            Some(_) => 2,
        };
        bits.put(2, next);
    }
    let [absent, discardable, switch, required] = [0, 1, 2, 3];
    for (at, (_, kind)) in templates.iter().enumerate() {
        let (spatial, temporal) = layer(at);
        for up_to_spatial in 0..shape.spatial {
            for up_to in 0..shape.temporal {
                let indication = if spatial > up_to_spatial || temporal > up_to {
                    absent
                } else if kind.is_none() {
                    switch
                } else if spatial < up_to_spatial {
                    if shape.is_key_only { absent } else { required }
                } else if temporal == up_to {
                    if temporal == 0 { switch } else { discardable }
                } else if kind.is_some_and(|at| shape.lets_up(at)) {
                    switch
                } else {
                    required
                };
                bits.put(2, indication);
            }
        }
    }
    bits.bytes
}

/// Writes bits, the most significant one first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn put(&mut self, count: usize, value: u32) {
        for bit in (0..count).rev() {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= ((value >> bit & 1) as u8) << (7 - self.count % 8);
            self.count += 1;
        }
    }
}

/// The dependency descriptor among a client's header extensions.
#[derive(Debug)]
pub(crate) struct Descriptor(pub(crate) Vec<u8>);

pub(crate) const DESCRIPTOR_URI: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

#[derive(Debug)]
pub(crate) struct DescriptorExtension;

impl ExtensionSerializer for DescriptorExtension {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(Descriptor(bytes)) = values.user_values.get::<Descriptor>() else {
            return 0;
        };
        buf[..bytes.len()].copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, _buf: &[u8], _values: &mut ExtensionValues) -> bool {
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, values: &ExtensionValues) -> bool {
        let descriptor = values.user_values.get::<Descriptor>();
        descriptor.is_some_and(|Descriptor(bytes)| bytes.len() > 16)
    }
}

/// A picture that was decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) picture: u32,
    /// The simulcast layer's name.
    pub(crate) name: char,
    /// The uppermost spatial layer of it.
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
}

/// What a decoder makes of a stream: it begins at a keyframe, and after a packet that never came it
/// waits for the next one.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    pub(crate) shown: Vec<Shown>,
    /// Frames decoded, by simulcast layer, picture and spatial layer.
    frames: HashSet<(char, u32, u8)>,
    numbers: Option<(u16, u8)>,
    /// Packets that never came.
    pub(crate) gaps: usize,
    /// What no loss excuses.
    pub(crate) faults: Vec<String>,
    pub(crate) is_stuck: bool,
}

/// A packet as it came.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) sequence: u64,
    pub(crate) time: u32,
    pub(crate) marker: bool,
    pub(crate) shown: Shown,
    pub(crate) since_key: u32,
    pub(crate) part: u8,
    /// It is the last of its frame.
    ends: bool,
    /// VP8's picture id and index of the base layer's picture.
    vp8: Option<(u16, u8)>,
}

impl Seen {
    fn of(shape: Shape, packet: &RtpPacket) -> Seen {
        let RtpHeader {
            timestamp, marker, ..
        } = packet.header;
        Seen::new(shape, *packet.seq_no, timestamp, marker, &packet.payload)
    }

    pub(crate) fn new(shape: Shape, sequence: u64, time: u32, marker: bool, bytes: &[u8]) -> Seen {
        let body = &bytes[bytes.len() - BODY..];
        let word = |at: usize| u32::from_be_bytes(body[at..at + 4].try_into().unwrap());
        let vp8 = || (u16::from_be_bytes([bytes[2] & 0x7f, bytes[3]]), bytes[4]);
        Seen {
            sequence,
            time,
            marker,
            shown: Shown {
                picture: word(0),
                name: char::from(body[12]),
                spatial: body[8],
                temporal: body[9],
            },
            since_key: word(4),
            part: body[10],
            ends: body[11] == 1,
            vp8: matches!(shape.codec, Codec::Vp8).then(vp8),
        }
    }
}

impl Seen {
    pub(crate) fn begins_keyframe(&self) -> bool {
        self.since_key == 0 && self.shown.spatial == 0 && self.part == 0
    }
}

impl Decoded {
    pub(crate) fn read(shape: Shape, packets: &[RtpPacket]) -> Decoded {
        let mut seen: Vec<Seen> = packets
            .iter()
            .map(|packet| Seen::of(shape, packet))
            .collect();
        seen.sort_by_key(|one| one.sequence);
        let mut decoded = Decoded::new();
        let mut last: Option<u64> = None;
        let mut pictures = seen
            .chunk_by(|one, other| one.time == other.time)
            .peekable();
        while let Some(picture) = pictures.next() {
            let expected = last.map_or(picture[0].sequence, |last| last + 1);
            let missing = picture.last().unwrap().sequence + 1 - expected - picture.len() as u64;
            last = picture.last().map(|one| one.sequence);
            if missing > 0 {
                decoded.gap(missing as usize);
                continue;
            }
            // The rest was lost, or the stream was stopped within the picture and goes on with a
            // keyframe.
            let is_cut = pictures.peek().is_none_or(|next| {
                Some(next[0].sequence) > last.map(|last| last + 1) || next[0].begins_keyframe()
            });
            if is_cut && !picture.iter().any(|one| one.marker) {
                decoded.forget_numbers();
                continue;
            }
            decoded.picture(shape, picture);
        }
        decoded
    }

    pub(crate) fn new() -> Decoded {
        Decoded {
            is_stuck: true,
            ..Decoded::default()
        }
    }

    /// What comes next need not follow by its picture id.
    pub(crate) fn forget_numbers(&mut self) {
        self.numbers = None;
    }

    /// So many packets never came.
    pub(crate) fn gap(&mut self, missing: usize) {
        self.gaps += missing;
        self.is_stuck = true;
        self.numbers = None;
    }

    /// The next picture is here with all its packets.
    pub(crate) fn picture(&mut self, shape: Shape, packets: &[Seen]) {
        let (frames, numbers) = (&mut self.frames, &mut self.numbers);
        let first = &packets[0];
        let end = &packets[packets.len() - 1];
        let mut fault = |what: &str| self.faults.push(format!("{}: {what}", first.sequence));
        let (mut spatial, mut part) = (0, 0);
        for one in packets {
            if one.shown.picture != first.shown.picture || one.shown.name != first.shown.name {
                fault("two pictures have one time");
            }
            if (one.shown.spatial, one.part) != (spatial, part) {
                fault("a picture is not whole");
            }
            if one.marker != (one.sequence == end.sequence) {
                fault("the marker is not at the end");
            }
            (spatial, part) = if one.ends {
                (spatial + 1, 0)
            } else {
                (spatial, part + 1)
            };
        }
        if !end.ends {
            fault("a frame is not whole");
        }
        if let (Some((id, tl0)), Some((before, tl0_before))) = (first.vp8, *numbers) {
            if id != (before + 1) & 0x7fff {
                fault("the picture id jumped");
            }
            if tl0 != tl0_before.wrapping_add(u8::from(first.shown.temporal == 0)) {
                fault("the base layer's index jumped");
            }
        }
        *numbers = first.vp8;
        let is_key = first.since_key == 0;
        if is_key {
            self.is_stuck = false;
        }
        if self.is_stuck {
            return;
        }
        for spatial in 0..=end.shown.spatial {
            let Shown { picture, name, .. } = first.shown;
            let mut needs = Vec::new();
            if !is_key {
                let references = shape.references(first.since_key);
                needs.extend(
                    references
                        .iter()
                        .map(|back| (name, picture - back, spatial)),
                );
            }
            if spatial > 0 && (is_key || !shape.is_key_only) {
                needs.push((name, picture, spatial - 1));
            }
            if needs.iter().all(|one| frames.contains(one)) {
                frames.insert((name, picture, spatial));
            } else {
                let sequence = first.sequence;
                let what = format!(
                    "{sequence}: layer {spatial} of {:?} does not decode",
                    first.shown
                );
                self.faults.push(what);
            }
        }
        self.shown.push(end.shown);
    }

    /// The spatial and temporal layers, each the uppermost, of the pictures from one on.
    pub(crate) fn top_since(&self, picture: usize) -> (u8, u8) {
        let shown = || self.shown[picture.min(self.shown.len())..].iter();
        let spatial = shown().map(|one| one.spatial).max().unwrap_or(0);
        (spatial, shown().map(|one| one.temporal).max().unwrap_or(0))
    }
}
