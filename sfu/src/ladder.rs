//! What each layer of a track costs and how many pictures a second it has, and the rungs that this
//! makes for a subscriber's line.
//!
//! A rung is a simulcast layer, or a stream's spatial layer with those below. On a thinner line a
//! picture becomes less sharp first and keeps its frame rate: a face that stutters is worse than a
//! small one. Only below the least sharp one come the lower frame rates, before there is no picture
//! at all.

use std::time::{Duration, Instant};

use crate::command::{Encoding, Quality};
use crate::layer::{Indices, SPATIAL_LAYERS, Standing, TEMPORAL_LAYERS};
use crate::part::Part;
use crate::track::LayerState;

/// What a packet adds on the line to its payload, in bytes: headers of IP, UDP and RTP, extensions,
/// tag.
const PACKET_OVERHEAD: u64 = 72;

/// How much of the last rate remains after each reading.
const SMOOTHING: f64 = 0.7;

/// Readings over which pictures are counted: there are but one or two of a low layer between two
/// readings.
const COUNTED: u32 = 12;

/// What a layer that was never seen is taken to cost, of the next lower one, in percent: twice the
/// width and height.
const NEXT_PERCENT: u64 = 350;

/// A lower frame rate that costs more than so much of the next one, in percent, is not worth it.
const WORTH_PERCENT: u64 = 90;

/// A frame rate so much below the one asked for, in percent, is as good; encoders are not exact.
const RATE_PERCENT: f64 = 90.0;

/// A count of pictures that moves by less, in percent, has not moved: what lies near to what somebody
/// wants would be now enough and now not.
const UNREST_PERCENT: f64 = 15.0;

/// What one layer of a stream adds to those below it.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    bytes: u64,
    packets: u64,
    pictures: u64,
    /// Bits per second.
    rate: Option<f64>,
    /// Pictures per second, and what they are taken to be.
    pictures_rate: Option<f64>,
    steady_pictures: f64,
    last: Option<Instant>,
}

/// What a stream's layers cost.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    cells: [[Cell; TEMPORAL_LAYERS]; SPATIAL_LAYERS],
    /// The uppermost that were told or seen.
    top: Indices,
    read: Option<Instant>,
    /// Up to [`COUNTED`].
    readings: u32,
}

fn smoothed(before: Option<f64>, rate: f64) -> Option<f64> {
    Some(match before {
        Some(before) if before > 0.0 => SMOOTHING * before + (1.0 - SMOOTHING) * rate,
        _ => rate,
    })
}

impl Meter {
    pub(crate) fn add(&mut self, standing: &Standing, payload: usize, now: Instant) {
        let Indices { spatial, temporal } = standing.indices;
        let Some(cell) = self
            .cells
            .get_mut(usize::from(spatial))
            .and_then(|cells| cells.get_mut(usize::from(temporal)))
        else {
            return;
        };
        cell.bytes += payload as u64;
        cell.packets += 1;
        cell.pictures += u64::from(standing.begins_picture);
        cell.last = Some(now);
        self.top.spatial = self.top.spatial.max(spatial);
        self.top.temporal = self.top.temporal.max(temporal);
    }

    /// A keyframe tells that there is nothing above this spatial layer from here on.
    pub(crate) fn set_top_spatial(&mut self, top: u8) {
        if top != self.top.spatial {
            self.top.spatial = top;
            self.cells
                .iter_mut()
                .skip(usize::from(top) + 1)
                .for_each(|cells| *cells = Default::default());
        }
    }

    /// The uppermost layers that the stream has.
    pub(crate) fn top(&self) -> Indices {
        self.top
    }

    /// The uppermost layers of which something came lately.
    pub(crate) fn live(&self, now: Instant, silence: Duration) -> Indices {
        let mut live = Indices::default();
        for (spatial, cells) in self.cells.iter().enumerate() {
            for (temporal, cell) in cells.iter().enumerate() {
                if cell
                    .last
                    .is_some_and(|last| now.saturating_duration_since(last) < silence)
                {
                    live.spatial = live.spatial.max(spatial as u8);
                    live.temporal = live.temporal.max(temporal as u8);
                }
            }
        }
        live
    }

