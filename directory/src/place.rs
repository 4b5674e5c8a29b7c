//! Halls and rooms: places of an organisation. A hall (会场) has a sign-in and screens of its own; a room (功能室) is
//! where citizens are received, matters mediated, pictures watched. A village may use one room for several things.

use serde::Serialize;
use serde_json::json;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use crate::act::Act;
use crate::audit::{self, Fresh, Outcome};
use crate::authority::Action;
use crate::id::{OrganisationId, PlaceId};
use crate::organisation::{OrganisationError, name};
use crate::permit::{self, Denied};
use crate::store::{self, StoreError};
use crate::{Directory, Timestamp};

const ACTION: Action = Action::ManageOrganisations;

/// How many screens a hall has at most: two, for the people and the document.
const SCREENS: u8 = 2;

/// What a room is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// 群众接待厅
    Reception,
    /// 矛盾纠纷调处室
    Mediation,
    /// 监控研判室
    Monitoring,
    /// 心理咨询室; confidential
    Counselling,
    /// 社会组织场所
    SocialOrganisations,
}

impl Use {
    const ALL: [Use; 5] = [
        Use::Reception,
        Use::Mediation,
        Use::Monitoring,
        Use::Counselling,
        Use::SocialOrganisations,
    ];

    fn code(self) -> &'static str {
        match self {
            Use::Reception => "reception",
            Use::Mediation => "mediation",
            Use::Monitoring => "monitoring",
            Use::Counselling => "counselling",
            Use::SocialOrganisations => "social_organisations",
        }
    }
}

/// What a place is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceKind {
    /// A hall with one or two screens.
    Hall {
        /// How many.
        screens: u8,
    },
    /// A room with its uses, one at least.
    Room {
        /// Which.
        uses: Vec<Use>,
    },
}

/// A hall or room to be made, or as it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceData {
    /// As shown.
    pub name: String,
    /// What it is.
    pub kind: PlaceKind,
    /// How many people it seats.
    pub seats: Option<u16>,
}

/// A hall or room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// For ever.
    pub id: PlaceId,
    /// Whose.
    pub organisation: OrganisationId,
    /// As shown.
    pub name: String,
    /// What it is.
    pub kind: PlaceKind,
    /// How many people it seats.
    pub seats: Option<u16>,
    /// Since when it is not used any more.
    pub closed_at: Option<Timestamp>,
    /// How often it was changed, and once for its making.
    pub version: u64,
}

/// Why a place was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is no right to it, or no such thing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Its organisation does not work, or the name can't be used.
    #[error(transparent)]
    Organisation(#[from] OrganisationError),
    /// Somebody changed it meanwhile: look at it again.
    #[error("it was changed meanwhile: it has version {current} now")]
    Stale {
        /// The version that it has now.
        current: u64,
    },
    /// A hall has one or two screens, a room at least one use.
    #[error("a hall has one or two screens, a room at least one use")]
    BadKind,
    /// It is not used any more.
    #[error("it is not used any more")]
    Closed,
}

impl From<StoreError> for PlaceError {
    fn from(error: StoreError) -> PlaceError {
        PlaceError::Denied(Denied::Store(error))
    }
}

impl From<sqlx::Error> for PlaceError {
    fn from(error: sqlx::Error) -> PlaceError {
        PlaceError::from(StoreError::from(error))
    }
}

impl Directory {
    /// Makes a hall or room.
    pub async fn create_place(
        &self,
        act: &mut Act<'_>,
        organisation: OrganisationId,
        data: PlaceData,
    ) -> Result<Place, PlaceError> {
        let mut writing = self.begin(act, ACTION, organisation).await?;
        let connection = writing.connection();
        crate::organisation::active(connection, organisation).await?;
        let data = checked(data)?;
        let place = Place {
            id: PlaceId::draw(act.now, act.random),
            organisation,
            name: data.name,
            kind: data.kind,
            seats: data.seats,
            closed_at: None,
            version: 1,
        };
        let (kind, uses, screens) = columns(&place.kind);
        let query = format!(
            "INSERT INTO places (id, organisation_id, kind, name, uses, screens, seats, version, \
             sort_key) VALUES {}",
            store::places(1, 9)
        );
        sqlx::query(&query)
            .bind(place.id.to_string())
            .bind(organisation.to_string())
            .bind(kind)
            .bind(place.name.clone())
            .bind(uses)
            .bind(screens)
            .bind(place.seats.map(i64::from))
            .bind(1_i64)
            .bind(name::sort_key(None, &place.name, &place.id.to_string()))
            .execute(&mut *connection)
            .await?;
        record(connection, act, "create", None, &place).await?;
        writing.commit().await?;
        Ok(place)
    }

