//! Bytes per second over the last half second.

/// Stretches of time that are counted apart, and how long each is in microseconds.
const STRETCHES: usize = 10;
const STRETCH: i64 = 50_000;

/// Nothing is told before so much time has passed, in microseconds.
const SOONEST: i64 = 250_000;

/// Counts bytes by the time of the clock that it is told.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes: [u32; STRETCHES],
    /// The number of the stretch counted in, and when the first byte was.
    at: Option<(i64, i64)>,
    now: i64,
}

impl Meter {
    /// Time passes, in microseconds; it never goes back.
    pub(crate) fn pass(&mut self, time: i64) {
        let Some((at, _)) = &mut self.at else {
            return;
        };
        self.now = self.now.max(time);
        let stretch = self.now.div_euclid(STRETCH);
        if stretch - *at >= STRETCHES as i64 {
            self.bytes = [0; STRETCHES];
            *at = stretch;
        }
        while *at < stretch {
            *at += 1;
            self.bytes[at.rem_euclid(STRETCHES as i64) as usize] = 0;
        }
    }

    pub(crate) fn add(&mut self, time: i64, bytes: usize) {
        if self.at.is_none() {
            self.at = Some((time.div_euclid(STRETCH), time));
            self.now = time;
        }
        self.pass(time);
        // What comes out of turn is counted where the time is.
        let at = self.now.div_euclid(STRETCH);
        let place = &mut self.bytes[at.rem_euclid(STRETCHES as i64) as usize];
        *place = place.saturating_add(bytes as u32);
    }

    /// In bits per second.
    pub(crate) fn rate(&self) -> Option<f64> {
        let (at, first) = self.at?;
        let begin = ((at + 1 - STRETCHES as i64) * STRETCH).max(first);
        let passed = self.now - begin;
        if self.now - first < SOONEST {
            return None;
        }
        let bytes: u64 = self.bytes.iter().map(|bytes| u64::from(*bytes)).sum();
        Some(bytes as f64 * 8.0 * 1e6 / passed as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_told_after_a_while_and_forgotten_after_another() {
        let mut meter = Meter::default();
        assert_eq!(meter.rate(), None);
        let begin = -7_000_000;
        for at in 0..100 {
            meter.add(begin + at * 10_000, 1250);
            if at == 20 {
                assert_eq!(meter.rate(), None, "too soon");
            }
        }
        let rate = meter.rate().unwrap();
        assert!((0.95e6..1.1e6).contains(&rate), "{rate}");
        meter.pass(begin + 1_250_000);
        let half = meter.rate().unwrap();
        assert!((0.4e6..0.6e6).contains(&half), "{half}");
        meter.pass(begin + 9_000_000);
        assert_eq!(meter.rate(), Some(0.0));
    }
}
