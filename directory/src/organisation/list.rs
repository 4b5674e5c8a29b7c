//! Reading organisations: one, its history, and lists by page. What the actor may not know of is in none of them.

use sqlx::AnyConnection;

use super::{COLUMNS, DivisionCode, Organisation, State, TABLES, Version, find, name, read_row};
use crate::Directory;
use crate::act::{Act, Who};
use crate::authority::Action;
use crate::id::OrganisationId;
use crate::people;
use crate::permit::{self, Denied};
use crate::store::{self, StoreError};

/// How many organisations a page has at most.
const PAGE: usize = 200;

/// How many characters are searched for at most.
const SOUGHT: usize = 64;

/// Which organisations are wanted.
#[derive(Clone, Debug, Default)]
pub struct OrganisationQuery {
    /// Only what is directly under this one.
    pub parent: Option<OrganisationId>,
    /// Only this one and what is anywhere under it.
    pub under: Option<OrganisationId>,
    /// Part of a name, first letters of its pinyin, or the beginning of a code that it has or had.
    pub text: Option<String>,
    /// Also those that do not work any more.
    pub with_closed: bool,
    /// Where the page begins: `next` of the one before.
    pub cursor: Option<String>,
    /// How many at most.
    pub limit: usize,
}

/// A part of a list, in the order of codes and names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganisationPage {
    /// The organisations.
    pub organisations: Vec<Organisation>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

impl Directory {
    /// One organisation.
    pub async fn organisation(
        &self,
        act: &Act<'_>,
        id: OrganisationId,
    ) -> Result<Organisation, Denied> {
        let mut reading = self.store.read().await?;
        let connection = reading.connection();
        permit::decide(connection, act, Action::SeeOrganisation, id).await??;
        find(connection, id).await?.ok_or(Denied::NotFound)
    }

    /// All that an organisation was, from its making on.
    pub async fn organisation_history(
        &self,
        act: &Act<'_>,
        id: OrganisationId,
    ) -> Result<Vec<Version>, Denied> {
        let mut reading = self.store.read().await?;
        let connection = reading.connection();
        permit::decide(connection, act, Action::SeeOrganisation, id).await??;
        let query = "SELECT version, at, change, name, code, parent_id, cascade_parent_id, state \
                     FROM organisation_history WHERE organisation_id = $1 ORDER BY version";
        let rows = sqlx::query(query)
            .bind(id.to_string())
            .fetch_all(connection)
            .await?;
        let mut versions = Vec::with_capacity(rows.len());
        for row in &rows {
            versions.push(Version {
                version: store::number(row, "version")? as u64,
                at: store::moment(row, "at")?,
                change: store::text(row, "change")?,
                name: store::text(row, "name")?,
                code: store::maybe_parsed::<DivisionCode>(row, "code")?,
                parent: store::maybe_parsed(row, "parent_id")?,
                cascade_parent: store::maybe_parsed(row, "cascade_parent_id")?,
                state: store::parsed::<State>(row, "state")?,
            });
        }
        Ok(versions)
    }

    /// What became of an organisation that was merged or split, as far as the actor may know of it.
    pub async fn organisation_successors(
        &self,
        act: &Act<'_>,
        id: OrganisationId,
    ) -> Result<Vec<OrganisationId>, Denied> {
        let mut reading = self.store.read().await?;
        let connection = reading.connection();
        permit::decide(connection, act, Action::SeeOrganisation, id).await??;
        let query = "SELECT successor_id FROM organisation_successors \
                     WHERE organisation_id = $1 ORDER BY successor_id";
        let rows = sqlx::query(query)
            .bind(id.to_string())
            .fetch_all(&mut *connection)
            .await?;
        let mut known = Vec::new();
        for row in &rows {
            let successor = store::parsed(row, "successor_id")?;
            if permit::decide(connection, act, Action::SeeOrganisation, successor)
                .await?
                .is_ok()
            {
                known.push(successor);
            }
        }
        Ok(known)
    }

    /// One page of what is wanted, of what the actor may see.
    pub async fn organisations(
        &self,
        act: &Act<'_>,
        wanted: &OrganisationQuery,
    ) -> Result<OrganisationPage, Denied> {
        let mut reading = self.store.read().await?;
        Ok(page(reading.connection(), act, wanted).await?)
    }
}

