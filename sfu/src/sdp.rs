//! What is read from and put right in SDP text around str0m.
//!
//! str0m negotiates; this only finds which m-line carries which track, and edits descriptions in
//! four ways that str0m has no words for: the codec order of an m-line, the names of what is sent in
//! a place the client brought, places not in use, and no names where nothing is sent.

use std::fmt::Write;

/// The longest SDP taken from a client. A meeting of 64 pictures needs about 150 kB.
pub(crate) const MAX_SDP_BYTES: usize = 384 * 1024;

/// The most m-lines taken from a client; each costs state for as long as the connection lives.
pub(crate) const MAX_MEDIA_LINES: usize = 256;

/// One m-section, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) is_audio: bool,
    pub(crate) is_video: bool,
    pub(crate) is_stopped: bool,
    pub(crate) mid: String,
    /// The second word of `a=msid`.
    pub(crate) track_name: Option<String>,
    /// `sendrecv` unless it says otherwise (RFC 8866 §6.7).
    pub(crate) is_sending: bool,
    pub(crate) is_receiving: bool,
    /// Simulcast rids in the order sent, lowest first in LiveKit's clients.
    pub(crate) rids: Vec<String>,
}

/// Refuses what is too long before anything parses it.
pub(crate) fn check_size(sdp: &str) -> Result<(), String> {
    if sdp.len() > MAX_SDP_BYTES {
        return Err(format!("the SDP is longer than {MAX_SDP_BYTES} bytes"));
    }
    let lines = sdp.lines().filter(|line| line.starts_with("m=")).count();
    if lines > MAX_MEDIA_LINES {
        return Err(format!(
            "the SDP has {lines} m-lines, more than {MAX_MEDIA_LINES}"
        ));
    }
    Ok(())
}

/// Refuses m-lines of other kinds than the engine knows: it leaves them out of its answer, in which
/// every m-line of the offer must stand (RFC 3264 §6).
pub(crate) fn check_kinds(sdp: &str) -> Result<(), String> {
    let mut kinds = sdp.lines().filter_map(|line| line.strip_prefix("m="));
    let is_known = |line: &str| {
        let kind = line.split(' ').next();
        ["audio", "video", "application"].map(Some).contains(&kind)
    };
    if kinds.all(is_known) {
        Ok(())
    } else {
        Err("the SDP has an m-line that is neither audio, video nor application".into())
    }
}

/// The SDP without the client's ICE candidates. An ICE-lite agent answers where checks come from
/// and needs none, so a client can't make it keep thousands.
pub(crate) fn without_candidates(sdp: &str) -> String {
    let kept = sdp.lines().filter(|line| !line.starts_with("a=candidate:"));
    kept.flat_map(|line| [line, "\r\n"]).collect()
}

/// The m-sections of an SDP.
pub(crate) fn sections(sdp: &str) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    for line in sdp.lines() {
        if let Some(rest) = line.strip_prefix("m=") {
            let mut words = rest.split_ascii_whitespace();
            let kind = words.next().unwrap_or_default();
            found.push(Section {
                is_audio: kind == "audio",
                is_video: kind == "video",
                is_stopped: words.next() == Some("0"),
                is_sending: true,
                is_receiving: true,
                ..Section::default()
            });
            continue;
        }
        let (Some(section), Some(attribute)) = (found.last_mut(), line.strip_prefix("a=")) else {
            continue;
        };
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "mid" => section.mid = value.trim().to_owned(),
            "msid" => section.track_name = value.split_ascii_whitespace().nth(1).map(str::to_owned),
            "sendonly" => section.is_receiving = false,
            "recvonly" => section.is_sending = false,
            "inactive" => (section.is_sending, section.is_receiving) = (false, false),
            "rid" => {
                let mut words = value.split_ascii_whitespace();
                if let (Some(rid), Some("send")) = (words.next(), words.next()) {
                    section.rids.push(rid.to_owned());
                }
            }
            _ => {}
        }
    }
    found
}

/// What an answer's m-line shall say, by its mid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// These payload types first, in this order.
    Prefer(Vec<u8>),
    /// The place carries a track under these names.
    Name { stream: String, track: String },
    /// The place is not in use: a client told otherwise shows a track it can't name.
    Idle,
}

/// The canonical name of a stream's source: the participant, whose clock its reports tell.
pub(crate) fn cname(stream: &str) -> &str {
    stream.split_once('|').map_or(stream, |(source, _)| source)
}

/// The SDP with each named m-line edited, and without the names that str0m repeats to the client
/// where nothing is sent: a track that the client published, took back and published again would
/// be named twice, and browsers refuse such a description.
pub(crate) fn edit(sdp: &str, edits: &[(String, Edit)]) -> String {
    let mut out = String::with_capacity(sdp.len());
    let mut section: Vec<&str> = Vec::new();
    let mut in_media = false;
    for line in sdp.lines() {
        if line.starts_with("m=") {
            write_section(&mut out, &section, in_media, edits);
            section.clear();
            in_media = true;
        }
        section.push(line);
    }
    write_section(&mut out, &section, in_media, edits);
    out
}

