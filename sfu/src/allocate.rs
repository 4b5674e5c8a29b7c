//! What a subscriber's line is spent on: a pure choice.
//!
//! Sound is paid before anything comes here. Of the pictures, every one gets its lowest step before
//! any gets more, then all its frames before any becomes sharper; then the more important one gets
//! all that it may have before the next. Where not even all lowest steps fit, the less important
//! pictures get none.

use crate::part::Part;

/// How important a picture is; the most important one comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A shared screen.
    Screen,
    /// The picture of who speaks.
    Speaker,
    /// One that the client put before others.
    Pinned,
    /// Any other.
    #[default]
    Other,
}

/// A step up must leave so much of itself free, in percent, so that it is not taken back at once.
const ROOM_PERCENT: u64 = 15;

/// The most important picture keeps its lowest step while so much of it fits, in percent: a picture
/// that stutters now and then is better than none.
const LAST_PERCENT: u64 = 80;

/// A picture that is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) rank: Rank,
    /// Pixels of the place where it is shown.
    pub(crate) area: u32,
    /// What each step costs in bits per second, the lowest first, up to the best one wanted.
    pub(crate) steps: Vec<u64>,
    /// The lowest step that leaves no frames out.
    pub(crate) smooth: usize,
    /// The step that is sent now.
    pub(crate) current: Option<usize>,
}

impl Wish {
    /// What must be free for the best step to be given.
    pub(crate) fn needed(&self) -> u64 {
        self.steps
            .len()
            .checked_sub(1)
            .map_or(0, |last| self.price(last))
    }

    /// What a step is taken to cost: one that is not sent yet must leave some room.
    fn price(&self, step: usize) -> u64 {
        let bits = self.steps[step];
        if self.current.is_some_and(|current| step <= current) || !Part::Room.is_there() {
            bits
        } else {
            bits + bits * ROOM_PERCENT / 100
        }
    }
}

