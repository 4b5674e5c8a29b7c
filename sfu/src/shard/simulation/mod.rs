//! A shard with senders, watchers and their lines on a virtual clock, seed after seed: what comes can
//! be decoded, a line is not overrun, what fits is shown, and nothing flaps.
//!
//! Everything is real but the ends: what senders send is given to the shard in clear, and watchers are
//! played (`viewer`), over a DTLS without a handshake. `SIMULATION_SEEDS` says how many seeds are
//! played, `SIMULATION_FIRST` from which on.

mod scene;
mod stage;
#[path = "../../../tests/world/svc.rs"]
#[allow(dead_code, reason = "the tests outside use the rest")]
mod svc;
mod tally;
mod viewer;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use scene::{Camera, Scene, shape, simulcast};
use stage::Stage;
use svc::Shape;

use crate::command::Codec;
use crate::part::Part;

/// Seeds of the ordinary test run.
const SEEDS: u64 = 100;

/// Seeds by which the worth of a part is told.
const WORTH_SEEDS: u64 = 200;

/// For no longer than this more is sent than the estimate says, in seconds.
const OVER_AT_MOST: f64 = 5.0;

/// For no longer than this a queue is long, in seconds.
const QUEUED_AT_MOST: f64 = 12.0;

/// No longer than this a picture stands still that is not told to be paused, in seconds.
const STILL_AT_MOST: f64 = 5.0;

/// No longer than this a picture is paused that surely fits, in seconds: probes that fail pause for
/// eight, and the first after a change may.
const MISSED_AT_MOST: f64 = 20.0;

/// A picture changes no more often in ten seconds in which nothing else does.
const SWITCHES_AT_MOST: usize = 16;

/// What became of one seed.
#[derive(Debug, Default)]
struct Outcome {
    seed: u64,
    faults: Vec<String>,
    /// Longest spells in seconds.
    over: f64,
    queued: f64,
    still_longest: f64,
    missed: f64,
    most_switches: usize,
    worth: Worth,
}

/// What watchers had, summed up.
#[derive(Clone, Debug, Default)]
struct Worth {
    /// Bits of pictures that came, and that could have.
    came: f64,
    could: f64,
    /// Milliseconds that each packet waited.
    waits: Vec<f32>,
    switches: f64,
    /// Seconds of pictures: in which nothing else changes, that were wanted, shown, and stood still
    /// without a word.
    steady: f64,
    wanted: f64,
    shown: f64,
    still: f64,
    pictures: f64,
    /// Packets of sound, and those that came in time.
    sound: f64,
    in_time: f64,
}

impl Worth {
    fn add(&mut self, other: Worth) {
        self.came += other.came;
        self.could += other.could;
        self.waits.extend(other.waits);
        self.switches += other.switches;
        self.steady += other.steady;
        self.wanted += other.wanted;
        self.shown += other.shown;
        self.still += other.still;
        self.pictures += other.pictures;
        self.sound += other.sound;
        self.in_time += other.in_time;
    }

    /// The value below which so many percent of the waits lie.
    fn wait(&mut self, percent: usize) -> f32 {
        self.waits.sort_by(f32::total_cmp);
        let at = self.waits.len() * percent / 100;
        self.waits.get(at).copied().unwrap_or(0.0)
    }
}

fn play(scene: Scene, seed: u64) -> Outcome {
    let is_late = scene.late > 0.0;
    let mut stage = Stage::new(scene, seed);
    stage.run();
    let mut outcome = Outcome {
        seed,
        ..Outcome::default()
    };
    for (viewer, tally) in stage.viewers.iter_mut().zip(stage.tallies) {
        // What comes too late to be left out goes on for its number, and is half a picture.
        if !is_late {
            outcome.faults.extend(viewer.take_faults());
            if viewer.holes() > 0 {
                outcome.faults.push("numbers are left out".into());
            }
        }
        let missed = tally.missed.iter().map(|spell| spell.longest);
        outcome.missed = missed.fold(outcome.missed, f64::max);
        outcome.over = outcome.over.max(tally.over.longest);
        outcome.queued = outcome.queued.max(tally.queued.longest);
        let still = tally.frozen.iter().map(|spell| spell.longest);
        outcome.still_longest = still.fold(outcome.still_longest, f64::max);
        outcome.most_switches = outcome.most_switches.max(tally.most_switches);
        let mut worth = Worth {
            came: tally.came,
            could: tally.could,
            waits: viewer.way.waits.iter().map(|one| one.1 as f32).collect(),
            switches: tally.switches as f64,
            steady: tally.steady,
            wanted: tally.wanted,
            shown: tally.shown,
            still: tally.still,
            ..Worth::default()
        };
        for stream in &viewer.streams {
            worth.pictures += stream.pictures as f64;
            if stream.is_sound() {
                worth.sound += stream.sent as f64;
                worth.in_time += stream.in_time as f64;
            }
        }
        outcome.worth.add(worth);
    }
    outcome
}

