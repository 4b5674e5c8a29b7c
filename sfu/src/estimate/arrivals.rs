//! Transport-wide feedback: which packets came, and when by the receiver's clock
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

use std::time::Duration;

/// Packets that one feedback may speak of. More than a quarter of a second's at any rate sent here;
/// what says more is made up.
pub(crate) const MOST: usize = 1024;

/// A unit of the reference time.
const REFERENCE: Duration = Duration::from_millis(64);

/// A unit of the differences.
const DELTA: Duration = Duration::from_micros(250);

/// The reference time counts on from 0 after this, in microseconds.
pub(crate) const WRAP: i64 = (1 << 24) * REFERENCE.as_micros() as i64;

/// A feedback that does not hold what it says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The symbols of a chunk: how many there are, and which is at a place.
fn symbol(chunk: u16, at: usize) -> u16 {
    if chunk & 0x8000 == 0 {
        chunk >> 13
    } else if chunk & 0x4000 == 0 {
        (chunk >> (13 - at)) & 1
    } else {
        (chunk >> (12 - 2 * at)) & 3
    }
}

fn symbols(chunk: u16) -> usize {
    match chunk >> 14 {
        0 | 1 => usize::from(chunk & 0x1fff),
        2 => 14,
        _ => 7,
    }
}

/// Tells of each packet in order whether it came, and when: microseconds of the receiver's clock,
/// less than [`WRAP`] apart from the first. `body` begins at the base sequence number.
///
/// # Errors
/// Where it is shorter than it says; what was told before counts.
pub(crate) fn read(body: &[u8], mut each: impl FnMut(u16, Option<i64>)) -> Result<(), Malformed> {
    let [a, b, c, d, e, f, g, _, rest @ ..] = body else {
        return Err(Malformed);
    };
    let base = u16::from_be_bytes([*a, *b]);
    let count = usize::from(u16::from_be_bytes([*c, *d]));
    if count > MOST {
        return Err(Malformed);
    }
    let reference = u32::from_be_bytes([0, *e, *f, *g]);
    let mut told = 0;
    let mut chunks = 0;
    while told < count {
        let chunk = rest.get(chunks..chunks + 2).ok_or(Malformed)?;
        let chunk = u16::from_be_bytes([chunk[0], chunk[1]]);
        told += symbols(chunk);
        chunks += 2;
        if symbols(chunk) == 0 {
            return Err(Malformed);
        }
    }
    let (chunks, mut deltas) = rest.split_at(chunks);
    let mut time = i64::from(reference) * REFERENCE.as_micros() as i64;
    let unit = DELTA.as_micros() as i64;
    let mut told = 0;
    for chunk in chunks.chunks_exact(2) {
        let chunk = u16::from_be_bytes([chunk[0], chunk[1]]);
        for at in 0..symbols(chunk).min(count - told) {
            let arrived = match symbol(chunk, at) {
                1 => {
                    let (delta, rest) = deltas.split_first().ok_or(Malformed)?;
                    deltas = rest;
                    time += i64::from(*delta) * unit;
                    Some(time)
                }
                2 => {
                    let (delta, rest) = deltas.split_first_chunk().ok_or(Malformed)?;
                    deltas = rest;
                    time += i64::from(i16::from_be_bytes(*delta)) * unit;
                    Some(time)
                }
                _ => None,
            };
            each(base.wrapping_add(told as u16), arrived);
            told += 1;
        }
    }
    Ok(())
}

/// Checks that any body is survived and tells no more than it may.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(body: &[u8]) {
    let mut told = 0;
    let _ = read(body, |_, _| told += 1);
    assert!(told <= MOST);
}

/// A feedback in two-bit vectors, for tests.
#[cfg(test)]
pub(crate) fn write(base: u16, arrivals: &[Option<i64>]) -> Vec<u8> {
    let unit = DELTA.as_micros() as i64;
    let first = arrivals.iter().flatten().next().copied().unwrap_or(0);
    let reference = first / REFERENCE.as_micros() as i64;
    let mut time = reference * REFERENCE.as_micros() as i64;
    let mut out = base.to_be_bytes().to_vec();
    out.extend((arrivals.len() as u16).to_be_bytes());
    out.extend(&(((reference as u32) & 0xff_ffff) << 8).to_be_bytes()[..3]);
    out.push(0);
    let mut deltas = Vec::new();
    let mut symbols = Vec::new();
    for arrival in arrivals {
        symbols.push(match arrival {
            None => 0_u16,
            Some(arrived) => {
                let delta = (arrived - time) / unit;
                time += delta * unit;
                if let Ok(short) = u8::try_from(delta) {
                    deltas.push(short);
                    1
                } else {
                    deltas.extend((delta as i16).to_be_bytes());
                    2
                }
            }
        });
    }
    for seven in symbols.chunks(7) {
        let mut chunk = 0xc000_u16;
        for (at, symbol) in seven.iter().enumerate() {
            chunk |= symbol << (12 - 2 * at);
        }
        out.extend(chunk.to_be_bytes());
    }
    out.extend(deltas);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(body: &[u8]) -> Result<Vec<(u16, Option<i64>)>, Malformed> {
        let mut all = Vec::new();
        read(body, |sequence, arrived| all.push((sequence, arrived)))?;
        Ok(all)
    }

    #[test]
    fn runs_and_vectors_are_read_and_numbers_wrap() {
        let mut body = vec![0xff, 0xff, 0, 6, 0, 0, 2, 9];
        // Two that came, run length; two bits: not, large, not; the rest is filling.
        body.extend(0x2002_u16.to_be_bytes());
        body.extend((0xc000_u16 | (2 << 10)).to_be_bytes());
        body.extend([4, 8, 0xff, 0xfe]);
        assert_eq!(
            told(&body),
            Ok(vec![
                (65_535, Some(129_000)),
                (0, Some(131_000)),
                (1, None),
                (2, Some(130_500)),
                (3, None),
                (4, None),
            ])
        );
        let one_bit = [0, 1, 0, 3, 0, 0, 0, 0, 0xa8, 0, 1, 2];
        let all = told(&one_bit).unwrap();
        assert_eq!(all, [(1, Some(250)), (2, None), (3, Some(750))]);
    }

    #[test]
    fn what_says_more_than_it_holds_is_refused() {
        let whole = write(5, &[Some(1_000_000), None, Some(1_100_000)]);
        assert_eq!(told(&whole).unwrap().len(), 3);
        for length in 0..whole.len() {
            assert_eq!(told(&whole[..length]), Err(Malformed), "{length}");
        }
        assert_eq!(
            told(&[0, 0, 0xff, 0xff, 0, 0, 0, 0, 0x3f, 0xff]),
            Err(Malformed)
        );
        assert_eq!(
            told(&[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
            Err(Malformed),
            "an empty run"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            check(&body);
        }

        #[test]
        fn what_is_written_is_read_again(
            base: u16,
            gaps in proptest::collection::vec(proptest::option::of(0..500_000_i64), 1..300),
        ) {
            let mut time = 77_000_000;
            let arrivals: Vec<Option<i64>> = gaps
                .into_iter()
                .map(|gap| gap.map(|gap| { time += gap / 250 * 250; time }))
                .collect();
            let read: Vec<_> = told(&write(base, &arrivals)).unwrap();
            prop_assert_eq!(read.len(), arrivals.len());
            for ((_, read), written) in read.iter().zip(&arrivals) {
                prop_assert_eq!(read, written);
            }
        }
    }
}
