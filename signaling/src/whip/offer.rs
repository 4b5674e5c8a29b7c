//! Reads the offer of an encoder or player and makes of it what the room's participants say:
//! tracks with a source and a name, places with somebody to show.
//!
//! An offer that could be answered only in part is refused in whole (RFC 9725 4.4.3), with words
//! for the person who set up the client.

use std::collections::BTreeSet;

use livekit_protocol as proto;
use proto::{TrackSource, TrackType, VideoQuality};

use super::fragment;
use crate::problem::Problem;
use crate::room::{MEDIA_LINES_BOUND, ViewPlace, Whom, check_formats};

/// The longest mid, in bytes; the media core tells m-lines apart by so many.
const MID_BOUND: usize = 16;
/// The most layers of a simulcast picture.
const LAYERS_BOUND: usize = 3;

/// Audio, video, or something else such as data channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Audio,
    Video,
    Other,
}

/// One m-section.
#[derive(Clone, Debug)]
struct Section<'a> {
    kind: Kind,
    mid: &'a str,
    is_sending: bool,
    is_receiving: bool,
    is_rejected: bool,
    lines: Vec<&'a str>,
}

/// An offer whose m-lines and transport are as they must be.
#[derive(Debug)]
struct Offer<'a> {
    session: Vec<&'a str>,
    sections: Vec<Section<'a>>,
}