/// Words of a statement, and what is bound to its places.
struct Conditions {
    words: Vec<String>,
    bound: Vec<String>,
}

impl Conditions {
    /// The place of one more value.
    fn bind(&mut self, value: String) -> String {
        self.bound.push(value);
        format!("${}", self.bound.len())
    }

    fn bind_all(&mut self, values: &[OrganisationId]) -> String {
        let places: Vec<String> = values
            .iter()
            .map(|value| self.bind(value.to_string()))
            .collect();
        places.join(", ")
    }
}

async fn page(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    wanted: &OrganisationQuery,
) -> Result<OrganisationPage, StoreError> {
    let empty = OrganisationPage {
        organisations: Vec::new(),
        next: None,
    };
    let mut conditions = Conditions {
        words: Vec::new(),
        bound: Vec::new(),
    };
    match act.who {
        Who::Machine => {}
        Who::Nobody | Who::Hall(_) => return Ok(empty),
        Who::Person(person) => {
            let seen = people::sees_organisations_from(connection, person, act.now).await?;
            if seen.is_empty() {
                return Ok(empty);
            }
            // The own branches, and what is above them. This is what `SeeOrganisation` reaches; a test holds it to that.
            let places = conditions.bind_all(&seen);
            conditions.words.push(format!(
                "(o.id IN (SELECT organisation_id FROM organisation_lineages \
                 WHERE ancestor_id IN ({places})) \
                 OR o.id IN (SELECT ancestor_id FROM organisation_lineages \
                 WHERE organisation_id IN ({places})))"
            ));
        }
    }
    if !wanted.with_closed {
        conditions.words.push("o.state = 'active'".to_owned());
    }
    if let Some(parent) = wanted.parent {
        let place = conditions.bind(parent.to_string());
        conditions.words.push(format!("o.parent_id = {place}"));
    }
    if let Some(top) = wanted.under {
        let place = conditions.bind(top.to_string());
        conditions.words.push(format!(
            "o.id IN (SELECT organisation_id FROM organisation_lineages WHERE ancestor_id = {place})"
        ));
    }
    if let Some(text) = &wanted.text {
        let text: String = name::folded(text).chars().take(SOUGHT).collect();
        seek(&mut conditions, &text);
    }
    if let Some(cursor) = &wanted.cursor {
        let place = conditions.bind(cursor.clone());
        conditions.words.push(format!("o.sort_key > {place}"));
    }
    let all = if conditions.words.is_empty() {
        "1 = 1".to_owned()
    } else {
        conditions.words.join(" AND ")
    };
    let limit = wanted.limit.clamp(1, PAGE);
    let query = format!(
        "SELECT {COLUMNS} FROM {TABLES} WHERE {all} ORDER BY o.sort_key LIMIT {}",
        limit + 1
    );
    let mut query = sqlx::query(&query);
    for value in conditions.bound {
        query = query.bind(value);
    }
    let rows = query.fetch_all(connection).await?;
    let has_more = rows.len() > limit;
    let rows = &rows[..rows.len().min(limit)];
    let next = match rows.last() {
        Some(last) if has_more => Some(store::text(last, "sort_key")?),
        _ => None,
    };
    let organisations = rows.iter().map(read_row).collect::<Result<_, _>>()?;
    Ok(OrganisationPage {
        organisations,
        next,
    })
}

/// What is found by a text: digits begin a code, letters are in the pinyin's first ones, and anything is in a name.
fn seek(conditions: &mut Conditions, text: &str) {
    let mut ways = Vec::new();
    let place = conditions.bind(store::anywhere(text));
    ways.push(format!("o.search_name LIKE {place} ESCAPE '!'"));
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let place = conditions.bind(store::beginning(text));
        ways.push(format!(
            "o.id IN (SELECT organisation_id FROM division_codes WHERE code LIKE {place} ESCAPE '!')"
        ));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let place = conditions.bind(store::anywhere(text));
        ways.push(format!("o.initials LIKE {place} ESCAPE '!'"));
    }
    conditions.words.push(format!("({})", ways.join(" OR ")));
}