    /// Takes what came since the last time; to be called a few times a second.
    pub(crate) fn read(&mut self, now: Instant) {
        let Some(since) = self.read.replace(now) else {
            self.forget_counts();
            return;
        };
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        let is_sent = self.cells.iter().flatten().any(|cell| cell.packets > 0);
        if seconds > 0.0 && is_sent {
            self.readings = (self.readings + 1).min(COUNTED);
            for cell in self.cells.iter_mut().flatten() {
                // What a layer cost is remembered while it is not sent.
                if cell.packets > 0 {
                    let bytes = cell.bytes + PACKET_OVERHEAD * cell.packets;
                    cell.rate = smoothed(cell.rate, bytes as f64 * 8.0 / seconds);
                }
                if cell.rate.is_some() {
                    let pictures = cell.pictures as f64 / seconds;
                    let before = cell.pictures_rate.unwrap_or(pictures);
                    let step = (pictures - before) / f64::from(self.readings);
                    let rate = before + step;
                    cell.pictures_rate = Some(rate);
                    let moved = (rate - cell.steady_pictures).abs();
                    if moved * 100.0 > cell.steady_pictures * UNREST_PERCENT {
                        cell.steady_pictures = rate;
                    }
                }
            }
        }
        self.forget_counts();
    }

    fn forget_counts(&mut self) {
        for cell in self.cells.iter_mut().flatten() {
            (cell.bytes, cell.packets, cell.pictures) = (0, 0, 0);
        }
    }

    /// What everything up to a layer costs, in bits per second; `None` before there was time to
    /// measure it.
    pub(crate) fn rate(&self, limit: Indices) -> Option<u64> {
        let cells = |spatial: usize| self.cells.get(spatial).into_iter().flatten();
        let spatial = usize::from(limit.spatial.min(self.top.spatial));
        let temporal = usize::from(limit.temporal.min(self.top.temporal));
        // A layer that was never seen can't be told from one that costs nothing.
        cells(spatial).find_map(|cell| cell.rate)?;
        let below = (0..=spatial).flat_map(|at| cells(at).take(temporal + 1));
        Some(below.filter_map(|cell| cell.rate).sum::<f64>() as u64)
    }

    /// How many pictures a second there are up to a temporal layer; `None` where none was counted.
    pub(crate) fn frame_rate(&self, temporal: u8) -> Option<f64> {
        let cells = self.cells[0].iter().take(usize::from(temporal) + 1);
        let sum: f64 = cells.filter_map(|cell| cell.pictures_rate).sum();
        (sum > 0.0).then_some(sum)
    }

    /// The lowest temporal layer with so many pictures a second; 0 pictures: all.
    fn covering(&self, frame_rate: u32) -> u8 {
        if frame_rate == 0 {
            return u8::MAX;
        }
        let wanted = f64::from(frame_rate) * RATE_PERCENT / 100.0;
        let mut sum = 0.0;
        for (temporal, cell) in self.cells[0].iter().enumerate() {
            sum += cell.steady_pictures;
            if sum >= wanted && temporal < usize::from(self.top.temporal) {
                return temporal as u8;
            }
        }
        u8::MAX
    }
}

/// One rung of a track's ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The simulcast layer.
    pub(crate) layer: usize,
    pub(crate) quality: Quality,
    /// Up to where its stream's layers are sent.
    pub(crate) limit: Indices,
    /// It has all the pictures that are wanted of its layer.
    pub(crate) is_smooth: bool,
    /// Bits per second.
    pub(crate) bits: u64,
}

/// The quality of a spatial layer; the uppermost is the best.
pub(crate) fn quality_of(spatial: u8, top: u8) -> Quality {
    match top.saturating_sub(spatial) {
        0 => Quality::High,
        1 => Quality::Medium,
        _ => Quality::Low,
    }
}

/// The layers of an encoding, by their places among all.
fn layers_of(layers: &[LayerState], encoding: Encoding) -> Vec<usize> {
    let is_of = |at: &usize| layers[*at].encoding == encoding;
    (0..layers.len()).filter(is_of).collect()
}

