//! The test run: its parts, their time budgets, and the summary.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::run::{root, run};
use crate::{install, inventory};

const CARGO_DENY: (&str, &str) = ("cargo-deny", "0.19.0");

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
    work: fn(Duration) -> Result<()>,
}

const fn part(name: &'static str, minutes: u64, work: fn(Duration) -> Result<()>) -> Part {
    Part {
        name,
        minutes,
        work,
    }
}

/// In the order in which they run: what fails soonest comes first.
const PARTS: &[Part] = &[
    part("format", 1, |budget| {
        run(".", budget, "cargo", &["fmt", "--all", "--check"])
    }),
    part("install", 12, |_| install::packages()),
    part("client-install", 5, |budget| {
        run(
            "web-client",
            budget,
            "npm",
            &["ci", "--no-audit", "--no-fund"],
        )
    }),
    part("client-lint", 4, |budget| {
        run("web-client", budget, "npm", &["run", "lint"])
    }),
    part("client-unit", 4, |budget| {
        run("web-client", budget, "npm", &["test"])
    }),
    part("client-build", 4, |budget| {
        run("web-client", budget, "npm", &["run", "build"])
    }),
    part("client-size", 1, |budget| {
        run("web-client", budget, "npm", &["run", "size"])
    }),
    part("clippy", 15, |budget| {
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
    part("unit", 15, |budget| {
        run(".", budget, "cargo", &["test", "--workspace"])
    }),
    part("notice", 1, |_| inventory::check_notice()),
    part("deny", 12, deny),
    part("server-build", 20, |budget| {
        run(
            ".",
            budget,
            "cargo",
            &["build", "--release", "--bin", "terrace"],
        )
    }),
    part("browser", 15, |budget| node("tests/browser", budget)),
    part("python", 10, python),
];

fn deny(budget: Duration) -> Result<()> {
    let program = install::cargo_tool(CARGO_DENY.0, CARGO_DENY.1)?;
    run(
        ".",
        budget,
        &program,
        &["check", "licenses", "bans", "sources"],
    )?;
    if run(
        ".",
        Duration::from_secs(60),
        &program,
        &["check", "advisories"],
    )
    .is_err()
    {
        println!("advisories: their database can't be reached or it names one; see above");
    }
    Ok(())
}

fn node(folder: &str, budget: Duration) -> Result<()> {
    let begin = Instant::now();
    run(folder, budget, "npm", &["ci", "--no-audit", "--no-fund"])?;
    let budget = budget.saturating_sub(begin.elapsed());
    run(folder, budget, "npm", &["test"])
}

fn python(budget: Duration) -> Result<()> {
    let begin = Instant::now();
    let folder = crate::run::tools().join("python");
    let folder = folder.to_string_lossy().into_owned();
    run(".", budget, "python3", &["-m", "venv", &folder])?;
    let inside = |program: &str| format!("{folder}/bin/{program}");
    run(
        ".",
        budget,
        &inside("pip"),
        &["install", "-q", "-r", "tests/python/requirements.txt"],
    )?;
    let budget = budget.saturating_sub(begin.elapsed());
    run("tests/python", budget, &inside("pytest"), &["-q"])
}

/// Runs the parts and prints how long each took.
pub(crate) fn test(options: &Options) -> Result<()> {
    let begin = Instant::now();
    let mut rows = Vec::new();
    for part in PARTS {
        let is_wanted = options
            .only
            .as_ref()
            .is_none_or(|only| only.iter().any(|name| name == part.name));
        let is_extra =
            EXTRA_PARTS.contains(&part.name) && !options.is_long && options.only.is_none();
        if !is_wanted || is_extra || !is_present(part.name) {
            continue;
        }
        println!("\n== {} (at most {} min)", part.name, part.minutes);
        let begin = Instant::now();
        let outcome = (part.work)(Duration::from_secs(part.minutes * 60));
        if let Err(error) = &outcome {
            println!("{}: {error:#}", part.name);
        }
        rows.push((part.name, begin.elapsed(), outcome.is_ok()));
    }
    if rows.is_empty() {
        let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        bail!("no part of that name; there are {}", names.join(", "));
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

/// Parts that run with `--all` or by name only: licences and sources change with dependencies
/// alone, and the tool takes long to build.
const EXTRA_PARTS: [&str; 1] = ["deny"];

/// Parts of the web client and of the system tests run where their folder is.
fn is_present(name: &str) -> bool {
    let needs = match name {
        name if name.starts_with("client") || name == "notice" => "web-client/package.json",
        "deny" => "deny.toml",
        "browser" => "tests/browser/package.json",
        "python" => "tests/python/requirements.txt",
        _ => return true,
    };
    Path::new(&root()).join(needs).exists()
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
    }
}
