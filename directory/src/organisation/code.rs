//! Division codes: twelve digits, two for the province, two for the city, two for the county (GB/T 2260), three for the
//! township and three for the village (statistical division codes).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Level;

/// The first two digits that GB/T 2260 has.
const PROVINCES: [&str; 34] = [
    "11", "12", "13", "14", "15", "21", "22", "23", "31", "32", "33", "34", "35", "36", "37", "41",
    "42", "43", "44", "45", "46", "50", "51", "52", "53", "54", "61", "62", "63", "64", "65", "71",
    "81", "82",
];

/// Where each level's digits end.
const ENDS: [usize; 5] = [2, 4, 6, 9, 12];

/// A division code.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DivisionCode(String);

/// The text is no division code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACode {
    /// Neither 2, 4, 6, 9 nor 12 digits.
    #[error("a division code has 2, 4, 6, 9 or 12 digits")]
    Digits,
    /// The first two digits are no province's.
    #[error("no province has these first two digits")]
    Province,
    /// Zeros above something that is not zero: a county of no city.
    #[error("the code names a division and not the one above it")]
    Gap,
}

impl DivisionCode {
    /// All twelve digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The level of what it names. Where levels are skipped, the organisation's own level may be another.
    pub fn level(&self) -> Level {
        let mut level = Level::Province;
        for at in 1..5 {
            if self.0[ENDS[at - 1]..ENDS[at]]
                .bytes()
                .any(|digit| digit != b'0')
            {
                level = Level::ALL[at];
            }
        }
        level
    }

    /// The code of the division above, if it is not a province.
    pub fn above(&self) -> Option<DivisionCode> {
        let above = (self.level() as usize).checked_sub(2)?;
        let digits = &self.0[..ENDS[above]];
        Some(DivisionCode(format!("{digits:0<12}")))
    }
}

impl FromStr for DivisionCode {
    type Err = NotACode;

    /// Twelve digits, or as many as its level has.
    fn from_str(text: &str) -> Result<DivisionCode, NotACode> {
        if !ENDS.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotACode::Digits);
        }
        let code = format!("{text:0<12}");
        if !PROVINCES.contains(&&code[..2]) {
            return Err(NotACode::Province);
        }
        let is_set = |at: usize| {
            code[ENDS[at - 1]..ENDS[at]]
                .bytes()
                .any(|digit| digit != b'0')
        };
        // A township may have none: in 东莞, 中山, 儋州 and 嘉峪关 it lies directly under the city.
        if [2, 4].into_iter().any(|at| is_set(at) && !is_set(at - 1)) {
            return Err(NotACode::Gap);
        }
        Ok(DivisionCode(code))
    }
}

impl TryFrom<String> for DivisionCode {
    type Error = NotACode;

    fn try_from(text: String) -> Result<DivisionCode, NotACode> {
        text.parse()
    }
}

impl From<DivisionCode> for String {
    fn from(code: DivisionCode) -> String {
        code.0
    }
}

impl fmt::Display for DivisionCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for DivisionCode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DivisionCode({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_whole_or_cut_to_its_level() {
        for (text, whole, level) in [
            ("21", "210000000000", Level::Province),
            ("2101", "210100000000", Level::City),
            ("210102", "210102000000", Level::County),
            ("210102001", "210102001000", Level::Township),
            ("210102001002", "210102001002", Level::Village),
            ("210000000000", "210000000000", Level::Province),
            // 东莞 has townships and no counties.
            ("441900003", "441900003000", Level::Township),
        ] {
            match text.parse::<DivisionCode>() {
                Ok(code) => {
                    assert_eq!(code.as_str(), whole);
                    assert_eq!(code.level(), level, "{text}");
                }
                Err(problem) => panic!("{text}: {problem}"),
            }
        }
    }

    #[test]
    fn what_is_no_code_is_told_why() {
        for (text, problem) in [
            ("", NotACode::Digits),
            ("2", NotACode::Digits),
            ("210", NotACode::Digits),
            ("21010", NotACode::Digits),
            ("2101020010021", NotACode::Digits),
            ("21010a", NotACode::Digits),
            ("２１", NotACode::Digits),
            ("99", NotACode::Province),
            ("00", NotACode::Province),
            ("210001", NotACode::Gap),
            ("210102000001", NotACode::Gap),
        ] {
            assert_eq!(text.parse::<DivisionCode>(), Err(problem), "{text}");
        }
    }

    #[test]
    fn the_division_above_is_one_level_up() {
        let code: DivisionCode = "210102001002".parse().unwrap();
        let above: Vec<String> = std::iter::successors(Some(code), DivisionCode::above)
            .map(String::from)
            .collect();
        assert_eq!(
            above,
            [
                "210102001002",
                "210102001000",
                "210102000000",
                "210100000000",
                "210000000000"
            ]
        );
    }
}
