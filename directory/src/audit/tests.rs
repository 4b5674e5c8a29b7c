use proptest::prelude::*;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use sqlx::Executor as _;

use super::*;
use crate::act::Who;
use crate::id::{LogId, PersonId};
use crate::organisation::{Kind, Level, NewOrganisation};
use crate::store::{Engine, Store};
use crate::testing::{MORNING, appoint, by_machine, on_both_open, random};
use crate::{Denied, Directory, Timestamp};

/// How many tamperings are drawn.
const TAMPERINGS: u64 = 1_000;

/// Every so many entries a head is signed and given away.
const HEAD_EVERY: u64 = 7;

/// A log in memory with the heads that were given away.
struct Log {
    id: LogId,
    entries: Vec<Entry>,
    heads: Vec<SignedHead>,
    key: HeadKey,
}

impl Log {
    fn draw(count: u64, random: &mut rand::rngs::StdRng) -> Log {
        let key = HeadKey::from_seed(&HeadKey::draw_seed(random));
        let mut log = Log {
            id: LogId::draw(MORNING, random),
            entries: Vec::new(),
            heads: Vec::new(),
            key,
        };
        for sequence in 1..=count {
            let entry = Entry {
                sequence,
                at: Timestamp::from_millis(MORNING.as_millis() + sequence as i64),
                actor_kind: "person".to_owned(),
                actor_id: Some(PersonId::draw(MORNING, random).to_string()),
                organisation_id: None,
                action: "rename_organisation".to_owned(),
                object_kind: "organisation".to_owned(),
                object_id: random.random_bool(0.5).then(|| "某省".to_owned()),
                outcome: "done".to_owned(),
                reason: None,
                address: Some("192.0.2.1".to_owned()),
                detail: format!("{{\"number\":{}}}", random.random_range(0..1000)),
                previous: log.end().hash,
                hash: Hash::NONE,
            };
            log.entries.push(entry);
            log.rehash(sequence as usize - 1);
            if sequence % HEAD_EVERY == 0 || sequence == count {
                let head = log.key.sign(log.id, sequence, log.end().hash, MORNING);
                log.heads.push(head);
            }
        }
        log
    }

    fn end(&self) -> Tail {
        self.entries.last().map_or(
            Tail {
                sequence: 0,
                hash: Hash::NONE,
            },
            |last| Tail {
                sequence: last.sequence,
                hash: last.hash,
            },
        )
    }

    fn rehash(&mut self, at: usize) {
        self.entries[at].hash = self.entries[at].digest(self.id);
    }

    /// As somebody with the whole database would: everything from here on fits together again.
    fn rechain(&mut self, from: usize) {
        for at in from..self.entries.len() {
            self.entries[at].sequence = at as u64 + 1;
            self.entries[at].previous = match at {
                0 => Hash::NONE,
                _ => self.entries[at - 1].hash,
            };
            self.rehash(at);
        }
    }

    fn verify(&self, tail: Option<Tail>) -> Report {
        let mut verifier = Verifier::new(self.id, &self.heads, &[self.key.public()]);
        for entry in &self.entries {
            verifier.read(entry);
        }
        verifier.finish(tail)
    }

    /// The last head before an entry.
    fn head_before(&self, sequence: u64) -> u64 {
        let numbers = self.heads.iter().map(|head| head.sequence);
        numbers
            .filter(|number| *number < sequence)
            .max()
            .unwrap_or(0)
    }
}

/// Changes one thing that an entry says.
fn change(entry: &mut Entry, random: &mut rand::rngs::StdRng) {
    match random.random_range(0..10) {
        0 => entry.at = Timestamp::from_millis(entry.at.as_millis() - 1),
        1 => entry.actor_kind = "machine".to_owned(),
        2 => entry.actor_id = None,
        3 => entry.organisation_id = Some(String::new()),
        4 => entry.action.push('x'),
        5 => entry.object_kind = String::new(),
        6 => entry.object_id = Some("另一省".to_owned()),
        7 => entry.outcome = "refused".to_owned(),
        8 => entry.reason = Some("说明".to_owned()),
        _ => entry.detail.push(' '),
    }
}