impl<'a> Section<'a> {
    fn new(line: &'a str) -> Section<'a> {
        let mut words = line[2..].split_ascii_whitespace();
        let kind = match words.next() {
            Some("audio") => Kind::Audio,
            Some("video") => Kind::Video,
            _ => Kind::Other,
        };
        Section {
            kind,
            mid: "",
            is_sending: true,
            is_receiving: true,
            is_rejected: words.next() == Some("0"),
            lines: vec![line],
        }
    }

    fn take(&mut self, line: &'a str) {
        match line {
            "a=sendonly" => self.is_receiving = false,
            "a=recvonly" => self.is_sending = false,
            "a=inactive" => (self.is_sending, self.is_receiving) = (false, false),
            // RFC 9143 6: port 0 of a bundled m-line that is in use.
            "a=bundle-only" => self.is_rejected = false,
            _ => {
                if let Some(mid) = line.strip_prefix("a=mid:") {
                    self.mid = mid.trim();
                }
            }
        }
        self.lines.push(line);
    }

    fn is_media(&self) -> bool {
        self.kind != Kind::Other && !self.is_rejected
    }

    /// The codecs in the client's order, by their names in `a=rtpmap`.
    fn codecs(&self) -> Vec<String> {
        let formats = self.lines[0].split_ascii_whitespace().skip(3);
        let mut names: Vec<String> = Vec::new();
        for format in formats {
            let name = self.lines.iter().find_map(|line| {
                let (of, codec) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
                (of == format).then(|| codec.split('/').next().unwrap_or_default())
            });
            let name = name.unwrap_or_default().to_ascii_lowercase();
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn says(&self, word: &str) -> bool {
        self.lines.iter().any(|line| line.contains(word))
    }

    /// The simulcast layers, each with its line, in the client's order.
    fn layers(&self) -> Vec<(&'a str, LayerLine<'a>)> {
        let mut found = Vec::new();
        for line in &self.lines {
            let Some(rest) = line.strip_prefix("a=rid:") else {
                continue;
            };
            let mut words = rest.splitn(3, ' ');
            if let (Some(rid), Some("send")) = (words.next(), words.next().map(str::trim)) {
                let limits = words.next().unwrap_or_default();
                let size = |name: &str| {
                    limits.split(';').find_map(|limit| {
                        let (of, value) = limit.split_once('=')?;
                        (of.trim() == name).then(|| value.trim().parse().ok())?
                    })
                };
                let layer = LayerLine {
                    rid,
                    width: size("max-width").unwrap_or(0),
                    height: size("max-height").unwrap_or(0),
                };
                found.push((*line, layer));
            }
        }
        found
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LayerLine<'a> {
    rid: &'a str,
    width: u32,
    height: u32,
}

/// How good a layer is by the names that clients use; LiveKit's names are those of their own order.
fn rank(rid: &str, is_livekit: bool) -> Option<u32> {
    match (is_livekit, rid) {
        (true, "q") | (false, "l" | "lo" | "low") => Some(0),
        (true, "h") | (false, "m" | "mid" | "medium") => Some(1),
        (true, "f") | (false, "h" | "hi" | "high") => Some(2),
        _ => None,
    }
}

/// The lowest layer first, by the sizes that the client names, else by the layers' names, else by
/// its order of preference, in which the best comes first (RFC 8853 5.1).
fn lowest_first<'a>(mut layers: Vec<(&'a str, LayerLine<'a>)>) -> Vec<(&'a str, LayerLine<'a>)> {
    let is_livekit = layers.iter().all(|(_, one)| rank(one.rid, true).is_some());
    if is_livekit {
        // The media core knows these by their names.
        return layers;
    }
    if layers.iter().all(|(_, one)| one.width > 0) {
        layers.sort_by_key(|(_, one)| one.width);
    } else if layers.iter().all(|(_, one)| rank(one.rid, false).is_some()) {
        layers.sort_by_key(|(_, one)| rank(one.rid, false));
    } else {
        layers.reverse();
    }
    layers
}

fn read(sdp: &str) -> Result<Offer<'_>, Problem> {
    if !sdp.starts_with("v=0") {
        return Err(Problem::malformed("the body is not an SDP description"));
    }
    let mut offer = Offer {
        session: Vec::new(),
        sections: Vec::new(),
    };
    for line in sdp.lines() {
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        if !(line.as_bytes()[0].is_ascii_lowercase() && line.as_bytes().get(1) == Some(&b'=')) {
            return Err(Problem::malformed(
                "the SDP description has a line that does not begin with a letter and =",
            ));
        }
        if line.starts_with("m=") {
            if offer.sections.len() == MEDIA_LINES_BOUND {
                return Err(Problem::not_acceptable(format!(
                    "the offer has over {MEDIA_LINES_BOUND} m-lines"
                )));
            }
            offer.sections.push(Section::new(line));
        } else if let Some(section) = offer.sections.last_mut() {
            section.take(line);
        } else {
            offer.session.push(line);
        }
    }
    if offer.sections.is_empty() {
        return Err(Problem::malformed("the SDP description has no m-line"));
    }
    check_transport(sdp, &offer)?;
    Ok(offer)
}

/// RFC 9725 4.4: one bundled transport, on which we are the DTLS server.
fn check_transport(sdp: &str, offer: &Offer<'_>) -> Result<(), Problem> {
    let has = |name: &str| sdp.lines().any(|line| line.starts_with(name));
    if fragment::credentials(sdp)?.is_none() || !has("a=fingerprint:") {
        return Err(Problem::unprocessable(
            "the offer has no a=ice-ufrag, a=ice-pwd or a=fingerprint: it is not WebRTC's",
        ));
    }
    let setups = sdp.lines().filter_map(|line| line.strip_prefix("a=setup:"));
    if !setups
        .map(str::trim)
        .all(|setup| ["actpass", "active"].contains(&setup))
    {
        return Err(Problem::unprocessable(
            "a=setup must be actpass or active: this server is the DTLS server",
        ));
    }
    let in_use = || offer.sections.iter().filter(|section| !section.is_rejected);
    if in_use().any(|section| section.mid.is_empty() || section.mid.len() > MID_BOUND) {
        return Err(Problem::unprocessable(format!(
            "every m-line needs an a=mid of at most {MID_BOUND} bytes"
        )));
    }
    check_formats(sdp).map_err(Problem::unprocessable)?;
    let mut mids: Vec<&str> = in_use().map(|section| section.mid).collect();
    mids.sort_unstable();
    if mids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Problem::unprocessable("two m-lines have the same a=mid"));
    }
    let bundled: Vec<&str> = offer
        .session
        .iter()
        .find_map(|line| line.strip_prefix("a=group:BUNDLE"))
        .map(|rest| rest.split_ascii_whitespace().collect())
        .unwrap_or_default();
    if mids.len() > 1 && !mids.iter().all(|mid| bundled.contains(mid)) {
        return Err(Problem::unprocessable(
            "all m-lines must be in one BUNDLE group",
        ));
    }
    Ok(())
}

