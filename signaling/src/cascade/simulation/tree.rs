//! The shape of a province: how many nodes of each level, who is whose parent, who has a second way.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use signaling::cascade::Level;

/// 辽宁: cities, counties, townships and villages.
const LIAONING: [usize; 4] = [14, 100, 1406, 16_727];

/// Villages of one township at most.
const TOWNSHIP_AT_MOST: usize = 170;

/// One township in so many has a second way, to another county.
const SECOND_WAYS: u32 = 8;

/// One township in so many has a sibling to turn to.
const SIBLINGS: u32 = 16;

/// A node of the tree; by its place in the list.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    /// Its level.
    pub(crate) level: Level,
    /// Parent and second way.
    pub(crate) ways: Vec<usize>,
    /// Neighbours of its own level.
    pub(crate) siblings: Vec<usize>,
}

/// A tree; the province is the first.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Parents come before their children.
    pub(crate) spots: Vec<Spot>,
}

impl Shape {
    /// One node, to which others are added.
    pub(crate) fn province() -> Shape {
        Shape {
            spots: vec![Spot {
                level: Level::Province,
                ways: Vec::new(),
                siblings: Vec::new(),
            }],
        }
    }

    /// Adds a node; its place.
    pub(crate) fn add(&mut self, level: Level, ways: &[usize]) -> usize {
        self.spots.push(Spot {
            level,
            ways: ways.to_vec(),
            siblings: Vec::new(),
        });
        self.spots.len() - 1
    }

    /// Like 辽宁 with so many villages. The levels above shrink with them, and nothing is even.
    pub(crate) fn liaoning(villages: usize, seed: u64) -> Shape {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x7e44);
        let scale = |count: usize| {
            (villages * count)
                .div_ceil(LIAONING[3])
                .max(2)
                .min(villages)
        };
        let mut shape = Shape::province();
        let cities: Vec<usize> = (0..scale(LIAONING[0]))
            .map(|_| shape.add(Level::City, &[0]))
            .collect();
        let counties = spread(
            &mut shape,
            &mut rng,
            Level::County,
            scale(LIAONING[1]),
            &cities,
            usize::MAX,
        );
        let townships = scale(LIAONING[2]);
        let townships = spread(
            &mut shape,
            &mut rng,
            Level::Township,
            townships,
            &counties,
            usize::MAX,
        );
        spread(
            &mut shape,
            &mut rng,
            Level::Village,
            villages,
            &townships,
            TOWNSHIP_AT_MOST,
        );
        for at in 0..townships.len() {
            let own = townships[at];
            if rng.random_ratio(1, SECOND_WAYS) {
                let other = counties[rng.random_range(0..counties.len())];
                if !shape.spots[own].ways.contains(&other) {
                    shape.spots[own].ways.push(other);
                }
            }
            if rng.random_ratio(1, SIBLINGS) {
                let other = townships[rng.random_range(0..townships.len())];
                if other != own && !shape.spots[own].siblings.contains(&other) {
                    shape.spots[own].siblings.push(other);
                    shape.spots[other].siblings.push(own);
                }
            }
        }
        shape
    }

    /// How many there are of each level.
    pub(crate) fn counts(&self) -> [usize; 5] {
        let mut counts = [0; 5];
        for spot in &self.spots {
            counts[spot.level as usize] += 1;
        }
        counts
    }
}

/// Adds nodes below `parents`, at least one below each while they last, the others unevenly.
fn spread(
    shape: &mut Shape,
    rng: &mut StdRng,
    level: Level,
    count: usize,
    parents: &[usize],
    at_most: usize,
) -> Vec<usize> {
    let mut children = vec![0; parents.len()];
    // Few parents have many.
    let weights = parents
        .iter()
        .map(|_| rng.random_range(0.2f64..1.0).powi(3));
    let sums: Vec<f64> = weights
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let mut added = Vec::new();
    for number in 0..count {
        let mut at = number;
        while at >= parents.len() || children[at] >= at_most {
            let lot = rng.random_range(0.0..*sums.last().expect("there are parents"));
            at = sums
                .partition_point(|sum| *sum < lot)
                .min(parents.len() - 1);
        }
        children[at] += 1;
        added.push(shape.add(level, &[parents[at]]));
    }
    added
}
