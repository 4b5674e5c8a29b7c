//! Who is there below one node: what each neighbour says of whom, and which of several sessions of one
//! identity counts.
//!
//! What two neighbours say of one person is kept side by side, so that the end of one path never
//! takes away who has come over another.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::identity::{Identity, NodeId, OrganisationId};
use super::message::Participant;
use super::rule::Rule;

/// People of one conference below one node at most.
pub(crate) const PEOPLE_BOUND: usize = 200_000;

/// What one neighbour says of one person; of our own clients the neighbour is this node.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) from: NodeId,
    pub(crate) generation: u32,
    pub(crate) participant: Arc<Participant>,
}

/// Everybody below a node.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    people: BTreeMap<Identity, Vec<Claim>>,
    counts: BTreeMap<OrganisationId, u32>,
}

fn newest(claims: &[Claim]) -> Option<&Arc<Participant>> {
    let all = claims.iter().map(|claim| &claim.participant);
    all.reduce(|best, one| {
        let is_newer = if Rule::NewestSession.holds() {
            one.is_newer_than(best)
        } else {
            one.session.node > best.session.node
        };
        if is_newer { one } else { best }
    })
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.people.len()
    }

    pub(crate) fn get(&self, identity: &Identity) -> Option<&Arc<Participant>> {
        newest(self.people.get(identity)?)
    }

    pub(crate) fn claims(&self, identity: &Identity) -> &[Claim] {
        self.people.get(identity).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.people.keys()
    }

    pub(crate) fn people(&self) -> impl Iterator<Item = &Arc<Participant>> {
        self.people.values().filter_map(|claims| newest(claims))
    }

    /// How many there are of each organisation.
    pub(crate) fn counts(&self) -> &BTreeMap<OrganisationId, u32> {
        &self.counts
    }

    /// Up to `limit` people in the order of their identities, after one of them.
    pub(crate) fn page(
        &self,
        after: Option<&Identity>,
        limit: usize,
        is_wanted: impl Fn(&Participant) -> bool,
    ) -> Vec<Arc<Participant>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.people.range::<Identity, _>((from, Bound::Unbounded));
        let people = range.filter_map(|(_, claims)| newest(claims));
        people
            .filter(|one| is_wanted(one))
            .take(limit)
            .cloned()
            .collect()
    }

    fn edit(&mut self, identity: &Identity, edit: impl FnOnce(&mut Vec<Claim>)) -> bool {
        let mut claims = self.people.remove(identity).unwrap_or_default();
        let before = newest(&claims).cloned();
        edit(&mut claims);
        let after = newest(&claims).cloned();
        if !claims.is_empty() {
            self.people.insert(identity.clone(), claims);
        }
        let [old, new] = [&before, &after].map(|one| one.as_ref().map(|one| one.organisation));
        if old != new {
            if let Some(old) = old
                && let Some(count) = self.counts.get_mut(&old)
            {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&old);
                }
            }
            if let Some(new) = new {
                *self.counts.entry(new).or_insert(0) += 1;
            }
        }
        before != after
    }

    /// A neighbour says that somebody is there; whether that changes who counts.
    pub(crate) fn put(
        &mut self,
        from: NodeId,
        generation: u32,
        participant: Arc<Participant>,
    ) -> bool {
        let identity = participant.identity.clone();
        self.edit(&identity, |claims| {
            let claim = Claim {
                from,
                generation,
                participant,
            };
            match claims.iter_mut().find(|one| one.from == from) {
                Some(one) => *one = claim,
                None => claims.push(claim),
            }
        })
    }

    /// A neighbour says that somebody is not there; whether that changes who counts.
    pub(crate) fn remove(&mut self, from: NodeId, identity: &Identity) -> bool {
        self.edit(identity, |claims| {
            if Rule::ExpiryByPath.holds() {
                claims.retain(|one| one.from != from);
            } else {
                claims.clear();
            }
        })
    }

    /// Drops what a neighbour said and `is_void`; whose standing has changed.
    pub(crate) fn sweep(
        &mut self,
        from: NodeId,
        is_void: impl Fn(&Claim) -> bool,
    ) -> Vec<Identity> {
        let is_swept = |claim: &Claim| claim.from == from && is_void(claim);
        let with = self
            .people
            .iter()
            .filter(|(_, all)| all.iter().any(is_swept));
        let touched: Vec<Identity> = with.map(|(identity, _)| identity.clone()).collect();
        let mut changed = Vec::new();
        for identity in touched {
            if self.edit(&identity, |claims| claims.retain(|one| !is_swept(one))) {
                changed.push(identity);
            }
        }
        changed
    }
}