fn write(out: &mut String, line: &str) {
    out.push_str(line);
    // Some leave out the channels, of which there are always 2 here (RFC 7587 §7).
    let is_short_opus = line
        .strip_prefix("a=rtpmap:")
        .and_then(|rest| rest.split_once(' '))
        .is_some_and(|(_, codec)| codec.eq_ignore_ascii_case("opus/48000"));
    out.push_str(if is_short_opus { "/2\r\n" } else { "\r\n" });
}

const DIRECTIONS: [&str; 4] = ["a=sendonly", "a=recvonly", "a=sendrecv", "a=inactive"];

/// What an encoder publishes: its offer, with its tracks named and media one way only, and the
/// tracks as its room is told of them.
pub(super) fn publishing(sdp: &str) -> Result<(String, Vec<proto::AddTrackRequest>), Problem> {
    let offer = read(sdp)?;
    let sent = |kind| {
        offer
            .sections
            .iter()
            .filter(move |section| section.kind == kind && section.is_media())
    };
    let (audio, video) = (sent(Kind::Audio).count(), sent(Kind::Video).count());
    if audio > 1 || video > 1 || audio + video == 0 {
        return Err(Problem::not_acceptable(format!(
            "an encoder sends one picture, one sound, or one of each; the offer has {video} and {audio}"
        )));
    }
    if offer
        .sections
        .iter()
        .any(|section| section.is_media() && !section.is_sending)
    {
        return Err(Problem::not_acceptable(
            "the m-lines of an encoder must be sendonly or sendrecv",
        ));
    }
    let mut text = String::with_capacity(sdp.len() + 200);
    let mut tracks = Vec::new();
    for line in &offer.session {
        write(&mut text, line);
    }
    for section in &offer.sections {
        if !section.is_media() {
            section.lines.iter().for_each(|line| write(&mut text, line));
            continue;
        }
        let cid = format!("whip-{}", section.mid);
        let layers = section.layers();
        if layers.len() > LAYERS_BOUND {
            return Err(Problem::not_acceptable(format!(
                "a picture may have at most {LAYERS_BOUND} simulcast layers"
            )));
        }
        let layers = lowest_first(layers);
        for line in &section.lines {
            let is_replaced = DIRECTIONS.contains(line)
                || line.starts_with("a=msid:")
                || layers.iter().any(|(of, _)| of == line);
            if !is_replaced {
                write(&mut text, line);
            }
        }
        layers.iter().for_each(|(line, _)| write(&mut text, line));
        write(&mut text, "a=sendonly");
        write(&mut text, &format!("a=msid:- {cid}"));
        tracks.push(track(section, cid, &layers));
    }
    Ok((text, tracks))
}

