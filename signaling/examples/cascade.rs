//! Plays a province of nodes on a virtual clock and prints one line of JSON with what became of it;
//! how far it is goes to standard error, and the exit status tells whether all promises held.
//! `cargo xtask simulate cascade` starts it.

#[path = "../src/cascade/simulation/mod.rs"]
mod simulation;

use std::process::ExitCode;

use simulation::{Options, run};

const USAGE: &str = "cascade [--villages 15000] [--seed 1] [--minutes 10]";

fn options() -> Option<Options> {
    let mut options = Options {
        villages: 15_000,
        seed: 1,
        minutes: 10,
        is_told: true,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let number: u64 = words.next()?.parse().ok()?;
        match word.as_str() {
            "--villages" => {
                options.villages = usize::try_from(number).ok().filter(|count| *count > 1)?
            }
            "--seed" => options.seed = number,
            "--minutes" => options.minutes = number,
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let report = run(options);
    println!(
        "{}",
        serde_json::to_string(&report).expect("a report has only texts and numbers")
    );
    if report.violation.is_some() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
