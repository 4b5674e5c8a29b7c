//! ICE in the body of a PATCH: `application/trickle-ice-sdpfrag` (RFC 8840 9).

use crate::problem::Problem;

/// The longest fragment that is looked at, in bytes: some two hundred candidates.
pub(super) const FRAGMENT_BOUND: usize = 32 * 1024;

/// The user fragment and password of an ICE session (RFC 8839 5.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) user_fragment: String,
    pub(super) password: String,
}

impl Credentials {
    fn check(&self) -> Result<(), Problem> {
        let is_ice = |text: &str, least: usize| {
            (least..=256).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
        };
        if is_ice(&self.user_fragment, 4) && is_ice(&self.password, 22) {
            Ok(())
        } else {
            Err(Problem::malformed(
                "ice-ufrag takes 4 to 256 and ice-pwd 22 to 256 letters, digits, + and /",
            ))
        }
    }
}

/// The first credentials in a description or fragment. `Ok(None)` where there are none.
pub(super) fn credentials(text: &str) -> Result<Option<Credentials>, Problem> {
    let first = |name| {
        text.lines()
            .find_map(|line| line.trim_end().strip_prefix(name))
    };
    let found = match (first("a=ice-ufrag:"), first("a=ice-pwd:")) {
        (None, None) => return Ok(None),
        (Some(user_fragment), Some(password)) => Credentials {
            user_fragment: user_fragment.to_owned(),
            password: password.to_owned(),
        },
        _ => {
            return Err(Problem::malformed("ice-ufrag and ice-pwd belong together"));
        }
    };
    found.check()?;
    Ok(Some(found))
}

/// Reads a fragment. Its candidates are not kept: an ICE-lite server answers where checks come
/// from. `Ok(None)` where it names no credentials.
pub(super) fn read(text: &str) -> Result<Option<Credentials>, Problem> {
    let is_line = |line: &str| {
        line.is_empty() || line.starts_with("m=") || line.starts_with("a=") && line.len() > 2
    };
    if !text.lines().all(|line| is_line(line.trim_end())) {
        return Err(Problem::malformed(
            "the body is no SDP fragment: it has lines that are neither a= nor m=",
        ));
    }
    let is_candidate = |line: &str| {
        line.strip_prefix("a=candidate:")
            .is_none_or(|rest| rest.split_ascii_whitespace().count() >= 8)
    };
    if !text.lines().all(is_candidate) {
        return Err(Problem::malformed("a candidate is not whole"));
    }
    let credentials = credentials(text)?;
    let has_news = ["a=candidate:", "a=end-of-candidates"]
        .iter()
        .any(|name| text.lines().any(|line| line.starts_with(name)));
    if credentials.is_none() && !has_news {
        return Err(Problem::malformed(
            "the SDP fragment has neither candidates nor credentials",
        ));
    }
    Ok(credentials)
}

/// What a restarted ICE session has to say of our side, from the answer to the restart's offer.
pub(super) fn of_answer(answer: &str) -> Option<String> {
    let ours = credentials(answer).ok()??;
    let first = |name: &str| answer.lines().find(|line| line.starts_with(name));
    let mut text = String::new();
    let mut put = |line: &str| {
        text.push_str(line);
        text.push_str("\r\n");
    };
    first("a=ice-lite").into_iter().for_each(&mut put);
    put(&format!("a=ice-ufrag:{}", ours.user_fragment));
    put(&format!("a=ice-pwd:{}", ours.password));
    put(first("m=")?);
    first("a=mid:").into_iter().for_each(&mut put);
    let mut candidates: Vec<&str> = answer
        .lines()
        .filter(|line| line.starts_with("a=candidate:"))
        .collect();
    candidates.sort_unstable();
    candidates.dedup();
    candidates.into_iter().for_each(&mut put);
    put("a=end-of-candidates");
    Some(text)
}

/// A description with other credentials.
pub(super) fn with_credentials(sdp: &str, credentials: &Credentials) -> String {
    let mut text = String::with_capacity(sdp.len() + 64);
    for line in sdp.lines() {
        if line.starts_with("a=ice-ufrag:") {
            text.push_str(&format!("a=ice-ufrag:{}", credentials.user_fragment));
        } else if line.starts_with("a=ice-pwd:") {
            text.push_str(&format!("a=ice-pwd:{}", credentials.password));
        } else {
            text.push_str(line);
        }
        text.push_str("\r\n");
    }
    text
}

/// Checks that any text is refused or tells credentials that are found again where they were put.
#[cfg(any(test, fuzzing))]
pub(super) fn check(text: &str) {
    let _ = of_answer(text);
    if let Ok(Some(told)) = read(text) {
        let restarted = with_credentials(text, &told);
        assert_eq!(credentials(&restarted).ok().flatten(), Some(told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "vw5LmwG4y/e6dPP/zAP9Gp5k";

    #[test]
    fn fragments_are_told_from_noise() {
        let candidate = "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\n";
        let restart = format!("a=ice-ufrag:ysXw\r\na=ice-pwd:{PASSWORD}\r\n");
        assert_eq!(read(candidate), Ok(None));
        assert_eq!(read("a=end-of-candidates\n"), Ok(None));
        let found = read(&format!(
            "{restart}m=audio 9 RTP/AVP 0\r\na=mid:0\r\n{candidate}"
        ));
        assert_eq!(found.unwrap().unwrap().password, PASSWORD);
        for noise in [
            "",
            "hello",
            "v=0\r\n",
            "a=\r\n",
            "a=mid:0\r\n",
            "a=candidate:1 1 udp\r\n",
            "a=ice-ufrag:ysXw\r\n",
            "a=ice-ufrag:y\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n",
            "a=ice-ufrag:ysXw\r\na=ice-pwd:short\r\n",
            "a=ice-ufrag:ys Xw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n",
        ] {
            assert!(read(noise).is_err(), "{noise:?}");
        }
    }

    #[test]
    fn a_restart_changes_the_credentials_of_every_m_line_and_nothing_else() {
        let sdp = "v=0\r\na=ice-ufrag:aaaa\r\nm=audio 9 x 0\r\na=ice-ufrag:aaaa\r\na=ice-pwd:b\r\na=mid:0\r\n";
        let new = Credentials {
            user_fragment: "cccc".into(),
            password: PASSWORD.into(),
        };
        assert_eq!(
            with_credentials(sdp, &new),
            sdp.replace("aaaa", "cccc")
                .replace("a=ice-pwd:b", &format!("a=ice-pwd:{PASSWORD}"))
        );
    }

    #[test]
    fn an_answer_gives_its_ice_part() {
        let answer = format!(
            "v=0\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:x\r\na=ice-ufrag:ysXw\r\na=ice-pwd:{PASSWORD}\r\na=candidate:1 1 udp 1 192.0.2.1 7882 typ host\r\nm=video 9 x 96\r\na=candidate:1 1 udp 1 192.0.2.1 7882 typ host\r\n"
        );
        let text = of_answer(&answer).unwrap();
        assert_eq!(text.matches("a=candidate").count(), 1);
        assert!(text.starts_with("a=ice-lite\r\na=ice-ufrag:ysXw\r\n"));
        assert!(read(&text).unwrap().is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "(a=(candidate|ice-ufrag|ice-pwd):|m=|a=|é|\r|\n|.){0,60}") {
            check(&text);
        }
    }
}
