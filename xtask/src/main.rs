//! Every chore of the project: `cargo xtask demo`, `test`, `lint`, `bench`, `simulate`, `notice`, `divisions`, `sbom`.

mod bench;
mod crowd;
mod demo;
mod divisions;
mod fuzz;
mod install;
mod instructions;
mod inventory;
mod lines;
mod page;
mod parts;
mod peers;
mod run;
mod simulate;

use anyhow::{Result, bail};

const HELP: &str = "\
cargo xtask demo                 build everything and run an example meeting on this machine
cargo xtask test [--all]         install what the tests need and run them; --all adds the long forms
cargo xtask test --only A,B      run some parts only
cargo xtask lint                 format check, clippy and the web client's linter
cargo xtask bench session        measure memory and times to the first picture, for docs/performance.md
cargo xtask bench crowd          measure what thousands of participants cost signalling, for docs/performance.md
cargo xtask bench peers [..]     measure Terrace beside the floor, LiveKit and Janus, for docs/performance.md
cargo xtask bench curves [..]    measure what Terrace costs as rooms grow, for docs/performance.md
cargo xtask bench overload [..]  measure what Terrace gives up when its processor is full, for docs/performance.md
cargo xtask bench estimate       simulate what the estimate makes of lines, for docs/performance.md
cargo xtask bench share          simulate what each part of sharing a line is worth, for docs/performance.md
cargo xtask bench lines          measure what a viewer has of bad lines, for docs/performance.md
cargo xtask bench parts          measure what each part of sharing a line is worth over bad lines, for docs/performance.md
cargo xtask bench instructions   count and store what a forwarded packet costs, by callgrind
cargo xtask simulate cascade [..] play a province of nodes: --villages 15000 --seed 1 --minutes 10
cargo xtask notice               write NOTICE: what the program contains, under which licences
cargo xtask divisions            derive the country's divisions from an open package, for directory/data
cargo xtask sbom                 write the same as a CycloneDX SBOM to sbom/terrace.cdx.json
";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    std::env::set_current_dir(run::root())?;
    run::watch_signals()?;
    match words.as_slice() {
        ["demo"] => demo::demo(),
        ["test", options @ ..] => parts::test(&parts::Options::parse(options)?),
        ["lint"] => parts::test(&parts::Options::parse(&[
            "--only",
            "format,clippy,client-lint",
        ])?),
        ["bench", "session"] => bench::session(),
        ["bench", "crowd"] => crowd::crowd(),
        ["bench", "instructions"] => instructions::store(),
        ["bench", "estimate"] => lines::estimate(),
        ["bench", "share"] => lines::share(),
        ["bench", "lines"] => lines::lines(),
        ["bench", "parts"] => lines::parts(),
        ["bench", "peers", options @ ..] => peers::peers(options),
        ["bench", "curves", options @ ..] => peers::curves(options),
        ["bench", "overload", options @ ..] => peers::overload(options),
        ["simulate", "cascade", options @ ..] => simulate::cascade(options),
        ["notice"] => inventory::write_notice(),
        ["divisions"] => divisions::derive(),
        ["sbom"] => inventory::write_sbom(),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        other => bail!("unknown command {}; known are:\n{HELP}", other.join(" ")),
    }
}
