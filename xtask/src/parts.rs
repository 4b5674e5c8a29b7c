//! The test run: its parts, their time budgets, and the summary.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::lines::OPTIMIZED;
use crate::run::{build_client, is_asked_to_end, npm_install, run, run_with};
use crate::{fuzz, install, instructions, inventory};

const CARGO_DENY: (&str, &str) = ("cargo-deny", "0.19.0");

/// How long one check of `cargo deny` may take.
const DENY_BUDGET: Duration = Duration::from_secs(120);

/// What of the test run is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    only: Option<Vec<String>>,
    is_long: bool,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> Result<Options> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--all" => options.is_long = true,
                "--only" => {
                    let Some(names) = words.next() else {
                        bail!("--only wants the names of parts")
                    };
                    options.only = Some(names.split(',').map(str::to_owned).collect());
                }
                other => bail!("unknown option {other}"),
            }
        }
        Ok(options)
    }
}

struct Part {
    name: &'static str,
    minutes: u64,
    /// Runs with `--all` or by name only.
    is_long: bool,
    work: fn(Duration) -> Result<()>,
}

const fn part(name: &'static str, minutes: u64, work: fn(Duration) -> Result<()>) -> Part {
    Part {
        name,
        minutes,
        is_long: false,
        work,
    }
}

/// How many random cases each property is tried with in the long form; in the short one it is 256.
const LONG_CASES: &str = "20000";

/// How many processes are killed while they write a database, on each engine, in the long form; in the short one a few.
const LONG_KILLS: &str = "50";

/// How many meetings are simulated in the long form; in the short one a few.
const LONG_SEEDS: &str = "5000";

/// In the order in which they run: what fails soonest comes first.
const PARTS: &[Part] = &[
    part("format", 1, |budget| {
        run(".", budget, "cargo", &["fmt", "--all", "--check"])?;
        run("fuzz", budget, "cargo", &["fmt", "--check"])
    }),
    part("install", 12, |_| install::packages()),
    part("client-install", 5, |_| npm_install("web-client")),
    part("client-lint", 4, |budget| {
        run("web-client", budget, "npm", &["run", "lint"])
    }),
    part("client-unit", 4, |budget| {
        run("web-client", budget, "npm", &["test"])
    }),
    part("client-build", 4, build_client),
    part("client-size", 1, |budget| {
        run("web-client", budget, "npm", &["run", "size"])
    }),
    part("clippy", 20, |budget| {
        run(
            ".",
            budget,
            "cargo",
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        )
    }),
    part("unit", 25, |budget| {
        run(".", budget, "cargo", &["test", "--workspace"])
    }),
    part("notice", 1, |_| inventory::check_notice()),
    part("deny", 12, deny),
    part("server-build", 20, build_server),
    part("instructions", 10, instructions::check),
    part("browser", 30, |budget| {
        node("tests/browser", "test", budget)
    }),
    part("screenshots", 15, |budget| {
        node("tests/browser", "screenshots", budget)
    }),
    part("python", 20, python),
    Part {
        name: "properties",
        minutes: 60,
        is_long: true,
        work: |budget| {
            run_with(
                ".",
                budget,
                "cargo",
                &["test", "--workspace"],
                &[("PROPTEST_CASES", LONG_CASES)],
            )
        },
    },
    Part {
        name: "kills",
        minutes: 30,
        is_long: true,
        work: |budget| {
            run_with(
                ".",
                budget,
                "cargo",
                &["test", "-p", "directory", "killed"],
                &[("TERRACE_KILLS", LONG_KILLS)],
            )
        },
    },
    Part {
        name: "simulation",
        minutes: 60,
        is_long: true,
        work: |budget| {
            let words = [
                &["test", "-p", "sfu", "--lib"],
                &OPTIMIZED[..],
                &["shard::simulation"],
            ]
            .concat();
            run_with(
                ".",
                budget,
                "cargo",
                &words,
                &[("SIMULATION_SEEDS", LONG_SEEDS)],
            )
        },
    },
    Part {
        name: "fuzz",
        minutes: 15,
        is_long: true,
        work: fuzz::short,
    },
    Part {
        name: "fuzz-long",
        minutes: 600,
        is_long: true,
        work: fuzz::long,
    },
    Part {
        name: "ten-minutes",
        minutes: 25,
        is_long: true,
        work: ten_minutes,
    },
];

/// The server as it is shipped, with the web client inside, and the line that tests run on. Each by
/// itself: together they would have other features than the demo builds.
pub(crate) fn build_server(budget: Duration) -> Result<()> {
    build_client(budget)?;
    for program in ["terrace", "line"] {
        run(
            ".",
            budget,
            "cargo",
            &["build", "--release", "--bin", program],
        )?;
    }
    Ok(())
}

