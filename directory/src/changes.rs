//! What has changed, for who is signed in and looks on: read from the audit log, whose numbers say where somebody was.
//!
//! Invariant: nobody hears of what they could not look up. That something changed is told, not what it is now.

use std::collections::HashMap;

use sqlx::any::AnyRow;

use crate::authority::{self, Action, Actor, Decision};
use crate::id::{OrganisationId, PersonId};
use crate::people;
use crate::store::{self, StoreError};
use crate::{Directory, Timestamp, permit};

/// How many entries are looked at at once. Who has missed more looks at everything anew.
const AT_ONCE: usize = 200;

/// How far back is looked. Who was away for longer looks at everything anew.
const BACK: u64 = 10_000;

/// What is told of: changes that others see, and what concerns the sign-in of whom it is told to.
const ACTIONS: &str = "'manage_organisations', 'import_organisations', 'issue_hall_keys', \
                       'share_organisation', 'manage_persons', 'grant_roles', 'delegate_roles', \
                       'sign_in', 'sign_out', 'add_factor', 'remove_factor', \
                       'new_recovery_codes', 'change_password'";

/// Something that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The number of its entry in the audit log.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// To what kind of thing: `organisation`, `place`, `person`, `post`, `grant`.
    pub kind: String,
    /// To which.
    pub id: Option<String>,
    /// Whose it is.
    pub organisation: Option<OrganisationId>,
    /// By which action, as the audit log has it.
    pub action: String,
    /// What about it, where the log says it.
    pub change: Option<String>,
    /// Whether it is about whom it is told to: their rights, their sign-in.
    pub is_own: bool,
}

/// What has changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// What may be told, the oldest first.
    pub changes: Vec<Change>,
    /// Up to which entry the log was looked at.
    pub last: u64,
    /// There was more than is told one by one: all that is shown is to be looked up anew.
    pub is_cut: bool,
}

impl Directory {
    /// What has changed after an entry of the audit log, of what somebody may see.
    pub async fn changes(
        &self,
        person: PersonId,
        after: u64,
        now: Timestamp,
    ) -> Result<Changes, StoreError> {
        let mut reading = self.store.read().await?;
        let connection = reading.connection();
        let last = crate::audit::log::last(connection).await?;
        let cut = Changes {
            changes: Vec::new(),
            last,
            is_cut: true,
        };
        // Who says to have seen what is not written yet was with another log.
        if after > last || last - after > BACK {
            return Ok(cut);
        }
        let query = format!(
            "SELECT sequence, at, action, object_kind, object_id, organisation_id, detail \
             FROM audit_entries WHERE sequence > $1 AND outcome = 'done' \
             AND action IN ({ACTIONS}) ORDER BY sequence LIMIT {}",
            AT_ONCE + 1
        );
        let rows = sqlx::query(&query)
            .bind(i64::try_from(after).unwrap_or(i64::MAX))
            .fetch_all(&mut *connection)
            .await?;
        if rows.len() > AT_ONCE {
            return Ok(cut);
        }
        let actor = Actor {
            person: Some(person),
            grants: people::grants_of(connection, person, now).await?,
            now,
            has_reason: false,
        };
        let mut known: HashMap<(OrganisationId, Action), bool> = HashMap::new();
        let mut changes = Vec::new();
        for row in &rows {
            let change = read_row(row, person)?;
            if change.is_own {
                changes.push(change);
                continue;
            }
            let action = match change.kind.as_str() {
                "organisation" | "place" => Action::SeeOrganisation,
                _ => Action::SeePersons,
            };
            let is_of_sign_in = !Action::ALL.iter().any(|one| one.code() == change.action)
                && change.action != "import_organisations";
            let Some(organisation) = change.organisation.filter(|_| !is_of_sign_in) else {
                continue;
            };
            let is_seen = match known.get(&(organisation, action)) {
                Some(is_seen) => *is_seen,
                None => {
                    let subject = permit::subject(connection, organisation).await?;
                    let is_seen = subject.is_some_and(|subject| {
                        let decision = authority::can(&actor, action, &subject);
                        matches!(decision, Decision::Allowed(_))
                    });
                    known.insert((organisation, action), is_seen);
                    is_seen
                }
            };
            if is_seen {
                changes.push(change);
            }
        }
        Ok(Changes {
            changes,
            last,
            is_cut: false,
        })
    }
}

