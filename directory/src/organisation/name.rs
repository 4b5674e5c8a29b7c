//! Names: what may be one, and what they are found by.

use pinyin::ToPinyin as _;

/// How many characters a name has at most.
const LENGTH: usize = 64;

/// How many readings of a name are kept at most; what is read in two ways after that is read as it mostly is.
const READINGS: usize = 8;

/// A name as it may stand in the directory: 1 to 64 characters, none of them for control or direction.
pub(crate) fn read_name(text: &str) -> Option<String> {
    let name = text.trim();
    let is_odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let count = name.chars().count();
    ((1..=LENGTH).contains(&count) && !name.chars().any(is_odd)).then(|| name.to_owned())
}

/// As it is compared: one width, one case, no spaces.
pub(crate) fn folded(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            // Full-width forms of ASCII.
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
            other => other,
        })
        .filter(|c| !c.is_whitespace())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Characters that names of places read in two ways, with the first letters of both: 重庆 and 重阳, 长沙 and 长子.
const TWO_READINGS: [(char, [char; 2]); 30] = [
    ('重', ['c', 'z']),
    ('长', ['c', 'z']),
    ('厦', ['x', 's']),
    ('单', ['d', 's']),
    ('朝', ['c', 'z']),
    ('乐', ['l', 'y']),
    ('行', ['h', 'x']),
    ('蔚', ['w', 'y']),
    ('尉', ['w', 'y']),
    ('曾', ['c', 'z']),
    ('盛', ['s', 'c']),
    ('陂', ['p', 'b']),
    ('番', ['f', 'p']),
    ('召', ['z', 's']),
    ('查', ['c', 'z']),
    ('参', ['c', 's']),
    ('调', ['d', 't']),
    ('会', ['h', 'k']),
    ('祭', ['j', 'z']),
    ('宿', ['s', 'x']),
    ('铅', ['q', 'y']),
    ('浚', ['j', 'x']),
    ('洞', ['d', 't']),
    ('莘', ['x', 's']),
    ('枞', ['z', 'c']),
    ('歙', ['s', 'x']),
    ('解', ['j', 'x']),
    ('都', ['d', 'c']),
    ('筠', ['y', 'j']),
    ('阚', ['k', 'h']),
];

/// The first letters of its pinyin, in each reading, each with a space before it.
pub(crate) fn initials(text: &str) -> String {
    let mut readings = vec![String::new()];
    for c in folded(text).chars() {
        let two = TWO_READINGS.iter().find(|(known, _)| *known == c);
        let one = || match c.to_pinyin() {
            Some(pinyin) => pinyin.plain().chars().next(),
            None => c.is_ascii_alphanumeric().then_some(c),
        };
        let letters: Vec<char> = match two {
            Some((_, letters)) if readings.len() < READINGS => letters.to_vec(),
            _ => one().into_iter().collect(),
        };
        if letters.is_empty() {
            continue;
        }
        readings = readings
            .iter()
            .flat_map(|reading| {
                letters
                    .iter()
                    .map(move |letter| format!("{reading}{letter}"))
            })
            .collect();
    }
    readings
        .iter()
        .map(|reading| format!(" {reading}"))
        .collect()
}

/// Where it stands in lists: by its code where it has one, else behind those by its first letters.
pub(crate) fn sort_key(code: Option<&str>, text: &str, id: &str) -> String {
    let letters = initials(text);
    let letters = letters.trim_start().split(' ').next().unwrap_or_default();
    match code {
        Some(code) => format!("{code}-{id}"),
        None => format!("z{letters}-{id}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_to_64_plain_characters() {
        assert_eq!(read_name("  沈阳市 ").as_deref(), Some("沈阳市"));
        assert!(read_name(&"村".repeat(64)).is_some());
        for text in [
            "",
            " ",
            "a\nb",
            "a\u{202e}b",
            "a\u{200b}b",
            &"村".repeat(65),
        ] {
            assert_eq!(read_name(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_name_is_found_in_any_width_and_case() {
        assert_eq!(folded(" Ａｂ　Ｃ１ 社区 "), "abc1社区");
    }

    #[test]
    fn each_reading_of_a_name_has_its_letters() {
        assert_eq!(initials("沈阳市"), " sys");
        let letters = initials("重庆");
        assert!(
            letters.contains(" cq") && letters.contains(" zq"),
            "{letters}"
        );
        assert_eq!(initials("A区2号"), " aq2h");
        assert_eq!(initials("—"), " ");
        assert!(initials(&"重长".repeat(30)).len() <= READINGS * 61);
    }
}
