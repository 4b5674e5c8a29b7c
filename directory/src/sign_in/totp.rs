//! Time-based one-time passwords (RFC 6238): six digits, thirty seconds, SHA-1, as every authenticator app has it.

use aws_lc_rs::hmac;

use crate::Timestamp;

/// How long one code is, in milliseconds.
const STEP_MS: i64 = 30_000;

/// How many steps a telephone's clock may be off. More would make guessing easier by as much.
const DRIFT: i64 = 1;

/// How long a secret is, in bytes: as long as what SHA-1 gives (RFC 4226 4, R6).
pub(super) const SECRET: usize = 20;

/// The code of a step.
fn code(secret: &[u8], step: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let bytes = tag.as_ref();
    // RFC 4226 5.3.
    let at = usize::from(bytes[bytes.len() - 1] & 0xf);
    let number = bytes[at..at + 4]
        .iter()
        .fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{:06}", (number & 0x7fff_ffff) % 1_000_000)
}

/// The step that a code is of, if it is right now and later than the last that was used: no code works twice.
pub(super) fn check(secret: &[u8], typed: &str, now: Timestamp, last_step: i64) -> Option<i64> {
    let typed: String = typed.chars().filter(|c| !c.is_whitespace()).collect();
    let current = now.as_millis().div_euclid(STEP_MS);
    (current - DRIFT..=current + DRIFT)
        .filter(|step| *step > last_step)
        .find(|step| {
            let expected = code(secret, *step);
            aws_lc_rs::constant_time::verify_slices_are_equal(expected.as_bytes(), typed.as_bytes())
                .is_ok()
        })
}

/// The secret as it is typed into an app (RFC 4648 6, without padding).
pub(super) fn base32(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = String::new();
    let (mut held, mut count) = (0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(char::from(LETTERS[(held >> count & 31) as usize]));
        }
    }
    if count > 0 {
        out.push(char::from(LETTERS[(held << (5 - count) & 31) as usize]));
    }
    out
}

/// What a telephone reads from the picture.
pub(super) fn uri(issuer: &str, login: &str, secret: &[u8]) -> String {
    let issuer: String = issuer
        .bytes()
        .map(|byte| match byte {
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let secret = base32(secret);
    format!("otpauth://totp/{issuer}:{login}?secret={secret}&issuer={issuer}")
}

#[cfg(test)]
pub(super) fn code_at(secret: &[u8], now: Timestamp) -> String {
    code(secret, now.as_millis().div_euclid(STEP_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_standard() {
        // RFC 6238 appendix B, whose eight digits end in these six.
        let secret = b"12345678901234567890";
        for (seconds, expected) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(
                code_at(secret, Timestamp::from_millis(seconds * 1000)),
                expected
            );
        }
    }

    #[test]
    fn a_code_is_right_for_its_time_and_once() {
        let secret = b"12345678901234567890";
        let now = Timestamp::from_millis(1_111_111_111_000);
        let code = code_at(secret, now);
        let step = check(secret, &code, now, 0).unwrap();
        assert_eq!(
            check(secret, &format!("{} {}", &code[..3], &code[3..]), now, 0),
            Some(step)
        );
        assert_eq!(check(secret, &code, now, step), None);
        for (seconds, is_right) in [(-61, false), (-30, true), (30, true), (61, false)] {
            let then = Timestamp::from_millis(now.as_millis() + seconds * 1000);
            assert_eq!(
                check(secret, &code, then, 0).is_some(),
                is_right,
                "{seconds}"
            );
        }
        for typed in ["", "12345", "1234567", "abcdef", "０５０４７１"] {
            assert_eq!(check(secret, typed, now, 0), None, "{typed}");
        }
    }

    #[test]
    fn secrets_are_written_as_apps_read_them() {
        // RFC 4648 10.
        for (bytes, text) in [
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foob", "MZXW6YQ"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
        assert_eq!(
            uri("综治", "li.si", b"foobar"),
            "otpauth://totp/%E7%BB%BC%E6%B2%BB:li.si?secret=MZXW6YTBOI&issuer=%E7%BB%BC%E6%B2%BB"
        );
    }
}
