//! Which announced track an m-line of a client's offer carries.
//!
//! An announced track names itself by the id of its `MediaStreamTrack`, and most browsers write
//! that id as the second word of `a=msid`. Firefox writes an id of the sender's own there, and so
//! does Chromium for a track that was sent before, so such an m-line is given to the oldest announced track of its kind that has no m-line yet, and the
//! offer is rewritten to say so.
//!
//! Firefox also offers bundled m-lines with port 0 and `a=bundle-only` (RFC 9143 7.1), which are in
//! use, while any other m-line with port 0 is rejected. The engine takes both as rejected, so the
//! former get a port. Nothing else of the offer is touched.

use std::collections::HashMap;

use super::short;

/// A track that its client announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Announced {
    /// The client's id of it.
    pub(crate) cid: String,
    /// Whether it is video.
    pub(crate) is_video: bool,
    /// Whether an m-line was agreed for it.
    pub(crate) is_live: bool,
}

/// The part of an m-section that matters here.
#[derive(Default)]
struct Section {
    is_video: Option<bool>,
    is_sending: bool,
    /// Which line has the msid, and its second word.
    msid: Option<(usize, String)>,
}

fn second_word(line: &str) -> Option<&str> {
    let mut words = line.strip_prefix("a=msid:")?.split_ascii_whitespace();
    words.next()?;
    words.next()
}

fn sections(lines: &[&str]) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let line = line.trim_end();
        if let Some(media) = line.strip_prefix("m=") {
            let mut words = media.split_ascii_whitespace();
            let is_video = match words.next() {
                Some("video") => Some(true),
                Some("audio") => Some(false),
                _ => None,
            };
            // A media description says sendrecv where it says nothing (RFC 8866 6.7).
            let is_sending = is_video.is_some();
            found.push(Section {
                is_video,
                is_sending,
                msid: None,
            });
        } else if let Some(section) = found.last_mut() {
            if matches!(line, "a=recvonly" | "a=inactive") {
                section.is_sending = false;
            } else if section.msid.is_none()
                && let Some(id) = second_word(line)
            {
                section.msid = Some((at, id.to_owned()));
            }
        }
    }
    found
}

/// Rewrites the track ids of an offer to those announced. `aliases` remembers, from offer to
/// offer, which id stands for which; it holds at most one per announced track and m-line sent.
pub(crate) fn name_tracks(
    sdp: &str,
    announced: &[Announced],
    aliases: &mut HashMap<String, String>,
) -> String {
    let is_known = |cid: &str| announced.iter().any(|track| track.cid == cid);
    let lines: Vec<&str> = sdp.split_inclusive('\n').collect();
    let sections = sections(&lines);
    let sending = || {
        sections
            .iter()
            .filter(|section| section.is_sending)
            .filter_map(|section| Some((section.is_video?, section.msid.as_ref()?)))
    };
    // A track that was taken back and announced again comes under a new id.
    aliases.retain(|id, cid| is_known(cid) && sending().any(|(_, (_, sent))| sent == id));
    let mut renamed: HashMap<usize, String> = HashMap::new();
    for (is_video, (at, id)) in sending() {
        if is_known(id) {
            continue;
        }
        if !aliases.contains_key(id) {
            let has_line = |cid: &str| {
                aliases.values().any(|taken| taken == cid)
                    || sending().any(|(_, (_, other))| other == cid)
            };
            let nameless = announced
                .iter()
                .find(|track| track.is_video == is_video && !track.is_live && !has_line(&track.cid))
                .map(|track| track.cid.clone());
            if let Some(cid) = nameless {
                aliases.insert(id.clone(), cid);
            }
        }
        if let Some(cid) = aliases.get(id) {
            renamed.insert(*at, cid.clone());
        }
    }
    if renamed.is_empty() {
        return sdp.to_owned();
    }
    let mut text = String::with_capacity(sdp.len() + renamed.len() * 40);
    for (at, line) in lines.iter().enumerate() {
        match renamed.get(&at) {
            Some(cid) => {
                let stream = line
                    .strip_prefix("a=msid:")
                    .and_then(|rest| rest.split_ascii_whitespace().next())
                    .unwrap_or("-");
                let end = &line[line.trim_end().len()..];
                text.push_str(&format!("a=msid:{stream} {cid}{end}"));
            }
            None => text.push_str(line),
        }
    }
    text
}

/// Gives bundle-only m-lines a port.
pub(crate) fn open_bundle_only(sdp: &str) -> String {
    let mut lines: Vec<std::borrow::Cow<'_, str>> =
        sdp.split_inclusive('\n').map(Into::into).collect();
    let mut media = None;
    for at in 0..lines.len() {
        if lines[at].starts_with("m=") {
            media = Some(at);
        } else if lines[at].trim_end() == "a=bundle-only"
            && let Some(media) = media
        {
            let opened = match lines[media].split(' ').collect::<Vec<_>>()[..] {
                [kind, "0", ref rest @ ..] => Some(format!("{kind} 9 {}", rest.join(" "))),
                _ => None,
            };
            if let Some(opened) = opened {
                lines[media] = opened.into();
            }
        }
    }
    lines.concat()
}

