//! What must be known of a payload without decoding it: where a keyframe starts, VP8's running
//! numbers, and the newest frame in a RED packet. Reads only, never fails: what can't be read is
//! treated as an ordinary packet.

use crate::command::Codec;

/// Whether the first packet of a keyframe (a picture that decodes without earlier ones) begins
/// with this payload.
pub(crate) fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus => true,
        Codec::Vp8 => Vp8::parse(payload).is_some_and(|vp8| vp8.starts_keyframe),
        Codec::Vp9 => vp9_starts_keyframe(payload),
        Codec::H264 => h264_starts_keyframe(payload),
        Codec::Av1 => av1_starts_sequence(payload),
    }
}

/// RFC 9628 §4.2: the beginning of a frame (B) of the base layer that is not predicted from
/// another picture (P clear).
fn vp9_starts_keyframe(payload: &[u8]) -> bool {
    let Some(&first) = payload.first() else {
        return false;
    };
    let has_picture_id = first & 0x80 != 0;
    let is_predicted = first & 0x40 != 0;
    let has_layer = first & 0x20 != 0;
    let begins_frame = first & 0x08 != 0;
    if is_predicted || !begins_frame {
        return false;
    }
    if !has_layer {
        return true;
    }
    let mut at = 1;
    if has_picture_id {
        at += match payload.get(1) {
            Some(byte) if byte & 0x80 != 0 => 2,
            Some(_) => 1,
            None => return false,
        };
    }
    payload
        .get(at)
        .is_some_and(|layer| (layer >> 1) & 0x07 == 0)
}

/// RFC 6184 §5.2: a sequence parameter set or an IDR slice, alone, first in an aggregate, or
/// starting in a fragment.
fn h264_starts_keyframe(payload: &[u8]) -> bool {
    const IDR: u8 = 5;
    const SPS: u8 = 7;
    const STAP_A: u8 = 24;
    const FU_A: u8 = 28;
    let is_key = |header: u8| matches!(header & 0x1f, IDR | SPS);
    let Some(&header) = payload.first() else {
        return false;
    };
    match header & 0x1f {
        IDR | SPS => true,
        STAP_A => {
            let mut at = 1;
            while let Some(size) = payload.get(at..at + 2) {
                let size = usize::from(u16::from_be_bytes([size[0], size[1]]));
                match payload.get(at + 2) {
                    Some(&inner) if is_key(inner) => return true,
                    Some(_) => at += 2 + size,
                    None => return false,
                }
            }
            false
        }
        FU_A => payload
            .get(1)
            .is_some_and(|fragment| fragment & 0x80 != 0 && is_key(*fragment)),
        _ => false,
    }
}

/// AV1 RTP payload format §4.4: the N bit marks the first packet of a coded video sequence.
fn av1_starts_sequence(payload: &[u8]) -> bool {
    payload.first().is_some_and(|header| header & 0x08 != 0)
}

/// The running numbers of a VP8 payload descriptor (RFC 7741 §4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vp8 {
    /// PictureID and whether it has 15 bits.
    pub(crate) picture_id: Option<(u16, bool)>,
    pub(crate) tl0_pic_idx: Option<u8>,
    pub(crate) key_idx: Option<u8>,
    pub(crate) starts_keyframe: bool,
}

impl Vp8 {
    pub(crate) fn parse(payload: &[u8]) -> Option<Vp8> {
        let mut bytes = payload.iter().copied();
        let mut vp8 = Vp8::default();
        let first = bytes.next()?;
        if first & 0x80 != 0 {
            let present = bytes.next()?;
            if present & 0x80 != 0 {
                let high = bytes.next()?;
                vp8.picture_id = Some(if high & 0x80 != 0 {
                    (u16::from_be_bytes([high & 0x7f, bytes.next()?]), true)
                } else {
                    (u16::from(high), false)
                });
            }
            if present & 0x40 != 0 {
                vp8.tl0_pic_idx = Some(bytes.next()?);
            }
            if present & 0x30 != 0 {
                let byte = bytes.next()?;
                if present & 0x10 != 0 {
                    vp8.key_idx = Some(byte & 0x1f);
                }
            }
        }
        let begins_frame = first & 0x10 != 0 && first & 0x07 == 0;
        // RFC 7741 §4.3: the P bit of the payload header is clear for a keyframe.
        vp8.starts_keyframe = begins_frame && bytes.next().is_some_and(|header| header & 1 == 0);
        Some(vp8)
    }
}