fn write_section(out: &mut String, lines: &[&str], in_media: bool, edits: &[(String, Edit)]) {
    let mid = lines.iter().find_map(|line| line.strip_prefix("a=mid:"));
    let edit = match mid {
        Some(mid) if in_media => edits
            .iter()
            .find(|(of, _)| of == mid.trim())
            .map(|(_, edit)| edit),
        _ => None,
    };
    let is_sending = edit != Some(&Edit::Idle)
        && !lines
            .iter()
            .any(|line| ["a=recvonly", "a=inactive"].contains(line));
    for line in lines {
        if in_media && !is_sending && line.starts_with("a=msid:") {
            continue;
        }
        match edit {
            Some(Edit::Prefer(first)) if line.starts_with("m=") => {
                let mut words: Vec<&str> = line.split(' ').collect();
                let formats = words.split_off(words.len().min(3));
                let number = |format: &&str| format.parse::<u8>().ok();
                let preferred = first.iter().filter_map(|wanted| {
                    formats
                        .iter()
                        .find(|format| number(format) == Some(*wanted))
                        .copied()
                });
                let rest = formats
                    .iter()
                    .filter(|format| !number(format).is_some_and(|n| first.contains(&n)))
                    .copied();
                words.extend(preferred.chain(rest).collect::<Vec<_>>());
                out.push_str(&words.join(" "));
            }
            Some(Edit::Name { stream, track }) if line.starts_with("a=msid:") => {
                let _ = write!(out, "a=msid:{stream} {track}");
            }
            Some(Edit::Name { stream, track })
                if line.starts_with("a=ssrc:") && line.contains(" msid:") =>
            {
                let ssrc = line.split(' ').next().unwrap_or_default();
                let _ = write!(out, "{ssrc} msid:{stream} {track}");
            }
            Some(Edit::Name { stream, .. })
                if line.starts_with("a=ssrc:") && line.contains(" cname:") =>
            {
                let ssrc = line.split(' ').next().unwrap_or_default();
                let _ = write!(out, "{ssrc} cname:{}", cname(stream));
            }
            Some(Edit::Idle)
                if line.starts_with("a=ssrc:") || line.starts_with("a=ssrc-group:") =>
            {
                continue;
            }
            Some(Edit::Idle) if *line == "a=sendonly" || *line == "a=sendrecv" => {
                out.push_str("a=inactive");
            }
            _ => out.push_str(line),
        }
        out.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103\r\na=mid:0\r\na=recvonly\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:1\r\na=sendonly\r\na=msid:x y\r\na=ssrc:5 cname:c\r\na=ssrc:5 msid:x y\r\n";

    #[test]
    fn sections_tell_mid_track_and_direction() {
        let found = sections(
            "v=0\r\nm=audio 9 x 111\r\na=mid:a\r\na=sendonly\r\na=msid:s t\r\nm=video 0 x 96\r\na=mid:b\r\na=recvonly\r\na=rid:q send\r\na=rid:h send\r\n",
        );
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].track_name.as_deref(), Some("t"));
        assert!(found[0].is_audio && found[0].is_sending && !found[0].is_receiving);
        assert!(found[1].is_video && found[1].is_stopped && found[1].is_receiving);
        assert_eq!(found[1].rids, ["q", "h"]);
    }

    #[test]
    fn the_preferred_codec_comes_first() {
        let edited = edit(ANSWER, &[("0".into(), Edit::Prefer(vec![102, 103]))]);
        assert!(edited.contains("SAVPF 102 103 96 97\r\n"), "{edited}");
    }

    #[test]
    fn a_place_in_use_is_named_and_an_idle_one_is_silent() {
        let name = Edit::Name {
            stream: "PA|TR".into(),
            track: "TR".into(),
        };
        let named = edit(ANSWER, &[("1".into(), name)]);
        assert!(
            named.contains("a=msid:PA|TR TR\r\n") && named.contains("a=ssrc:5 msid:PA|TR TR\r\n")
        );
        assert!(named.contains("a=ssrc:5 cname:PA\r\n"), "{named}");
        let idle = edit(ANSWER, &[("1".into(), Edit::Idle)]);
        assert!(idle.contains("a=inactive") && !idle.contains("a=ssrc") && !idle.contains("msid"));
        assert!(idle.contains("a=recvonly"), "other sections stay");
    }

    #[test]
    fn where_nothing_is_sent_nothing_is_named() {
        let edited = edit(
            "v=0\r\nm=video 9 x 96\r\na=mid:0\r\na=inactive\r\na=msid:s t\r\nm=video 9 x 96\r\na=mid:1\r\na=msid:s t\r\na=recvonly\r\n",
            &[],
        );
        assert!(!edited.contains("msid"), "{edited}");
        assert!(edit(ANSWER, &[]).contains("a=msid:x y\r\n"));
    }

    #[test]
    fn an_m_line_of_another_kind_is_refused() {
        assert!(check_kinds(ANSWER).is_ok());
        assert!(check_kinds("v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n").is_ok());
        for kind in ["text", "image", "", "\0udio"] {
            assert!(
                check_kinds(&format!("v=0\r\nm={kind} 9 x 0\r\n")).is_err(),
                "{kind}"
            );
        }
    }

    #[test]
    fn an_sdp_of_ten_thousand_lines_is_refused() {
        assert!(check_size(&"m=audio 9 x 0\r\n".repeat(10_000)).is_err());
        assert!(check_size(&"x".repeat(16 << 20)).is_err());
    }
}