#[expect(deprecated, reason = "LiveKit's clients read it")]
fn track(
    section: &Section<'_>,
    cid: String,
    layers: &[(&str, LayerLine<'_>)],
) -> proto::AddTrackRequest {
    let is_video = section.kind == Kind::Video;
    let codecs = section.codecs();
    let is_livekit = layers.iter().all(|(_, one)| rank(one.rid, true).is_some());
    let quality = |at: usize, rid: &str| {
        let rank = if is_livekit { rank(rid, true) } else { None };
        match (rank, layers.len() - at) {
            (Some(0), _) => VideoQuality::Low,
            (Some(1), _) => VideoQuality::Medium,
            (Some(_), _) | (None, 1) => VideoQuality::High,
            (None, 2) => VideoQuality::Medium,
            _ => VideoQuality::Low,
        }
    };
    let layers: Vec<proto::VideoLayer> = layers
        .iter()
        .enumerate()
        .map(|(at, (_, one))| proto::VideoLayer {
            quality: quality(at, one.rid) as i32,
            width: one.width,
            height: one.height,
            ..Default::default()
        })
        .collect();
    let (kind, source) = if is_video {
        (TrackType::Video, TrackSource::Camera)
    } else {
        (TrackType::Audio, TrackSource::Microphone)
    };
    let stereo = !is_video && section.says("stereo=1");
    proto::AddTrackRequest {
        cid: cid.clone(),
        r#type: kind as i32,
        source: source as i32,
        // Browsers decode RED in mono.
        disable_red: stereo,
        stereo,
        width: layers.iter().map(|layer| layer.width).max().unwrap_or(0),
        height: layers.iter().map(|layer| layer.height).max().unwrap_or(0),
        simulcast_codecs: codecs
            .into_iter()
            .filter(|codec| !["rtx", "red", "ulpfec", "flexfec-03"].contains(&codec.as_str()))
            .take(8)
            .map(|codec| proto::SimulcastCodec {
                codec,
                cid: cid.clone(),
                ..Default::default()
            })
            .collect(),
        layers,
        ..Default::default()
    }
}

/// What a player watches: its offer, with media one way only, and who is shown in each m-line.
/// The first picture and the first sound show the first of `shown`, and so on; a player that wants
/// only pictures or only sound leaves the other kind out.
pub(super) fn watching(sdp: &str, shown: &[Whom]) -> Result<(String, Vec<ViewPlace>), Problem> {
    let offer = read(sdp)?;
    let count = |kind| {
        offer
            .sections
            .iter()
            .filter(|section| section.kind == kind && section.is_media())
            .count()
    };
    let (audio, video) = (count(Kind::Audio), count(Kind::Video));
    let fits = |lines| lines == shown.len() || lines == 0;
    if !fits(audio) || !fits(video) || audio + video == 0 {
        return Err(Problem::not_acceptable(format!(
            "the offer must have {} m-lines of video and as many of audio, one for each \
             participant to be shown; it has {video} and {audio}",
            shown.len()
        )));
    }
    if offer
        .sections
        .iter()
        .any(|section| section.is_media() && !section.is_receiving)
    {
        return Err(Problem::not_acceptable(
            "the m-lines of a player must be recvonly or sendrecv",
        ));
    }
    let mut text = String::with_capacity(sdp.len() + 200);
    let mut places: Vec<ViewPlace> = Vec::new();
    for line in &offer.session {
        write(&mut text, line);
    }
    for section in &offer.sections {
        if !section.is_media() {
            section.lines.iter().for_each(|line| write(&mut text, line));
            continue;
        }
        for line in &section.lines {
            if !DIRECTIONS.contains(line) && !line.starts_with("a=msid:") {
                write(&mut text, line);
            }
        }
        write(&mut text, "a=recvonly");
        let is_video = section.kind == Kind::Video;
        let before = places
            .iter()
            .filter(|place| place.is_video == is_video)
            .count();
        places.push(ViewPlace {
            mid: section.mid.to_owned(),
            is_video,
            whom: shown[before].clone(),
        });
    }
    Ok((text, places))
}

/// Whether every m-line of the offer was accepted with a codec.
pub(super) fn is_whole(answer: &str) -> bool {
    let mut sections: Vec<(&str, bool)> = Vec::new();
    for line in answer.lines() {
        if line.starts_with("m=") {
            sections.push((line, false));
        } else if line.starts_with("a=rtpmap:")
            && let Some((_, has_codec)) = sections.last_mut()
        {
            *has_codec = true;
        }
    }
    sections.iter().all(|(line, has_codec)| {
        let mut words = line[2..].split_ascii_whitespace();
        let is_media = matches!(words.next(), Some("audio" | "video"));
        !is_media || *has_codec && words.next() != Some("0")
    })
}

/// The answer as encoders and players best read it: with RTCP on the same port named as the offer
/// names it (RFC 8858 4.3), and with the candidates in every m-line, for not all clients look for
/// them in the first one of a bundle.
pub(super) fn as_offered(answer: &str, offer: &str) -> String {
    let is_mux_only = offer.contains("a=rtcp-mux-only");
    let candidates: BTreeSet<&str> = answer
        .lines()
        .filter(|line| line.starts_with("a=candidate:"))
        .collect();
    let mut text = String::with_capacity(answer.len() * 2);
    for line in answer.lines() {
        if line.starts_with("a=candidate:") || line == "a=rtcp-mux-only" {
            continue;
        }
        write(&mut text, line);
        if line.starts_with("a=mid:") {
            candidates.iter().for_each(|line| write(&mut text, line));
        } else if line == "a=rtcp-mux" && is_mux_only {
            write(&mut text, "a=rtcp-mux-only");
        }
    }
    text
}

/// Checks that any text is refused or becomes an offer with the same m-lines, of which those with
/// media go one way.
#[cfg(any(test, fuzzing))]
pub(super) fn check(text: &str) {
    let m_lines = |sdp: &str| -> Vec<String> {
        let lines = sdp.lines().filter(|line| line.starts_with("m="));
        lines.map(|line| line.trim_end().to_owned()).collect()
    };
    let count = |sdp: &str, direction: &str| sdp.lines().filter(|line| *line == direction).count();
    if let Ok((offer, tracks)) = publishing(text) {
        assert_eq!(m_lines(&offer), m_lines(text));
        assert!((1..=2).contains(&tracks.len()));
        assert!(count(&offer, "a=sendonly") >= tracks.len());
        for track in tracks {
            assert!(offer.contains(&format!("a=msid:- {}\r\n", track.cid)));
            assert!(track.layers.len() <= LAYERS_BOUND);
        }
    }
    for shown in [&[Whom::Speaker][..], &[Whom::Speaker, Whom::Speaker]] {
        if let Ok((offer, places)) = watching(text, shown) {
            assert_eq!(m_lines(&offer), m_lines(text));
            assert!((1..=2 * shown.len()).contains(&places.len()));
            assert!(count(&offer, "a=recvonly") >= places.len());
        }
    }
    let _ = is_whole(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(sections: &[(&str, &str)]) -> String {
        let mids: Vec<String> = (0..sections.len()).map(|at| at.to_string()).collect();
        let mut sdp = format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 AB\r\na=setup:actpass\r\n",
            mids.join(" ")
        );
        for ((kind, direction), mid) in sections.iter().zip(mids) {
            sdp.push_str(&format!(
                "m={kind} 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:{mid}\r\na={direction}\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 H264/90000\r\n"
            ));
        }
        sdp
    }

    fn status<T: std::fmt::Debug>(outcome: Result<T, Problem>) -> u16 {
        outcome.unwrap_err().status.as_u16()
    }

    #[test]
    fn an_encoder_publishes_its_camera_and_microphone() {
        let sdp = offer(&[("audio", "sendrecv"), ("video", "sendonly")]);
        let (text, tracks) = publishing(&sdp).unwrap();
        let sources: Vec<i32> = tracks.iter().map(|track| track.source).collect();
        assert_eq!(
            sources,
            [TrackSource::Microphone as i32, TrackSource::Camera as i32]
        );
        assert!(!text.contains("sendrecv") && text.matches("a=sendonly").count() == 2);
        assert!(text.contains("a=msid:- whip-0\r\n") && text.contains("a=msid:- whip-1\r\n"));
        let codecs: Vec<&str> = tracks[1]
            .simulcast_codecs
            .iter()
            .map(|codec| codec.codec.as_str())
            .collect();
        assert_eq!(codecs, ["vp8", "h264"], "in the encoder's order");
    }

    #[test]
    fn opus_has_two_channels_whether_they_are_told_or_not() {
        for told in ["OPUS/48000", "opus/48000", "opus/48000/2"] {
            let sdp = offer(&[("audio", "recvonly")]);
            let sdp = sdp.replacen("VP8/90000", told, 1);
            let (text, _) = watching(&sdp, &[Whom::Speaker]).unwrap();
            assert!(
                text.to_lowercase().contains("a=rtpmap:96 opus/48000/2\r\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn layers_are_ordered_by_size_by_name_or_by_preference() {
        for (rids, expected) in [
            (["0 send", "1 send", "2 send"], ["2", "1", "0"]),
            (["q send", "h send", "f send"], ["q", "h", "f"]),
            (["h send", "l send", "m send"], ["l", "m", "h"]),
            (
                [
                    "a send max-width=640;max-height=360",
                    "b send max-width=1280",
                    "c send max-width=320",
                ],
                ["c", "a", "b"],
            ),
        ] {
            let mut sdp = offer(&[("video", "sendonly")]);
            rids.iter()
                .for_each(|rid| sdp.push_str(&format!("a=rid:{rid}\r\n")));
            sdp.push_str("a=simulcast:send x\r\n");
            let (text, tracks) = publishing(&sdp).unwrap();
            let found: Vec<&str> = text
                .lines()
                .filter_map(|line| line.strip_prefix("a=rid:"))
                .map(|rest| rest.split(' ').next().unwrap())
                .collect();
            assert_eq!(found, expected);
            let qualities: Vec<i32> = tracks[0].layers.iter().map(|one| one.quality).collect();
            assert_eq!(qualities, [0, 1, 2]);
        }
    }

    #[test]
    fn what_can_not_be_answered_in_whole_is_refused() {
        let both = [("video", "sendonly"), ("audio", "sendonly")];
        for (sdp, expected) in [
            (String::new(), 400),
            ("hello".to_owned(), 400),
            ("v=0\r\ns=-\r\n".to_owned(), 400),
            ("v=0\r\n???\r\n".to_owned(), 400),
            (offer(&[("video", "sendonly"), ("video", "sendonly")]), 406),
            (offer(&[("video", "recvonly")]), 406),
            (offer(&[("video", "inactive")]), 406),
            (offer(&[("application", "sendrecv")]), 406),
            (offer(&[("video", "sendonly"); 300]), 406),
            (offer(&both).replace("a=ice-ufrag:abcd\r\n", ""), 400),
            (offer(&both).replace("a=fingerprint", "a=x"), 422),
            (offer(&both).replace("actpass", "passive"), 422),
            (offer(&both).replace("BUNDLE 0 1", "BUNDLE 0"), 422),
            (offer(&both).replace("a=mid:1", "a=mid:0"), 422),
            (
                offer(&both).replacen("a=rtpmap:96 VP8", "a=rtpmap:96 AV1", 1),
                422,
            ),
            (
                offer(&both).replace("a=mid:1", "a=mid:a-very-long-mid-of-some-client"),
                422,
            ),
        ] {
            assert_eq!(status(publishing(&sdp)), expected, "{sdp}");
        }
    }

    #[test]
    fn a_player_brings_a_pair_for_each_it_watches() {
        let shown = [Whom::Identity("ana".into()), Whom::Identity("bo".into())];
        let sdp = offer(&[
            ("video", "recvonly"),
            ("audio", "recvonly"),
            ("video", "sendrecv"),
            ("audio", "recvonly"),
        ]);
        let (text, places) = watching(&sdp, &shown).unwrap();
        assert_eq!(text.matches("a=recvonly").count(), 4);
        let found: Vec<_> = places
            .iter()
            .map(|place| (place.mid.as_str(), place.is_video, &place.whom))
            .collect();
        assert_eq!(
            found,
            [
                ("0", true, &shown[0]),
                ("1", false, &shown[0]),
                ("2", true, &shown[1]),
                ("3", false, &shown[1]),
            ]
        );
        assert!(watching(&offer(&[("audio", "recvonly")]), &[Whom::Speaker]).is_ok());
        assert_eq!(status(watching(&sdp, &shown[..1])), 406);
        let sending = offer(&[("video", "sendonly")]);
        assert_eq!(status(watching(&sending, &[Whom::Speaker])), 406);
    }

    #[test]
    fn every_m_line_of_an_answer_has_the_candidates() {
        let answer = "v=0\r\nm=audio 9 x 1\r\na=candidate:1\r\na=mid:0\r\na=rtcp-mux\r\nm=video 9 x 2\r\na=mid:1\r\na=rtcp-mux\r\n";
        let text = as_offered(answer, "a=rtcp-mux-only\r\n");
        assert_eq!(text.matches("a=candidate:1\r\n").count(), 2);
        assert_eq!(text.matches("a=rtcp-mux-only\r\n").count(), 2);
        assert!(!as_offered(answer, "").contains("mux-only"));
    }

    #[test]
    fn an_answer_with_a_rejected_m_line_is_not_whole() {
        let line = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n";
        assert!(is_whole(line));
        assert!(!is_whole(&line.replace(" 9 ", " 0 ")));
        assert!(!is_whole("m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"));
        assert!(is_whole("m=application 0 x y\r\n"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(
            text in "v=0\r\n(m=(audio|video) |a=mid:|a=rid:a send |a=recvonly|a=group:BUNDLE 0|é|\r|\n|.){0,60}",
        ) {
            check(&text);
        }
    }
}
