//! The tree as one node sees it: which way is up, and which nodes are below.
//!
//! Each node announces itself to its way up, which passes the announcement on with itself added to
//! the hops. Who finds itself among them drops it. Heartbeats carry the way up of their sender; a
//! node takes no way that leads back over itself. So parents, second ways and siblings may be
//! configured in a ring: nothing goes round in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::channel::Channel;
use super::identity::{Incarnation, Level, NodeId, Place, Time};
use super::line::Line;
use super::message::{Announcement, HOPS_BOUND, Hop, Item};
use super::rule::Rule;
use super::seal::Seal;

/// How long a better way must have been there before a node changes over to it from one that works.
/// Longer changes less often on a line that flaps; what is lost meanwhile is only the better way.
pub(crate) const RETURN_AFTER: Duration = Duration::from_secs(5);

/// Nodes below one node at most.
pub(crate) const BELOW_BOUND: usize = 100_000;

/// A node below, by one of the neighbours over which it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Below {
    pub(crate) via: NodeId,
    pub(crate) generation: u32,
    pub(crate) announcement: Arc<Announcement>,
    /// From the node to the neighbour, both included.
    pub(crate) hops: Arc<[NodeId]>,
}

/// What a node knows of the tree.
pub(crate) struct Topology {
    pub(crate) place: Place,
    incarnation: Incarnation,
    /// Parent and second way, the better first; then siblings, which are taken when nothing else is
    /// left.
    ways: Vec<NodeId>,
    siblings: Vec<NodeId>,
    /// The way up that is taken.
    pub(crate) way: Option<NodeId>,
    /// A way that is better than the one taken, and since when.
    better: Option<(NodeId, Time)>,
    /// This node, its way up, that one's, and so on.
    pub(crate) path: Arc<[Hop]>,
    /// Over which nodes the way up led when there last was one.
    last_path: Arc<[Hop]>,
    number: u32,
    own: Arc<Announcement>,
    below: BTreeMap<NodeId, Vec<Below>>,
    pub(crate) channels: BTreeMap<NodeId, Channel>,
    /// The neighbour who hears of the nodes below.
    pub(crate) up: Option<NodeId>,
}

/// Where a way leads, for the choice among several: to which level, and which choice it is.
type Rank = (Level, usize);

impl Topology {
    pub(crate) fn new(
        place: Place,
        incarnation: Incarnation,
        ways: Vec<NodeId>,
        siblings: Vec<NodeId>,
        seal: &dyn Seal,
    ) -> Topology {
        let hop = Hop {
            node: place.node,
            level: place.level,
        };
        let mut topology = Topology {
            place,
            incarnation,
            ways,
            siblings,
            way: None,
            better: None,
            path: Arc::new([hop]),
            last_path: Arc::new([]),
            number: 0,
            own: Arc::new(Announcement {
                place,
                incarnation,
                way: None,
                number: 0,
                signature: Vec::new(),
            }),
            below: BTreeMap::new(),
            channels: BTreeMap::new(),
            up: None,
        };
        topology.announce(seal);
        topology
    }

    /// Says anew what this node is, signed with its present key.
    pub(crate) fn announce(&mut self, seal: &dyn Seal) {
        self.number += 1;
        let mut own = Announcement {
            place: self.place,
            incarnation: self.incarnation,
            way: self.way,
            number: self.number,
            signature: Vec::new(),
        };
        own.signature = seal.sign(&own.signed_bytes());
        self.own = Arc::new(own);
    }

    fn rank(&self, node: NodeId, lines: &BTreeMap<NodeId, Line>) -> Option<Rank> {
        let line = lines.get(&node).filter(|line| line.is_up())?;
        let last = line.path.last()?;
        let is_sibling = self.siblings.contains(&node);
        if is_sibling && (last.level, last.node) >= (self.place.level, self.place.node) {
            return None;
        }
        if Rule::NoLoop.holds() && line.leads_over(self.place.node) {
            return None;
        }
        let all = self.ways.iter().chain(&self.siblings);
        let choice = all.into_iter().position(|way| *way == node)?;
        Some((last.level, choice))
    }

