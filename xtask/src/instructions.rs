//! How many instructions the media core spends on a packet, counted by callgrind in a fixed scenario
//! without sockets, and compared with what they were.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::run::{output, run, target};

/// Where the counts stand that later ones are compared with.
const STORED: &str = "sfu/instructions.json";

/// A rise by more than this many percent fails.
const TOLERANCE: f64 = 3.0;

/// Functions with less than this per packet are not stored by name.
const NAMED: f64 = 2.0;

const BUDGET: Duration = Duration::from_secs(20 * 60);

/// Instructions per forwarded packet.
#[derive(Debug, Deserialize, Serialize)]
struct Counts {
    /// What compiled it; another compiler's counts are not comparable.
    compiler: String,
    /// Everything but cryptography and the C library.
    total: f64,
    crypto: f64,
    functions: BTreeMap<String, f64>,
}

/// Counts anew and stores the counts.
pub(crate) fn store() -> Result<()> {
    let counts = count(BUDGET)?;
    println!(
        "{:.0} instructions per forwarded packet, and {:.0} of cryptography",
        counts.total, counts.crypto
    );
    std::fs::write(STORED, serde_json::to_string_pretty(&counts)? + "\n")?;
    Ok(())
}

/// Counts and compares with what is stored.
pub(crate) fn check(budget: Duration) -> Result<()> {
    let stored: Counts = serde_json::from_str(&std::fs::read_to_string(STORED)?)
        .with_context(|| format!("{STORED} can't be read"))?;
    let counts = count(budget)?;
    println!(
        "{:.0} instructions per forwarded packet (stored: {:.0}), and {:.0} of cryptography",
        counts.total, stored.total, counts.crypto
    );
    if counts.compiler != stored.compiler {
        println!(
            "not compared: the stored counts are of {}, this is {}",
            stored.compiler, counts.compiler
        );
        return Ok(());
    }
    let limit = stored.total * (1.0 + TOLERANCE / 100.0);
    if counts.total <= limit {
        return Ok(());
    }
    let mut dearer: Vec<(&String, f64)> = counts
        .functions
        .iter()
        .map(|(name, now)| (name, now - stored.functions.get(name).unwrap_or(&0.0)))
        .collect();
    dearer.sort_by(|left, right| right.1.total_cmp(&left.1));
    for (name, by) in dearer.iter().take(8).filter(|(_, by)| *by > 0.0) {
        println!("{by:+8.1}  {name}");
    }
    bail!(
        "a forwarded packet costs {:.1} % more instructions than stored in {STORED}; if that is \
         meant, write it there by `cargo xtask bench instructions`",
        (counts.total / stored.total - 1.0) * 100.0
    )
}

fn count(budget: Duration) -> Result<Counts> {
    let build = ["build", "--release", "-p", "sfu", "--example", "forwarding"];
    run(".", budget, "cargo", &build)?;
    let program = target().join("release/examples/forwarding");
    let profile = target().join("instructions.callgrind");
    let out = format!("--callgrind-out-file={}", profile.display());
    let printed = output(
        budget,
        "valgrind",
        &[
            "--quiet",
            "--tool=callgrind",
            "--toggle-collect=*measured_*",
            &out,
            path(&program)?,
        ],
    )?;
    let packets: f64 = printed
        .trim()
        .parse()
        .context("the scenario printed no count")?;
    let listing = output(
        budget,
        "callgrind_annotate",
        &["--auto=no", "--threshold=100", path(&profile)?],
    )?;
    let mut counts = Counts {
        compiler: output(budget, "rustc", &["--version"])?.trim().to_owned(),
        total: 0.0,
        crypto: 0.0,
        functions: BTreeMap::new(),
    };
    for (instructions, file, function) in listing.lines().filter_map(read_line) {
        let per_packet = instructions / packets;
        match kind(file, function) {
            Kind::Library => {}
            Kind::Crypto => counts.crypto += per_packet,
            Kind::Own => {
                counts.total += per_packet;
                *counts.functions.entry(function.to_owned()).or_default() += per_packet;
            }
        }
    }
    counts.functions.retain(|_, per_packet| {
        *per_packet = (*per_packet * 10.0).round() / 10.0;
        *per_packet >= NAMED
    });
    counts.total = counts.total.round();
    counts.crypto = counts.crypto.round();
    if counts.total < 1.0 {
        bail!("callgrind counted nothing; are the measured functions still there?");
    }
    Ok(counts)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .context("the build folder's name is not UTF-8")
}

/// A line of `callgrind_annotate`: `1,234 (5.67%)  file:function [object]`.
fn read_line(line: &str) -> Option<(f64, &str, &str)> {
    let (number, rest) = line.trim_start().split_once(" (")?;
    let instructions: f64 = number.replace(',', "").parse().ok()?;
    let (_, place) = rest.split_once("%)")?;
    let (file, function) = place.trim().split_once(':')?;
    let function = match function.rsplit_once(" [") {
        Some((function, object)) if object.ends_with(']') => function,
        _ => function,
    };
    Some((instructions, file, function))
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Own,
    Crypto,
    /// The C library, and what the scenario does itself.
    Library,
}

fn kind(file: &str, function: &str) -> Kind {
    let is_crypto = ["/aws-lc/", "/aws-lc-sys", "/aws-lc-rs"]
        .iter()
        .any(|part| file.contains(part))
        || function.contains("aws_lc")
        || function.starts_with("sha1_")
        || function.starts_with("aes");
    if is_crypto {
        Kind::Crypto
    } else if file.starts_with("./") || file.starts_with("???") || file.contains("/tests/world/") {
        Kind::Library
    } else {
        Kind::Own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_s_lines_are_read() {
        let line = "  1,234 ( 0.26%)  /src/egress.rs:sfu::egress::Outlet::seal [/x/forwarding]";
        assert_eq!(
            read_line(line),
            Some((1234.0, "/src/egress.rs", "sfu::egress::Outlet::seal"))
        );
        assert_eq!(read_line("285,050,217 (100.0%)  PROGRAM TOTALS"), None);
        assert_eq!(kind("./malloc/malloc.c", "malloc"), Kind::Library);
        assert_eq!(
            kind("/aws-lc/crypto/modes/gcm.c", "CRYPTO_gcm128_aad"),
            Kind::Crypto
        );
        assert_eq!(kind("/sfu/src/egress.rs", "sfu::egress"), Kind::Own);
    }
}
