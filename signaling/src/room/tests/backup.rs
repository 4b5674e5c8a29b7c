//! Backup codecs: when a publisher is asked for one, and which it may publish.

use proto::BackupCodecPolicy as Policy;
use proto::request_response::Reason;

use super::*;

fn codecs(names: &[&str], cid: &str) -> Vec<proto::SimulcastCodec> {
    let codec = |(at, name): (usize, &&str)| proto::SimulcastCodec {
        codec: (*name).into(),
        cid: if at == 0 { cid.into() } else { String::new() },
        ..Default::default()
    };
    names.iter().enumerate().map(codec).collect()
}

fn camera(policy: Policy) -> proto::AddTrackRequest {
    proto::AddTrackRequest {
        simulcast_codecs: codecs(&["av1", "vp8"], "cam"),
        backup_codec_policy: policy as i32,
        ..World::camera("cam")
    }
}

fn backup(sid: &str, cid: &str, codec: &str) -> proto::AddTrackRequest {
    proto::AddTrackRequest {
        sid: sid.into(),
        simulcast_codecs: codecs(&[codec], cid),
        ..World::camera(cid)
    }
}

impl World {
    /// Announces a camera with a backup; returns the track's sid and id.
    fn announce_with_backup(&mut self, session: SessionId, policy: Policy) -> (String, TrackId) {
        self.clear();
        self.say(session, Request::AddTrack(camera(policy)));
        let published = self.published(session);
        let [Command::Publish { track, .. }] = self.commands[..] else {
            panic!("{:?}", self.commands)
        };
        (published.sid, track)
    }

    fn publish_with_backup(&mut self, session: SessionId, policy: Policy) -> (String, TrackId) {
        let (sid, track) = self.announce_with_backup(session, policy);
        self.event(Event::Published {
            track,
            encoding: Encoding::Primary,
            mid: "0".into(),
            codec: Codec::Av1,
        });
        self.clear();
        (sid, track)
    }

    /// The track in the last answer to an announcement.
    fn published(&self, session: SessionId) -> proto::TrackInfo {
        let published = self.told(session).filter_map(|message| match message {
            Response::TrackPublished(published) => published.track.clone(),
            _ => None,
        });
        published.last().expect("the announcement was answered")
    }

    fn refused(&self, session: SessionId) -> Option<(Reason, &str)> {
        let refused = self.told(session).filter_map(|message| match message {
            Response::RequestResponse(response) => {
                Some((response.reason(), response.message.as_str()))
            }
            _ => None,
        });
        refused.last()
    }

    /// How many qualities of each codec the publisher was last told to send.
    fn asked(&self, session: SessionId) -> Option<Vec<(String, usize)>> {
        let asked = self.told(session).filter_map(|message| match message {
            Response::SubscribedQualityUpdate(update) => Some(
                update
                    .subscribed_codecs
                    .iter()
                    .map(|codec| {
                        let enabled = codec.qualities.iter().filter(|one| one.enabled);
                        (codec.codec.clone(), enabled.count())
                    })
                    .collect(),
            ),
            _ => None,
        });
        asked.last()
    }
}

fn asked(av1: usize, vp8: usize) -> Option<Vec<(String, usize)>> {
    Some(vec![("av1".into(), av1), ("vp8".into(), vp8)])
}

#[test]
fn the_publisher_is_asked_for_the_backup_when_somebody_needs_it_and_told_when_nobody_does() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (sid, track) = world.announce_with_backup(ana, Policy::Simulcast);
    let info = world.published(ana);
    let mimes: Vec<_> = info.codecs.iter().map(|one| &one.mime_type).collect();
    assert_eq!(mimes, ["video/AV1", "video/VP8"]);
    assert!(matches!(
        &world.commands[..],
        [Command::Publish { publication, .. }] if publication.backup == Some(Codec::Vp8)
    ));
    let published = |encoding, codec| Event::Published {
        track,
        encoding,
        mid: (encoding as usize).to_string(),
        codec,
    };
    let wanted = |encoding, quality| Event::LayersWanted {
        track,
        encoding,
        quality,
    };
    world.event(published(Encoding::Primary, Codec::Av1));
    world.event(wanted(Encoding::Primary, Some(Quality::High)));
    assert_eq!(
        world.asked(ana),
        None,
        "nothing that it does not do already"
    );

    world.event(wanted(Encoding::Backup, Some(Quality::High)));
    assert_eq!(world.asked(ana), asked(3, 3));
    world.clear();
    world.say(ana, Request::AddTrack(backup(&sid, "clone", "vp8")));
    assert!(matches!(
        &world.commands[..],
        [Command::PublishBackup { track: of, cid, replaces: false }]
            if *of == track && cid == "clone"
    ));
    let info = world.published(ana);
    assert_eq!(info.sid, sid);
    assert_eq!(info.codecs[1].cid, "clone");
    assert_eq!(info.codecs[1].layers.len(), 3);
    world.event(published(Encoding::Backup, Codec::Vp8));
    let told = &world.infos(bo).last().unwrap().tracks;
    assert_eq!((told.len(), told[0].codecs[1].mid.as_str()), (1, "1"));
    assert_eq!(
        (told[0].mid.as_str(), &*told[0].mime_type),
        ("0", "video/AV1")
    );

    world.event(wanted(Encoding::Backup, Some(Quality::Low)));
    world.pass(Duration::from_millis(500));
    world.pass(LAYER_HOLD);
    assert_eq!(world.asked(ana), asked(3, 1));
    world.event(wanted(Encoding::Backup, None));
    world.pass(Duration::from_millis(500));
    assert_eq!(
        world.asked(ana),
        asked(3, 1),
        "somebody else may need it soon"
    );
    world.pass(LAYER_HOLD);
    assert_eq!(world.asked(ana), asked(3, 0));
    world.event(wanted(Encoding::Backup, Some(Quality::High)));
    world.event(wanted(Encoding::Primary, None));
    world.pass(Duration::from_millis(500));
    world.pass(LAYER_HOLD);
    assert_eq!(world.asked(ana), asked(0, 3), "it replaced the other");
}

