//! What is wanted of which track, merged: a track crosses a line once, in the best layer that
//! anybody beyond wants, and only while somebody does.
//!
//! A wish goes towards where its track comes from, hop by hop; each hop knows only what its
//! neighbours and its own people want. Requests for keyframes go the same way: merged, and repeated
//! until the picture has come.

use std::collections::BTreeMap;
use std::time::Duration;

use super::identity::{NodeId, Quality, Time, TrackId};
use super::rule::Rule;

/// How long a keyframe request to an encoder suppresses the next for the same layer. As in `sfu`.
pub const KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);

/// How long a request on a line is left before it is repeated. Shorter brings the picture sooner
/// where requests are lost; longer spares lines on which the answer takes that long.
pub const KEYFRAME_REPEAT: Duration = Duration::from_millis(200);

/// How long a request is repeated without being asked for again.
pub(crate) const KEYFRAME_GIVE_UP: Duration = Duration::from_secs(5);

/// Tracks of one conference that are wanted at one node at most.
pub(crate) const WISHES_BOUND: usize = 4096;

/// Where a track comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// From a client of this node.
    Here,
    Neighbour(NodeId),
    /// It can't be reached now.
    Nowhere,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The wish told to a neighbour has changed.
    Tell(NodeId, TrackId),
    /// What is sent to a neighbour has changed.
    Forward(NodeId, TrackId, Option<Quality>),
    /// What anybody wants of a client's track has changed.
    Layers(TrackId, Option<Quality>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Keyframe {
    /// When it was last sent on.
    sent: Option<Time>,
    /// When it was last asked for; none once it has come.
    asked: Option<Time>,
}

#[derive(Debug, Default)]
struct Wanted {
    local: Vec<(u32, Quality)>,
    beyond: Vec<(NodeId, Quality)>,
    told: Option<(NodeId, Quality)>,
    forwarded: Vec<(NodeId, Quality)>,
    layers: Option<Quality>,
}

impl Wanted {
    fn merged(&self, except: Option<NodeId>) -> Option<Quality> {
        let beyond = self.beyond.iter().filter(|(node, _)| Some(*node) != except);
        let all = self.local.iter().map(|(_, quality)| *quality);
        let all = all.chain(beyond.map(|(_, quality)| *quality));
        if Rule::LayerMaximum.holds() {
            all.max()
        } else {
            all.last()
        }
    }

    fn is_over(&self) -> bool {
        self.local.is_empty()
            && self.beyond.is_empty()
            && self.told.is_none()
            && self.forwarded.is_empty()
            && self.layers.is_none()
    }
}

/// The wishes of one conference at one node.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    tracks: BTreeMap<TrackId, Wanted>,
    /// Outlives the wish, so that one that comes and goes does not ask anew each time.
    keyframes: BTreeMap<TrackId, [Keyframe; 3]>,
}

fn set<K: PartialEq + Copy>(list: &mut Vec<(K, Quality)>, key: K, quality: Option<Quality>) {
    list.retain(|(one, _)| *one != key);
    list.extend(quality.map(|quality| (key, quality)));
}

impl Wishes {
    pub(crate) fn tracks(&self) -> Vec<TrackId> {
        self.tracks.keys().copied().collect()
    }

    /// A client of this node wants a track, or no longer.
    pub(crate) fn want(&mut self, track: TrackId, viewer: u32, quality: Option<Quality>) {
        if quality.is_some() || self.tracks.contains_key(&track) {
            if self.tracks.len() >= WISHES_BOUND && !self.tracks.contains_key(&track) {
                return;
            }
            set(
                &mut self.tracks.entry(track).or_default().local,
                viewer,
                quality,
            );
        }
    }

