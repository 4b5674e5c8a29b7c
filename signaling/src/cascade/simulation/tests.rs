//! The simulation in its short form, the seeds of the faults that it found, and, for each rule, that it
//! finds out when that is broken.

use super::{Options, run};
use crate::cascade::rule::Rule;

/// Villages of the ordinary test run.
const VILLAGES: usize = 60;

fn play(villages: usize, seed: u64, minutes: u64) -> Option<String> {
    run(Options {
        villages,
        seed,
        minutes,
        is_told: false,
    })
    .violation
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn a_province_keeps_its_promises_whatever_happens() {
    let first = number("SIMULATION_FIRST", 1);
    for seed in first..first + number("SIMULATION_SEEDS", 3) {
        assert_eq!(play(VILLAGES, seed, 2), None, "seed {seed}");
    }
}

/// Seeds that found faults: streams counted anew by each channel, two ends that answered each other's
/// beginnings for ever, voices that echoed from hop to hop, wishes for tracks that had ended, and a late
/// copy of a wish that had been taken back.
#[test]
fn seeds_that_found_faults() {
    for seed in [4, 10, 14] {
        assert_eq!(play(VILLAGES, seed, 3), None, "seed {seed}");
    }
}

#[test]
fn the_same_seed_plays_the_same() {
    let play = || {
        let options = Options {
            villages: 30,
            seed: 5,
            minutes: 1,
            is_told: false,
        };
        run(options).counts
    };
    assert_eq!(play(), play());
}

/// Plays seeds without one rule until something is found, which is not with all rules.
fn is_found_without(rule: Rule) {
    Rule::leave_out(Some(rule));
    let found = (1..12).find_map(|seed| Some((seed, play(VILLAGES, seed, 4)?)));
    Rule::leave_out(None);
    let (seed, found) =
        found.unwrap_or_else(|| panic!("nobody noticed that {rule:?} was left out"));
    println!("{rule:?}: {found}");
    assert_eq!(play(VILLAGES, seed, 4), None, "seed {seed} with all rules");
}

#[test]
fn a_wish_that_is_never_withdrawn_is_found() {
    is_found_without(Rule::WishWithdrawn);
}

#[test]
fn a_wish_that_outlives_its_line_is_found() {
    is_found_without(Rule::WishExpires);
}

#[test]
fn a_layer_that_is_the_last_one_wished_is_found() {
    is_found_without(Rule::LayerMaximum);
}

#[test]
#[ignore = "the script does not bring it about within so few seeds"]
fn a_way_that_leads_back_is_found() {
    is_found_without(Rule::NoLoop);
}

#[test]
#[ignore = "the script does not bring it about within so few seeds"]
fn a_mute_that_does_not_win_is_found() {
    is_found_without(Rule::MuteWins);
}

#[test]
fn a_difference_that_is_not_told_is_found() {
    is_found_without(Rule::DifferenceTold);
}

#[test]
fn a_restart_that_is_not_exposed_is_found() {
    is_found_without(Rule::RestartExposed);
}

#[test]
#[ignore = "the script does not bring it about within so few seeds"]
fn a_node_that_speaks_before_it_knows_is_found() {
    is_found_without(Rule::SilentUntilKnown);
}

#[test]
fn a_crowd_that_is_told_to_all_is_found() {
    is_found_without(Rule::CrowdCounted);
}

#[test]
fn a_message_that_is_applied_twice_is_found() {
    is_found_without(Rule::AppliedOnce);
}

#[test]
fn keyframe_requests_that_are_not_merged_is_found() {
    is_found_without(Rule::KeyframesMerged);
}

#[test]
fn keyframe_requests_that_are_not_repeated_is_found() {
    is_found_without(Rule::KeyframesRepeated);
}

#[test]
fn voices_that_are_all_heard_is_found() {
    is_found_without(Rule::LoudestHeard);
}

#[test]
fn a_speaker_of_its_own_at_each_node_is_found() {
    is_found_without(Rule::OneSpeaker);
}

#[test]
fn deafness_that_is_not_noticed_is_found() {
    is_found_without(Rule::DeafnessNoticed);
}

#[test]
fn media_that_is_not_watched_is_found() {
    is_found_without(Rule::MediaWatched);
}

#[test]
fn an_older_session_that_wins_is_found() {
    is_found_without(Rule::NewestSession);
}

#[test]
fn an_expiry_that_forgets_the_path_is_found() {
    is_found_without(Rule::ExpiryByPath);
}
