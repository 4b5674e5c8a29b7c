//! Which layer of a track a subscriber is sent: a pure choice; and how layers within one stream are
//! told from each other.

use crate::command::{Quality, Selection};

/// Spatial layers that are told apart in one stream, as many as there are qualities; what is above
/// them counts as the uppermost.
pub(crate) const SPATIAL_LAYERS: usize = 3;

/// Temporal layers that are told apart, as many as VP8 has numbers for.
pub(crate) const TEMPORAL_LAYERS: usize = 4;

/// A layer within a stream, by its spatial and its temporal index; both count from 0. Of a
/// subscriber: the uppermost of each that it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indices {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
}

impl Indices {
    /// Above everything.
    pub(crate) const ALL: Indices = Indices {
        spatial: u8::MAX,
        temporal: u8::MAX,
    };

    pub(crate) fn new(spatial: u8, temporal: u8) -> Indices {
        Indices {
            spatial: spatial.min(SPATIAL_LAYERS as u8 - 1),
            temporal: temporal.min(TEMPORAL_LAYERS as u8 - 1),
        }
    }

    /// The lower one of each.
    pub(crate) fn min(self, other: Indices) -> Indices {
        Indices {
            spatial: self.spatial.min(other.spatial),
            temporal: self.temporal.min(other.temporal),
        }
    }

    /// Whether who gets up to these gets `other`.
    pub(crate) fn admits(self, other: Indices) -> bool {
        other.spatial <= self.spatial && other.temporal <= self.temporal
    }
}

/// Where a packet stands among the layers of its stream. Without layers: the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) indices: Indices,
    /// It is the first of a picture, which has a frame of every spatial layer.
    pub(crate) begins_picture: bool,
    /// It is the last of its layer's frame.
    pub(crate) ends_frame: bool,
    /// Who gets temporal layers up to the first may get them up to the second from here on, and needs
    /// nothing of what came before for it.
    pub(crate) raises: Option<(u8, u8)>,
}

/// The layer to send: the best one that is live and not better than wanted; where none is, the
/// lowest that is live. `None` when nothing is wanted or nothing is live.
pub(crate) fn choose(layers: &[(Quality, bool)], selection: Selection) -> Option<usize> {
    if !selection.is_enabled {
        return None;
    }
    let live = || {
        layers
            .iter()
            .enumerate()
            .filter(|(_, (_, is_live))| *is_live)
    };
    live()
        .filter(|(_, (quality, _))| *quality <= selection.quality)
        .max_by_key(|(_, (quality, _))| *quality)
        .or_else(|| live().min_by_key(|(_, (quality, _))| *quality))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Quality::{High, Low, Medium};

    #[test]
    fn the_best_live_layer_within_the_wish_is_chosen() {
        let wish = |quality| Selection::of(quality);
        let all = [(Low, true), (Medium, true), (High, true)];
        for (layers, selection, expected) in [
            (all, wish(High), Some(2)),
            (all, wish(Medium), Some(1)),
            (all, wish(Low), Some(0)),
            (
                [(Low, true), (Medium, false), (High, false)],
                wish(High),
                Some(0),
            ),
            (
                [(Low, false), (Medium, false), (High, true)],
                wish(Low),
                Some(2),
            ),
            (
                [(Low, false), (Medium, false), (High, false)],
                wish(High),
                None,
            ),
            (
                all,
                Selection {
                    is_enabled: false,
                    ..Selection::of(High)
                },
                None,
            ),
        ] {
            assert_eq!(
                choose(&layers, selection),
                expected,
                "{layers:?} {selection:?}"
            );
        }
    }
}