    /// Whether the way that is taken leads back here, and it is this node that gives it up: of those in
    /// the ring exactly one does, the uppermost.
    fn gives_up_ring(&self, line: &Line) -> bool {
        let own = (self.place.level, self.place.node);
        let ring = line
            .path
            .iter()
            .take_while(|hop| hop.node != self.place.node);
        Rule::NoLoop.holds()
            && line.leads_over(self.place.node)
            && ring
                .map(|hop| (hop.level, hop.node))
                .all(|other| own < other)
    }

    /// Chooses the way up; whether the way or the path has changed.
    pub(crate) fn choose(
        &mut self,
        now: Time,
        lines: &BTreeMap<NodeId, Line>,
        seal: &dyn Seal,
    ) -> bool {
        let all = self.ways.iter().chain(&self.siblings);
        let best = all
            .filter_map(|node| Some((self.rank(*node, lines)?, *node)))
            .min();
        let current = self.way.and_then(|way| {
            let line = lines.get(&way).filter(|line| line.is_up())?;
            let is_ring = line.leads_over(self.place.node);
            if is_ring && !self.gives_up_ring(line) {
                return Some(((Level::Village, usize::MAX), way));
            }
            Some((self.rank(way, lines)?, way))
        });
        let way = match (current, best) {
            (None, best) => best.map(|(_, node)| node),
            (Some((_, way)), None) => Some(way),
            (Some((rank, way)), Some((best_rank, best))) if best_rank < rank && best != way => {
                match self.better {
                    Some((node, since)) if node == best && now.since(since) >= RETURN_AFTER => {
                        Some(best)
                    }
                    Some((node, _)) if node == best => Some(way),
                    _ => {
                        self.better = Some((best, now));
                        Some(way)
                    }
                }
            }
            (Some((_, way)), _) => {
                self.better = None;
                Some(way)
            }
        };
        let is_moved = way != self.way;
        if is_moved {
            self.better = None;
            self.way = way;
            self.announce(seal);
        }
        let upper = way.and_then(|way| lines.get(&way)).map(|line| &line.path);
        let own = [Hop {
            node: self.place.node,
            level: self.place.level,
        }];
        let path: Vec<Hop> = own
            .into_iter()
            .chain(upper.into_iter().flat_map(|path| path.iter().copied()))
            .take(HOPS_BOUND)
            .collect();
        let is_longer = *path != *self.path;
        if is_longer {
            self.path = path.into();
            if self.path.len() > 1 {
                self.last_path = self.path.clone();
            }
        }
        is_moved || is_longer
    }