#[test]
fn a_request_that_a_lost_session_did_not_hear_is_made_again() {
    let mut world = World::new();
    let (ana, _bo) = (world.join(1), world.join(2));
    let (_, track) = world.publish_with_backup(ana, Policy::Simulcast);
    let sid = world.sid(ana);
    world.room.session_lost(ana, world.now);
    world.event(Event::LayersWanted {
        track,
        encoding: Encoding::Backup,
        quality: Some(Quality::Low),
    });
    let at = world.at();
    assert!(world.room.resume(&sid, "p1", SessionId(10), at));
    world.settle();
    assert_eq!(world.asked(SessionId(10)), asked(3, 1));
}

#[test]
fn codecs_of_which_one_is_chosen_are_no_backup() {
    let mut world = World::new();
    let ana = world.join(1);
    world.clear();
    let mut request = camera(Policy::Simulcast);
    for codec in &mut request.simulcast_codecs {
        codec.cid = "cam".into();
    }
    world.say(ana, Request::AddTrack(request));
    assert!(matches!(
        &world.commands[..],
        [Command::Publish { publication, .. }]
            if publication.backup.is_none() && publication.codecs == [Codec::Av1, Codec::Vp8]
    ));
    assert_eq!(world.published(ana).codecs.len(), 1);
}

#[test]
fn who_has_both_codecs_in_one_is_told_of_one() {
    let mut world = World::new();
    let (ana, _bo) = (world.join(1), world.join(2));
    let (_, track) = world.announce_with_backup(ana, Policy::Simulcast);
    world.event(Event::Published {
        track,
        encoding: Encoding::Primary,
        mid: "0".into(),
        codec: Codec::Vp8,
    });
    world.event(Event::LayersWanted {
        track,
        encoding: Encoding::Primary,
        quality: Some(Quality::Low),
    });
    world.pass(Duration::from_millis(500));
    world.pass(LAYER_HOLD);
    assert_eq!(world.asked(ana), Some(vec![("vp8".into(), 1)]));
}

#[test]
fn a_backup_replaces_the_primary_codec_as_the_policy_says() {
    for (policy, people, expected) in [
        (Policy::Simulcast, 2, false),
        (Policy::Simulcast, REGRESSION_BELOW, false),
        (Policy::Regression, 2, true),
        (Policy::Regression, REGRESSION_BELOW, true),
        (Policy::PreferRegression, 2, true),
        (Policy::PreferRegression, REGRESSION_BELOW - 1, true),
        (Policy::PreferRegression, REGRESSION_BELOW, false),
    ] {
        let mut world = World::new();
        let ana = world.join(1);
        for number in 2..=people as u64 {
            world.join(number);
        }
        let (sid, _) = world.publish_with_backup(ana, policy);
        world.say(ana, Request::AddTrack(backup(&sid, "clone", "vp8")));
        let replaces = world.commands.iter().find_map(|command| match command {
            Command::PublishBackup { replaces, .. } => Some(*replaces),
            _ => None,
        });
        assert_eq!(replaces, Some(expected), "{policy:?} with {people}");
    }
}