    /// A neighbour wants a track, or no longer.
    pub(crate) fn want_beyond(&mut self, track: TrackId, node: NodeId, quality: Option<Quality>) {
        if quality.is_none() && !Rule::WishWithdrawn.holds() {
            return;
        }
        if quality.is_some() || self.tracks.contains_key(&track) {
            if self.tracks.len() >= WISHES_BOUND && !self.tracks.contains_key(&track) {
                return;
            }
            set(
                &mut self.tracks.entry(track).or_default().beyond,
                node,
                quality,
            );
        }
    }

    /// A client has gone; the tracks that it wanted.
    pub(crate) fn viewer_gone(&mut self, viewer: u32) -> Vec<TrackId> {
        let mut touched = Vec::new();
        for (track, wanted) in &mut self.tracks {
            if wanted.local.iter().any(|(one, _)| *one == viewer) {
                set(&mut wanted.local, viewer, None);
                touched.push(*track);
            }
        }
        touched
    }

    /// A track has ended: nobody wants it any more. Whether somebody here did, and which neighbours.
    pub(crate) fn ended(&mut self, track: TrackId) -> (bool, Vec<NodeId>) {
        let Some(wanted) = self.tracks.get_mut(&track) else {
            return (false, Vec::new());
        };
        let was_local = !std::mem::take(&mut wanted.local).is_empty();
        let beyond = std::mem::take(&mut wanted.beyond);
        (
            was_local,
            beyond.into_iter().map(|(node, _)| node).collect(),
        )
    }

    /// A neighbour says anew what it wants; what it wanted before is void.
    pub(crate) fn begun_anew(&mut self, node: NodeId) {
        for wanted in self.tracks.values_mut() {
            set(&mut wanted.beyond, node, None);
        }
    }

    /// A line is lost: nothing is wanted over it, and nothing was told over it.
    pub(crate) fn neighbour_lost(&mut self, node: NodeId) {
        for wanted in self.tracks.values_mut() {
            if Rule::WishExpires.holds() {
                set(&mut wanted.beyond, node, None);
            }
            wanted.told = wanted.told.filter(|(told, _)| *told != node);
        }
    }

    /// What a neighbour is told that is wanted of a track.
    pub(crate) fn told(&self, track: TrackId, node: NodeId) -> Option<Quality> {
        let (told, quality) = self.tracks.get(&track)?.told?;
        (told == node).then_some(quality)
    }

    /// What is sent of a track to a neighbour.
    pub(crate) fn forwarded(&self, track: TrackId, node: NodeId) -> Option<Quality> {
        let all = &self.tracks.get(&track)?.forwarded;
        all.iter().find(|(to, _)| *to == node).map(|(_, q)| *q)
    }