/// Does one thing to a log; returns what must be found, all of it.
fn tamper(log: &mut Log, tail: &mut Option<Tail>, random: &mut rand::rngs::StdRng) -> Vec<Finding> {
    let count = log.entries.len();
    let at = random.random_range(0..count);
    let sequence = at as u64 + 1;
    let range = |first: u64, last: u64| RangeEnds { first, last };
    match random.random_range(0..9) {
        // One entry says something else.
        0 => {
            change(&mut log.entries[at], random);
            vec![Finding::Changed(sequence)]
        }
        // And has a hash that fits it.
        1 => {
            change(&mut log.entries[at], random);
            log.rehash(at);
            vec![Finding::Changed(sequence)]
        }
        // Only the link to the one before is another.
        2 => {
            log.entries[at].previous = Hash::of(b"another");
            if random.random_bool(0.5) {
                log.rehash(at);
            }
            vec![Finding::Changed(sequence)]
        }
        // Some are gone from the middle or the beginning.
        3 => {
            let last = random.random_range(at..count.min(at + 5));
            if last + 1 == count {
                log.entries.truncate(at);
                let known = count as u64;
                return vec![Finding::CutOff {
                    last: at as u64,
                    known,
                }];
            }
            log.entries.drain(at..=last);
            vec![Finding::Removed(range(sequence, last as u64 + 1))]
        }
        // Two have changed places, under each other's numbers.
        4 => {
            let other = (at + random.random_range(1..count)) % count;
            log.entries.swap(at, other);
            log.entries[at].sequence = at as u64 + 1;
            log.entries[other].sequence = other as u64 + 1;
            let mut moves = vec![(at, other), (other, at)];
            moves.sort();
            let moved = |(now, was): (usize, usize)| Finding::Reordered {
                now: now as u64 + 1,
                was: was as u64 + 1,
            };
            moves.into_iter().map(moved).collect()
        }
        // The end is cut off, and the log's own word of its end goes with it or not.
        5 => {
            log.entries.truncate(at);
            if random.random_bool(0.5) {
                *tail = Some(log.end());
            }
            let known = count as u64;
            vec![Finding::CutOff {
                last: at as u64,
                known,
            }]
        }
        // All is written anew from somewhere on, so that it fits together.
        6 => {
            change(&mut log.entries[at], random);
            log.rechain(at);
            *tail = Some(log.end());
            rewritten(log, at)
        }
        // One is left out, and all is written anew from there on with one more at the end.
        7 => {
            let taken = log.entries.remove(at);
            log.entries.push(taken);
            if at + 1 == count {
                change(&mut log.entries[at], random);
            }
            log.rechain(at);
            *tail = Some(log.end());
            rewritten(log, at)
        }
        // The whole log is another one, and gave itself another name.
        _ => {
            let other = Log::draw(count as u64, random);
            log.entries = other.entries;
            log.id = other.id;
            *tail = Some(log.end());
            let mut findings: Vec<Finding> = log
                .heads
                .iter()
                .map(|head| Finding::BadHead(head.sequence, BadHead::AnotherLog))
                .collect();
            findings.sort();
            findings
        }
    }
}

/// What heads tell of a log that was written anew from an entry on.
fn rewritten(log: &Log, from: usize) -> Vec<Finding> {
    let first = log.head_before(from as u64 + 1);
    let mut since = first;
    let mut findings = Vec::new();
    for head in log.heads.iter().filter(|head| head.sequence > first) {
        findings.push(Finding::Rewritten(RangeEnds {
            first: since + 1,
            last: head.sequence,
        }));
        since = head.sequence;
    }
    findings
}

#[test]
fn a_thousand_tamperings_are_all_found_and_told_for_what_they_are() {
    for seed in 0..TAMPERINGS {
        let mut random = random(seed);
        let mut log = Log::draw(random.random_range(3..40), &mut random);
        let mut tail = Some(log.end());
        let clean = log.verify(tail);
        assert_eq!(clean.findings, [], "seed {seed}");
        assert_eq!(clean.proven_to, log.entries.len() as u64);
        let expected = tamper(&mut log, &mut tail, &mut random);
        let report = log.verify(tail);
        assert_eq!(report.findings, expected, "seed {seed}");
        assert!(report.proven_to < log.heads.last().unwrap().sequence);
    }
}

#[test]
fn what_several_did_is_found_too() {
    for seed in 0..TAMPERINGS {
        let mut random = random(seed);
        let mut log = Log::draw(60, &mut random);
        let mut places: Vec<usize> = (0..12).map(|place| place * 5 + 2).collect();
        places.shuffle(&mut random);
        let (changed, rehashed, removed) = (places[0], places[1], places[2]);
        change(&mut log.entries[changed], &mut random);
        change(&mut log.entries[rehashed], &mut random);
        log.rehash(rehashed);
        let tail = Some(log.end());
        log.entries.remove(removed);
        let findings = log.verify(tail).findings;
        for place in [changed, rehashed] {
            let finding = Finding::Changed(place as u64 + 1);
            assert!(findings.contains(&finding), "seed {seed}: {findings:?}");
        }
        let last = removed as u64 + 1;
        let finding = Finding::Removed(RangeEnds { first: last, last });
        assert!(findings.contains(&finding), "seed {seed}: {findings:?}");
        assert_eq!(findings.len(), 3, "seed {seed}: {findings:?}");
    }
}

