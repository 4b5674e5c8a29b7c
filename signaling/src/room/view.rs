//! What a WHEP player is sent: its m-lines are agreed once, and each shows whom it was asked for,
//! one track after another.

use std::time::{Duration, Instant};

use sfu::{Command, Quality, Selection, TrackId};

use super::{ParticipantKey, Room, Subscription};
use livekit_protocol::TrackSource;

/// How long a player that follows the speaker stays with one who still speaks although another is
/// louder. Shorter follows a quick exchange; longer spares the publishers keyframes and the viewers
/// a flicker when two talk at once.
pub const FOLLOW_TIME: Duration = Duration::from_secs(2);

/// Who is shown in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The participant with this identity, whenever it is there.
    Identity(String),
    /// Whoever the list of speakers names first; the last one while nobody speaks.
    Speaker,
}

/// One m-line of a player.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewPlace {
    /// Its mid in the player's offer.
    pub mid: String,
    /// Whether it takes pictures, or else sound.
    pub is_video: bool,
    /// Who is shown in it.
    pub whom: Whom,
}

/// The m-lines of a player, and what is in them.
#[derive(Debug)]
pub(super) struct View {
    places: Vec<(ViewPlace, Option<TrackId>)>,
    followed: Option<(ParticipantKey, Instant)>,
}

impl View {
    pub(super) fn new(places: Vec<ViewPlace>) -> View {
        View {
            places: places.into_iter().map(|place| (place, None)).collect(),
            followed: None,
        }
    }

    fn follows(&self) -> bool {
        self.places
            .iter()
            .any(|(place, _)| place.whom == Whom::Speaker)
    }

    /// Whether somebody's tracks may be shown.
    pub(super) fn concerns(&self, identity: &str) -> bool {
        self.places.iter().any(|(place, _)| match &place.whom {
            Whom::Identity(wanted) => wanted == identity,
            Whom::Speaker => true,
        })
    }

    /// A track is gone, and the media core knows.
    pub(super) fn forget(&mut self, track: TrackId) {
        for (_, shown) in &mut self.places {
            if *shown == Some(track) {
                *shown = None;
            }
        }
    }
}

impl Room {
    /// Makes every place of a player show what it should show now.
    pub(super) fn reconcile_view(&mut self, key: ParticipantKey) {
        self.follow(key);
        let Some(viewer) = self.participants.get(&key) else {
            return;
        };
        let Some(view) = &viewer.view else {
            return;
        };
        let changes: Vec<_> = view
            .places
            .iter()
            .enumerate()
            .filter_map(|(at, (place, shown))| {
                let owner = match &place.whom {
                    Whom::Identity(identity) => self.by_identity(identity).ok(),
                    Whom::Speaker => view.followed.map(|(speaker, _)| speaker),
                };
                let wanted = owner.and_then(|owner| self.track_to_show(owner, place, key));
                (wanted != *shown).then_some((at, *shown, wanted))
            })
            .collect();
        let selection = Selection::of(Quality::High);
        for (at, shown, wanted) in changes {
            let viewer = self.participants.get_mut(&key).expect("found above");
            let old = shown.and_then(|shown| viewer.subscriptions.remove(&shown));
            if let Some(wanted) = wanted {
                viewer
                    .subscriptions
                    .insert(wanted, Subscription::new(selection));
            }
            if let Some((shown, old)) = shown.zip(old) {
                self.want(shown, Some(old.selection()), None);
            }
            if let Some(wanted) = wanted {
                self.want(wanted, None, Some(selection));
            }
            let viewer = self.participants.get_mut(&key).expect("found above");
            let view = viewer.view.as_mut().expect("found above");
            view.places[at].1 = wanted;
            let mid = view.places[at].0.mid.clone();
            let connection = viewer.subscriber;
            self.media(Command::Place {
                connection,
                mid,
                track: wanted,
                selection,
            });
        }
    }

    /// Makes every player's places show what they should show now.
    pub(super) fn reconcile_views(&mut self) {
        for key in self.viewers(|_| true) {
            self.reconcile_view(key);
        }
    }

    /// Somebody began or ceased to speak.
    pub(super) fn follow_speakers(&mut self) {
        for key in self.viewers(View::follows) {
            self.reconcile_view(key);
        }
    }

    fn viewers(&self, is: impl Fn(&View) -> bool) -> Vec<ParticipantKey> {
        self.participants
            .values()
            .filter(|participant| participant.view.as_ref().is_some_and(&is))
            .map(|participant| participant.key)
            .collect()
    }

    /// The camera or microphone of `owner` that a player may have.
    fn track_to_show(
        &self,
        owner: ParticipantKey,
        place: &ViewPlace,
        viewer: ParticipantKey,
    ) -> Option<TrackId> {
        let source = if place.is_video {
            TrackSource::Camera
        } else {
            TrackSource::Microphone
        };
        let tracks = &self.participants.get(&owner)?.tracks;
        tracks.iter().copied().find(|id| {
            self.tracks.get(id).is_some_and(|track| {
                track.is_video() == place.is_video
                    && [source as i32, TrackSource::Unknown as i32].contains(&track.source())
            }) && self.may_have(viewer, *id)
        })
    }

    fn follow(&mut self, key: ParticipantKey) {
        let Some(view) = self.participants.get(&key).and_then(|p| p.view.as_ref()) else {
            return;
        };
        if !view.follows() {
            return;
        }
        let speakers: Vec<ParticipantKey> = self
            .speakers
            .active()
            .into_iter()
            .map(|speaker| speaker.who)
            .filter(|who| *who != key && self.participants.get(who).is_some_and(|p| !p.is_hidden()))
            .collect();
        let Some(first) = speakers.first().copied() else {
            return;
        };
        let stays = view.followed.is_some_and(|(speaker, since)| {
            speaker == first
                || speakers.contains(&speaker)
                    && self.now.saturating_duration_since(since) < FOLLOW_TIME
        });
        let now = self.now;
        if !stays
            && let Some(view) = self
                .participants
                .get_mut(&key)
                .and_then(|p| p.view.as_mut())
        {
            view.followed = Some((first, now));
        }
    }
}