    /// Changes a hall or room of which `version` was seen; with no data, closes it and revokes its device keys.
    pub async fn change_place(
        &self,
        act: &mut Act<'_>,
        id: PlaceId,
        version: u64,
        data: Option<PlaceData>,
    ) -> Result<Place, PlaceError> {
        let organisation = self.organisation_of_place(id).await?;
        let mut writing = self.begin(act, ACTION, organisation).await?;
        let connection = writing.connection();
        let old = find(connection, id).await?.ok_or(Denied::NotFound)?;
        if old.organisation != organisation {
            return Err(Denied::NotFound.into());
        }
        if old.version != version {
            let current = old.version;
            return Err(PlaceError::Stale { current });
        }
        if old.closed_at.is_some() {
            return Err(PlaceError::Closed);
        }
        let mut new = old.clone();
        new.version += 1;
        match data {
            Some(data) => {
                let data = checked(data)?;
                (new.name, new.kind, new.seats) = (data.name, data.kind, data.seats);
            }
            None => new.closed_at = Some(act.now),
        }
        let (kind, uses, screens) = columns(&new.kind);
        let query = "UPDATE places SET kind = $1, name = $2, uses = $3, screens = $4, seats = $5, \
                     closed_at = $6, version = $7, sort_key = $8 WHERE id = $9";
        sqlx::query(query)
            .bind(kind)
            .bind(new.name.clone())
            .bind(uses)
            .bind(screens)
            .bind(new.seats.map(i64::from))
            .bind(new.closed_at.map(Timestamp::as_millis))
            .bind(new.version as i64)
            .bind(name::sort_key(None, &new.name, &id.to_string()))
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        let change = if new.closed_at.is_some() {
            "close"
        } else {
            "change"
        };
        if new.closed_at.is_some() {
            let query =
                "UPDATE device_keys SET revoked_at = $1 WHERE place_id = $2 AND revoked_at IS NULL";
            sqlx::query(query)
                .bind(act.now.as_millis())
                .bind(id.to_string())
                .execute(&mut *connection)
                .await?;
        }
        record(connection, act, change, Some(&old), &new).await?;
        writing.commit().await?;
        Ok(new)
    }

    /// An organisation's halls and rooms that are in use.
    pub async fn places(
        &self,
        act: &Act<'_>,
        organisation: OrganisationId,
    ) -> Result<Vec<Place>, Denied> {
        let mut reading = self.store.read().await?;
        let connection = reading.connection();
        permit::decide(connection, act, Action::SeeOrganisation, organisation).await??;
        let query = "SELECT * FROM places WHERE organisation_id = $1 AND closed_at IS NULL \
                     ORDER BY sort_key";
        let rows = sqlx::query(query)
            .bind(organisation.to_string())
            .fetch_all(connection)
            .await?;
        Ok(rows.iter().map(read_row).collect::<Result<_, _>>()?)
    }

    /// One hall or room, that is not used any more perhaps.
    pub async fn place(&self, act: &Act<'_>, id: PlaceId) -> Result<Place, Denied> {
        let mut reading = self.store.read().await?;
        let connection = reading.connection();
        let place = find(connection, id).await?.ok_or(Denied::NotFound)?;
        permit::decide(connection, act, Action::SeeOrganisation, place.organisation).await??;
        Ok(place)
    }

    /// Whose a place is.
    pub(crate) async fn organisation_of_place(
        &self,
        id: PlaceId,
    ) -> Result<OrganisationId, Denied> {
        let mut reading = self.store.read().await?;
        let place = find(reading.connection(), id).await?;
        place
            .map(|place| place.organisation)
            .ok_or(Denied::NotFound)
    }
}

/// One place.
pub(crate) async fn find(
    connection: &mut AnyConnection,
    id: PlaceId,
) -> Result<Option<Place>, StoreError> {
    let row = sqlx::query("SELECT * FROM places WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read_row).transpose()
}

/// What was asked for, if it can be a place.
fn checked(mut data: PlaceData) -> Result<PlaceData, PlaceError> {
    data.name = name::read_name(&data.name).ok_or(OrganisationError::BadName)?;
    match &mut data.kind {
        PlaceKind::Hall { screens } if (1..=SCREENS).contains(screens) => {}
        PlaceKind::Room { uses } if !uses.is_empty() => {
            uses.sort();
            uses.dedup();
        }
        _ => return Err(PlaceError::BadKind),
    }
    Ok(data)
}

fn columns(kind: &PlaceKind) -> (&'static str, String, i64) {
    match kind {
        PlaceKind::Hall { screens } => ("hall", String::new(), i64::from(*screens)),
        PlaceKind::Room { uses } => {
            let uses: Vec<&str> = uses.iter().map(|one| one.code()).collect();
            ("room", uses.join(","), 0)
        }
    }
}

fn read_row(row: &AnyRow) -> Result<Place, StoreError> {
    let kind = match store::text(row, "kind")?.as_str() {
        "hall" => PlaceKind::Hall {
            screens: u8::try_from(store::number(row, "screens")?)
                .map_err(|_| StoreError::Unreadable("screens"))?,
        },
        "room" => PlaceKind::Room {
            uses: store::text(row, "uses")?
                .split(',')
                .map(|code| {
                    let found = Use::ALL.into_iter().find(|one| one.code() == code);
                    found.ok_or(StoreError::Unreadable("uses"))
                })
                .collect::<Result<_, _>>()?,
        },
        _ => return Err(StoreError::Unreadable("kind")),
    };
    Ok(Place {
        id: store::parsed(row, "id")?,
        organisation: store::parsed(row, "organisation_id")?,
        name: store::text(row, "name")?,
        kind,
        seats: store::maybe_number(row, "seats")?.and_then(|seats| u16::try_from(seats).ok()),
        closed_at: store::maybe_moment(row, "closed_at")?,
        version: store::number(row, "version")? as u64,
    })
}

async fn record(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    change: &str,
    old: Option<&Place>,
    new: &Place,
) -> Result<(), StoreError> {
    let fresh = Fresh {
        action: ACTION.code(),
        object_kind: "place",
        object_id: Some(new.id.to_string()),
        organisation: Some(new.organisation),
        outcome: Outcome::Done,
        detail: json!({ "change": change, "before": old, "after": new }),
    };
    audit::append(connection, act, fresh).await?;
    Ok(())
}