/// Refuses a description in which a payload type stands for two codecs: one connection has one
/// transport, and there a payload type is one codec (RFC 9143 9.1). The engine does not survive it.
pub(crate) fn check_formats(sdp: &str) -> Result<(), String> {
    let mut formats: HashMap<&str, &str> = HashMap::new();
    for format in sdp
        .lines()
        .filter_map(|line| line.strip_prefix("a=rtpmap:"))
    {
        let (number, codec) = format.trim_end().split_once(' ').unwrap_or((format, ""));
        if !formats
            .entry(number)
            .or_insert(codec)
            .eq_ignore_ascii_case(codec)
        {
            return Err(format!(
                "the payload type {} stands for two codecs in bundled m-lines",
                short(number)
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(cid: &str, is_video: bool) -> Announced {
        Announced {
            cid: cid.into(),
            is_video,
            is_live: false,
        }
    }

    fn offer(sections: &[(&str, &str, &str)]) -> String {
        let mut sdp = "v=0\r\na=sendrecv\r\n".to_owned();
        for (kind, direction, id) in sections {
            sdp.push_str(&format!(
                "m={kind} 9 X 1\r\na={direction}\r\na=msid:- {id}\r\n"
            ));
        }
        sdp
    }

    #[test]
    fn ids_that_were_announced_stay() {
        let sdp = offer(&[("video", "sendonly", "cam"), ("audio", "sendrecv", "mic")]);
        let mut aliases = HashMap::new();
        assert_eq!(
            name_tracks(
                &sdp,
                &[track("mic", false), track("cam", true)],
                &mut aliases
            ),
            sdp
        );
        assert!(aliases.is_empty());
    }

    #[test]
    fn a_foreign_id_is_given_to_the_oldest_track_of_its_kind_and_keeps_it() {
        let mut tracks = vec![
            track("mic", false),
            track("cam", true),
            track("screen", true),
        ];
        let mut aliases = HashMap::new();
        let first = [("video", "sendonly", "{f1}"), ("audio", "sendonly", "{f2}")];
        let named = [("video", "sendonly", "cam"), ("audio", "sendonly", "mic")];
        assert_eq!(
            name_tracks(&offer(&first), &tracks, &mut aliases),
            offer(&named)
        );
        tracks[0].is_live = true;
        tracks[1].is_live = true;
        let next = [first[0], first[1], ("video", "sendonly", "{f3}")];
        let named_next = [named[0], named[1], ("video", "sendonly", "screen")];
        assert_eq!(
            name_tracks(&offer(&next), &tracks, &mut aliases),
            offer(&named_next)
        );
    }

    #[test]
    fn an_id_whose_track_is_gone_may_stand_for_a_new_one() {
        let mut aliases = HashMap::new();
        let sdp = offer(&[("video", "sendonly", "{f1}")]);
        name_tracks(&sdp, &[track("cam", true)], &mut aliases);
        let again = name_tracks(&sdp, &[track("cam2", true)], &mut aliases);
        assert_eq!(again, offer(&[("video", "sendonly", "cam2")]));
    }

    #[test]
    fn a_track_published_again_is_found_under_its_new_id() {
        let mut aliases = HashMap::new();
        for (old, new) in [("cam", "{f1}"), ("{f1}", "{f2}"), ("{f2}", "{f3}")] {
            let sdp = offer(&[("video", "inactive", old), ("video", "sendonly", new)]);
            let named = offer(&[("video", "inactive", old), ("video", "sendonly", "cam")]);
            assert_eq!(
                name_tracks(&sdp, &[track("cam", true)], &mut aliases),
                named
            );
        }
    }

    #[test]
    fn what_is_not_sent_or_not_announced_is_left_alone() {
        for sdp in [
            offer(&[("video", "recvonly", "{f1}")]),
            offer(&[("video", "inactive", "{f1}")]),
            offer(&[("audio", "sendonly", "{f1}")]),
            "m=video 9 X 1\r\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(
                name_tracks(&sdp, &[track("cam", true)], &mut HashMap::new()),
                sdp
            );
        }
    }

    #[test]
    fn a_track_that_has_its_line_is_not_taken_by_another() {
        let sdp = offer(&[("video", "sendonly", "{f1}"), ("video", "sendonly", "cam")]);
        assert_eq!(
            name_tracks(&sdp, &[track("cam", true)], &mut HashMap::new()),
            sdp
        );
    }

    #[test]
    fn a_bundle_only_line_is_in_use_and_a_rejected_one_is_not() {
        let offer = "v=0\r\nm=audio 9 X 1\r\nm=video 0 X 1 2\r\na=bundle-only\r\nm=audio 0 X 1\r\n";
        let opened =
            "v=0\r\nm=audio 9 X 1\r\nm=video 9 X 1 2\r\na=bundle-only\r\nm=audio 0 X 1\r\n";
        assert_eq!(open_bundle_only(offer), opened);
        assert_eq!(open_bundle_only(opened), opened);
        assert_eq!(open_bundle_only("a=bundle-only\n"), "a=bundle-only\n");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived_and_its_lines_stay(
            text in "(m=(audio|video) |a=msid:[- a-z]{0,6}|a=sendonly|é|\r|\n|.){0,60}",
        ) {
            let named = name_tracks(&text, &[track("cam", true)], &mut HashMap::new());
            assert_eq!(named.matches('\n').count(), text.matches('\n').count());
            let _ = open_bundle_only(&text);
        }
    }
}
