//! Organisations: the tree of five levels with its departments, committees and grids.
//!
//! An organisation has an id for ever. Its division code is an attribute that it may lose, change and get again; its
//! parent says whose branch it is in; its cascade parent, an edge of its own, says whose node its own node joins.
//! Levels may be skipped: 东莞 has no counties, a county may lie directly under its province.
//!
//! Invariants: the tree has no cycles, nor has the cascade; a centre's level is below its parent's; nothing is ever
//! deleted, and each version that an organisation had can be read ([`Directory::organisation_history`]); who changes
//! something says which version was seen, and is told when that is not the last ([`OrganisationError::Stale`]).

mod change;
mod code;
pub mod import;
mod list;
pub(crate) mod name;
mod share;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

pub use change::{Change, NewOrganisation, Successor};
pub(crate) use change::{active, found};
pub use code::{DivisionCode, NotACode};
pub use list::{OrganisationPage, OrganisationQuery};
pub use share::{LONGEST_SHARE, NewShare, SharedWith};

#[cfg(doc)]
use crate::Directory;
use crate::Timestamp;
use crate::id::OrganisationId;
use crate::permit::Denied;
use crate::store::{self, StoreError};

/// One of the five levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// 省、自治区、直辖市
    Province = 1,
    /// 市、地、州、盟
    City = 2,
    /// 县、市、区、旗
    County = 3,
    /// 乡镇、街道
    Township = 4,
    /// 村、社区
    Village = 5,
}

impl Level {
    /// From the highest to the lowest.
    pub const ALL: [Level; 5] = [
        Level::Province,
        Level::City,
        Level::County,
        Level::Township,
        Level::Village,
    ];

    /// As people call it.
    pub fn chinese(self) -> &'static str {
        match self {
            Level::Province => "省级",
            Level::City => "市级",
            Level::County => "县级",
            Level::Township => "乡镇级",
            Level::Village => "村级",
        }
    }
}

/// What kind of organisation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The centre of a level: 综治中心.
    Centre,
    /// A department beside the levels: 公安、司法行政、信访、法院 …
    Department,
    /// A people's mediation committee: 人民调解委员会.
    Committee,
    /// A grid below a village: 网格.
    Grid,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Centre, Kind::Department, Kind::Committee, Kind::Grid];

    /// As it is written in the database and in imports.
    pub fn code(self) -> &'static str {
        match self {
            Kind::Centre => "centre",
            Kind::Department => "department",
            Kind::Committee => "committee",
            Kind::Grid => "grid",
        }
    }

    /// As people call it.
    pub fn chinese(self) -> &'static str {
        match self {
            Kind::Centre => "综治中心",
            Kind::Department => "部门",
            Kind::Committee => "调解委员会",
            Kind::Grid => "网格",
        }
    }
}

/// Whether an organisation works, and if not, what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// 启用
    Active,
    /// 停用
    Closed,
    /// 并入
    Merged,
    /// 拆分
    Split,
}

impl State {
    pub(crate) fn code(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Closed => "closed",
            State::Merged => "merged",
            State::Split => "split",
        }
    }
}

/// The text names nothing that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such thing")]
pub struct NoSuch;

impl FromStr for Kind {
    type Err = NoSuch;

    fn from_str(text: &str) -> Result<Kind, NoSuch> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.code() == text);
        kind.ok_or(NoSuch)
    }
}

impl FromStr for State {
    type Err = NoSuch;

    fn from_str(text: &str) -> Result<State, NoSuch> {
        let all = [State::Active, State::Closed, State::Merged, State::Split];
        let state = all.into_iter().find(|state| state.code() == text);
        state.ok_or(NoSuch)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.code())
    }
}

/// An organisation as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Organisation {
    /// For ever.
    pub id: OrganisationId,
    /// What it is.
    pub kind: Kind,
    /// A centre's level; others have none.
    pub level: Option<Level>,
    /// As shown.
    pub name: String,
    /// Its division code now.
    pub code: Option<DivisionCode>,
    /// Whose branch it is in; a province has none.
    pub parent: Option<OrganisationId>,
    /// Whose node its own node joins, where that is not its parent's.
    pub cascade_parent: Option<OrganisationId>,
    /// Whether it works.
    pub state: State,
    /// Since when it is here.
    pub created_at: Timestamp,
    /// Since when it does not work any more.
    pub closed_at: Option<Timestamp>,
    /// How often it was changed, and once for its making.
    pub version: u64,
}

