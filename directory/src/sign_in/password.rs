//! Passwords: what may be one, and how it is kept (Argon2id, RFC 9106).

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

use super::BreachedPasswords;
use crate::Random;

/// How many characters a password has at least.
const SHORTEST: usize = 10;

/// From how many characters on it may be of whatever kinds: a sentence is good.
const LONG: usize = 20;

/// How many bytes it has at most. Hashing more would only cost time.
const LONGEST: usize = 256;

/// Of how many kinds a short one is at least: small letters, capitals, digits, others (GB/T 22239-2019, level 3).
const KINDS: usize = 3;

/// What hashing one costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// Memory, in KiB.
    pub memory: u32,
    /// How often it is gone through.
    pub passes: u32,
}

impl Default for Hashing {
    /// What a village's PC does in a tenth of a second: the second choice of RFC 9106 would take 64 MiB, three passes.
    fn default() -> Hashing {
        Hashing {
            memory: 19 * 1024,
            passes: 2,
        }
    }
}

/// Why a password can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordProblem {
    /// It has fewer than ten characters.
    #[error("it is too short")]
    TooShort,
    /// It has more than 256 bytes.
    #[error("it is too long")]
    TooLong,
    /// It has fewer than twenty characters and is of fewer than three kinds of them.
    #[error("it is too simple")]
    TooSimple,
    /// It holds the name of whose it is.
    #[error("it holds your name")]
    HoldsName,
    /// It is on the list of those that everybody who guesses tries first.
    #[error("it is one that is guessed first")]
    Breached,
    /// It is the one now, or was one of the last five.
    #[error("it was used before")]
    UsedBefore,
}

/// Whether it may be somebody's password.
pub(super) fn check(
    password: &str,
    names: &[&str],
    breached: &BreachedPasswords,
) -> Result<(), PasswordProblem> {
    let count = password.chars().count();
    if count < SHORTEST {
        return Err(PasswordProblem::TooShort);
    }
    if password.len() > LONGEST {
        return Err(PasswordProblem::TooLong);
    }
    let kinds = [
        password.chars().any(char::is_lowercase),
        password.chars().any(char::is_uppercase),
        password.chars().any(char::is_numeric),
        password
            .chars()
            .any(|c| !c.is_lowercase() && !c.is_uppercase() && !c.is_numeric()),
    ];
    let distinct = password.chars().collect::<std::collections::HashSet<_>>();
    let is_simple = count < LONG && kinds.iter().filter(|kind| **kind).count() < KINDS;
    if is_simple || distinct.len() < 5 {
        return Err(PasswordProblem::TooSimple);
    }
    let small = password.to_lowercase();
    let holds = |name: &&str| name.chars().count() >= 2 && small.contains(&name.to_lowercase());
    if names.iter().any(holds) {
        return Err(PasswordProblem::HoldsName);
    }
    if breached.contains(password) {
        return Err(PasswordProblem::Breached);
    }
    Ok(())
}

fn argon2(hashing: Hashing) -> Argon2<'static> {
    let params = Params::new(hashing.memory, hashing.passes, 1, None);
    let params = params.unwrap_or(Params::DEFAULT);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// A salt of 16 random bytes.
pub(super) fn draw_salt(random: &mut Random) -> [u8; 16] {
    let mut salt = [0; 16];
    random.fill_bytes(&mut salt);
    salt
}

/// What is kept of a password (PHC string format).
pub(super) fn hash(password: &str, salt: &[u8; 16], hashing: Hashing) -> String {
    let salt = SaltString::encode_b64(salt).expect("16 bytes are a salt");
    argon2(hashing)
        .hash_password(password.as_bytes(), &salt)
        .map(|hash| hash.to_string())
        .expect("a password of this length can be hashed")
}

/// What is verified against where there is nothing: takes as long as a real one, and is never right.
pub(super) fn nobodys(hashing: Hashing) -> String {
    let (memory, passes) = (hashing.memory, hashing.passes);
    let (salt, hash) = ("A".repeat(22), "A".repeat(43));
    format!("$argon2id$v=19$m={memory},t={passes},p=1${salt}${hash}")
}

/// Whether it is the password that was hashed; takes as long whether it is or not.
pub(super) fn verify(password: &str, kept: &str) -> bool {
    let Ok(kept) = PasswordHash::new(kept) else {
        return false;
    };
    // The costs are those in the hash, whatever they are now.
    password.len() <= LONGEST
        && Argon2::default()
            .verify_password(password.as_bytes(), &kept)
            .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Hashing = Hashing {
        memory: 64,
        passes: 1,
    };

    #[test]
    fn what_may_be_a_password_is_told_apart() {
        let breached = BreachedPasswords::read(b"qwerty-123456\n").unwrap();
        let names = ["li.si", "李四"];
        for (password, expected) in [
            ("Ab1!", Err(PasswordProblem::TooShort)),
            ("abcdefghij", Err(PasswordProblem::TooSimple)),
            ("abcdefgh12", Err(PasswordProblem::TooSimple)),
            ("Aa1!Aa1!Aa1!", Err(PasswordProblem::TooSimple)),
            ("Abcdefgh12", Ok(())),
            ("四季如春的昆明 yes 2", Ok(())),
            ("correct horse battery staple", Ok(())),
            ("xLi.Si-2026", Err(PasswordProblem::HoldsName)),
            ("我是李四啊-2026a", Err(PasswordProblem::HoldsName)),
            ("QWERTY-123456", Err(PasswordProblem::Breached)),
            ("Qwerty-123456", Err(PasswordProblem::Breached)),
        ] {
            assert_eq!(check(password, &names, &breached), expected, "{password}");
        }
        let long = "aB3-".repeat(65);
        assert_eq!(
            check(&long, &names, &breached),
            Err(PasswordProblem::TooLong)
        );
    }

    #[test]
    fn a_password_is_known_by_its_hash_whatever_hashing_costs_now() {
        let kept = hash("Abcdefgh12", &[1; 16], CHEAP);
        assert!(kept.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{kept}");
        assert!(verify("Abcdefgh12", &kept));
        assert!(!verify("Abcdefgh13", &kept));
        assert!(!verify("Abcdefgh12", "not a hash"));
        assert!(PasswordHash::new(&nobodys(CHEAP)).is_ok());
        assert!(!verify("Abcdefgh12", &nobodys(CHEAP)));
        assert_ne!(kept, hash("Abcdefgh12", &[2; 16], CHEAP));
    }
}