/// Up to which layers of its stream a quality and a frame rate go. With simulcast the quality is the
/// stream's.
pub(crate) fn limit(
    layers: &[LayerState],
    layer: usize,
    quality: Quality,
    frame_rate: u32,
) -> Indices {
    let Some(state) = layers.get(layer) else {
        return Indices::ALL;
    };
    let top = state.meter.top().spatial;
    let below = Quality::High as u8 - quality as u8;
    let of_encoding = layers.iter().filter(|one| one.encoding == state.encoding);
    Indices {
        spatial: if of_encoding.count() > 1 || below == 0 {
            u8::MAX
        } else {
            top.saturating_sub(below)
        },
        temporal: state.meter.covering(frame_rate),
    }
}

/// The rungs of an encoding that may be sent, the cheapest first: those that are not better than
/// wanted; where none is, the lowest. One that is not there now costs what it did when it was.
pub(crate) fn steps(
    layers: &[LayerState],
    encoding: Encoding,
    wanted: Quality,
    frame_rate: u32,
) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut add = |layer: usize, quality, spatial| {
        let meter = &layers[layer].meter;
        let limit = Indices {
            spatial,
            temporal: meter.covering(frame_rate),
        };
        let limit = limit.min(meter.top());
        steps.push(Step {
            layer,
            quality,
            limit,
            is_smooth: true,
            bits: 0,
        });
    };
    match layers_of(layers, encoding)[..] {
        [one] => {
            let top = layers[one].meter.top().spatial;
            (0..=top).for_each(|spatial| add(one, quality_of(spatial, top), spatial));
        }
        ref several => {
            for at in several {
                add(*at, layers[*at].quality, u8::MAX);
            }
        }
    }
    steps.sort_by_key(|step| step.quality);
    let within = steps.iter().filter(|step| step.quality <= wanted);
    let count = within.count().max(1);
    steps.truncate(count);
    let mut dearest = 0;
    for step in &mut steps {
        let guess = dearest * NEXT_PERCENT / 100;
        let rate = layers[step.layer].meter.rate(step.limit);
        dearest = rate.unwrap_or(guess).max(dearest);
        step.bits = dearest;
    }
    let Some(mut above) = steps
        .first()
        .copied()
        .filter(|_| Part::FrameRates.is_there())
    else {
        return steps;
    };
    let meter = &layers[above.layer].meter;
    for temporal in (0..above.limit.temporal).rev() {
        let limit = Indices {
            temporal,
            ..above.limit
        };
        let bits = meter.rate(limit).unwrap_or(above.bits);
        if bits * 100 <= above.bits * WORTH_PERCENT {
            above = Step {
                limit,
                bits,
                is_smooth: false,
                ..above
            };
            steps.insert(0, above);
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::TrackKind;
    use Quality::{High, Low, Medium};

    /// A second of a stream of 32 pictures, each frame of so many bytes by its spatial layer, with the
    /// temporal layers 0-2-1-2.
    fn stream(quality: Quality, sizes: &[usize], temporal: u8) -> LayerState {
        let mut state = LayerState::new(quality, None, TrackKind::Video);
        let begin = Instant::now();
        state.meter.read(begin);
        for picture in 0..32 {
            for (spatial, size) in (0..).zip(sizes) {
                let standing = Standing {
                    indices: Indices::new(spatial, [0, 2, 1, 2][picture % 4].min(temporal)),
                    begins_picture: spatial == 0,
                    ..Standing::default()
                };
                state.meter.add(&standing, *size, begin);
            }
        }
        state.meter.read(begin + Duration::from_secs(1));
        state
    }

    /// Each rung's quality, uppermost indices and pictures' worth of bits.
    fn rungs(
        layers: &[LayerState],
        wanted: Quality,
        frame_rate: u32,
    ) -> Vec<(Quality, u8, u8, u64)> {
        let steps = steps(layers, Encoding::Primary, wanted, frame_rate);
        let rung = |step: &Step| {
            let Indices { spatial, temporal } = step.limit;
            (step.quality, spatial, temporal, step.bits / 8000)
        };
        steps.iter().map(rung).collect()
    }

    // Of 1000 bytes with their overhead.
    const SIZE: usize = 1000 - PACKET_OVERHEAD as usize;

    #[test]
    fn spatial_layers_are_rungs_and_below_them_come_the_frame_rates() {
        let svc = [stream(High, &[SIZE, 2 * SIZE, 4 * SIZE], 2)];
        let all = rungs(&svc, High, 0);
        let (qualities, indices): (Vec<_>, Vec<_>) =
            all.iter().map(|rung| (rung.0, (rung.1, rung.2))).unzip();
        assert_eq!(qualities, [Low, Low, Low, Medium, High]);
        assert_eq!(indices, [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)]);
        let bits: Vec<u64> = all.iter().map(|rung| rung.3).collect();
        assert_eq!(bits[..3], [8, 16, 32]);
        assert!(bits.is_sorted());
        assert_eq!(rungs(&svc, Medium, 0), all[..4]);
        assert_eq!(rungs(&svc, Low, 0), all[..3]);
        // Of fewer pictures a second.
        assert_eq!(rungs(&svc, Low, 16), all[..2]);
        assert_eq!(rungs(&svc, High, 8)[0], all[0]);
    }

    #[test]
    fn simulcast_layers_are_rungs_and_only_the_lowest_has_slower_ones() {
        let layers = [
            stream(Low, &[SIZE], 2),
            stream(Medium, &[3 * SIZE], 2),
            LayerState::new(High, None, TrackKind::Video),
        ];
        let all = rungs(&layers, High, 0);
        let found: Vec<_> = all.iter().map(|rung| (rung.0, rung.2)).collect();
        assert_eq!(
            found,
            [(Low, 0), (Low, 1), (Low, 2), (Medium, 2), (High, 0)]
        );
        let guess = all[3].3 * NEXT_PERCENT / 100;
        assert!(
            all[4].3.abs_diff(guess) < 4,
            "what was never seen is guessed"
        );
        let plain = [stream(High, &[SIZE], 0)];
        assert_eq!(
            rungs(&plain, Low, 5),
            [(High, 0, 0, 32)],
            "there is nothing to choose from"
        );
    }

    #[test]
    fn a_quality_is_a_spatial_layer_counted_from_the_uppermost() {
        let svc = [stream(High, &[SIZE, SIZE, SIZE], 2)];
        let two = [stream(High, &[SIZE, SIZE], 2)];
        for (layers, quality, frame_rate, expected) in [
            (&svc, High, 0, Indices::ALL),
            (
                &svc,
                Medium,
                0,
                Indices {
                    spatial: 1,
                    ..Indices::ALL
                },
            ),
            (&svc, Low, 8, Indices::default()),
            (
                &two,
                Medium,
                15,
                Indices {
                    spatial: 0,
                    temporal: 1,
                },
            ),
            (
                &two,
                Low,
                30,
                Indices {
                    spatial: 0,
                    ..Indices::ALL
                },
            ),
        ] {
            assert_eq!(
                limit(layers, 0, quality, frame_rate),
                expected,
                "{quality:?} {frame_rate}"
            );
        }
        let mut fewer = stream(High, &[SIZE, SIZE, SIZE], 2);
        fewer.meter.set_top_spatial(0);
        assert_eq!(rungs(&[fewer], High, 0).last(), Some(&(High, 0, 2, 32)));
    }

    #[test]
    fn a_frame_rate_near_to_what_is_wanted_is_not_now_enough_and_now_not() {
        let mut meter = Meter::default();
        let mut now = Instant::now();
        meter.read(now);
        let mut told = Vec::new();
        // Thirty pictures a second, a quarter of them in the lowest layer: in some readings one of
        // those, in others two or three.
        for at in 0..1200_u32 {
            let picture = at / 30 % 3 + at;
            let standing = Standing {
                indices: Indices::new(0, [0, 2, 1, 2][picture as usize % 4]),
                begins_picture: true,
                ..Standing::default()
            };
            now += Duration::from_micros(33_333);
            meter.add(&standing, 500, now);
            if at % 8 == 7 {
                meter.read(now);
                told.push(meter.covering(8));
            }
        }
        told.drain(..COUNTED as usize);
        told.dedup();
        assert_eq!(told.len(), 1, "{told:?}");
    }
}