    /// All that is sent on: of which track, to whom, how much.
    pub(crate) fn forwards(&self) -> impl Iterator<Item = (TrackId, NodeId, Quality)> + '_ {
        self.tracks.iter().flat_map(|(track, wanted)| {
            let all = wanted.forwarded.iter();
            all.map(|(to, quality)| (*track, *to, *quality))
        })
    }

    /// What the clients of this node want.
    pub(crate) fn local(&self) -> impl Iterator<Item = (TrackId, Quality)> + '_ {
        self.tracks.iter().filter_map(|(track, wanted)| {
            let best = wanted.local.iter().map(|(_, quality)| *quality).max();
            best.map(|quality| (*track, quality))
        })
    }

    /// Works out anew what follows for one track. `is_silenced`: it must not leave this node.
    pub(crate) fn refresh(
        &mut self,
        track: TrackId,
        upstream: Upstream,
        is_silenced: bool,
        changes: &mut Vec<Change>,
    ) {
        let Some(wanted) = self.tracks.get_mut(&track) else {
            return;
        };
        let told = match upstream {
            Upstream::Neighbour(node) => wanted.merged(Some(node)).map(|quality| (node, quality)),
            Upstream::Here | Upstream::Nowhere => None,
        };
        if told != wanted.told {
            let [old, new] = [wanted.told, told].map(|one| one.map(|(node, _)| node));
            if old != new {
                changes.extend(old.map(|node| Change::Tell(node, track)));
            }
            changes.extend(new.map(|node| Change::Tell(node, track)));
            wanted.told = told;
        }
        let source = match upstream {
            Upstream::Neighbour(node) => Some(node),
            _ => None,
        };
        let forwarded: Vec<(NodeId, Quality)> = if is_silenced || upstream == Upstream::Nowhere {
            Vec::new()
        } else {
            let beyond = wanted.beyond.iter().copied();
            beyond.filter(|(node, _)| Some(*node) != source).collect()
        };
        for (node, _) in &wanted.forwarded {
            if forwarded.iter().all(|(one, _)| one != node) {
                changes.push(Change::Forward(*node, track, None));
            }
        }
        for (node, quality) in &forwarded {
            if !wanted.forwarded.contains(&(*node, *quality)) {
                changes.push(Change::Forward(*node, track, Some(*quality)));
            }
        }
        wanted.forwarded = forwarded;
        let layers = match upstream {
            Upstream::Here if !is_silenced => wanted.merged(None),
            _ => None,
        };
        if layers != wanted.layers {
            wanted.layers = layers;
            changes.push(Change::Layers(track, layers));
        }
        if wanted.is_over() {
            self.tracks.remove(&track);
        }
    }

    /// Somebody needs a keyframe; whether it is to be asked for now.
    pub(crate) fn ask_keyframe(
        &mut self,
        now: Time,
        track: TrackId,
        layer: Quality,
        is_here: bool,
    ) -> bool {
        if !self.tracks.contains_key(&track) {
            return false;
        }
        let keyframe = &mut self.keyframes.entry(track).or_default()[layer as usize];
        keyframe.asked = Some(now);
        let interval = if is_here {
            KEYFRAME_INTERVAL
        } else {
            KEYFRAME_REPEAT
        };
        let waits = keyframe.sent.is_some_and(|sent| now.since(sent) < interval);
        if waits && Rule::KeyframesMerged.holds() {
            return false;
        }
        keyframe.sent = Some(now);
        true
    }

    /// The layer that comes of a track over a line, if one is asked for.
    pub(crate) fn coming(&self, track: TrackId) -> Option<Quality> {
        let (_, quality) = self.tracks.get(&track)?.told?;
        Some(quality)
    }

    /// A keyframe has come. Over a line only one layer comes, so whoever waited for any has it.
    pub(crate) fn keyframe_came(&mut self, track: TrackId, layer: Quality, is_here: bool) {
        if let Some(keyframes) = self.keyframes.get_mut(&track) {
            for (at, keyframe) in keyframes.iter_mut().enumerate() {
                if !is_here || at == layer as usize {
                    keyframe.asked = None;
                }
            }
        }
    }

    /// The requests that are to be repeated now, and when to look again.
    pub(crate) fn repeat_keyframes(
        &mut self,
        now: Time,
        is_here: impl Fn(TrackId) -> bool,
    ) -> (Vec<(TrackId, Quality)>, Option<Time>) {
        let mut due = Vec::new();
        let mut next: Option<Time> = None;
        let tracks = &self.tracks;
        self.keyframes.retain(|track, keyframes| {
            let is_wanted = tracks.contains_key(track);
            let interval = if is_here(*track) {
                KEYFRAME_INTERVAL
            } else {
                KEYFRAME_REPEAT
            };
            let mut is_kept = false;
            for layer in [Quality::Low, Quality::Medium, Quality::High] {
                let keyframe = &mut keyframes[layer as usize];
                let is_over = keyframe
                    .asked
                    .is_none_or(|asked| now.since(asked) > KEYFRAME_GIVE_UP);
                if is_over || !is_wanted {
                    keyframe.asked = None;
                }
                let Some(sent) = keyframe.sent else { continue };
                let mut at = sent + interval;
                if at <= now {
                    if keyframe.asked.is_none() {
                        keyframe.sent = None;
                        continue;
                    }
                    keyframe.sent = Some(now);
                    at = now + interval;
                    if Rule::KeyframesRepeated.holds() {
                        due.push((*track, layer));
                    }
                }
                is_kept = true;
                next = Some(next.map_or(at, |next| next.min(at)));
            }
            is_kept
        });
        (due, next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cascade::identity::{Session, Source};

    fn track() -> TrackId {
        TrackId {
            session: Session {
                node: NodeId(9),
                incarnation: 1,
                number: 1,
            },
            number: 1,
            source: Source::Camera,
        }
    }

    #[test]
    fn a_track_is_asked_for_once_in_the_best_layer_and_given_up_with_the_last_wish() {
        let mut wishes = Wishes::default();
        let up = Upstream::Neighbour(NodeId(9));
        let tell = |wishes: &mut Wishes| {
            let mut changes = Vec::new();
            wishes.refresh(track(), up, false, &mut changes);
            changes
                .iter()
                .any(|change| matches!(change, Change::Tell(..)))
                .then(|| wishes.told(track(), NodeId(9)))
        };
        wishes.want(track(), 1, Some(Quality::Low));
        assert_eq!(tell(&mut wishes), Some(Some(Quality::Low)));
        wishes.want_beyond(track(), NodeId(3), Some(Quality::High));
        assert_eq!(tell(&mut wishes), Some(Some(Quality::High)));
        wishes.want_beyond(track(), NodeId(4), Some(Quality::Medium));
        assert_eq!(tell(&mut wishes), None, "nothing new for the line");
        wishes.want_beyond(track(), NodeId(3), None);
        assert_eq!(tell(&mut wishes), Some(Some(Quality::Medium)));
        wishes.want_beyond(track(), NodeId(4), None);
        assert_eq!(tell(&mut wishes), Some(Some(Quality::Low)));
        wishes.viewer_gone(1);
        assert_eq!(tell(&mut wishes), Some(None));
        assert!(wishes.tracks.is_empty());
    }

    #[test]
    fn requests_are_merged_and_repeated_until_the_picture_comes() {
        let mut wishes = Wishes::default();
        wishes.want(track(), 1, Some(Quality::High));
        let asked =
            (0..1000).filter(|ms| wishes.ask_keyframe(Time(*ms), track(), Quality::High, true));
        assert_eq!(asked.count(), 4);
        let (due, next) = wishes.repeat_keyframes(Time(1000), |_| true);
        assert!(due.is_empty());
        assert_eq!(next, Some(Time(1200)));
        assert_eq!(wishes.repeat_keyframes(Time(1200), |_| true).0.len(), 1);
        wishes.keyframe_came(track(), Quality::High, true);
        assert_eq!(
            wishes.repeat_keyframes(Time(1500), |_| true),
            (Vec::new(), None)
        );
        assert!(wishes.keyframes.is_empty());
    }

    proptest! {
        #[test]
        fn nothing_goes_back_to_where_it_comes_from(
            acts in prop::collection::vec((0..6u128, prop::option::of(0..3u8), 0..7u128), 1..60),
        ) {
            let mut wishes = Wishes::default();
            for (node, quality, source) in acts {
                let quality = quality.map(|q| [Quality::Low, Quality::Medium, Quality::High][q as usize]);
                wishes.want_beyond(track(), NodeId(node), quality);
                let upstream = match source {
                    6 => Upstream::Here,
                    node => Upstream::Neighbour(NodeId(node)),
                };
                let mut changes = Vec::new();
                wishes.refresh(track(), upstream, false, &mut changes);
                if let Upstream::Neighbour(node) = upstream {
                    prop_assert_eq!(wishes.forwarded(track(), node), None);
                }
                let Some(wanted) = wishes.tracks.get(&track()) else { continue };
                let others = wanted.beyond.iter().filter(|(node, _)| upstream != Upstream::Neighbour(*node));
                prop_assert_eq!(wanted.forwarded.len(), others.count());
            }
        }
    }
}
