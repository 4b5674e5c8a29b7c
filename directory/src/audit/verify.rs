//! Reads a log through and finds what was done to it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use super::{Entry, Hash, HeadProblem, PublicKey, SignedHead};
use crate::id::LogId;

/// How many entries that are not what they should be are looked at for whether they stood elsewhere. More than anybody
/// would move by hand; past it each is told as changed.
const MOVES: usize = 1_000;

/// What is wrong with a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// Entries are missing.
    Removed(RangeEnds),
    /// The entry is not what it was when it was written.
    Changed(u64),
    /// The entry that stands here was written as another number.
    Reordered {
        /// Where it stands.
        now: u64,
        /// Where it stood.
        was: u64,
    },
    /// The log ends here, and had more once.
    CutOff {
        /// Its last entry.
        last: u64,
        /// The last one that is proven to have been there.
        known: u64,
    },
    /// Entries were written anew: all fits together, and is not what a head was signed for.
    Rewritten(RangeEnds),
    /// A head proves nothing.
    BadHead(u64, BadHead),
    /// Two heads by trusted keys contradict each other.
    HeadsDisagree(u64),
}

/// From which entry to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RangeEnds {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl RangeEnds {
    fn of(range: RangeInclusive<u64>) -> RangeEnds {
        RangeEnds {
            first: *range.start(),
            last: *range.end(),
        }
    }
}

/// Why a head proves nothing; see [`HeadProblem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BadHead {
    /// Its key is not trusted.
    UnknownKey,
    /// Its signature is wrong.
    WrongSignature,
    /// It is of another log: this one may have been put in that one's place.
    AnotherLog,
}

/// What the log says of its own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The last entry's number.
    pub sequence: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many entries were read.
    pub entries: u64,
    /// Up to which entry a head by a trusted key proves that nothing was done to the log; 0 if none does.
    pub proven_to: u64,
    /// All that is wrong, in order.
    pub findings: Vec<Finding>,
}

/// Takes the entries one after another, in the order in which they are kept, then tells.
pub struct Verifier {
    log: LogId,
    /// What heads prove: number to hash.
    proven: BTreeMap<u64, Hash>,
    matched: u64,
    contradicted: Vec<u64>,
    findings: Vec<Finding>,
    entries: u64,
    /// The hash of the last entry and its number.
    last: (u64, Hash),
    /// Those that are not judged yet: whether one is to blame is told by the two after it.
    waiting: VecDeque<Seen>,
    gaps: Vec<RangeInclusive<u64>>,
    /// Entries whose own hash is wrong.
    wrong: Vec<Entry>,
}

/// What is kept of an entry until it is judged.
#[derive(Clone, Copy)]
struct Seen {
    sequence: u64,
    /// Its hash is that of what it says.
    is_right: bool,
    /// The entry before it is the one that it was written after; true where that can't be told.
    fits_before: bool,
    /// The entry behind it was written after it; true where that can't be told.
    fits_behind: bool,
}

