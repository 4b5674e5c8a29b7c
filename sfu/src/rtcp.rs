//! The reports about what the egress sends: those written to subscribers, and those read from them
//! (RFC 3550, RFC 4585, RFC 5104).

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

/// Message types of feedback (RFC 4585 §6.2 and §6.3, RFC 5104 §4.3, transport-wide congestion
/// control, REMB).
const NACK: u8 = 1;
const PLI: u8 = 1;
const FIR: u8 = 4;
const TRANSPORT_WIDE: u8 = 15;
const APPLICATION: u8 = 15;

const CNAME: u8 = 1;

/// The longest CNAME written; its length has one byte.
pub(crate) const MAX_CNAME: usize = 255;

/// What a sender report says of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SenderReport {
    pub(crate) ssrc: u32,
    /// Seconds since 1900 in the upper half, their fraction in the lower.
    pub(crate) ntp: u64,
    /// The RTP timestamp of that moment.
    pub(crate) timestamp: u32,
    /// Packets sent, modulo 2³².
    pub(crate) packets: u32,
    /// Payload bytes sent, modulo 2³².
    pub(crate) octets: u32,
}

/// What one receiver tells of one stream (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reception {
    pub(crate) ssrc: u32,
    /// Of 256, since its last report.
    pub(crate) lost: u8,
    /// In all; negative where more came than were sent.
    pub(crate) lost_in_all: i32,
    /// The highest sequence number received, with the receiver's count of cycles above it.
    pub(crate) highest: u32,
    /// In units of the stream's clock.
    pub(crate) jitter: u32,
    /// The middle of the NTP time of the last sender report, or 0.
    pub(crate) last_report: u32,
    /// Since that report came, in 1/65536 seconds.
    pub(crate) delay: u32,
}

/// One thing that a subscriber's compound packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told<'a> {
    Reception(Reception),
    /// Sequence numbers of `ssrc` that did not come.
    Missing {
        ssrc: u32,
        sequences: Sequences<'a>,
    },
    /// A keyframe of `ssrc` is wanted.
    KeyframeWanted {
        ssrc: u32,
    },
    /// When which transport-wide numbers came: the feedback's body from its base number on.
    Arrivals(&'a [u8]),
    /// The receiver's estimate, in bits per second.
    Estimate(u64),
    /// `ssrc` sends and reports no more.
    Goodbye {
        ssrc: u32,
    },
    /// For the engine, which receives what this client publishes: a sender's report, names,
    /// extended reports.
    OfPublisher,
}

/// Sequence numbers in the pairs of a NACK (RFC 4585 §6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequences<'a>(&'a [u8]);

impl Sequences<'_> {
    pub(crate) fn iter(self) -> impl Iterator<Item = u16> {
        self.0.chunks_exact(4).flat_map(|pair| {
            let first = u16::from_be_bytes([pair[0], pair[1]]);
            let mask = u16::from_be_bytes([pair[2], pair[3]]);
            let after = (0..16)
                .filter(move |bit| mask & (1 << bit) != 0)
                .map(move |bit| first.wrapping_add(bit + 1));
            std::iter::once(first).chain(after)
        })
    }
}

/// A compound packet that does not hold what its lengths say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Tells `tell` everything in a compound packet, in order. What is unknown is passed over.
///
/// # Errors
/// Where a length does not fit; what was told before it stays told.
pub(crate) fn read<'a>(
    compound: &'a [u8],
    mut tell: impl FnMut(Told<'a>),
) -> Result<(), Malformed> {
    let mut rest = compound;
    while !rest.is_empty() {
        let [first, kind, high, low, ..] = *rest else {
            return Err(Malformed);
        };
        let length = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        if first >> 6 != 2 || length > rest.len() {
            return Err(Malformed);
        }
        let (packet, after) = rest.split_at(length);
        rest = after;
        let padding = if first & 0x20 == 0 {
            0
        } else {
            usize::from(packet[length - 1])
        };
        let Some(body) = packet[4..].len().checked_sub(padding) else {
            return Err(Malformed);
        };
        let body = &packet[4..4 + body];
        read_one(first & 0x1f, kind, body, &mut tell)?;
    }
    Ok(())
}

