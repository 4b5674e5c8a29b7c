//! What must be known of a payload without decoding it: where a keyframe starts, which layer it is of,
//! VP8's running numbers, and the newest frame in a RED packet. Reads only, never fails: what can't
//! be read is treated as an ordinary packet.

use crate::command::Codec;
use crate::layer::{Indices, Standing};

/// What a payload says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Description {
    /// The first packet of a keyframe (a picture that decodes without earlier ones) begins with it.
    pub(crate) starts_keyframe: bool,
    pub(crate) standing: Standing,
    pub(crate) vp8: Option<Vp8>,
    /// The uppermost spatial layer from here on, where it is told.
    pub(crate) top_spatial: Option<u8>,
}

/// Reads a payload.
pub(crate) fn describe(codec: Codec, payload: &[u8]) -> Description {
    let starts_keyframe = match codec {
        Codec::Vp8 => return vp8(payload).unwrap_or_default(),
        Codec::Vp9 => return vp9(payload).unwrap_or_default(),
        Codec::Opus => true,
        Codec::H264 => h264_starts_keyframe(payload),
        Codec::Av1 => av1_starts_sequence(payload),
    };
    Description {
        starts_keyframe,
        ..Description::default()
    }
}

/// The most pictures that a VP9 picture names as those it is predicted from.
const VP9_REFERENCES: usize = 3;

/// RFC 9628 §4.2. A keyframe begins with the frame (B) of the base layer that is not predicted from
/// another picture (P clear).
fn vp9(payload: &[u8]) -> Option<Description> {
    let mut bytes = payload.iter().copied();
    let first = bytes.next()?;
    let is = |bit: u8| first & bit != 0;
    let [
        has_id,
        is_predicted,
        has_layer,
        is_flexible,
        begins,
        ends,
        has_structure,
    ] = [0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02].map(is);
    if has_id && bytes.next()? & 0x80 != 0 {
        bytes.next()?;
    }
    let mut standing = Standing {
        ends_frame: ends,
        ..Standing::default()
    };
    if has_layer {
        let layer = bytes.next()?;
        standing.indices = Indices::new((layer >> 1) & 0x07, layer >> 5);
        // From a switching up point on, no upper temporal layer needs anything older.
        let can_raise = layer & 0x10 != 0;
        standing.raises = can_raise.then_some((standing.indices.temporal, u8::MAX));
        if !is_flexible {
            bytes.next()?;
        }
    }
    if is_flexible && is_predicted {
        for _ in 0..VP9_REFERENCES {
            if bytes.next()? & 0x01 == 0 {
                break;
            }
        }
    }
    let top_spatial = match has_structure {
        true => Some(Indices::new(bytes.next()? >> 5, 0).spatial),
        false => None,
    };
    standing.begins_picture = begins && standing.indices.spatial == 0;
    Some(Description {
        starts_keyframe: standing.begins_picture && !is_predicted,
        standing,
        vp8: None,
        top_spatial,
    })
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
}