/// Plays seeds on all processors, without a part of the share or with all; in their order.
fn play_all(seeds: Range<u64>, left_out: Option<Part>) -> Vec<Outcome> {
    let next = AtomicU64::new(seeds.start);
    let all = Mutex::new(Vec::new());
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                Part::leave_out(left_out);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = play(Scene::draw(seed), seed);
                    all.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap();
    all.sort_by_key(|outcome| outcome.seed);
    all
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// The seeds that are asked for.
fn seeds(usual: u64) -> Range<u64> {
    let first = number("SIMULATION_FIRST", 0);
    first..first + number("SIMULATION_SEEDS", usual)
}

#[test]
fn every_seed_keeps_what_is_promised() {
    let all = play_all(seeds(SEEDS), None);
    let mut wrong = Vec::new();
    for outcome in &all {
        let Outcome { seed, faults, .. } = outcome;
        if let Some(fault) = faults.first() {
            wrong.push(format!("seed {seed}: {fault} ({} in all)", faults.len()));
        }
        for (what, is, most) in [
            ("s over the estimate", outcome.over, OVER_AT_MOST),
            ("s of a long queue", outcome.queued, QUEUED_AT_MOST),
            (
                "s of a picture that stands",
                outcome.still_longest,
                STILL_AT_MOST,
            ),
            (
                "s of a picture missed that fits",
                outcome.missed,
                MISSED_AT_MOST,
            ),
            (
                "changes of a picture",
                outcome.most_switches as f64,
                SWITCHES_AT_MOST as f64,
            ),
        ] {
            if is > most {
                wrong.push(format!("seed {seed}: {is:.1} {what}"));
            }
        }
    }
    let most = |of: fn(&Outcome) -> f64| all.iter().map(of).fold(0.0, f64::max);
    println!(
        "the most of {}: over {:.1}, queued {:.1}, stands {:.1}, missed {:.1}, changes {}",
        all.len(),
        most(|one| one.over),
        most(|one| one.queued),
        most(|one| one.still_longest),
        most(|one| one.missed),
        most(|one| one.most_switches as f64),
    );
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        all.len(),
        wrong.join("\n")
    );
}

fn camera(layers: Vec<(&'static str, Shape)>) -> Camera {
    Camera {
        is_screen: false,
        layers,
        frame_rate: 30,
        is_told: false,
    }
}

/// What the watcher of a quiet scene got of its picture so far.
fn pictures(stage: &Stage) -> usize {
    stage.viewers[0]
        .streams
        .iter()
        .map(|one| one.pictures)
        .sum()
}

#[test]
fn a_picture_that_nothing_is_sent_beside_comes_back() {
    let stream = shape(Codec::Vp8, (1, 1), 8e5, 30);
    let rates = vec![(0.0, 3e5), (20.0, 3e6)];
    let mut scene = Scene::quiet(camera(vec![("f", stream)]), rates);
    scene.senders[0].has_sound = false;
    let mut stage = Stage::new(scene, 1);
    stage.run_until(19.0);
    assert!(stage.viewers[0].streams[0].is_paused, "it does not fit");
    let before = pictures(&stage);
    stage.run();
    assert!(!stage.viewers[0].streams[0].is_paused);
    assert!(
        pictures(&stage) > before + 20 * 30,
        "{}",
        pictures(&stage) - before
    );
}

#[test]
fn a_picture_is_not_taken_back_by_its_own_keyframe() {
    let layers = simulcast(1, 1.2e6, 30);
    let mut scene = Scene::quiet(camera(layers), vec![(0.0, 1.9e6)]);
    scene.watchers[0].unrest = vec![(0.0, 20.0); 3];
    let mut stage = Stage::new(scene, 1);
    stage.run();
    assert_eq!(stage.tallies[0].switches, 0, "{:?}", stage.tallies[0]);
}

#[test]
fn a_line_that_narrows_is_followed_within_five_seconds() {
    for (name, layers, (wide, narrow)) in [
        (
            "temporal",
            vec![("f", shape(Codec::Vp8, (1, 3), 4.5e5, 30))],
            (3e6, 3e5),
        ),
        ("simulcast", simulcast(3, 1.7e6, 30), (3e6, 3e5)),
        (
            "spatial",
            vec![("f", shape(Codec::Vp9, (3, 3), 1.7e6, 30))],
            (3e6, 3e5),
        ),
    ] {
        let rates = vec![(0.0, wide), (20.0, narrow)];
        let mut stage = Stage::new(Scene::quiet(camera(layers), rates), 1);
        stage.run_until(25.0);
        let waits = stage.viewers[0].way.waits.len();
        let before = pictures(&stage);
        stage.run_until(35.0);
        let rate = (pictures(&stage) - before) as f64 / 10.0;
        let waits: Vec<f64> = stage.viewers[0].way.waits[waits..]
            .iter()
            .map(|one| one.1)
            .collect();
        let long = waits.iter().filter(|wait| **wait > 200.0).count() as f64 / waits.len() as f64;
        assert!(
            rate > 6.5 && long < 0.05,
            "{name}: {rate} pictures a second, {long}"
        );
    }
}

#[test]
fn the_same_seed_is_played_the_same_way() {
    let told = || {
        let Worth { came, waits, .. } = play(Scene::draw(7), 7).worth;
        (came, waits.len(), waits.iter().sum::<f32>())
    };
    assert_eq!(told(), told());
}

/// What each part is worth, for the table of docs/performance.md: `cargo xtask bench share`.
#[test]
#[ignore = "minutes; `cargo xtask bench share`"]
fn worth() {
    for left_out in std::iter::once(None).chain(Part::ALL.map(Some)) {
        let mut worth = Worth::default();
        for outcome in play_all(seeds(WORTH_SEEDS), left_out) {
            worth.add(outcome.worth);
        }
        println!(
            "| {} | {:.1} % | {:.0} | {:.0} | {:.2} | {:.1} % | {:.1} | {:.2} | {:.2} % |",
            left_out.map_or("nothing", Part::name),
            100.0 * worth.came / worth.could,
            worth.wait(95),
            worth.wait(99),
            60.0 * worth.switches / worth.steady,
            100.0 * worth.shown / worth.wanted,
            worth.pictures / worth.wanted,
            60.0 * worth.still / worth.wanted,
            100.0 * (1.0 - worth.in_time / worth.sound),
        );
    }
}