fn read_one<'a>(
    count: u8,
    kind: u8,
    body: &'a [u8],
    tell: &mut impl FnMut(Told<'a>),
) -> Result<(), Malformed> {
    let need = |bytes: usize| {
        if body.len() < bytes {
            Err(Malformed)
        } else {
            Ok(())
        }
    };
    match kind {
        SENDER_REPORT | RECEIVER_REPORT => {
            let begin = if kind == SENDER_REPORT { 24 } else { 4 };
            need(begin + 24 * usize::from(count))?;
            if kind == SENDER_REPORT {
                tell(Told::OfPublisher);
            }
            body[begin..]
                .chunks_exact(24)
                .take(usize::from(count))
                .for_each(|block| tell(Told::Reception(reception(block))))
        }
        GOODBYE => {
            need(4 * usize::from(count))?;
            (0..usize::from(count)).for_each(|at| {
                tell(Told::Goodbye {
                    ssrc: word(body, 4 * at),
                })
            })
        }
        TRANSPORT_FEEDBACK => {
            need(8)?;
            match count {
                NACK => tell(Told::Missing {
                    ssrc: word(body, 4),
                    sequences: Sequences(&body[8..]),
                }),
                TRANSPORT_WIDE => tell(Told::Arrivals(&body[8..])),
                _ => {}
            }
        }
        PAYLOAD_FEEDBACK => {
            need(8)?;
            match count {
                PLI => tell(Told::KeyframeWanted {
                    ssrc: word(body, 4),
                }),
                FIR => body[8..].chunks_exact(8).for_each(|entry| {
                    tell(Told::KeyframeWanted {
                        ssrc: word(entry, 0),
                    })
                }),
                APPLICATION if body.len() >= 16 && &body[8..12] == b"REMB" => {
                    let exponent = body[13] >> 2;
                    let mantissa = word(body, 12) & 0x3_ffff;
                    tell(Told::Estimate(
                        u64::from(mantissa)
                            .checked_shl(u32::from(exponent))
                            .filter(|estimate| estimate >> exponent == u64::from(mantissa))
                            .unwrap_or(u64::MAX),
                    ))
                }
                _ => {}
            }
        }
        _ => tell(Told::OfPublisher),
    }
    Ok(())
}

fn reception(block: &[u8]) -> Reception {
    let lost = word(block, 4);
    Reception {
        ssrc: word(block, 0),
        lost: (lost >> 24) as u8,
        // A signed number of 24 bits.
        lost_in_all: ((lost << 8) as i32) >> 8,
        highest: word(block, 8),
        jitter: word(block, 12),
        last_report: word(block, 16),
        delay: word(block, 20),
    }
}

fn header(out: &mut Vec<u8>, count: u8, kind: u8, words: usize) {
    out.extend([0x80 | count, kind]);
    out.extend((words as u16 - 1).to_be_bytes());
}

/// Writes a sender report of one stream, and the name that ties it to the streams it is played
/// with.
pub(crate) fn write_report(out: &mut Vec<u8>, report: &SenderReport, cname: &str) {
    header(out, 0, SENDER_REPORT, 7);
    out.extend(report.ssrc.to_be_bytes());
    out.extend(report.ntp.to_be_bytes());
    out.extend(report.timestamp.to_be_bytes());
    out.extend(report.packets.to_be_bytes());
    out.extend(report.octets.to_be_bytes());
    let cname = &cname.as_bytes()[..cname.len().min(MAX_CNAME)];
    // The item, at least one zero behind it, and zeros up to a whole word.
    let words = 2 + (2 + cname.len()) / 4 + 1;
    header(out, 1, SOURCE_DESCRIPTION, words);
    out.extend(report.ssrc.to_be_bytes());
    out.extend([CNAME, cname.len() as u8]);
    out.extend(cname);
    out.resize(out.len() + 4 - (2 + cname.len()) % 4, 0);
}

/// Writes that a stream ends, behind an empty report, with which a compound begins (RFC 3550 §6.1).
pub(crate) fn write_goodbye(out: &mut Vec<u8>, ssrc: u32) {
    header(out, 0, RECEIVER_REPORT, 2);
    out.extend(ssrc.to_be_bytes());
    header(out, 1, GOODBYE, 2);
    out.extend(ssrc.to_be_bytes());
}

/// Checks that a compound is survived and tells no more than its length lets it.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_read(compound: &[u8]) {
    let mut told = 0;
    let _ = read(compound, |one| {
        told += 1;
        if let Told::Missing { sequences, .. } = one {
            assert!(sequences.iter().count() <= 17 * compound.len() / 4);
        }
    });
    assert!(told <= compound.len() / 4);
}