/// Licences, bans and sources always; known vulnerabilities only where their database can be reached.
fn deny(budget: Duration) -> Result<()> {
    let program = install::cargo_tool(CARGO_DENY.0, CARGO_DENY.1, budget)?;
    let check = |what: &[&str]| {
        let words: Vec<&str> = ["--all-features", "check"]
            .iter()
            .chain(what)
            .copied()
            .collect();
        run(".", DENY_BUDGET, &program, &words)
    };
    check(&["licenses", "bans", "sources"])?;
    if run(".", DENY_BUDGET, &program, &["fetch", "db"]).is_err() {
        println!("the database of vulnerabilities can't be reached: advisories were not checked");
        return Ok(());
    }
    check(&["--disable-fetch", "advisories"])
}

/// Runs an npm script of a folder, whose packages are installed first.
fn node(folder: &str, script: &str, budget: Duration) -> Result<()> {
    let begin = Instant::now();
    npm_install(folder)?;
    let budget = budget.saturating_sub(begin.elapsed());
    run(folder, budget, "npm", &["run", script])
}

/// Makes the tests' Python environment; returns where its programs are.
pub(crate) fn python_environment(budget: Duration) -> Result<impl Fn(&str) -> String> {
    let folder = crate::run::tools().join("python");
    let folder = folder.to_string_lossy().into_owned();
    run(".", budget, "python3", &["-m", "venv", &folder])?;
    let inside = move |program: &str| format!("{folder}/bin/{program}");
    run(
        ".",
        budget,
        &inside("pip"),
        &["install", "-q", "-r", "tests/python/requirements.txt"],
    )?;
    Ok(inside)
}

fn python(budget: Duration) -> Result<()> {
    let begin = Instant::now();
    let inside = python_environment(budget)?;
    let budget = budget.saturating_sub(begin.elapsed());
    run("tests/python", budget, &inside("pytest"), &["-q"])
}

/// Media over a line that loses packets; runs in one end of the line.
fn ten_minutes(budget: Duration) -> Result<()> {
    let begin = Instant::now();
    let inside = python_environment(budget)?;
    npm_install("tests/browser")?;
    let command = "ip netns exec $LINE_A npm --prefix tests/browser run long";
    let line = "tests/browser/long/lossy.toml";
    run_with(
        ".",
        budget.saturating_sub(begin.elapsed()),
        "cargo",
        &[
            "run",
            "-q",
            "--release",
            "--bin",
            "line",
            "--",
            "up",
            "--config",
            line,
            "--",
            "sh",
            "-c",
            command,
        ],
        &[("PYTHON", &inside("python"))],
    )
}

/// The parts that the options ask for, in their order.
fn chosen(options: &Options) -> Result<Vec<&'static Part>> {
    let Some(only) = &options.only else {
        return Ok(PARTS
            .iter()
            .filter(|part| options.is_long || !part.is_long)
            .collect());
    };
    if let Some(odd) = only
        .iter()
        .find(|name| PARTS.iter().all(|part| part.name != **name))
    {
        let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        bail!("there is no part {odd}; there are {}", names.join(", "));
    }
    Ok(PARTS
        .iter()
        .filter(|part| only.iter().any(|name| name == part.name))
        .collect())
}

/// Runs the parts and prints how long each took.
pub(crate) fn test(options: &Options) -> Result<()> {
    let begin = Instant::now();
    let mut rows = Vec::new();
    for part in chosen(options)? {
        println!("\n== {} (at most {} min)", part.name, part.minutes);
        let begin = Instant::now();
        let outcome = (part.work)(Duration::from_secs(part.minutes * 60));
        if let Err(error) = &outcome {
            println!("{}: {error:#}", part.name);
        }
        rows.push((part.name, begin.elapsed(), outcome.is_ok()));
        if is_asked_to_end() {
            println!("stopped: the parts after {} were not run", part.name);
            break;
        }
    }
    println!("\n{:<16} {:>8}", "part", "seconds");
    for (name, took, passed) in &rows {
        println!(
            "{name:<16} {:>8.1}  {}",
            took.as_secs_f64(),
            if *passed { "passed" } else { "FAILED" }
        );
    }
    println!("{:<16} {:>8.1}", "all", begin.elapsed().as_secs_f64());
    let failed = rows.iter().filter(|(_, _, passed)| !passed).count();
    println!("{} passed, {failed} failed", rows.len() - failed);
    if failed > 0 {
        bail!("{failed} parts failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_unknown_ones_refused() {
        let options = Options::parse(&["--only", "unit,deny", "--all"]).unwrap();
        assert_eq!(
            options.only,
            Some(vec!["unit".to_owned(), "deny".to_owned()])
        );
        assert!(options.is_long);
        assert!(Options::parse(&["--fast"]).is_err());
        assert!(chosen(&Options::parse(&["--only", "unit,none"]).unwrap()).is_err());
    }

    #[test]
    fn long_parts_run_when_all_is_asked_for() {
        let names = |words: &[&str]| -> Vec<&str> {
            chosen(&Options::parse(words).unwrap())
                .unwrap()
                .iter()
                .map(|part| part.name)
                .collect()
        };
        assert!(!names(&[]).contains(&"properties"));
        assert!(names(&["--all"]).contains(&"properties"));
        assert_eq!(names(&["--only", "properties"]), ["properties"]);
    }
}
