//! RTP headers of what the egress sends (RFC 3550 §5.1), with header extensions in their one-byte
//! form, or in the two-byte form where a value needs it (RFC 8285).

/// The fixed part of a header, in bytes.
const FIXED: usize = 12;

const ONE_BYTE_PROFILE: u16 = 0xbede;
const TWO_BYTE_PROFILE: u16 = 0x1000;

/// The longest value of the one-byte form, and the highest id it has.
const ONE_BYTE_VALUE: usize = 16;
const ONE_BYTE_ID: u8 = 14;

/// The fixed fields of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
}

/// A header extension's value under the id that the subscriber agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    /// 1 to 255.
    pub(crate) id: u8,
    pub(crate) value: &'a [u8],
}

/// Writes a header to the beginning of `out`; returns its length in bytes, or `None` where `out` is
/// too short. Extensions that can't be written (an id of 0, a value over 255 bytes) are left out;
/// `two_byte` says whether the subscriber takes the longer form, without which what needs it is
/// left out too.
pub(crate) fn write(
    out: &mut [u8],
    header: &Header,
    elements: &[Element<'_>],
    two_byte: bool,
) -> Option<usize> {
    let fits_one = |element: &&Element<'_>| {
        (1..=ONE_BYTE_ID).contains(&element.id)
            && (1..=ONE_BYTE_VALUE).contains(&element.value.len())
    };
    let fits_two =
        |element: &&Element<'_>| element.id != 0 && element.value.len() <= usize::from(u8::MAX);
    let is_long = two_byte
        && elements
            .iter()
            .any(|element| fits_two(&element) && !fits_one(&element));
    let head = if is_long { 2 } else { 1 };
    let written = || {
        elements.iter().filter(move |element| {
            if is_long {
                fits_two(element)
            } else {
                fits_one(element)
            }
        })
    };
    let bytes: usize = written().map(|element| head + element.value.len()).sum();
    let words = bytes.div_ceil(4);
    let length = FIXED + if bytes == 0 { 0 } else { 4 + 4 * words };
    let out = out.get_mut(..length)?;
    out[0] = 0x80 | if bytes == 0 { 0 } else { 0x10 };
    out[1] = (u8::from(header.marker) << 7) | (header.payload_type & 0x7f);
    out[2..4].copy_from_slice(&header.sequence.to_be_bytes());
    out[4..8].copy_from_slice(&header.timestamp.to_be_bytes());
    out[8..12].copy_from_slice(&header.ssrc.to_be_bytes());
    if bytes == 0 {
        return Some(length);
    }
    let profile = if is_long {
        TWO_BYTE_PROFILE
    } else {
        ONE_BYTE_PROFILE
    };
    out[12..14].copy_from_slice(&profile.to_be_bytes());
    out[14..16].copy_from_slice(&(words as u16).to_be_bytes());
    let mut at = 16;
    for element in written() {
        let size = element.value.len();
        if is_long {
            out[at..at + 2].copy_from_slice(&[element.id, size as u8]);
        } else {
            out[at] = (element.id << 4) | (size as u8 - 1);
        }
        at += head;
        out[at..at + size].copy_from_slice(element.value);
        at += size;
    }
    out[at..].fill(0);
    Some(length)
}

/// Checks that elements that are written are read again, by a reader of its own.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(values: &[(u8, Vec<u8>)], two_byte: bool) {
    let fields = Header {
        marker: true,
        payload_type: 96,
        sequence: 0x1234,
        timestamp: 0x5678_9abc,
        ssrc: 0xdef0_1234,
    };
    let elements: Vec<_> = values
        .iter()
        .map(|(id, value)| Element { id: *id, value })
        .collect();
    let mut out = vec![0xff; 16 + 260 * values.len()];
    let length = write(&mut out, &fields, &elements, two_byte).expect("there is room");
    assert!(out[length..].iter().all(|byte| *byte == 0xff));
    let header = &out[..length];
    assert_eq!(length % 4, 0);
    let mut found = Vec::new();
    if header[0] & 0x10 != 0 {
        let words = usize::from(u16::from_be_bytes([header[14], header[15]]));
        assert_eq!(length, FIXED + 4 + 4 * words);
        let is_long = header[12] == 0x10;
        let mut at = FIXED + 4;
        while at < length && header[at] != 0 {
            let (id, size, head) = if is_long {
                (header[at], usize::from(header[at + 1]), 2)
            } else {
                (header[at] >> 4, usize::from(header[at] & 15) + 1, 1)
            };
            found.push((id, header[at + head..at + head + size].to_vec()));
            at += head + size;
        }
        assert!(header[at..].iter().all(|byte| *byte == 0), "padding");
        assert!(length - at < 4, "no more padding than to a whole word");
    } else {
        assert_eq!(length, FIXED);
    }
    let is_short =
        |(id, value): &&(u8, Vec<u8>)| (1..=14).contains(id) && (1..=16).contains(&value.len());
    let is_any = |(id, value): &&(u8, Vec<u8>)| *id != 0 && value.len() <= 255;
    let expected: Vec<_> = values
        .iter()
        .filter(|value| {
            if two_byte {
                is_any(value)
            } else {
                is_short(value)
            }
        })
        .cloned()
        .collect();
    assert_eq!(found, expected);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header {
        marker: true,
        payload_type: 96,
        sequence: 0x1234,
        timestamp: 0x5678_9abc,
        ssrc: 0xdef0_1234,
    };

    fn written(elements: &[Element<'_>], two_byte: bool) -> Vec<u8> {
        let mut out = [0xff; 600];
        let length = write(&mut out, &HEADER, elements, two_byte).unwrap();
        out[..length].to_vec()
    }

    #[test]
    fn the_fixed_part_is_as_the_standard_shows() {
        assert_eq!(
            written(&[], true),
            [
                0x80, 0xe0, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0, 0x12, 0x34
            ]
        );
    }

    #[test]
    fn short_values_take_the_one_byte_form() {
        let elements = [
            Element { id: 1, value: &[7] },
            Element {
                id: 3,
                value: &[1, 2],
            },
        ];
        let header = written(&elements, true);
        assert_eq!(header[0], 0x90);
        assert_eq!(
            header[12..],
            [0xbe, 0xde, 0, 2, 0x10, 7, 0x31, 1, 2, 0, 0, 0]
        );
    }

    #[test]
    fn a_long_value_takes_the_two_byte_form_or_is_left_out() {
        let long = [9; 17];
        let elements = [
            Element { id: 1, value: &[7] },
            Element {
                id: 9,
                value: &long,
            },
        ];
        let header = written(&elements, true);
        assert_eq!(header[12..20], [0x10, 0, 0, 6, 1, 1, 7, 9]);
        assert_eq!(header[20], 17);
        assert_eq!(written(&elements, false), written(&elements[..1], false));
    }

    #[test]
    fn what_can_not_be_written_is_left_out() {
        let huge = [0; 256];
        for element in [
            Element { id: 0, value: &[1] },
            Element {
                id: 1,
                value: &huge,
            },
        ] {
            assert_eq!(written(&[element], true).len(), FIXED);
        }
        assert_eq!(write(&mut [0; 11], &HEADER, &[], true), None);
    }

    proptest! {
        #[test]
        fn elements_are_found_again(
            values in proptest::collection::vec(
                (0..40_u8, proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            two_byte in any::<bool>(),
        ) {
            check(&values, two_byte);
        }
    }
}
