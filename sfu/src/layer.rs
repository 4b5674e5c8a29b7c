//! Which layer of a track a subscriber is sent: a pure choice.

use crate::command::{Quality, Selection};

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
