//! Every change begins here: the transaction is opened, the actor's grants are read in it, [`authority::can`] is asked,
//! and a refusal is written into the audit log.
//!
//! Invariant: rights are those of the moment of the change. Who has just lost them can't use what was read before.

use sqlx::AnyConnection;

use crate::Directory;
use crate::act::{Act, Who};
use crate::audit::{self, Fresh, Outcome};
use crate::authority::{self, Action, Actor, Decision, Lineage, Refusal, Share, Subject};
use crate::id::OrganisationId;
use crate::people;
use crate::store::{self, Store, StoreError, Writing};

/// Why something was not done, whatever it was.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// There is no such thing, as far as the actor may know.
    #[error("there is no such thing")]
    NotFound,
    /// The actor knows of it and may not.
    #[error("this may not be done")]
    Refused(Refusal),
    /// It may be done once the reason is said.
    #[error("a reason must be said")]
    ReasonNeeded,
    /// It may be done once another person has approved it.
    #[error("another person must approve")]
    SecondPersonNeeded,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for Denied {
    fn from(error: sqlx::Error) -> Denied {
        Denied::Store(error.into())
    }
}

/// Opens the transaction for a change to what an organisation has, if the actor may.
pub(crate) async fn begin(
    store: &Store,
    act: &Act<'_>,
    action: Action,
    organisation: OrganisationId,
) -> Result<Writing, Denied> {
    also(store.write().await?, act, action, organisation).await
}

/// Asks once more within the transaction, which is given back if the answer is yes. If it is no, only that is kept.
pub(crate) async fn also(
    mut writing: Writing,
    act: &Act<'_>,
    action: Action,
    organisation: OrganisationId,
) -> Result<Writing, Denied> {
    let decision = decide(writing.connection(), act, action, organisation).await?;
    let denied = match decision {
        Ok(()) => return Ok(writing),
        Err(denied) => denied,
    };
    // What came before in this transaction goes; the refusal stays.
    drop(writing);
    Err(denied)
}

/// The decision on an action and an organisation.
pub(crate) async fn decide(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    action: Action,
    organisation: OrganisationId,
) -> Result<Result<(), Denied>, StoreError> {
    let Some(subject) = subject(connection, organisation).await? else {
        return Ok(Err(Denied::NotFound));
    };
    let actor = match act.who {
        Who::Machine => return Ok(Ok(())),
        Who::Nobody | Who::Hall(_) => return Ok(Err(Denied::NotFound)),
        Who::Person(person) => Actor {
            person: Some(person),
            grants: people::grants_of(connection, person, act.now).await?,
            now: act.now,
            has_reason: act.reason.as_deref().is_some_and(is_reason),
        },
    };
    Ok(match authority::can(&actor, action, &subject) {
        Decision::Allowed(_) => Ok(()),
        Decision::NeedsReason(_) => Err(Denied::ReasonNeeded),
        Decision::NeedsSecondPerson(_) => Err(Denied::SecondPersonNeeded),
        Decision::Refused(refusal) => Err(Denied::Refused(refusal)),
        Decision::Hidden => Err(Denied::NotFound),
    })
}

impl Directory {
    /// What somebody may do to an organisation and what is its own, as it stands without a reason said: for what a page
    /// shows. It decides nothing; each act is asked about anew.
    pub async fn rights(
        &self,
        act: &Act<'_>,
        organisation: OrganisationId,
    ) -> Result<Vec<(Action, Decision)>, Denied> {
        let person = act.who.person().ok_or(Denied::NotFound)?;
        let mut reading = self.store.read().await?;
        let connection = reading.connection();
        let subject = subject(connection, organisation).await?;
        let subject = subject.ok_or(Denied::NotFound)?;
        let actor = Actor {
            person: Some(person),
            grants: people::grants_of(connection, person, act.now).await?,
            now: act.now,
            has_reason: false,
        };
        if authority::can(&actor, Action::SeeOrganisation, &subject) == Decision::Hidden {
            return Err(Denied::NotFound);
        }
        let of_organisations = Action::ALL
            .iter()
            .filter(|action| action.kind() == authority::Kind::Organisation);
        Ok(of_organisations
            .map(|action| (*action, authority::can(&actor, *action, &subject)))
            .collect())
    }
}

/// Writes a refusal down, in a transaction of its own.
pub(crate) async fn note_refusal(
    store: &Store,
    act: &Act<'_>,
    action: Action,
    organisation: OrganisationId,
) -> Result<(), StoreError> {
    let mut writing = store.write().await?;
    let entry = Fresh {
        action: action.code(),
        object_kind: "organisation",
        object_id: Some(organisation.to_string()),
        organisation: Some(organisation),
        outcome: Outcome::Refused,
        detail: serde_json::Value::Null,
    };
    audit::append(writing.connection(), act, entry).await?;
    writing.commit().await
}

/// Whether somebody said something for a reason: a word at least.
pub(crate) fn is_reason(text: &str) -> bool {
    text.trim().chars().count() >= 2
}

/// An organisation with all above it; `None` if there is none.
pub(crate) async fn lineage(
    connection: &mut AnyConnection,
    organisation: OrganisationId,
) -> Result<Option<Lineage>, StoreError> {
    let query = "SELECT ancestor_id FROM organisation_lineages WHERE organisation_id = $1 \
                 ORDER BY depth DESC";
    let rows = sqlx::query(query)
        .bind(organisation.to_string())
        .fetch_all(connection)
        .await?;
    let mut above = rows
        .iter()
        .map(|row| store::parsed(row, "ancestor_id"))
        .collect::<Result<Vec<OrganisationId>, StoreError>>()?;
    Ok(above.pop().map(|own| Lineage::new(above, own)))
}

/// An organisation as the subject of an action, with what it shares.
pub(crate) async fn subject(
    connection: &mut AnyConnection,
    organisation: OrganisationId,
) -> Result<Option<Subject>, StoreError> {
    let Some(at) = lineage(connection, organisation).await? else {
        return Ok(None);
    };
    let query = "SELECT with_id, actions, ends_at FROM organisation_shares \
                 WHERE organisation_id = $1 AND ended_at IS NULL";
    let rows = sqlx::query(query)
        .bind(organisation.to_string())
        .fetch_all(connection)
        .await?;
    let mut subject = Subject::organisation(at);
    for row in &rows {
        let actions = store::text(row, "actions")?;
        subject.shares.push(Share {
            with: store::parsed(row, "with_id")?,
            actions: actions
                .split(',')
                .map(|action| {
                    action
                        .parse()
                        .map_err(|_| StoreError::Unreadable("actions"))
                })
                .collect::<Result<_, _>>()?,
            ends_at: store::moment(row, "ends_at")?,
        });
    }
    Ok(Some(subject))
}
