//! What a seed draws: who sends what, whose line is how, and what is wanted when.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::svc::Shape;
use crate::command::{Codec, Quality, Selection};
use crate::line::Line;

/// A scene has so many stretches of time within which nothing changes, each so long in seconds.
pub(super) const STRETCHES: usize = 3;
pub(super) const STRETCH: f64 = 20.0;

/// The longest packet that an encoder makes, in bytes.
const LONGEST: f64 = 1100.0;

/// What one participant sends.
pub(super) struct Sender {
    pub(super) has_sound: bool,
    pub(super) pictures: Vec<Camera>,
}

/// A camera or a screen.
#[derive(Clone, Debug)]
pub(super) struct Camera {
    pub(super) is_screen: bool,
    /// The lowest first; one without simulcast.
    pub(super) layers: Vec<(&'static str, Shape)>,
    /// Pictures a second.
    pub(super) frame_rate: u32,
    /// It sends only what it was told that somebody gets.
    pub(super) is_told: bool,
}

/// Who watches.
#[derive(Clone)]
pub(super) struct Watcher {
    pub(super) line: Line,
    /// For each stretch of time: the share that is lost, and the jitter in milliseconds.
    pub(super) unrest: Vec<(f64, f64)>,
    /// For each stretch of time what is wanted of each picture.
    pub(super) wishes: Vec<Vec<Selection>>,
    /// How often it tells what came, in milliseconds.
    pub(super) tells_every: u64,
}

/// All that a seed draws.
pub(super) struct Scene {
    pub(super) senders: Vec<Sender>,
    pub(super) watchers: Vec<Watcher>,
    /// For each stretch of time: who speaks, and how lively each picture is.
    pub(super) speakers: Vec<usize>,
    pub(super) liveliness: Vec<Vec<f64>>,
    /// The share of a sender's packets that come late, as they had to be sent again.
    pub(super) late: f64,
    /// How long after it is asked for a keyframe is made.
    pub(super) keyframe_after: Duration,
}

/// A stream of so many bits per second in so many layers.
pub(super) fn shape(
    codec: Codec,
    (spatial, temporal): (u8, u8),
    bits: f64,
    frame_rate: u32,
) -> Shape {
    // A spatial layer costs about three times what those below it do.
    let shares: &[f64] = match spatial {
        1 => &[1.0],
        2 => &[0.25, 0.75],
        _ => &[0.08, 0.22, 0.7],
    };
    let frame = bits / 8.0 / f64::from(frame_rate);
    let mut parts = [1; 3];
    for (parts, share) in parts.iter_mut().zip(shares) {
        *parts = (frame * share / LONGEST).ceil().clamp(1.0, 40.0) as u8;
    }
    let count: u8 = parts[..usize::from(spatial)].iter().sum();
    Shape {
        parts,
        size: ((frame / f64::from(count)) as usize).clamp(60, 1200),
        key: 3,
        ..Shape::new(codec, spatial, temporal)
    }
}

/// Three streams of VP8 at a twelfth, three and a half tenths and all of so many bits.
pub(super) fn simulcast(temporal: u8, bits: f64, frame_rate: u32) -> Vec<(&'static str, Shape)> {
    let stream = |share| shape(Codec::Vp8, (1, temporal), bits * share, frame_rate);
    [("q", 0.085), ("h", 0.3), ("f", 1.0)]
        .map(|(name, share)| (name, stream(share)))
        .to_vec()
}

fn camera(random: &mut StdRng) -> Camera {
    let bits = between(random, 400e3, 2.2e6);
    let frame_rate = if random.random_bool(0.8) { 30 } else { 15 };
    let layered = |codec, layers: (u8, u8)| vec![("f", shape(codec, layers, bits, frame_rate))];
    let mut layers = match random.random_range(0..9) {
        0 => layered(Codec::Vp8, (1, 1)),
        1 => layered(Codec::Vp8, (1, 3)),
        2 | 3 => simulcast(1, bits, frame_rate),
        4 | 5 => simulcast(3, bits, frame_rate),
        6 => layered(Codec::Vp9, (3, 3)),
        7 => layered(
            Codec::Vp9,
            [(2, 3), (3, 1), (1, 3)][random.random_range(0..3)],
        ),
        _ => layered(
            Codec::Av1,
            [(3, 3), (2, 3), (1, 3)][random.random_range(0..3)],
        ),
    };
    let is_key_only = random.random_bool(0.7);
    for (_, shape) in &mut layers {
        shape.is_key_only = is_key_only;
    }
    Camera {
        is_screen: false,
        layers,
        frame_rate,
        is_told: random.random_bool(0.6),
    }
}

fn screen(random: &mut StdRng) -> Camera {
    let bits = between(random, 200e3, 1.5e6);
    let codec = [Codec::Vp8, Codec::Vp9][random.random_range(0..2)];
    Camera {
        is_screen: true,
        layers: vec![("f", shape(codec, (1, 1), bits, 5))],
        frame_rate: 5,
        is_told: false,
    }
}

/// Evenly spread by their logarithm.
fn between(random: &mut StdRng, low: f64, high: f64) -> f64 {
    random.random_range(low.ln()..high.ln()).exp()
}

fn wish(random: &mut StdRng) -> Selection {
    let quality = [Quality::High, Quality::Medium, Quality::Low];
    Selection {
        is_enabled: random.random_bool(0.92),
        area: [90_000, 230_000, 920_000][random.random_range(0..3)],
        is_pinned: random.random_bool(0.15),
        frame_rate: [0, 0, 0, 0, 0, 8, 15][random.random_range(0..7)],
        ..Selection::of(quality[random.random_range(0..5_usize).saturating_sub(2)])
    }
}

fn watcher(random: &mut StdRng, pictures: usize) -> Watcher {
    let mut wishes: Vec<Vec<Selection>> = Vec::new();
    for at in 0..STRETCHES {
        let mut now = wishes
            .last()
            .cloned()
            .unwrap_or_else(|| (0..pictures).map(|_| wish(random)).collect());
        if at > 0 {
            for one in &mut now {
                if random.random_bool(0.25) {
                    *one = wish(random);
                }
            }
        }
        wishes.push(now);
    }
    let rates = (0..STRETCHES).map(|at| (at as f64 * STRETCH, between(random, 200e3, 5e6)));
    let line = Line {
        rates: rates.collect(),
        queue_milliseconds: random.random_range(150.0..600.0),
        delay_milliseconds: random.random_range(5.0..120.0),
        ..Line::steady(0.0)
    };
    let mut unrest = Vec::new();
    for _ in 0..STRETCHES {
        let loss = if random.random_bool(0.5) {
            0.0
        } else {
            random.random_range(0.0..0.15)
        };
        let jitter = if random.random_bool(0.7) {
            0.0
        } else {
            random.random_range(0.0..30.0)
        };
        unrest.push((loss, jitter));
    }
    Watcher {
        line,
        unrest,
        wishes,
        tells_every: random.random_range(50..=150),
    }
}

impl Scene {
    pub(super) fn draw(seed: u64) -> Scene {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut senders: Vec<Sender> = (0..random.random_range(1..=4))
            .map(|_| Sender {
                has_sound: random.random_bool(0.8),
                pictures: vec![camera(random)],
            })
            .collect();
        if random.random_bool(0.25) {
            let screen = screen(random);
            senders[0].pictures.push(screen);
        }
        let pictures = senders.iter().map(|one| one.pictures.len()).sum();
        let watchers = (0..random.random_range(1..=2)).map(|_| watcher(random, pictures));
        Scene {
            watchers: watchers.collect(),
            speakers: (0..STRETCHES)
                .map(|_| random.random_range(0..senders.len()))
                .collect(),
            liveliness: (0..STRETCHES)
                .map(|_| {
                    let lively = |_| random.random_range(0.7..1.3);
                    (0..pictures).map(lively).collect()
                })
                .collect(),
            late: if random.random_bool(0.7) {
                0.0
            } else {
                random.random_range(0.0..0.02)
            },
            keyframe_after: Duration::from_millis(random.random_range(20..400)),
            senders,
        }
    }

    /// One who sends and one who watches over a steady line; nothing changes.
    pub(super) fn quiet(camera: Camera, rates: Vec<(f64, f64)>) -> Scene {
        let selection = Selection::of(Quality::High);
        Scene {
            senders: vec![Sender {
                has_sound: true,
                pictures: vec![camera],
            }],
            watchers: vec![Watcher {
                line: Line {
                    rates,
                    ..Line::steady(0.0)
                },
                unrest: vec![(0.0, 0.0); STRETCHES],
                wishes: vec![vec![selection]; STRETCHES],
                tells_every: 100,
            }],
            speakers: vec![0; STRETCHES],
            liveliness: vec![vec![1.0]; STRETCHES],
            late: 0.0,
            keyframe_after: Duration::from_millis(50),
        }
    }
}