/// The step of each wish that is sent with a budget of so many bits per second; `None`: nothing.
pub(crate) fn allocate(budget: u64, wishes: &[Wish]) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..wishes.len())
        .filter(|at| !wishes[*at].steps.is_empty())
        .collect();
    order.sort_by_key(|at| {
        let wish = &wishes[*at];
        let rank = if Part::Ranks.is_there() {
            wish.rank
        } else {
            Rank::Other
        };
        (rank, std::cmp::Reverse(wish.area), *at)
    });
    let mut left = budget;
    let mut given = vec![None; wishes.len()];
    for (place, at) in order.iter().copied().enumerate() {
        let wish = &wishes[at];
        let is_first = place == 0;
        // Nothing less could be sent instead of the most important picture.
        let price = if is_first {
            wish.steps[0]
        } else {
            wish.price(0)
        };
        let is_kept = is_first && wish.current.is_some() && Part::LastPicture.is_there();
        if price <= left || (is_kept && price * LAST_PERCENT / 100 <= left) {
            left = left.saturating_sub(price);
            given[at] = Some(0);
        } else {
            // A less important picture does not take the place of a more important one.
            break;
        }
    }
    for is_smooth in [!Part::SmoothFirst.is_there(), true] {
        for at in order.iter().copied() {
            let wish = &wishes[at];
            let last = wish.steps.len() - 1;
            let last = if is_smooth {
                last
            } else {
                last.min(wish.smooth)
            };
            while let Some(step) = given[at]
                && step < last
            {
                let more = wish.price(step + 1).saturating_sub(wish.price(step));
                if more > left {
                    break;
                }
                left -= more;
                given[at] = Some(step + 1);
            }
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LADDER: [u64; 3] = [150, 500, 1700];

    fn wish(rank: Rank, area: u32, current: Option<usize>) -> Wish {
        Wish {
            rank,
            area,
            steps: LADDER.to_vec(),
            smooth: 0,
            current,
        }
    }

    #[test]
    fn the_table() {
        use Rank::{Other, Pinned, Screen, Speaker};
        let one = |current| vec![wish(Other, 100, current)];
        let four = vec![
            wish(Other, 100, None),
            wish(Other, 400, None),
            wish(Speaker, 50, None),
            wish(Pinned, 50, None),
        ];
        let screen = vec![wish(Other, 900, None), wish(Screen, 100, None)];
        for (budget, wishes, expected) in [
            (0, one(None), vec![None]),
            (149, one(None), vec![None]),
            (150, one(None), vec![Some(0)]),
            (150, one(Some(0)), vec![Some(0)]),
            (130, one(Some(0)), vec![Some(0)]),
            (110, one(Some(0)), vec![None]),
            (540, one(Some(0)), vec![Some(0)]),
            (580, one(Some(0)), vec![Some(1)]),
            (500, one(Some(1)), vec![Some(1)]),
            (499, one(Some(1)), vec![Some(0)]),
            (9999, one(None), vec![Some(2)]),
            // The speaker, the pinned one, the larger, the smaller.
            (300, four.clone(), vec![None, None, Some(0), None]),
            (400, four.clone(), vec![None, None, Some(0), Some(0)]),
            (520, four.clone(), vec![None, Some(0), Some(0), Some(0)]),
            (690, four.clone(), vec![Some(0), Some(0), Some(0), Some(0)]),
            (1100, four.clone(), vec![Some(0), Some(0), Some(1), Some(0)]),
            (2500, four.clone(), vec![Some(0), Some(0), Some(2), Some(0)]),
            (2950, four.clone(), vec![Some(0), Some(0), Some(2), Some(1)]),
            (9000, four, vec![Some(2), Some(2), Some(2), Some(2)]),
            (600, screen.clone(), vec![Some(0), Some(0)]),
            (800, screen.clone(), vec![Some(0), Some(1)]),
            (180, screen, vec![None, Some(0)]),
            (500, vec![Wish::default()], vec![None]),
        ] {
            assert_eq!(allocate(budget, &wishes), expected, "{budget} {wishes:?}");
        }
    }

    #[test]
    fn all_move_before_one_is_sharp() {
        let smooth = |rank| Wish {
            rank,
            steps: vec![60, 100, 150, 500],
            smooth: 2,
            ..Wish::default()
        };
        let wishes = [smooth(Rank::Other), smooth(Rank::Speaker)];
        for (budget, expected) in [
            (100, [None, Some(0)]),
            (140, [Some(0), Some(0)]),
            (190, [Some(0), Some(1)]),
            (290, [Some(1), Some(2)]),
            (600, [Some(2), Some(2)]),
            (760, [Some(2), Some(3)]),
        ] {
            assert_eq!(allocate(budget, &wishes), expected, "{budget}");
        }
    }

    fn wishes() -> impl Strategy<Value = Vec<Wish>> {
        let rank = prop_oneof![
            Just(Rank::Screen),
            Just(Rank::Speaker),
            Just(Rank::Pinned),
            Just(Rank::Other)
        ];
        let steps = proptest::collection::vec(1..2000_u64, 0..5).prop_map(|more| {
            let mut sum = 0;
            let step = |one| {
                sum += one;
                sum
            };
            more.into_iter().map(step).collect::<Vec<_>>()
        });
        let current = proptest::option::of(0..5_usize);
        let one = (rank, 0..5_u32, steps, 0..5_usize, current).prop_map(
            |(rank, area, steps, smooth, current)| Wish {
                rank,
                area,
                current: current.filter(|at| *at < steps.len()),
                smooth: smooth.min(steps.len().saturating_sub(1)),
                steps,
            },
        );
        proptest::collection::vec(one, 0..12)
    }

    proptest! {
        /// What is given fits, but for the last picture's tolerance; nobody less important has a
        /// picture while somebody more important has none; and it comes to rest.
        #[test]
        fn what_is_given_fits_and_stays(budget in 0..20_000_u64, wishes in wishes()) {
            let given = allocate(budget, &wishes);
            let cost: u64 = wishes
                .iter()
                .zip(&given)
                .filter_map(|(wish, step)| step.map(|step| wish.steps[step]))
                .sum();
            let pictures = given.iter().flatten().count();
            prop_assert!(cost <= budget || (pictures == 1 && cost * LAST_PERCENT / 100 <= budget));
            let has = |wish: &Wish| !wish.steps.is_empty();
            for (one, got) in wishes.iter().zip(&given) {
                for (other, got_other) in wishes.iter().zip(&given) {
                    let is_before = (one.rank, std::cmp::Reverse(one.area))
                        < (other.rank, std::cmp::Reverse(other.area));
                    let is_wrong = is_before && has(one) && got.is_none() && got_other.is_some();
                    prop_assert!(!is_wrong);
                }
            }
            // It comes to rest.
            let mut now = wishes;
            for round in 0.. {
                let given = allocate(budget, &now);
                if now.iter().zip(&given).all(|(wish, step)| wish.current == *step) {
                    break;
                }
                for (wish, step) in now.iter_mut().zip(given) {
                    wish.current = step;
                }
                prop_assert!(round < 60, "it goes back and forth");
            }
        }
    }
}
