//! The country's divisions as of 2023-06-30, which come along as a start: a province's tree need not be typed.
//!
//! `cargo xtask divisions` derives the file from an open package; `directory/data/README.md` says which and under what
//! licence. A newer list of one's own is imported like any table.

use std::io::Read as _;

use flate2::read::GzDecoder;

use crate::organisation::import::{Column, Row, Sheet};
use crate::organisation::{DivisionCode, Level};

const FILE: &[u8] = include_bytes!("../data/divisions.gz");

/// How long the file is when it is read, at most: it comes with the program, and is not taken at its word all the same.
const LENGTH: u64 = 64 << 20;

/// A division.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// Its code.
    pub code: DivisionCode,
    /// Its level. 东莞's townships lie directly under it, and their level is that of townships all the same.
    pub level: Level,
    /// Its name, as the statistics bureau has it.
    pub name: String,
}

/// The file that comes along can't be read: the program was built wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the divisions that come along can't be read")]
pub struct Unreadable;

/// All of them, or those of the province with these first two digits, in the order of codes.
pub fn divisions(province: Option<&str>) -> Result<Vec<Division>, Unreadable> {
    let mut text = String::new();
    let mut file = GzDecoder::new(FILE).take(LENGTH);
    file.read_to_string(&mut text).map_err(|_| Unreadable)?;
    let mut found = Vec::new();
    let mut before = String::new();
    for line in text.lines() {
        let at = line.find(|c: char| !c.is_ascii_digit()).ok_or(Unreadable)?;
        let (more, rest) = line.split_at(at);
        let mut rest = rest.chars();
        let (level, digits) = match rest.next() {
            Some('a') => (Level::Province, 2),
            Some('b') => (Level::City, 4),
            Some('c') => (Level::County, 6),
            Some('d') => (Level::Township, 9),
            Some('e') => (Level::Village, 12),
            _ => return Err(Unreadable),
        };
        let more: u64 = if more.is_empty() {
            1
        } else {
            more.parse().map_err(|_| Unreadable)?
        };
        let base = format!("{before:0<12}");
        let base: u64 = base[..digits].parse().map_err(|_| Unreadable)?;
        let code = format!("{:0digits$}", base + more);
        if province.is_none_or(|province| code.starts_with(province)) {
            found.push(Division {
                code: code.parse().map_err(|_| Unreadable)?,
                level,
                name: rest.as_str().to_owned(),
            });
        }
        before = code;
    }
    Ok(found)
}

/// A province's tree down to a level, to be imported: each centre named as its division and `suffix`, such as 综治中心.
pub fn start(province: &str, lowest: Level, suffix: &str) -> Result<Sheet, Unreadable> {
    let divisions = divisions(Some(province))?;
    let kept = divisions
        .into_iter()
        .filter(|division| division.level <= lowest);
    let rows = (2..).zip(kept).map(|(line, division)| Row {
        line,
        cells: [
            (Column::Name, format!("{}{suffix}", division.name)),
            (Column::Code, division.code.to_string()),
            (Column::Level, (division.level as u8).to_string()),
        ]
        .into(),
    });
    Ok(Sheet {
        rows: rows.collect(),
        problems: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Directory;
    use crate::organisation::OrganisationQuery;
    use crate::organisation::import::Missing;
    use crate::testing::{MORNING, by_machine, on_both_open, random};

    fn counts(divisions: &[Division]) -> [usize; 5] {
        Level::ALL.map(|level| divisions.iter().filter(|one| one.level == level).count())
    }

    #[test]
    fn the_country_is_all_there() {
        let all = divisions(None).unwrap();
        assert_eq!(counts(&all), [31, 333, 2_974, 41_351, 620_572]);
        let mut codes: Vec<&str> = all.iter().map(|one| one.code.as_str()).collect();
        codes.dedup();
        assert_eq!(codes.len(), all.len());
        for (code, name) in [
            ("110101001001", "多福巷社区居委会"),
            ("441900003000", "东城街道"),
            ("210102000000", "和平区"),
        ] {
            let one = all.iter().find(|one| one.code.as_str() == code).unwrap();
            assert_eq!(one.name, name);
        }
    }

    #[test]
    fn liaoning_has_fourteen_cities() {
        let all = divisions(Some("21")).unwrap();
        assert_eq!(counts(&all), [1, 14, 100, 1_406, 16_727]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_province_is_imported_from_what_comes_along() {
        on_both_open(|store| async move {
            let mut source = random(1);
            let directory = Directory::new(store, MORNING, &mut source).await.unwrap();
            let mut act = by_machine(&mut source);
            for (province, lowest) in [
                ("21", Level::Village),
                ("44", Level::Township),
                ("11", Level::County),
                ("46", Level::Township),
                ("65", Level::County),
            ] {
                let sheet = start(province, lowest, "综治中心").unwrap();
                let plan = directory
                    .plan_import(&act, None, &sheet, Missing::Keep)
                    .await
                    .unwrap();
                assert_eq!(plan.problems, []);
                assert_eq!(plan.new.len(), sheet.rows.len());
                let keep = Missing::Keep;
                directory
                    .apply_import(&mut act, None, &sheet, keep, &plan.fingerprint)
                    .await
                    .unwrap();
            }
            // A street of 东莞 lies under its city.
            let wanted = OrganisationQuery {
                text: Some("441900003".to_owned()),
                limit: 2,
                ..OrganisationQuery::default()
            };
            let street = directory.organisations(&act, &wanted).await.unwrap();
            let [street] = &street.organisations[..] else {
                panic!("{street:?}");
            };
            let city = directory
                .organisation(&act, street.parent.unwrap())
                .await
                .unwrap();
            assert_eq!(
                (street.name.as_str(), city.name.as_str()),
                ("东城街道综治中心", "东莞市综治中心")
            );
        })
        .await;
    }
}