/// Checks that a report and a goodbye are read again, and what stands where in the report.
#[cfg(any(test, fuzzing))]
pub(crate) fn check_written(
    (ssrc, ntp, timestamp, packets, octets): (u32, u64, u32, u32, u32),
    cname: &str,
) {
    let report = SenderReport {
        ssrc,
        ntp,
        timestamp,
        packets,
        octets,
    };
    let mut out = Vec::new();
    write_report(&mut out, &report, cname);
    assert_eq!(word(&out, 4), ssrc);
    assert_eq!(out[8..16], ntp.to_be_bytes());
    assert_eq!(
        [16, 20, 24].map(|at| word(&out, at)),
        [timestamp, packets, octets]
    );
    assert_eq!(word(&out, 32), ssrc);
    let name = &cname.as_bytes()[..cname.len().min(MAX_CNAME)];
    assert_eq!((out[36], usize::from(out[37])), (CNAME, name.len()));
    assert_eq!(&out[38..38 + name.len()], name);
    let rest = &out[38 + name.len()..];
    assert!((1..=4).contains(&rest.len()) && rest.iter().all(|byte| *byte == 0));
    write_goodbye(&mut out, ssrc);
    let mut told = Vec::new();
    assert_eq!(read(&out, |one| told.push(one)), Ok(()));
    let publisher = Told::OfPublisher;
    assert_eq!(told, [publisher, publisher, Told::Goodbye { ssrc }]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(compound: &[u8]) -> Result<Vec<Told<'_>>, Malformed> {
        let mut all = Vec::new();
        read(compound, |one| all.push(one))?;
        Ok(all)
    }

    fn feedback(kind: u8, count: u8, media: u32, rest: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        header(&mut out, count, kind, 3 + rest.len() / 4);
        out.extend(1_u32.to_be_bytes());
        out.extend(media.to_be_bytes());
        out.extend(rest);
        out
    }

    #[test]
    fn a_report_of_ours_is_whole_words_and_says_what_it_shall() {
        for length in 0..9 {
            let report = SenderReport {
                ssrc: 7,
                ntp: 1 << 40,
                timestamp: 9,
                packets: 3,
                octets: 300,
            };
            let mut out = Vec::new();
            write_report(&mut out, &report, &"c".repeat(length));
            write_goodbye(&mut out, 7);
            assert_eq!(out.len() % 4, 0);
            assert_eq!(
                told(&out).unwrap(),
                [
                    Told::OfPublisher,
                    Told::OfPublisher,
                    Told::Goodbye { ssrc: 7 }
                ]
            );
            assert_eq!(word(&out, 8), 256);
            // The item ends with a zero (RFC 3550 §6.5).
            let item = &out[36..];
            assert_eq!((item[0], usize::from(item[1])), (CNAME, length));
            assert_eq!(item[2 + length], 0);
        }
    }

    #[test]
    fn what_is_missing_is_read_from_the_pairs() {
        let compound = feedback(
            TRANSPORT_FEEDBACK,
            NACK,
            5,
            &[0xff, 0xff, 0x80, 0x01, 0, 9, 0, 0],
        );
        let all = told(&compound).unwrap();
        let [Told::Missing { ssrc: 5, sequences }] = all[..] else {
            panic!("{all:?}")
        };
        assert_eq!(sequences.iter().collect::<Vec<_>>(), [65_535, 0, 15, 9]);
    }

    #[test]
    fn keyframes_estimates_and_receptions_are_read() {
        let mut compound = feedback(PAYLOAD_FEEDBACK, PLI, 5, &[]);
        let entries = [0, 0, 0, 6, 1, 0, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0];
        compound.extend(feedback(PAYLOAD_FEEDBACK, FIR, 0, &entries));
        let remb = [b'R', b'E', b'M', b'B', 1, (4 << 2) | 1, 0, 3, 0, 0, 0, 5];
        compound.extend(feedback(PAYLOAD_FEEDBACK, APPLICATION, 0, &remb));
        header(&mut compound, 1, RECEIVER_REPORT, 8);
        compound.extend(1_u32.to_be_bytes());
        for field in [5, 0x40ff_fffe, 70_000, 90, 0x1_0000, 65_536_u32] {
            compound.extend(field.to_be_bytes());
        }
        let reception = Reception {
            ssrc: 5,
            lost: 0x40,
            lost_in_all: -2,
            highest: 70_000,
            jitter: 90,
            last_report: 0x1_0000,
            delay: 65_536,
        };
        assert_eq!(
            told(&compound).unwrap(),
            [
                Told::KeyframeWanted { ssrc: 5 },
                Told::KeyframeWanted { ssrc: 6 },
                Told::KeyframeWanted { ssrc: 7 },
                Told::Estimate(0x1_0003 << 4),
                Told::Reception(reception),
            ]
        );
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let whole = feedback(TRANSPORT_FEEDBACK, NACK, 5, &[0; 4]);
        for length in 1..whole.len() {
            assert_eq!(told(&whole[..length]), Err(Malformed), "{length}");
        }
        // A report that says it has blocks, and padding longer than the packet.
        assert_eq!(
            told(&[0x81, RECEIVER_REPORT, 0, 1, 0, 0, 0, 1]),
            Err(Malformed)
        );
        assert_eq!(
            told(&[0xa0, RECEIVER_REPORT, 0, 1, 0, 0, 0, 9]),
            Err(Malformed)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            check_read(&bytes);
        }

        #[test]
        fn any_body_is_survived(
            kind in 200..210_u8, count in 0..32_u8, words in 1..20_usize, seed in any::<[u8; 76]>(),
        ) {
            let mut packet = Vec::new();
            header(&mut packet, count, kind, words);
            packet.extend(&seed[..4 * (words - 1)]);
            check_read(&packet);
        }

        #[test]
        fn what_is_written_is_read_again(
            numbers: (u32, u64, u32, u32, u32),
            cname in "\\PC{0,300}",
        ) {
            check_written(numbers, &cname);
        }
    }
}