/// RFC 7741 §4.2.
fn vp8(payload: &[u8]) -> Option<Description> {
    let mut bytes = payload.iter().copied();
    let mut numbers = Vp8::default();
    let mut standing = Standing::default();
    let first = bytes.next()?;
    if first & 0x80 != 0 {
        let present = bytes.next()?;
        if present & 0x80 != 0 {
            let high = bytes.next()?;
            numbers.picture_id = Some(if high & 0x80 != 0 {
                (u16::from_be_bytes([high & 0x7f, bytes.next()?]), true)
            } else {
                (u16::from(high), false)
            });
        }
        if present & 0x40 != 0 {
            numbers.tl0_pic_idx = Some(bytes.next()?);
        }
        if present & 0x30 != 0 {
            let byte = bytes.next()?;
            if present & 0x20 != 0 {
                let temporal = byte >> 6;
                standing.indices = Indices::new(0, temporal);
                // A frame that needs only the base layer (Y). Later ones of its layer may need it;
                // those of the layers between may need others.
                let is_sync = byte & 0x20 != 0;
                let below = temporal.checked_sub(1).filter(|_| is_sync);
                standing.raises = below.map(|below| (below, temporal));
            }
            if present & 0x10 != 0 {
                numbers.key_idx = Some(byte & 0x1f);
            }
        }
    }
    // A picture has one frame, whose end the marker tells.
    standing.begins_picture = first & 0x10 != 0 && first & 0x07 == 0;
    // RFC 7741 §4.3: the P bit of the payload header is clear for a keyframe.
    let is_key = |header: u8| header & 1 == 0;
    Some(Description {
        starts_keyframe: standing.begins_picture && bytes.next().is_some_and(is_key),
        standing,
        vp8: Some(numbers),
        top_spatial: None,
    })
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

/// The older blocks of a RED payload in their order: how long before the newest each is, in units of
/// the sound's clock, and what it holds. Ends where something is cut off.
pub(crate) fn red_older(payload: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let older = payload
        .chunks(4)
        .take_while(|header| header[0] & 0x80 != 0 && header.len() == 4);
    let mut at = 4 * older.clone().count() + 1;
    older.map_while(move |header| {
        let both = u32::from_be_bytes([0, header[1], header[2], header[3]]);
        let begin = at;
        at += (both & 0x3ff) as usize;
        Some((both >> 10, payload.get(begin..at)?))
    })
}

/// Checks that every reader survives a payload, that RED's primary is its end, and that VP8's numbers
/// written over a descriptor are read again and change nothing else.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(payload: &[u8], (id, tl0, key): (u16, u8, u8)) {
    for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
        let Standing { indices, .. } = describe(codec, payload).standing;
        assert_eq!(indices, Indices::new(indices.spatial, indices.temporal));
    }
    if let Some(primary) = red_primary(payload) {
        assert!(payload.ends_with(primary) && primary.len() < payload.len());
        let older: usize = red_older(payload).map(|(_, block)| 4 + block.len()).sum();
        assert_eq!(older + 1 + primary.len(), payload.len());
    }
    let mut written = payload.to_vec();
    let read = |payload: &[u8]| describe(Codec::Vp8, payload).vp8;
    if let Some(before) = read(payload) {
        let fits = |(_, is_wide)| (id & if is_wide { 0x7fff } else { 0x7f }, is_wide);
        let numbers = Vp8 {
            picture_id: before.picture_id.map(fits),
            tl0_pic_idx: before.tl0_pic_idx.map(|_| tl0),
            key_idx: before.key_idx.map(|_| key & 0x1f),
        };
        numbers.write_over(&mut written);
        assert_eq!(read(&written), Some(numbers));
        before.write_over(&mut written);
        assert_eq!(written, payload, "written back");
    } else {
        let numbers = Vp8 {
            picture_id: Some((id, true)),
            tl0_pic_idx: Some(tl0),
            key_idx: Some(key),
        };
        numbers.write_over(&mut written);
        assert_eq!(written.len(), payload.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
        describe(codec, payload).starts_keyframe
    }

    #[test]
    fn vp8_numbers_and_keyframes_are_read() {
        let key = [0x90, 0xf0, 0x81, 0x02, 0x07, 0x25, 0x00];
        assert!(starts_keyframe(Codec::Vp8, &key));
        assert_eq!(
            describe(Codec::Vp8, &key).vp8,
            Some(Vp8 {
                picture_id: Some((0x0102, true)),
                tl0_pic_idx: Some(7),
                key_idx: Some(5),
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
        assert!(starts_keyframe(Codec::Vp9, &[0xa8, 0x81, 0x01, 0x00, 0x07]));
        assert!(!starts_keyframe(
            Codec::Vp9,
            &[0xa8, 0x81, 0x01, 0x02, 0x07]
        ));
        assert!(!starts_keyframe(
            Codec::Vp9,
            &[0xe8, 0x81, 0x01, 0x00, 0x07]
        ));
    }

    #[test]
    fn vp8_tells_its_temporal_layer_and_where_to_go_up() {
        for (byte, temporal, raises) in [
            (0x00, 0, None),
            (0x20, 0, None),
            (0x60, 1, Some((0, 1))),
            (0x40, 1, None),
            (0xa0, 2, Some((1, 2))),
            (0x80, 2, None),
        ] {
            let begin = [0x90, 0xe0, 0x81, 0x02, 0x07, byte, 0x01];
            let expected = Standing {
                indices: Indices::new(0, temporal),
                begins_picture: true,
                ends_frame: false,
                raises,
            };
            assert_eq!(describe(Codec::Vp8, &begin).standing, expected, "{byte:x}");
            let mut later = begin;
            later[0] = 0x80;
            let standing = describe(Codec::Vp8, &later).standing;
            assert!(!standing.begins_picture && standing.indices == expected.indices);
        }
        // Without its bit (T) the field says nothing.
        let untold = [0x90, 0xd0, 0x81, 0x02, 0x07, 0xa5, 0x01];
        assert_eq!(
            describe(Codec::Vp8, &untold).standing.indices,
            Indices::default()
        );
    }

    #[test]
    fn vp9_tells_its_layers_in_either_mode() {
        const BEGINS: u8 = 0x08;
        const ENDS: u8 = 0x04;
        let standing = |spatial, temporal, bits: u8, raises| Standing {
            indices: Indices { spatial, temporal },
            begins_picture: bits & BEGINS != 0 && spatial == 0,
            ends_frame: bits & ENDS != 0,
            raises,
        };
        let none = None::<u8>;
        for (payload, expected, is_key, top) in [
            // I, L, B, V: a keyframe's base layer, the structure tells three spatial layers.
            (
                &[0xaa, 0x81, 0x23, 0x00, 0x09, 0x58][..],
                standing(0, 0, BEGINS, None),
                true,
                Some(2),
            ),
            // Its upper layer, inter-layer predicted, with its end.
            (
                &[0xac, 0x81, 0x23, 0x05, 0x09],
                standing(2, 0, ENDS, None),
                false,
                none,
            ),
            // I, P, L, B, E: the third temporal layer; a switching up point.
            (
                &[0xec, 0x12, 0x50, 0x09],
                standing(0, 2, BEGINS | ENDS, Some((2, 255))),
                false,
                none,
            ),
            // I, P, L, F, B with two pictures that it is predicted from, then a structure of one layer.
            (
                &[0xfa, 0x12, 0x32, 0x03, 0x04, 0x00],
                standing(1, 1, BEGINS, Some((1, 255))),
                false,
                Some(0),
            ),
            // Four pictures are one too many; the third ends the list.
            (
                &[0xfa, 0x12, 0x32, 0x03, 0x03, 0x03, 0x40],
                standing(1, 1, BEGINS, Some((1, 255))),
                false,
                Some(2),
            ),
            // No layers are told.
            (
                &[0x8c, 0x12],
                standing(0, 0, BEGINS | ENDS, None),
                true,
                none,
            ),
            // More layers than are told apart.
            (
                &[0xa8, 0x12, 0xee, 0x00],
                standing(2, 3, BEGINS, None),
                false,
                none,
            ),
            // It ends too soon.
            (&[0xa8, 0x81], Standing::default(), false, none),
        ] {
            let found = describe(Codec::Vp9, payload);
            assert_eq!(found.standing, expected, "{payload:x?}");
            assert_eq!(
                (found.starts_keyframe, found.top_spatial),
                (is_key, top),
                "{payload:x?}"
            );
        }
    }

    #[test]
    fn red_gives_its_primary() {
        let red = [0x80 | 111, 0, 0, 3, 111, 9, 9, 9, 1, 2];
        assert_eq!(red_primary(&red), Some(&[1u8, 2][..]));
        assert_eq!(red_older(&red).collect::<Vec<_>>(), [(0, &[9u8, 9, 9][..])]);
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
