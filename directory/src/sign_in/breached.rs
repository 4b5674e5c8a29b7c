//! Passwords that everybody who guesses tries first, from a file.

use std::collections::HashSet;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// How large a file may be, in bytes. The million most used passwords take eight megabytes.
const FILE_SIZE: usize = 256 << 20;

/// A list of such passwords.
#[derive(Clone, Debug, Default)]
pub struct BreachedPasswords(HashSet<[u8; 20]>);

/// The file is larger than a list may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the list of breached passwords is too large")]
pub struct ListTooLarge;

impl BreachedPasswords {
    /// Reads a list: on each line a password, or the SHA-1 of one in hexadecimal digits, perhaps with a colon and a count
    /// behind it, as published lists have it.
    pub fn read(file: &[u8]) -> Result<BreachedPasswords, ListTooLarge> {
        if file.len() > FILE_SIZE {
            return Err(ListTooLarge);
        }
        let lines = file.split(|byte| *byte == b'\n');
        let hashes = lines.filter_map(|line| {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                return None;
            }
            let first = line.split(|byte| *byte == b':').next().unwrap_or(line);
            let hash = std::str::from_utf8(first)
                .ok()
                .and_then(|text| crate::unhex(&text.to_ascii_lowercase()));
            Some(hash.unwrap_or_else(|| sha1(line)))
        });
        Ok(BreachedPasswords(hashes.collect()))
    }

    /// Whether a password is in the list, in any case of its letters that people write first: as it is, or small.
    pub(super) fn contains(&self, password: &str) -> bool {
        self.0.contains(&sha1(password.as_bytes()))
            || self.0.contains(&sha1(password.to_lowercase().as_bytes()))
    }
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut hash = [0; 20];
    hash.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_passwords_or_their_hashes() {
        let file =
            b"Qwerty123456\r\nwoaini1314520\n5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8:42\n\n";
        let list = BreachedPasswords::read(file).unwrap();
        for password in ["Qwerty123456", "woaini1314520", "WoAiNi1314520", "password"] {
            assert!(list.contains(password), "{password}");
        }
        for password in ["", "qwerty", "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8"] {
            assert!(!list.contains(password), "{password}");
        }
    }
}