    /// Takes in a node's announcement that a neighbour passed on; `Ok(true)` if it is news.
    pub(crate) fn announced(
        &mut self,
        from: NodeId,
        generation: u32,
        announcement: Arc<Announcement>,
        hops: Arc<[NodeId]>,
        seal: &dyn Seal,
    ) -> Result<bool, &'static str> {
        let node = announcement.place.node;
        let next = hops.get(1).copied().unwrap_or(self.place.node);
        if hops.first() != Some(&node) || hops.last() != Some(&from) {
            return Err("an announcement whose hops are not those it took");
        }
        if announcement.way != Some(next) {
            return Err("an announcement of a node that did not choose that way");
        }
        if Rule::NoLoop.holds() && hops.contains(&self.place.node) {
            return Err("an announcement that has passed here before");
        }
        if self.below.len() >= BELOW_BOUND && !self.below.contains_key(&node) {
            return Err("more nodes below than there may be");
        }
        if !seal.is_signed_by(node, &announcement.signed_bytes(), &announcement.signature) {
            return Err("an announcement that its node has not signed");
        }
        let claims = self.below.entry(node).or_default();
        let is_new = |one: &Below| one.announcement != announcement || one.hops != hops;
        match claims.iter_mut().find(|one| one.via == from) {
            Some(one) => {
                one.generation = generation;
                if !is_new(one) {
                    return Ok(false);
                }
                one.announcement = announcement;
                one.hops = hops;
            }
            None => claims.push(Below {
                via: from,
                generation,
                announcement,
                hops,
            }),
        }
        Ok(true)
    }

    /// A neighbour says that a node is no longer below it; whether that is news.
    pub(crate) fn gone(&mut self, from: NodeId, node: NodeId) -> bool {
        let Some(claims) = self.below.get_mut(&node) else {
            return false;
        };
        let before = claims.len();
        claims.retain(|one| one.via != from);
        let is_news = claims.len() != before;
        if claims.is_empty() {
            self.below.remove(&node);
        }
        is_news
    }

    /// Drops what a neighbour said before its present beginning, or everything; who that was.
    pub(crate) fn sweep(&mut self, from: NodeId, generation: Option<u32>) -> Vec<NodeId> {
        let is_swept = |one: &Below| {
            one.via == from && generation.is_none_or(|generation| one.generation != generation)
        };
        let with = self
            .below
            .iter()
            .filter(|(_, all)| all.iter().any(is_swept));
        let swept: Vec<NodeId> = with.map(|(node, _)| *node).collect();
        for node in &swept {
            if let Some(claims) = self.below.get_mut(node) {
                claims.retain(|one| !is_swept(one));
                if claims.is_empty() {
                    self.below.remove(node);
                }
            }
        }
        swept
    }

    fn latest(claims: &[Below]) -> Option<&Below> {
        claims.iter().max_by_key(|one| {
            let announcement = &one.announcement;
            (announcement.incarnation, announcement.number)
        })
    }

    /// What there is to say upwards of a node.
    pub(crate) fn item(&self, node: NodeId) -> Item {
        if node == self.place.node {
            return Item::Node {
                announcement: self.own.clone(),
                hops: Arc::new([node]),
            };
        }
        match self
            .below
            .get(&node)
            .and_then(|claims| Self::latest(claims))
        {
            Some(one) if one.hops.len() < HOPS_BOUND => Item::Node {
                announcement: one.announcement.clone(),
                hops: one.hops.iter().copied().chain([self.place.node]).collect(),
            },
            _ => Item::NodeGone(node),
        }
    }

    /// All nodes below, and this one.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.below.keys().copied().chain([self.place.node])
    }

    /// What the nodes below say of themselves.
    pub(crate) fn announcements(&self) -> impl Iterator<Item = &Arc<Announcement>> {
        let latest = self
            .below
            .values()
            .filter_map(|claims| Self::latest(claims));
        latest.map(|one| &one.announcement)
    }

    /// Whether anybody says that `node` is below.
    pub(crate) fn is_known(&self, node: NodeId) -> bool {
        self.below.contains_key(&node)
    }

    /// Whether `via` may speak for `node`.
    pub(crate) fn is_below(&self, node: NodeId, via: NodeId) -> bool {
        node == via
            || self
                .below
                .get(&node)
                .is_some_and(|claims| claims.iter().any(|one| one.via == via))
    }

    /// The neighbour over which a node below is reached.
    pub(crate) fn way_down(&self, node: NodeId, lines: &BTreeMap<NodeId, Line>) -> Option<NodeId> {
        let is_up = |via: NodeId| lines.get(&via).is_some_and(Line::is_up);
        let claims = self.below.get(&node);
        let up = claims.into_iter().flatten().filter(|one| is_up(one.via));
        let latest = up.max_by_key(|one| {
            let announcement = &one.announcement;
            (announcement.incarnation, announcement.number)
        });
        latest.map(|one| one.via)
    }

    /// Whether `node` is in the branch whose top is `branch`, as far as this node can tell: of branches
    /// above itself, itself and all below it are in.
    pub(crate) fn is_in_branch(&self, node: NodeId, branch: NodeId) -> bool {
        let is_above = |path: &[Hop]| path.iter().any(|hop| hop.node == branch);
        let is_ours = node == self.place.node || self.below.contains_key(&node);
        (is_ours && (is_above(&self.path) || is_above(&self.last_path)))
            || node == branch
            || self
                .below
                .get(&node)
                .is_some_and(|claims| claims.iter().any(|one| one.hops.contains(&branch)))
    }
}