impl Verifier {
    /// For a log, with the heads that were given away and the keys that may have signed them.
    pub fn new(log: LogId, heads: &[SignedHead], trusted: &[PublicKey]) -> Verifier {
        let mut findings = Vec::new();
        let mut proven = BTreeMap::from([(0, Hash::NONE)]);
        for head in heads {
            match head.check(log, trusted) {
                Ok(hash) => {
                    if *proven.entry(head.sequence).or_insert(hash) != hash {
                        findings.push(Finding::HeadsDisagree(head.sequence));
                    }
                }
                Err(problem) => {
                    let bad = match problem {
                        HeadProblem::UnknownKey => BadHead::UnknownKey,
                        HeadProblem::WrongSignature => BadHead::WrongSignature,
                        HeadProblem::AnotherLog => BadHead::AnotherLog,
                    };
                    findings.push(Finding::BadHead(head.sequence, bad));
                }
            }
        }
        Verifier {
            log,
            proven,
            matched: 0,
            contradicted: Vec::new(),
            findings,
            entries: 0,
            last: (0, Hash::NONE),
            waiting: VecDeque::new(),
            gaps: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// The next entry.
    pub fn read(&mut self, entry: &Entry) {
        self.entries += 1;
        let is_right = entry.digest(self.log) == entry.hash;
        if !is_right {
            self.note_wrong(entry);
        }
        let (before, before_hash) = self.last;
        if entry.sequence <= before {
            self.note_late(entry.sequence);
            return;
        }
        let is_next = before.checked_add(1) == Some(entry.sequence);
        if !is_next {
            self.gaps.push(before + 1..=entry.sequence - 1);
        }
        let fits = !is_next || entry.previous == before_hash;
        let mut fits_before = fits;
        if let Some(before) = self.waiting.back_mut() {
            before.fits_behind = fits;
            // That one is wrong in itself already, and says nothing of this one.
            fits_before |= !before.is_right;
        }
        self.waiting.push_back(Seen {
            sequence: entry.sequence,
            is_right,
            fits_before,
            fits_behind: true,
        });
        self.last = (entry.sequence, entry.hash);
        if self.waiting.len() > 2 {
            self.judge_first();
        }
        match self.proven.get(&entry.sequence) {
            Some(hash) if *hash == entry.hash => self.matched = entry.sequence,
            Some(_) => self.contradicted.push(entry.sequence),
            None => {}
        }
    }

    /// An entry that stands behind a later one: its place is in a gap, or it is there twice.
    fn note_late(&mut self, sequence: u64) {
        self.findings.push(Finding::Reordered {
            now: self.last.0,
            was: sequence,
        });
        let Some(at) = self.gaps.iter().position(|gap| gap.contains(&sequence)) else {
            return;
        };
        let gap = self.gaps.remove(at);
        let parts = [*gap.start()..=sequence - 1, sequence + 1..=*gap.end()];
        self.gaps
            .extend(parts.into_iter().filter(|part| !part.is_empty()));
    }

    fn note_wrong(&mut self, entry: &Entry) {
        if self.wrong.len() < MOVES {
            self.wrong.push(entry.clone());
        } else {
            self.findings.push(Finding::Changed(entry.sequence));
        }
    }

    /// Judges the first of those that wait. One whose own hash is wrong is noted already. One that is right in itself,
    /// but is not what the entry behind it was written after, was changed together with its hash; unless it is that
    /// other one that does not fit: to what it says, or to its own other side.
    fn judge_first(&mut self) {
        let Some(entry) = self.waiting.pop_front() else {
            return;
        };
        let is_first = entry.sequence == 1 && !entry.fits_before;
        let is_other_ones_fault = !entry.fits_behind
            && entry.fits_before
            && self
                .waiting
                .front()
                .is_some_and(|behind| !behind.is_right || !behind.fits_behind);
        let is_changed = !entry.fits_behind && !is_other_ones_fault;
        if entry.is_right && (is_changed || is_first) {
            self.findings.push(Finding::Changed(entry.sequence));
        }
    }

    /// What was found, with what the log says of its own end.
    pub fn finish(mut self, tail: Option<Tail>) -> Report {
        let (last, last_hash) = self.last;
        let mut known = self.proven.keys().last().copied().unwrap_or(0);
        if let Some(tail) = tail {
            known = known.max(tail.sequence);
            if let Some(seen) = self.waiting.back_mut()
                && tail.sequence == last
            {
                seen.fits_behind = tail.hash == last_hash;
            }
        }
        while !self.waiting.is_empty() {
            self.judge_first();
        }
        if known > last {
            self.findings.push(Finding::CutOff { last, known });
        }
        self.tell_moves();
        for gap in std::mem::take(&mut self.gaps) {
            self.findings.push(Finding::Removed(RangeEnds::of(gap)));
        }
        self.tell_rewritten();
        self.findings.sort();
        self.findings.dedup();
        let proven_to = if self.findings.is_empty() {
            self.matched
        } else {
            self.proven_before_findings()
        };
        Report {
            entries: self.entries,
            proven_to,
            findings: self.findings,
        }
    }

    /// Of the entries that are wrong, those that are right under the number of another one were moved.
    fn tell_moves(&mut self) {
        let numbers: Vec<u64> = self
            .wrong
            .iter()
            .map(|entry| entry.sequence)
            .chain(self.gaps.iter().cloned().flatten().take(MOVES))
            .collect();
        let mut findings = Vec::new();
        for entry in &self.wrong {
            let neighbours = [
                entry.sequence.saturating_sub(1),
                entry.sequence.saturating_add(1),
            ];
            let was = numbers
                .iter()
                .copied()
                .chain(neighbours)
                .find(|number| entry.digest_as(self.log, *number) == entry.hash);
            findings.push(match was {
                Some(was) => Finding::Reordered {
                    now: entry.sequence,
                    was,
                },
                None => Finding::Changed(entry.sequence),
            });
        }
        self.findings.extend(findings);
    }

    /// A head that is contradicted, with nothing else wrong since the one before that holds, tells of entries that were
    /// written anew.
    fn tell_rewritten(&mut self) {
        let mut since = 0;
        let proven: Vec<u64> = self.proven.keys().copied().collect();
        for number in proven {
            if !self.contradicted.contains(&number) {
                since = number;
                continue;
            }
            let range = RangeEnds {
                first: since + 1,
                last: number,
            };
            let is_explained = self.findings.iter().any(|finding| {
                let at = match finding {
                    Finding::Changed(at) | Finding::Reordered { now: at, .. } => *at,
                    Finding::Removed(range) => range.first,
                    _ => return false,
                };
                (range.first..=range.last).contains(&at)
            });
            if !is_explained {
                self.findings.push(Finding::Rewritten(range));
            }
            since = number;
        }
    }

    /// The last head before the first thing that is wrong.
    fn proven_before_findings(&self) -> u64 {
        let first = self
            .findings
            .iter()
            .map(|finding| match finding {
                Finding::Removed(range) | Finding::Rewritten(range) => range.first,
                Finding::Changed(at) => *at,
                Finding::Reordered { now, was } => *now.min(was),
                Finding::CutOff { last, .. } => last.saturating_add(1),
                Finding::BadHead(..) => u64::MAX,
                Finding::HeadsDisagree(at) => *at,
            })
            .min()
            .unwrap_or(u64::MAX);
        self.proven
            .keys()
            .copied()
            .filter(|number| *number < first && *number <= self.matched)
            .max()
            .unwrap_or(0)
    }
}
