//! Letting another branch look at something: for a purpose, until a day.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::{OrganisationError, active};
use crate::act::Act;
use crate::audit::{self, Fresh, Outcome};
use crate::authority::Action;
use crate::id::{GrantId, OrganisationId};
use crate::permit::{self, Denied};
use crate::store::{self, StoreError};
use crate::{Directory, Timestamp};

/// How long something is shared at most. What is needed for longer is shared anew, by somebody who looks at it anew.
pub const LONGEST_SHARE: Duration = Duration::from_secs(366 * 24 * 3600);

const ACTION: Action = Action::ShareOrganisation;

/// Something to be shared.
#[derive(Clone, Debug)]
pub struct NewShare {
    /// With whom, and all under it.
    pub with: OrganisationId,
    /// What may be done: only what looks ([`Action::is_shareable`]).
    pub actions: Vec<Action>,
    /// What for.
    pub purpose: String,
    /// Until before when.
    pub ends_at: Timestamp,
}

/// Something that an organisation shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharedWith {
    /// Names it.
    pub id: GrantId,
    /// With whom, and all under it.
    pub with: OrganisationId,
    /// What may be done, by the actions' codes.
    pub actions: Vec<String>,
    /// What for.
    pub purpose: String,
    /// Until before when.
    pub ends_at: Timestamp,
}

impl Directory {
    /// Lets an organisation of another branch look at something of this one. Its id is known from its own people, so that
    /// nobody looks through other branches to find it.
    pub async fn share_organisation(
        &self,
        act: &mut Act<'_>,
        organisation: OrganisationId,
        new: NewShare,
    ) -> Result<SharedWith, OrganisationError> {
        let mut writing = self.begin(act, ACTION, organisation).await?;
        let connection = writing.connection();
        active(connection, organisation).await?;
        let other = active(connection, new.with).await?;
        let own = permit::lineage(connection, organisation).await?;
        let theirs = permit::lineage(connection, other.id).await?;
        let is_beside = own.is_some_and(|own| !own.is_in(other.id))
            && theirs.is_some_and(|theirs| !theirs.is_in(organisation));
        let mut actions = new.actions;
        actions.sort();
        actions.dedup();
        let is_good = is_beside
            && !actions.is_empty()
            && actions.iter().all(|action| action.is_shareable())
            && permit::is_reason(&new.purpose)
            && new.ends_at > act.now
            && new.ends_at.since(act.now) <= LONGEST_SHARE;
        if !is_good {
            return Err(OrganisationError::BadShare);
        }
        let share = SharedWith {
            id: GrantId::draw(act.now, act.random),
            with: new.with,
            actions: actions.iter().map(ToString::to_string).collect(),
            purpose: new.purpose.trim().to_owned(),
            ends_at: new.ends_at,
        };
        let query = "INSERT INTO organisation_shares (id, organisation_id, with_id, actions, \
                     purpose, ends_at) VALUES ($1, $2, $3, $4, $5, $6)";
        sqlx::query(query)
            .bind(share.id.to_string())
            .bind(organisation.to_string())
            .bind(share.with.to_string())
            .bind(share.actions.join(","))
            .bind(share.purpose.clone())
            .bind(share.ends_at.as_millis())
            .execute(&mut *connection)
            .await?;
        record(
            connection,
            act,
            organisation,
            json!({ "change": "share", "share": share }),
        )
        .await?;
        writing.commit().await?;
        Ok(share)
    }

    /// Ends what an organisation shares, before its day.
    pub async fn end_share(
        &self,
        act: &mut Act<'_>,
        organisation: OrganisationId,
        id: GrantId,
    ) -> Result<(), OrganisationError> {
        let mut writing = self.begin(act, ACTION, organisation).await?;
        let connection = writing.connection();
        let query = "UPDATE organisation_shares SET ended_at = $1 \
                     WHERE id = $2 AND organisation_id = $3 AND ended_at IS NULL";
        let ended = sqlx::query(query)
            .bind(act.now.as_millis())
            .bind(id.to_string())
            .bind(organisation.to_string())
            .execute(&mut *connection)
            .await?;
        if ended.rows_affected() == 0 {
            return Err(Denied::NotFound.into());
        }
        record(
            connection,
            act,
            organisation,
            json!({ "change": "end_share", "share": id }),
        )
        .await?;
        writing.commit().await?;
        Ok(())
    }

    /// What an organisation shares now.
    pub async fn shares(
        &self,
        act: &Act<'_>,
        organisation: OrganisationId,
    ) -> Result<Vec<SharedWith>, Denied> {
        let mut reading = self.store.read().await?;
        let connection = reading.connection();
        permit::decide(connection, act, ACTION, organisation).await??;
        let query = "SELECT id, with_id, actions, purpose, ends_at FROM organisation_shares \
                     WHERE organisation_id = $1 AND ended_at IS NULL AND ends_at > $2 ORDER BY id";
        let rows = sqlx::query(query)
            .bind(organisation.to_string())
            .bind(act.now.as_millis())
            .fetch_all(connection)
            .await?;
        let read = |row: &AnyRow| -> Result<SharedWith, StoreError> {
            Ok(SharedWith {
                id: store::parsed(row, "id")?,
                with: store::parsed(row, "with_id")?,
                actions: store::text(row, "actions")?
                    .split(',')
                    .map(str::to_owned)
                    .collect(),
                purpose: store::text(row, "purpose")?,
                ends_at: store::moment(row, "ends_at")?,
            })
        };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }
}

async fn record(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    organisation: OrganisationId,
    detail: serde_json::Value,
) -> Result<(), StoreError> {
    let fresh = Fresh {
        action: ACTION.code(),
        object_kind: "organisation",
        object_id: Some(organisation.to_string()),
        organisation: Some(organisation),
        outcome: Outcome::Done,
        detail,
    };
    audit::append(connection, act, fresh).await
}