#[test]
fn entries_that_are_kept_in_another_order_are_told() {
    let mut random = random(3);
    let mut log = Log::draw(10, &mut random);
    let tail = Some(log.end());
    log.entries.swap(3, 6);
    let findings = log.verify(tail).findings;
    assert!(
        findings.contains(&Finding::Reordered { now: 7, was: 4 }),
        "{findings:?}"
    );
    assert!(
        !findings
            .iter()
            .any(|finding| matches!(finding, Finding::Removed(_))),
        "{findings:?}"
    );
}

#[test]
fn a_head_is_worth_what_its_signature_is() {
    let mut random = random(4);
    let mut log = Log::draw(20, &mut random);
    let stranger = HeadKey::from_seed(&[9; 32]);
    log.heads
        .push(stranger.sign(log.id, 20, Hash::of(b"x"), MORNING));
    let mut forged = log.heads[0].clone();
    forged.sequence = 19;
    log.heads.push(forged);
    let mut empty = log.heads[0].clone();
    empty.signature.clear();
    log.heads.push(empty);
    let report = log.verify(Some(log.end()));
    assert_eq!(
        report.findings,
        [
            Finding::BadHead(7, BadHead::WrongSignature),
            Finding::BadHead(19, BadHead::WrongSignature),
            Finding::BadHead(20, BadHead::UnknownKey),
        ]
    );
    assert_eq!(report.proven_to, 20);
}

#[test]
fn two_heads_of_one_place_must_agree() {
    let mut random = random(5);
    let mut log = Log::draw(7, &mut random);
    log.heads
        .push(log.key.sign(log.id, 7, Hash::of(b"x"), MORNING));
    assert_eq!(log.verify(None).findings, [Finding::HeadsDisagree(7)]);
}

#[test]
fn a_head_survives_its_journey_as_text() {
    let mut random = random(6);
    let log = Log::draw(7, &mut random);
    let text = serde_json::to_string(&log.heads[0]).unwrap();
    let back: SignedHead = serde_json::from_str(&text).unwrap();
    assert_eq!(back.check(log.id, &[log.key.public()]), Ok(log.end().hash));
}

proptest! {
    #[test]
    fn every_field_is_covered_and_none_runs_into_the_next(
        texts in prop::collection::vec(".{0,6}", 4), other in prop::collection::vec(".{0,6}", 4),
    ) {
        let mut random = random(7);
        let log = Log::draw(1, &mut random);
        let with = |texts: &[String]| {
            let mut entry = log.entries[0].clone();
            entry.action = texts[0].clone();
            entry.object_kind = texts[1].clone();
            entry.object_id = Some(texts[2].clone());
            entry.outcome = texts[3].clone();
            entry.digest(log.id)
        };
        prop_assert_eq!(with(&texts) == with(&other), texts == other);
    }
}

