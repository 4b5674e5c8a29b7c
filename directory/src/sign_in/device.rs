//! Device keys: with one, a hall's terminal signs in by itself.

use std::fmt;

use serde::Serialize;
use serde_json::json;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::SignIn;
use crate::Timestamp;
use crate::act::{Act, Who};
use crate::audit::{self, Fresh, Outcome};
use crate::authority::Action;
use crate::id::{DeviceKeyId, PlaceId};
use crate::organisation::name;
use crate::people::{self, PeopleError};
use crate::permit::Denied;
use crate::place::{self, Place, PlaceKind};
use crate::store;

use super::SignInError;

const ACTION: Action = Action::IssueHallKeys;

/// What the terminal keeps; 256 bits that nobody can guess. Shown once; only its hash is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceKeyToken(String);

impl DeviceKeyToken {
    /// As it is typed or copied into the terminal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DeviceKeyToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("DeviceKeyToken(…)")
    }
}

/// A hall's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceKey {
    /// Names it; opens nothing.
    pub id: DeviceKeyId,
    /// Which hall's.
    pub place: PlaceId,
    /// Which terminal has it.
    pub name: String,
    /// Since when.
    pub created_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// Since when it opens nothing.
    pub revoked_at: Option<Timestamp>,
}

impl SignIn {
    /// Makes a key for a hall's terminal.
    pub async fn issue_device_key(
        &self,
        act: &mut Act<'_>,
        hall: PlaceId,
        terminal: &str,
    ) -> Result<(DeviceKey, DeviceKeyToken), SignInError> {
        let organisation = self.directory.organisation_of_place(hall).await?;
        let mut writing = self.directory.begin(act, ACTION, organisation).await?;
        let connection = writing.connection();
        let found = place::find(connection, hall).await?.filter(|place| {
            let is_hall = matches!(place.kind, PlaceKind::Hall { .. });
            is_hall && place.closed_at.is_none() && place.organisation == organisation
        });
        if found.is_none() {
            return Err(Denied::NotFound.into());
        }
        let key = DeviceKey {
            id: DeviceKeyId::draw(act.now, act.random),
            place: hall,
            name: name::read_name(terminal).ok_or(PeopleError::BadName)?,
            created_at: act.now,
            last_used_at: None,
            revoked_at: None,
        };
        let token = people::draw_token(act.random);
        let query = "INSERT INTO device_keys (id, place_id, name, key_hash, created_at, created_by) \
                     VALUES ($1, $2, $3, $4, $5, $6)";
        sqlx::query(query)
            .bind(key.id.to_string())
            .bind(hall.to_string())
            .bind(key.name.clone())
            .bind(people::token_hash(&token))
            .bind(act.now.as_millis())
            .bind(act.who.id())
            .execute(&mut *connection)
            .await?;
        let fresh = Fresh {
            action: ACTION.code(),
            object_kind: "place",
            object_id: Some(hall.to_string()),
            organisation: Some(organisation),
            outcome: Outcome::Done,
            detail: json!({ "change": "issue", "key": key.id, "name": key.name }),
        };
        audit::append(connection, act, fresh).await?;
        writing.commit().await?;
        Ok((key, DeviceKeyToken(token)))
    }

    /// The key opens nothing from now on.
    pub async fn revoke_device_key(
        &self,
        act: &mut Act<'_>,
        hall: PlaceId,
        key: DeviceKeyId,
    ) -> Result<(), SignInError> {
        let organisation = self.directory.organisation_of_place(hall).await?;
        let mut writing = self.directory.begin(act, ACTION, organisation).await?;
        let connection = writing.connection();
        let query = "UPDATE device_keys SET revoked_at = $1 \
                     WHERE id = $2 AND place_id = $3 AND revoked_at IS NULL";
        let revoked = sqlx::query(query)
            .bind(act.now.as_millis())
            .bind(key.to_string())
            .bind(hall.to_string())
            .execute(&mut *connection)
            .await?;
        if revoked.rows_affected() == 0 {
            return Err(Denied::NotFound.into());
        }
        let fresh = Fresh {
            action: ACTION.code(),
            object_kind: "place",
            object_id: Some(hall.to_string()),
            organisation: Some(organisation),
            outcome: Outcome::Done,
            detail: json!({ "change": "revoke", "key": key }),
        };
        audit::append(connection, act, fresh).await?;
        writing.commit().await?;
        Ok(())
    }

    /// A hall's keys, those that open nothing any more too.
    pub async fn device_keys(
        &self,
        act: &Act<'_>,
        hall: PlaceId,
    ) -> Result<Vec<DeviceKey>, SignInError> {
        let organisation = self.directory.organisation_of_place(hall).await?;
        let mut writing = self.directory.begin(act, ACTION, organisation).await?;
        let query = "SELECT * FROM device_keys WHERE place_id = $1 ORDER BY created_at, id";
        let rows = sqlx::query(query)
            .bind(hall.to_string())
            .fetch_all(writing.connection())
            .await?;
        rows.iter()
            .map(|row| {
                Ok(DeviceKey {
                    id: store::parsed(row, "id")?,
                    place: store::parsed(row, "place_id")?,
                    name: store::text(row, "name")?,
                    created_at: store::moment(row, "created_at")?,
                    last_used_at: store::maybe_moment(row, "last_used_at")?,
                    revoked_at: store::maybe_moment(row, "revoked_at")?,
                })
            })
            .collect()
    }

    /// Which hall a key opens now. Nothing is written down: for what a terminal that has signed in goes on to ask.
    pub async fn hall(&self, token: &str) -> Result<Place, SignInError> {
        let mut reading = self.directory.store.read().await?;
        let connection = reading.connection();
        let row = find_key(connection, token).await?;
        let place = place::find(connection, store::parsed(&row, "place_id")?).await?;
        place.ok_or(SignInError::Wrong)
    }

    /// Which hall a key opens, if it is good: not revoked, and the hall and its organisation in use. Written down.
    pub async fn sign_in_hall(
        &self,
        act: &mut Act<'_>,
        token: &str,
    ) -> Result<PlaceId, SignInError> {
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        let row = find_key(connection, token).await?;
        let place: PlaceId = store::parsed(&row, "place_id")?;
        act.who = Who::Hall(place);
        sqlx::query("UPDATE device_keys SET last_used_at = $1 WHERE id = $2")
            .bind(act.now.as_millis())
            .bind(store::text(&row, "id")?)
            .execute(&mut *connection)
            .await?;
        let fresh = Fresh {
            action: "sign_in",
            object_kind: "place",
            object_id: Some(place.to_string()),
            organisation: Some(store::parsed(&row, "organisation_id")?),
            outcome: Outcome::Done,
            detail: json!({ "by": "device_key", "key": store::text(&row, "id")? }),
        };
        audit::append(connection, act, fresh).await?;
        writing.commit().await?;
        Ok(place)
    }
}

/// A key that is good.
async fn find_key(connection: &mut AnyConnection, token: &str) -> Result<AnyRow, SignInError> {
    let query = "SELECT k.id, k.place_id, p.organisation_id FROM device_keys k \
                 JOIN places p ON p.id = k.place_id \
                 JOIN organisations o ON o.id = p.organisation_id \
                 WHERE k.key_hash = $1 AND k.revoked_at IS NULL \
                 AND p.closed_at IS NULL AND o.state = 'active'";
    sqlx::query(query)
        .bind(people::token_hash(token))
        .fetch_optional(connection)
        .await?
        .ok_or(SignInError::Wrong)
}