fn read_row(row: &AnyRow, person: PersonId) -> Result<Change, StoreError> {
    let detail: serde_json::Value =
        serde_json::from_str(&store::text(row, "detail")?).unwrap_or_default();
    let word = |name: &str| detail.get(name)?.as_str().map(str::to_owned);
    let id = store::maybe_text(row, "object_id")?;
    let own = person.to_string();
    Ok(Change {
        sequence: store::number(row, "sequence")? as u64,
        at: store::moment(row, "at")?,
        kind: store::text(row, "object_kind")?,
        is_own: id.as_ref() == Some(&own) || word("person").as_ref() == Some(&own),
        id,
        organisation: store::maybe_parsed(row, "organisation_id")?,
        action: store::text(row, "action")?,
        change: word("change"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::organisation::{Change as Edit, Kind, Level, NewOrganisation};
    use crate::store::Store;
    use crate::testing::{MORNING, appoint, by_machine, on_both_open, random};

    async fn organisation(
        directory: &Directory,
        name: &str,
        level: Level,
        parent: Option<OrganisationId>,
    ) -> OrganisationId {
        let mut source = random(name.len() as u64 + 100);
        let new = NewOrganisation {
            kind: Kind::Centre,
            level: Some(level),
            name: name.to_owned(),
            code: None,
            parent,
            cascade_parent: None,
        };
        let mut act = by_machine(&mut source);
        let made = directory.create_organisation(&mut act, new);
        made.await.unwrap().id
    }

    async fn rename(directory: &Directory, id: OrganisationId, version: u64) {
        let mut source = random(7);
        let edit = Edit::Rename(format!("第{version}名"));
        let mut act = by_machine(&mut source);
        let renamed = directory.change_organisation(&mut act, id, version, edit);
        renamed.await.unwrap();
    }

    async fn somebody(directory: &Directory, organisation: OrganisationId) -> PersonId {
        let mut source = random(3);
        let new = crate::people::NewPerson {
            name: "李四".to_owned(),
            login: "li.si".to_owned(),
        };
        let mut act = by_machine(&mut source);
        let made = directory.create_person(&mut act, organisation, new).await;
        made.unwrap().0.id
    }

    async fn begun(store: &Store) -> Directory {
        Directory::new(store.clone(), MORNING, &mut random(1))
            .await
            .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everybody_hears_of_what_they_may_see_and_of_nothing_else() {
        on_both_open(|store| async move {
            let directory = begun(&store).await;
            let province = organisation(&directory, "某某省", Level::Province, None).await;
            let city = organisation(&directory, "某市", Level::City, Some(province)).await;
            let other = organisation(&directory, "另外一市", Level::City, Some(province)).await;
            let head = appoint(&store, city, &["head"], MORNING).await;
            let mediator = appoint(&store, city, &["mediator"], MORNING).await;
            let stranger = appoint(&store, other, &["head"], MORNING).await;
            let begin = directory.audit_end().await.unwrap();
            rename(&directory, city, 1).await;
            let person = somebody(&directory, city).await;
            let told = |person, after| {
                let directory = directory.clone();
                async move { directory.changes(person, after, MORNING).await.unwrap() }
            };
            let words = |changes: &Changes| -> Vec<(String, Option<String>)> {
                let words = |change: &Change| (change.kind.clone(), change.change.clone());
                changes.changes.iter().map(words).collect()
            };
            let word = |kind: &str, change: &str| (kind.to_owned(), Some(change.to_owned()));
            let heard = told(head, begin).await;
            assert_eq!(
                words(&heard),
                [
                    word("organisation", "rename"),
                    word("person", "create"),
                    word("person", "invite")
                ]
            );
            assert!(!heard.changes[0].is_own && heard.changes[1].id == Some(person.to_string()));
            assert_eq!(
                words(&told(mediator, begin).await),
                [word("organisation", "rename")]
            );
            assert_eq!(words(&told(stranger, begin).await), []);
            // It is about oneself, whatever one may see of others.
            let own = told(person, begin).await;
            assert_eq!(
                words(&own),
                [word("person", "create"), word("person", "invite")]
            );
            assert!(own.changes.iter().all(|change| change.is_own));
            // From where one was.
            let last = heard.changes[0].sequence;
            assert_eq!(told(head, last).await.changes.len(), 2);
            assert_eq!(told(head, heard.last).await.changes, []);
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_missed_too_much_or_was_elsewhere_looks_at_everything_anew() {
        on_both_open(|store| async move {
            let directory = begun(&store).await;
            let province = organisation(&directory, "某某省", Level::Province, None).await;
            let head = appoint(&store, province, &["head"], MORNING).await;
            let begin = directory.audit_end().await.unwrap();
            for version in 1..=AT_ONCE as u64 {
                rename(&directory, province, version).await;
            }
            let heard = directory.changes(head, begin, MORNING).await.unwrap();
            assert_eq!((heard.changes.len(), heard.is_cut), (AT_ONCE, false));
            rename(&directory, province, AT_ONCE as u64 + 1).await;
            let heard = directory.changes(head, begin, MORNING).await.unwrap();
            assert_eq!((heard.changes.len(), heard.is_cut), (0, true));
            let elsewhere = directory
                .changes(head, heard.last + 1, MORNING)
                .await
                .unwrap();
            assert!(elsewhere.is_cut);
            let most = directory.changes(head, u64::MAX, MORNING).await.unwrap();
            assert!(most.is_cut);
        })
        .await;
    }
}