#[test]
fn a_backup_that_is_not_ones_own_or_was_not_announced_is_refused_with_the_reason() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (sid, track) = world.announce_with_backup(ana, Policy::Simulcast);
    world.clear();
    let (plain, _) = world.publish(bo);
    let try_it = |world: &mut World, session, request| {
        world.clear();
        world.say(session, Request::AddTrack(request));
        let (reason, message) = world.refused(session).expect("it is refused");
        assert!(world.commands.is_empty(), "{message}");
        (reason, message.to_owned())
    };
    let (reason, message) = try_it(&mut world, ana, backup(&sid, "clone", "vp8"));
    assert_eq!(reason, Reason::InvalidRequest);
    assert_eq!(message, "the backup codec comes after the track itself");
    world.event(Event::Published {
        track,
        encoding: Encoding::Primary,
        mid: "0".into(),
        codec: Codec::Av1,
    });

    for (session, request, expected) in [
        (bo, backup(&sid, "clone", "vp8"), Reason::NotFound),
        (ana, backup("TR_none", "clone", "vp8"), Reason::NotFound),
        (bo, backup(&plain, "clone", "vp8"), Reason::InvalidRequest),
        (ana, backup(&sid, "clone", "h264"), Reason::InvalidRequest),
        (ana, backup(&sid, "clone", "av1"), Reason::InvalidRequest),
        (
            ana,
            backup(&sid, "clone", "nonsense"),
            Reason::InvalidRequest,
        ),
        (ana, backup(&sid, "", "vp8"), Reason::InvalidRequest),
        (
            ana,
            proto::AddTrackRequest {
                simulcast_codecs: codecs(&["vp8", "h264"], "clone"),
                ..backup(&sid, "clone", "vp8")
            },
            Reason::InvalidRequest,
        ),
        (
            ana,
            proto::AddTrackRequest {
                simulcast_codecs: Vec::new(),
                ..backup(&sid, "clone", "vp8")
            },
            Reason::InvalidRequest,
        ),
        (
            ana,
            backup(&sid, &"c".repeat(NAME_BOUND + 1), "vp8"),
            Reason::InvalidRequest,
        ),
    ] {
        let (reason, message) = try_it(&mut world, session, request);
        assert_eq!(reason, expected, "{message}");
        assert!(!message.is_empty());
    }

    world.say(ana, Request::AddTrack(backup(&sid, "clone", "vp8")));
    world.clear();
    world.say(ana, Request::AddTrack(backup(&sid, "clone", "vp8")));
    assert_eq!(
        world.published(ana).sid,
        sid,
        "asked again, the same answer"
    );
    assert!(world.commands.is_empty());
    let (reason, message) = try_it(&mut world, ana, backup(&sid, "other", "vp8"));
    assert_eq!(reason, Reason::LimitExceeded);
    assert_eq!(message, "the track's backup codec is published already");

    let mut forbidden = permission();
    forbidden.can_publish_sources = vec![proto::TrackSource::Microphone as i32];
    let key = world.room.by_session[&ana];
    world.room.set_permission(key, forbidden);
    world.settle();
    let (reason, _) = try_it(&mut world, ana, backup(&sid, "late", "vp8"));
    assert_eq!(reason, Reason::NotAllowed);
}

#[test]
fn a_backup_is_muted_and_ends_with_its_track_and_may_come_again_by_itself() {
    let mut world = World::new();
    let (ana, bo) = (world.join(1), world.join(2));
    let (sid, track) = world.publish_with_backup(ana, Policy::Simulcast);
    let ended = |encoding| Event::Ended { track, encoding };
    let wanted = Event::LayersWanted {
        track,
        encoding: Encoding::Backup,
        quality: Some(Quality::High),
    };
    world.event(wanted);
    world.say(ana, Request::AddTrack(backup(&sid, "clone", "vp8")));
    world.event(Event::Published {
        track,
        encoding: Encoding::Backup,
        mid: "1".into(),
        codec: Codec::Vp8,
    });
    world.clear();
    let mute = proto::MuteTrackRequest {
        sid: sid.clone(),
        muted: true,
    };
    world.say(ana, Request::Mute(mute));
    assert!(matches!(
        world.commands[..],
        [Command::Mute { track: of, is_muted: true }] if of == track
    ));

    world.clear();
    world.event(ended(Encoding::Backup));
    assert!(world.room.has_track(&sid));
    assert!(world.commands.is_empty());
    world.pass(Duration::from_millis(500));
    assert_eq!(world.asked(ana), asked(3, 3), "it is needed still");
    world.say(ana, Request::AddTrack(backup(&sid, "again", "vp8")));
    assert!(matches!(
        world.commands[..],
        [Command::PublishBackup { .. }]
    ));

    world.clear();
    world.event(ended(Encoding::Primary));
    assert!(!world.room.has_track(&sid));
    assert!(world.infos(bo).last().unwrap().tracks.is_empty());
    assert!(matches!(world.commands[..], [Command::Unpublish { .. }]));
    // The media core's word crossed ours.
    world.event(ended(Encoding::Backup));
    assert!(matches!(world.commands[..], [Command::Unpublish { .. }]));
}

#[test]
fn an_offer_that_names_the_backup_otherwise_is_put_right() {
    let mut world = World::new();
    let ana = world.join(1);
    let (sid, _) = world.publish_with_backup(ana, Policy::Simulcast);
    world.say(ana, Request::AddTrack(backup(&sid, "clone", "vp8")));
    world.clear();
    let line = |id: &str| format!("m=video 9 X 1\r\na=sendonly\r\na=msid:- {id}\r\n");
    let offer = proto::SessionDescription {
        sdp: format!("v=0\r\n{}{}", line("cam"), line("{f}")),
        ..Default::default()
    };
    world.say(ana, Request::Offer(offer));
    let [Command::Offer { sdp, .. }] = &world.commands[..] else {
        panic!("{:?}", world.commands)
    };
    assert_eq!(*sdp, format!("v=0\r\n{}{}", line("cam"), line("clone")));
}