async fn write_some(store: &Store, count: u64) {
    let mut source = random(1);
    for number in 0..count {
        let mut writing = store.write().await.unwrap();
        let act = by_machine(&mut source);
        let fresh = Fresh {
            action: "try",
            object_kind: "thing",
            object_id: Some(number.to_string()),
            organisation: None,
            outcome: Outcome::Done,
            detail: serde_json::json!({ "number": number }),
        };
        append(writing.connection(), &act, fresh).await.unwrap();
        writing.commit().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_in_the_database_is_chained_signed_and_verified() {
    on_both_open(|store| async move {
        let mut source = random(1);
        let directory = Directory::new(store.clone(), MORNING, &mut source)
            .await
            .unwrap();
        let key = HeadKey::from_seed(&[1; 32]);
        let trusted = [key.public()];
        let empty = directory.sign_audit_head(&key, MORNING).await.unwrap();
        assert_eq!(empty.sequence, 0);
        write_some(&store, 1_203).await;
        let head = directory.sign_audit_head(&key, MORNING).await.unwrap();
        assert_eq!(head.sequence, 1_203);
        let heads = [empty, head];
        let kept = directory
            .audit_heads(Timestamp::from_millis(0))
            .await
            .unwrap();
        assert_eq!(kept, heads);
        let report = directory.verify_audit(&heads, &trusted).await.unwrap();
        assert_eq!(report.findings, []);
        assert_eq!((report.entries, report.proven_to), (1_203, 1_203));

        // The database refuses what is not an appending.
        for attempt in [
            "UPDATE audit_entries SET outcome = 'refused' WHERE sequence = 700",
            "DELETE FROM audit_entries WHERE sequence > 1000",
        ] {
            let mut writing = store.write().await.unwrap();
            assert!(writing.connection().execute(attempt).await.is_err());
        }
        // Who owns the database can make it obey, and is found out.
        let mut writing = store.write().await.unwrap();
        let off: &[&str] = match store.engine() {
            Engine::Sqlite => &[
                "DROP TRIGGER audit_entries_stay",
                "DROP TRIGGER audit_entries_are_kept",
            ],
            Engine::Postgres => &["DROP TRIGGER audit_entries_stay ON audit_entries"],
        };
        for attempt in off.iter().copied().chain([
            "UPDATE audit_entries SET outcome = 'refused' WHERE sequence = 700",
            "UPDATE audit_entries SET hash = 'not a hash' WHERE sequence = 800",
            "DELETE FROM audit_entries WHERE sequence BETWEEN 900 AND 905",
            "DELETE FROM audit_entries WHERE sequence > 1000",
        ]) {
            writing.connection().execute(attempt).await.unwrap();
        }
        writing.commit().await.unwrap();
        let report = directory.verify_audit(&heads, &trusted).await.unwrap();
        let range = RangeEnds {
            first: 900,
            last: 905,
        };
        assert_eq!(
            report.findings,
            [
                Finding::Removed(range),
                Finding::Changed(700),
                Finding::Changed(800),
                Finding::CutOff {
                    last: 1_000,
                    known: 1_203
                },
            ]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_read_by_page_and_by_what_is_sought_and_that_is_written_down() {
    on_both_open(|store| async move {
        let mut source = random(1);
        let directory = Directory::new(store.clone(), MORNING, &mut source)
            .await
            .unwrap();
        write_some(&store, 25).await;
        let mut act = by_machine(&mut source);
        act.now = MORNING.after(std::time::Duration::from_secs(1));
        let province = NewOrganisation {
            kind: Kind::Centre,
            level: Some(Level::Province),
            name: "某省".to_owned(),
            code: None,
            parent: None,
            cascade_parent: None,
        };
        let province = directory
            .create_organisation(&mut act, province)
            .await
            .unwrap()
            .id;
        let city = NewOrganisation {
            kind: Kind::Centre,
            level: Some(Level::City),
            name: "某市".to_owned(),
            code: None,
            parent: Some(province),
            cascade_parent: None,
        };
        let city = directory
            .create_organisation(&mut act, city)
            .await
            .unwrap()
            .id;
        let auditor = appoint(&store, province, &["auditor"], MORNING).await;
        let local = appoint(&store, city, &["auditor"], MORNING).await;
        let admin = appoint(&store, city, &["system_administrator"], MORNING).await;
        act.who = Who::Person(auditor);
        let mut filter = Filter {
            limit: 10,
            until: Some(act.now),
            ..Filter::default()
        };
        let mut seen = Vec::new();
        loop {
            let page = directory.audit_page(&act, province, &filter).await.unwrap();
            seen.extend(page.entries.iter().map(|entry| entry.sequence));
            filter.before = page.next;
            if page.next.is_none() {
                break;
            }
        }
        assert_eq!(seen, (1..=25).rev().collect::<Vec<_>>());
        let filter = Filter {
            object: Some("7".to_owned()),
            limit: 10,
            ..Filter::default()
        };
        let page = directory.audit_page(&act, province, &filter).await.unwrap();
        assert_eq!(page.entries.len(), 1);
        assert_eq!(page.entries[0].detail, "{\"number\":7}");
        let (lines, _) = directory
            .export_audit(&act, province, &filter)
            .await
            .unwrap();
        let line: serde_json::Value = serde_json::from_str(lines.trim_end()).unwrap();
        assert_eq!(line["hash"], page.entries[0].hash.to_string());
        let filter = Filter {
            actor: Some(auditor.to_string()),
            limit: 10,
            ..Filter::default()
        };
        let page = directory.audit_page(&act, province, &filter).await.unwrap();
        let actions: Vec<&str> = page
            .entries
            .iter()
            .map(|entry| entry.action.as_str())
            .collect();
        assert_eq!(
            actions,
            [
                "export_audit",
                "read_audit",
                "read_audit",
                "read_audit",
                "read_audit"
            ]
        );

        // A city's auditor sees what concerns the city; its administrator nothing.
        act.who = Who::Person(local);
        let all = Filter {
            limit: 100,
            ..Filter::default()
        };
        let page = directory.audit_page(&act, city, &all).await.unwrap();
        let objects: Vec<_> = page
            .entries
            .iter()
            .map(|entry| entry.object_id.clone())
            .collect();
        assert_eq!(objects, [Some(city.to_string())]);
        let above = directory.audit_page(&act, province, &all).await;
        assert!(matches!(above, Err(Denied::Refused(_))), "{above:?}");
        act.who = Who::Person(admin);
        let refused = directory.audit_page(&act, city, &all).await;
        assert!(matches!(refused, Err(Denied::Refused(_))), "{refused:?}");
        let report = directory.verify_audit(&[], &[]).await.unwrap();
        assert_eq!(report.findings, []);
    })
    .await;
}