impl Vp8 {
    /// Writes these numbers over those of a payload descriptor that has the same fields in the same
    /// widths; what it lacks is not added.
    pub(crate) fn write_over(&self, payload: &mut [u8]) {
        let Some([first, present]) = payload.first_chunk().copied() else {
            return;
        };
        if first & 0x80 == 0 {
            return;
        }
        let mut at = 2;
        if present & 0x80 != 0 {
            let Some(high) = payload.get(at).copied() else {
                return;
            };
            let is_wide = high & 0x80 != 0;
            match (self.picture_id, is_wide) {
                (Some((id, true)), true) => {
                    if let Some(place) = payload.get_mut(at..at + 2) {
                        place.copy_from_slice(&(id | 0x8000).to_be_bytes());
                    }
                }
                (Some((id, false)), false) => payload[at] = (id & 0x7f) as u8,
                _ => {}
            }
            at += 1 + usize::from(is_wide);
        }
        if present & 0x40 != 0 {
            if let (Some(index), Some(place)) = (self.tl0_pic_idx, payload.get_mut(at)) {
                *place = index;
            }
            at += 1;
        }
        if present & 0x10 != 0
            && let (Some(index), Some(place)) = (self.key_idx, payload.get_mut(at))
        {
            *place = (*place & 0xe0) | (index & 0x1f);
        }
    }
}

/// The newest (primary) block of a RED payload (RFC 2198 §3).
pub(crate) fn red_primary(payload: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    let mut older = 0;
    loop {
        let header = *payload.get(at)?;
        if header & 0x80 == 0 {
            return payload.get(at + 1 + older..);
        }
        let length = payload.get(at + 2..at + 4)?;
        older += usize::from(u16::from_be_bytes([length[0] & 0x03, length[1]]));
        at += 4;
    }
}

/// Checks that every reader survives a payload, that RED's primary is its end, and that VP8's numbers
/// written over a descriptor are read again and change nothing else.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(payload: &[u8], (id, tl0, key): (u16, u8, u8)) {
    for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
        starts_keyframe(codec, payload);
    }
    if let Some(primary) = red_primary(payload) {
        assert!(payload.ends_with(primary) && primary.len() < payload.len());
    }
    let mut written = payload.to_vec();
    if let Some(before) = Vp8::parse(payload) {
        let fits = |(_, is_wide)| (id & if is_wide { 0x7fff } else { 0x7f }, is_wide);
        let numbers = Vp8 {
            picture_id: before.picture_id.map(fits),
            tl0_pic_idx: before.tl0_pic_idx.map(|_| tl0),
            key_idx: before.key_idx.map(|_| key & 0x1f),
            ..before
        };
        numbers.write_over(&mut written);
        assert_eq!(Vp8::parse(&written), Some(numbers));
        before.write_over(&mut written);
        assert_eq!(written, payload, "written back");
    } else {
        let numbers = Vp8 {
            picture_id: Some((id, true)),
            tl0_pic_idx: Some(tl0),
            key_idx: Some(key),
            starts_keyframe: false,
        };
        numbers.write_over(&mut written);
        assert_eq!(written.len(), payload.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vp8_numbers_and_keyframes_are_read() {
        let key = [0x90, 0xf0, 0x81, 0x02, 0x07, 0x25, 0x00];
        assert_eq!(
            Vp8::parse(&key),
            Some(Vp8 {
                picture_id: Some((0x0102, true)),
                tl0_pic_idx: Some(7),
                key_idx: Some(5),
                starts_keyframe: true
            })
        );
        let mut delta = key;
        delta[6] = 1;
        assert!(!starts_keyframe(Codec::Vp8, &delta));
    }

    #[test]
    fn h264_keyframes_are_found_alone_aggregated_and_fragmented() {
        assert!(starts_keyframe(Codec::H264, &[0x67, 1]));
        assert!(starts_keyframe(
            Codec::H264,
            &[0x78, 0, 2, 0x09, 0x10, 0, 1, 0x67]
        ));
        assert!(starts_keyframe(Codec::H264, &[0x7c, 0x85]));
        assert!(
            !starts_keyframe(Codec::H264, &[0x7c, 0x05]),
            "not the first fragment"
        );
        assert!(!starts_keyframe(Codec::H264, &[0x41, 1]));
    }

    #[test]
    fn vp9_keyframes_start_in_the_base_layer() {
        assert!(starts_keyframe(Codec::Vp9, &[0xa8, 0x81, 0x01, 0x00]));
        assert!(!starts_keyframe(Codec::Vp9, &[0xa8, 0x81, 0x01, 0x02]));
        assert!(!starts_keyframe(Codec::Vp9, &[0xe8, 0x81, 0x01, 0x00]));
    }

    #[test]
    fn red_gives_its_primary() {
        let red = [0x80 | 111, 0, 0, 3, 111, 9, 9, 9, 1, 2];
        assert_eq!(red_primary(&red), Some(&[1u8, 2][..]));
        assert_eq!(red_primary(&[0x80, 0]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_numbers_written_are_read_again(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
            numbers: (u16, u8, u8),
        ) {
            check(&bytes, numbers);
            check(&bytes[..bytes.len().min(8)], numbers);
        }
    }
}