/// What an organisation was at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Counts from 1.
    pub version: u64,
    /// Since when.
    pub at: Timestamp,
    /// What made it so: `create`, `rename`, `recode`, `move`, `cascade`, `merge`, `split`, `close`.
    pub change: String,
    /// Its name.
    pub name: String,
    /// Its division code.
    pub code: Option<DivisionCode>,
    /// Its parent.
    pub parent: Option<OrganisationId>,
    /// Its cascade parent.
    pub cascade_parent: Option<OrganisationId>,
    /// Whether it worked.
    pub state: State,
}

/// Why an organisation was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum OrganisationError {
    /// There is no right to it, or no such thing.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Somebody changed it meanwhile: look at it again.
    #[error("it was changed meanwhile: it has version {current} now")]
    Stale {
        /// The version that it has now.
        current: u64,
    },
    /// A name has 1 to 64 characters and no control characters.
    #[error("the name can't be used")]
    BadName,
    /// A centre has a level, and nothing else has.
    #[error("a centre has a level, and nothing else has")]
    WrongLevel,
    /// A centre's level is below that of its parent, which is a centre too; only a province has none.
    #[error("this can't be under that")]
    WrongParent,
    /// It would be under itself.
    #[error("it would be under itself")]
    Cycle,
    /// Only centres have nodes, and a node can't join itself, over whatever others.
    #[error("its node would join itself")]
    CascadeCycle,
    /// Another organisation has this division code now.
    #[error("another organisation has this code")]
    CodeTaken,
    /// It does not work any more.
    #[error("it does not work any more")]
    NotActive,
    /// Others are still under it, or people in it.
    #[error("it is not empty")]
    NotEmpty,
    /// What is shared must be something to look at, for a purpose, with an organisation of another branch, until a day
    /// that is not too far.
    #[error("this can't be shared")]
    BadShare,
    /// It must be said to which successor each organisation under it goes.
    #[error("it is not said where each organisation under it goes")]
    ChildrenLeft,
}

impl From<StoreError> for OrganisationError {
    fn from(error: StoreError) -> OrganisationError {
        OrganisationError::Denied(Denied::Store(error))
    }
}

impl From<sqlx::Error> for OrganisationError {
    fn from(error: sqlx::Error) -> OrganisationError {
        OrganisationError::from(StoreError::from(error))
    }
}

/// What is read of an organisation, with its code of now.
const COLUMNS: &str = "o.id, o.kind, o.level, o.name, o.parent_id, o.cascade_parent_id, o.state, \
                       o.created_at, o.closed_at, o.version, o.sort_key, c.code";

/// Where it is read from.
const TABLES: &str = "organisations o LEFT JOIN division_codes c \
                      ON c.organisation_id = o.id AND c.valid_to IS NULL";

fn read_level(level: i64) -> Result<Option<Level>, StoreError> {
    match level {
        0 => Ok(None),
        level => {
            let known = Level::ALL.into_iter().find(|known| *known as i64 == level);
            known.map(Some).ok_or(StoreError::Unreadable("level"))
        }
    }
}

fn read_row(row: &AnyRow) -> Result<Organisation, StoreError> {
    Ok(Organisation {
        id: store::parsed(row, "id")?,
        kind: store::parsed(row, "kind")?,
        level: read_level(store::number(row, "level")?)?,
        name: store::text(row, "name")?,
        code: store::maybe_parsed(row, "code")?,
        parent: store::maybe_parsed(row, "parent_id")?,
        cascade_parent: store::maybe_parsed(row, "cascade_parent_id")?,
        state: store::parsed(row, "state")?,
        created_at: store::moment(row, "created_at")?,
        closed_at: store::maybe_moment(row, "closed_at")?,
        version: store::number(row, "version")? as u64,
    })
}

/// One organisation.
pub(crate) async fn find(
    connection: &mut AnyConnection,
    id: OrganisationId,
) -> Result<Option<Organisation>, StoreError> {
    let query = format!("SELECT {COLUMNS} FROM {TABLES} WHERE o.id = $1");
    let row = sqlx::query(&query)
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read_row).transpose()
}

/// Whether a kind of some level may be under another.
fn may_be_under(kind: Kind, level: Option<Level>, parent: Option<(Kind, Option<Level>)>) -> bool {
    match (kind, level, parent) {
        (Kind::Centre, Some(Level::Province), None) => true,
        (Kind::Centre, Some(level), Some((Kind::Centre, Some(above)))) => above < level,
        (Kind::Centre, _, _) | (_, _, None) => false,
        (_, _, Some((above, _))) => above != Kind::Grid,
    }
}
