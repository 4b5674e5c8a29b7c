//! Making and changing organisations: each change one transaction with its history and its entry in the audit log.

use serde_json::json;
use sqlx::AnyConnection;

use super::{
    DivisionCode, Kind, Level, Organisation, OrganisationError, State, find, may_be_under, name,
};
use crate::Directory;
use crate::act::{Act, Who};
use crate::audit::{self, Fresh, Outcome};
use crate::authority::Action;
use crate::id::OrganisationId;
use crate::permit::{self, Denied};
use crate::store::{self, StoreError, Writing};

const ACTION: Action = Action::ManageOrganisations;

/// An organisation to be made.
#[derive(Clone, Debug)]
pub struct NewOrganisation {
    /// What it is.
    pub kind: Kind,
    /// A centre's level.
    pub level: Option<Level>,
    /// As shown.
    pub name: String,
    /// Its division code.
    pub code: Option<DivisionCode>,
    /// Whose branch it is in.
    pub parent: Option<OrganisationId>,
    /// Whose node its own node joins, where that is not its parent's.
    pub cascade_parent: Option<OrganisationId>,
}

/// One change to an organisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is called otherwise.
    Rename(String),
    /// It has another division code from now on, or none.
    Recode(Option<DivisionCode>),
    /// It is under another one, with all that is under it.
    Move(OrganisationId),
    /// Its node joins another one's than its parent's, or its parent's again.
    Cascade(Option<OrganisationId>),
}

/// One of those into which an organisation is split.
#[derive(Clone, Debug)]
pub struct Successor {
    /// Which; it is there already.
    pub id: OrganisationId,
    /// Which of the organisations under the old one go to it.
    pub children: Vec<OrganisationId>,
}

impl Directory {
    /// Makes an organisation. A province, which is under nothing, is made at the machine only.
    pub async fn create_organisation(
        &self,
        act: &mut Act<'_>,
        new: NewOrganisation,
    ) -> Result<Organisation, OrganisationError> {
        let mut writing = match new.parent {
            Some(parent) => self.begin(act, ACTION, parent).await?,
            None if act.who == Who::Machine => self.store.write().await?,
            None => return Err(Denied::NotFound.into()),
        };
        let id = OrganisationId::draw(act.now, act.random);
        let organisation = create(writing.connection(), act, id, new).await?;
        writing.commit().await?;
        Ok(organisation)
    }

    /// Changes an organisation of which `version` was seen.
    pub async fn change_organisation(
        &self,
        act: &mut Act<'_>,
        id: OrganisationId,
        version: u64,
        change: Change,
    ) -> Result<Organisation, OrganisationError> {
        let mut writing = self.begin(act, ACTION, id).await?;
        let old = active(writing.connection(), id).await?;
        if let Change::Move(parent) = change {
            // What is moved leaves one branch for another: that takes a right to both.
            for end in old.parent.into_iter().chain([parent]) {
                writing = self.also(writing, act, ACTION, end).await?;
            }
            if old.parent.is_none() && act.who != Who::Machine {
                return Err(OrganisationError::WrongParent);
            }
        }
        if let Change::Cascade(Some(parent)) = change {
            writing = self
                .also(writing, act, Action::SeeOrganisation, parent)
                .await?;
        }
        let new = apply(writing.connection(), act, &old, version, &change).await?;
        writing.commit().await?;
        Ok(new)
    }

    /// Closes an organisation that has nobody in it and nothing under it. Its posts and halls close with it.
    pub async fn close_organisation(
        &self,
        act: &mut Act<'_>,
        id: OrganisationId,
        version: u64,
    ) -> Result<Organisation, OrganisationError> {
        let mut writing = self.begin(act, ACTION, id).await?;
        let old = active(writing.connection(), id).await?;
        writing = self.above(writing, act, &old).await?;
        let new = close(writing.connection(), act, &old, version).await?;
        writing.commit().await?;
        Ok(new)
    }

    /// Merges an organisation into another one: what is under it, its people and its halls go there; its posts close,
    /// for a role in the old one is none in the new one.
    pub async fn merge_organisation(
        &self,
        act: &mut Act<'_>,
        id: OrganisationId,
        version: u64,
        into: OrganisationId,
    ) -> Result<Organisation, OrganisationError> {
        let mut writing = self.begin(act, ACTION, id).await?;
        let old = active(writing.connection(), id).await?;
        writing = self.above(writing, act, &old).await?;
        writing = self.also(writing, act, ACTION, into).await?;
        let connection = writing.connection();
        let target = active(connection, into).await?;
        let children = children(connection, id).await?;
        if target.id == id
            || permit::lineage(connection, into)
                .await?
                .is_some_and(|at| at.is_in(id))
        {
            return Err(OrganisationError::Cycle);
        }
        check_version(&old, version)?;
        for child in &children {
            let version = child.version;
            apply(connection, act, child, version, &Change::Move(into)).await?;
        }
        hand_over(connection, id, into).await?;
        let new = end(connection, act, &old, State::Merged, &[into]).await?;
        writing.commit().await?;
        Ok(new)
    }

    /// Splits an organisation into others that are there already: each organisation under it goes to the one that is
    /// said, its people and halls to the first.
    pub async fn split_organisation(
        &self,
        act: &mut Act<'_>,
        id: OrganisationId,
        version: u64,
        successors: &[Successor],
    ) -> Result<Organisation, OrganisationError> {
        let mut writing = self.begin(act, ACTION, id).await?;
        let old = active(writing.connection(), id).await?;
        writing = self.above(writing, act, &old).await?;
        for successor in successors {
            writing = self.also(writing, act, ACTION, successor.id).await?;
        }
        let connection = writing.connection();
        check_version(&old, version)?;
        let children = children(connection, id).await?;
        let said: Vec<OrganisationId> = successors
            .iter()
            .flat_map(|successor| successor.children.iter().copied())
            .collect();
        let is_complete =
            said.len() == children.len() && children.iter().all(|child| said.contains(&child.id));
        let [first, _, ..] = successors else {
            return Err(OrganisationError::ChildrenLeft);
        };
        if !is_complete {
            return Err(OrganisationError::ChildrenLeft);
        }
        for successor in successors {
            active(connection, successor.id).await?;
            let at = permit::lineage(connection, successor.id).await?;
            if at.is_some_and(|at| at.is_in(id)) {
                return Err(OrganisationError::Cycle);
            }
            for child in children
                .iter()
                .filter(|child| successor.children.contains(&child.id))
            {
                let change = Change::Move(successor.id);
                apply(connection, act, child, child.version, &change).await?;
            }
        }
        hand_over(connection, id, first.id).await?;
        let ids: Vec<OrganisationId> = successors.iter().map(|successor| successor.id).collect();
        let new = end(connection, act, &old, State::Split, &ids).await?;
        writing.commit().await?;
        Ok(new)
    }

    /// Opens the transaction, or writes the refusal down.
    pub(crate) async fn begin(
        &self,
        act: &Act<'_>,
        action: Action,
        organisation: OrganisationId,
    ) -> Result<Writing, Denied> {
        let outcome = permit::begin(&self.store, act, action, organisation).await;
        self.noted(act, action, organisation, outcome).await
    }

    /// Asks for one more right in the transaction.
    pub(crate) async fn also(
        &self,
        writing: Writing,
        act: &Act<'_>,
        action: Action,
        organisation: OrganisationId,
    ) -> Result<Writing, Denied> {
        let outcome = permit::also(writing, act, action, organisation).await;
        self.noted(act, action, organisation, outcome).await
    }

    async fn noted(
        &self,
        act: &Act<'_>,
        action: Action,
        organisation: OrganisationId,
        outcome: Result<Writing, Denied>,
    ) -> Result<Writing, Denied> {
        match outcome {
            Ok(writing) => Ok(writing),
            Err(denied @ Denied::Store(_)) => Err(denied),
            Err(denied) => {
                permit::note_refusal(&self.store, act, action, organisation).await?;
                Err(denied)
            }
        }
    }

    /// Who ends an organisation needs a right to the one above it: nobody closes the ground under their own feet.
    async fn above(
        &self,
        writing: Writing,
        act: &Act<'_>,
        organisation: &Organisation,
    ) -> Result<Writing, Denied> {
        match organisation.parent {
            Some(parent) => self.also(writing, act, ACTION, parent).await,
            None if act.who == Who::Machine => Ok(writing),
            None => Err(Denied::Refused(crate::authority::Refusal::Role)),
        }
    }
}

/// The organisation, if it works.
pub(crate) async fn active(
    connection: &mut AnyConnection,
    id: OrganisationId,
) -> Result<Organisation, OrganisationError> {
    let found = find(connection, id).await?.ok_or(Denied::NotFound)?;
    match found.state {
        State::Active => Ok(found),
        _ => Err(OrganisationError::NotActive),
    }
}

fn check_version(organisation: &Organisation, seen: u64) -> Result<(), OrganisationError> {
    match organisation.version {
        current if current == seen => Ok(()),
        current => Err(OrganisationError::Stale { current }),
    }
}

async fn children(
    connection: &mut AnyConnection,
    id: OrganisationId,
) -> Result<Vec<Organisation>, StoreError> {
    let query = format!(
        "SELECT {} FROM {} WHERE o.parent_id = $1 AND o.state = 'active' ORDER BY o.sort_key",
        super::COLUMNS,
        super::TABLES
    );
    let rows = sqlx::query(&query)
        .bind(id.to_string())
        .fetch_all(connection)
        .await?;
    rows.iter().map(super::read_row).collect()
}

/// Makes the first organisation, or takes the one that has its code already.
pub(crate) async fn found(
    connection: &mut AnyConnection,
    act: &mut Act<'_>,
    new: NewOrganisation,
) -> Result<Organisation, OrganisationError> {
    if let Some(code) = &new.code {
        let query = "SELECT organisation_id FROM division_codes \
                     WHERE code = $1 AND valid_to IS NULL";
        let row = sqlx::query(query)
            .bind(code.as_str().to_owned())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            return active(connection, store::parsed(&row, "organisation_id")?).await;
        }
    }
    let id = OrganisationId::draw(act.now, act.random);
    create(connection, act, id, new).await
}

/// Makes an organisation under an id that was drawn for it.
pub(super) async fn create(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    id: OrganisationId,
    new: NewOrganisation,
) -> Result<Organisation, OrganisationError> {
    let shown = name::read_name(&new.name).ok_or(OrganisationError::BadName)?;
    if (new.kind == Kind::Centre) != new.level.is_some() {
        return Err(OrganisationError::WrongLevel);
    }
    let parent = match new.parent {
        Some(parent) => Some(active(connection, parent).await?),
        None => None,
    };
    let above = parent.as_ref().map(|parent| (parent.kind, parent.level));
    if !may_be_under(new.kind, new.level, above) {
        return Err(OrganisationError::WrongParent);
    }
    let organisation = Organisation {
        id,
        kind: new.kind,
        level: new.level,
        name: shown,
        code: new.code,
        parent: new.parent,
        cascade_parent: new.cascade_parent,
        state: State::Active,
        created_at: act.now,
        closed_at: None,
        version: 1,
    };
    let id = id.to_string();
    let code = organisation.code.as_ref().map(DivisionCode::as_str);
    let query = format!(
        "INSERT INTO organisations (id, kind, level, name, search_name, initials, parent_id, \
         cascade_parent_id, state, created_at, version, sort_key) VALUES {}",
        store::places(1, 12)
    );
    sqlx::query(&query)
        .bind(id.clone())
        .bind(organisation.kind.code())
        .bind(organisation.level.map_or(0, |level| level as i64))
        .bind(organisation.name.clone())
        .bind(name::folded(&organisation.name))
        .bind(name::initials(&organisation.name))
        .bind(organisation.parent.map(|id| id.to_string()))
        .bind(organisation.cascade_parent.map(|id| id.to_string()))
        .bind(organisation.state.code())
        .bind(act.now.as_millis())
        .bind(1_i64)
        .bind(name::sort_key(code, &organisation.name, &id))
        .execute(&mut *connection)
        .await?;
    let query = "INSERT INTO organisation_lineages (organisation_id, ancestor_id, depth) \
                 SELECT $1, ancestor_id, depth + 1 FROM organisation_lineages \
                 WHERE organisation_id = $2 UNION ALL SELECT $1, $1, 0";
    sqlx::query(query)
        .bind(id)
        .bind(
            organisation
                .parent
                .map(|id| id.to_string())
                .unwrap_or_default(),
        )
        .execute(&mut *connection)
        .await?;
    check_cascade(connection, &organisation).await?;
    set_code(connection, act, &organisation, None).await?;
    record(connection, act, None, &organisation, "create").await?;
    Ok(organisation)
}

/// Applies one change to an organisation that works.
pub(super) async fn apply(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    old: &Organisation,
    version: u64,
    change: &Change,
) -> Result<Organisation, OrganisationError> {
    check_version(old, version)?;
    let mut new = old.clone();
    new.version += 1;
    let what = match change {
        Change::Rename(text) => {
            new.name = name::read_name(text).ok_or(OrganisationError::BadName)?;
            "rename"
        }
        Change::Recode(code) => {
            new.code = code.clone();
            "recode"
        }
        Change::Move(parent) => {
            let above = active(connection, *parent).await?;
            let at = permit::lineage(connection, *parent).await?;
            if at.is_some_and(|at| at.is_in(old.id)) {
                return Err(OrganisationError::Cycle);
            }
            if !may_be_under(old.kind, old.level, Some((above.kind, above.level))) {
                return Err(OrganisationError::WrongParent);
            }
            new.parent = Some(*parent);
            "move"
        }
        Change::Cascade(parent) => {
            new.cascade_parent = *parent;
            "cascade"
        }
    };
    let id = new.id.to_string();
    let code = new.code.as_ref().map(DivisionCode::as_str);
    let query = "UPDATE organisations SET name = $1, search_name = $2, initials = $3, \
                 parent_id = $4, cascade_parent_id = $5, sort_key = $6, version = $7 WHERE id = $8";
    sqlx::query(query)
        .bind(new.name.clone())
        .bind(name::folded(&new.name))
        .bind(name::initials(&new.name))
        .bind(new.parent.map(|id| id.to_string()))
        .bind(new.cascade_parent.map(|id| id.to_string()))
        .bind(name::sort_key(code, &new.name, &id))
        .bind(new.version as i64)
        .bind(id)
        .execute(&mut *connection)
        .await?;
    match change {
        Change::Recode(_) => set_code(connection, act, &new, Some(old)).await?,
        Change::Move(parent) => {
            move_lineage(connection, old.id, *parent).await?;
            check_cascade(connection, &new).await?;
        }
        Change::Cascade(_) => check_cascade(connection, &new).await?,
        Change::Rename(_) => {}
    }
    record(connection, act, Some(old), &new, what).await?;
    Ok(new)
}

/// Closes an organisation with nothing in it.
pub(super) async fn close(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    old: &Organisation,
    version: u64,
) -> Result<Organisation, OrganisationError> {
    check_version(old, version)?;
    let people = "SELECT id FROM persons WHERE organisation_id = $1 AND state <> 'left' LIMIT 1";
    let person = sqlx::query(people)
        .bind(old.id.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    if person.is_some() || !children(connection, old.id).await?.is_empty() {
        return Err(OrganisationError::NotEmpty);
    }
    let query = "UPDATE places SET closed_at = $1, version = version + 1 \
                 WHERE organisation_id = $2 AND closed_at IS NULL";
    sqlx::query(query)
        .bind(act.now.as_millis())
        .bind(old.id.to_string())
        .execute(&mut *connection)
        .await?;
    end(connection, act, old, State::Closed, &[]).await
}

/// What was in the old one is in the new one.
async fn hand_over(
    connection: &mut AnyConnection,
    old: OrganisationId,
    new: OrganisationId,
) -> Result<(), StoreError> {
    for query in [
        "UPDATE persons SET organisation_id = $1, version = version + 1 WHERE organisation_id = $2",
        "UPDATE places SET organisation_id = $1, version = version + 1 WHERE organisation_id = $2",
    ] {
        sqlx::query(query)
            .bind(new.to_string())
            .bind(old.to_string())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Ends an organisation: its code is free, its posts and shares end, and its history says what became of it.
async fn end(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    old: &Organisation,
    state: State,
    successors: &[OrganisationId],
) -> Result<Organisation, OrganisationError> {
    let mut new = old.clone();
    new.version += 1;
    new.state = state;
    new.closed_at = Some(act.now);
    new.code = None;
    let (id, now) = (old.id.to_string(), act.now.as_millis());
    let query = "UPDATE organisations SET state = $1, closed_at = $2, version = $3 WHERE id = $4";
    sqlx::query(query)
        .bind(state.code())
        .bind(now)
        .bind(new.version as i64)
        .bind(id.clone())
        .execute(&mut *connection)
        .await?;
    for query in [
        "UPDATE division_codes SET valid_to = $1 WHERE organisation_id = $2 AND valid_to IS NULL",
        "UPDATE post_holders SET ends_at = $1 WHERE ends_at IS NULL AND post_id IN \
         (SELECT id FROM posts WHERE organisation_id = $2)",
        "UPDATE posts SET closed_at = $1 WHERE organisation_id = $2 AND closed_at IS NULL",
        "UPDATE temporary_grants SET ended_at = $1 WHERE organisation_id = $2 AND ended_at IS NULL",
        "UPDATE organisation_shares SET ended_at = $1 \
         WHERE (organisation_id = $2 OR with_id = $2) AND ended_at IS NULL",
    ] {
        sqlx::query(query)
            .bind(now)
            .bind(id.clone())
            .execute(&mut *connection)
            .await?;
    }
    for successor in successors {
        let query = "INSERT INTO organisation_successors (organisation_id, successor_id, at) \
                     VALUES ($1, $2, $3)";
        sqlx::query(query)
            .bind(id.clone())
            .bind(successor.to_string())
            .bind(now)
            .execute(&mut *connection)
            .await?;
    }
    let what = match state {
        State::Merged => "merge",
        State::Split => "split",
        State::Closed | State::Active => "close",
    };
    record(connection, act, Some(old), &new, what).await?;
    Ok(new)
}

/// The subtree leaves those above it and joins the new parent and those above that.
async fn move_lineage(
    connection: &mut AnyConnection,
    id: OrganisationId,
    parent: OrganisationId,
) -> Result<(), StoreError> {
    let leave = "DELETE FROM organisation_lineages WHERE organisation_id IN \
                 (SELECT organisation_id FROM organisation_lineages WHERE ancestor_id = $1) \
                 AND ancestor_id IN (SELECT ancestor_id FROM organisation_lineages \
                 WHERE organisation_id = $1 AND depth > 0)";
    sqlx::query(leave)
        .bind(id.to_string())
        .execute(&mut *connection)
        .await?;
    let join = "INSERT INTO organisation_lineages (organisation_id, ancestor_id, depth) \
                SELECT down.organisation_id, up.ancestor_id, up.depth + down.depth + 1 \
                FROM organisation_lineages up, organisation_lineages down \
                WHERE up.organisation_id = $1 AND down.ancestor_id = $2";
    sqlx::query(join)
        .bind(parent.to_string())
        .bind(id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether the way up from this organisation's node ends.
async fn check_cascade(
    connection: &mut AnyConnection,
    organisation: &Organisation,
) -> Result<(), OrganisationError> {
    if let Some(parent) = organisation.cascade_parent {
        let above = active(connection, parent).await?;
        if above.kind != Kind::Centre || organisation.kind != Kind::Centre {
            return Err(OrganisationError::CascadeCycle);
        }
    }
    let mut next = organisation.cascade_parent.or(organisation.parent);
    let mut steps = 0;
    while let Some(id) = next {
        steps += 1;
        if id == organisation.id || steps > LONGEST_CASCADE {
            return Err(OrganisationError::CascadeCycle);
        }
        let above = find(connection, id).await?;
        next = above.and_then(|above| above.cascade_parent.or(above.parent));
    }
    Ok(())
}

/// How many nodes a way up has at most: five levels and what else may stand between them.
const LONGEST_CASCADE: usize = 16;

/// Its code from now on; the old one's time ends.
async fn set_code(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    new: &Organisation,
    old: Option<&Organisation>,
) -> Result<(), OrganisationError> {
    let now = act.now.as_millis();
    if old.is_some() {
        let query = "UPDATE division_codes SET valid_to = $1 \
                     WHERE organisation_id = $2 AND valid_to IS NULL";
        sqlx::query(query)
            .bind(now)
            .bind(new.id.to_string())
            .execute(&mut *connection)
            .await?;
    }
    let Some(code) = &new.code else { return Ok(()) };
    let holder = "SELECT organisation_id FROM division_codes WHERE code = $1 AND valid_to IS NULL";
    let holder = sqlx::query(holder)
        .bind(code.as_str().to_owned())
        .fetch_optional(&mut *connection)
        .await?;
    if holder.is_some() {
        return Err(OrganisationError::CodeTaken);
    }
    // One that had this code before within this very millisecond has it again.
    let query = "INSERT INTO division_codes (organisation_id, code, valid_from) VALUES ($1, $2, $3) \
                 ON CONFLICT (organisation_id, code, valid_from) DO UPDATE SET valid_to = NULL";
    sqlx::query(query)
        .bind(new.id.to_string())
        .bind(code.as_str().to_owned())
        .bind(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes the new version into the history and the change into the audit log.
async fn record(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    old: Option<&Organisation>,
    new: &Organisation,
    change: &str,
) -> Result<(), StoreError> {
    let query = format!(
        "INSERT INTO organisation_history (organisation_id, version, at, change, name, level, \
         code, parent_id, cascade_parent_id, state) VALUES {}",
        store::places(1, 10)
    );
    sqlx::query(&query)
        .bind(new.id.to_string())
        .bind(new.version as i64)
        .bind(act.now.as_millis())
        .bind(change.to_owned())
        .bind(new.name.clone())
        .bind(new.level.map_or(0, |level| level as i64))
        .bind(new.code.as_ref().map(ToString::to_string))
        .bind(new.parent.map(|id| id.to_string()))
        .bind(new.cascade_parent.map(|id| id.to_string()))
        .bind(new.state.code())
        .execute(&mut *connection)
        .await?;
    let fresh = Fresh {
        action: ACTION.code(),
        object_kind: "organisation",
        object_id: Some(new.id.to_string()),
        organisation: Some(new.id),
        outcome: Outcome::Done,
        detail: json!({ "change": change, "before": old.map(told), "after": told(new) }),
    };
    audit::append(connection, act, fresh).await?;
    Ok(())
}

/// What the log tells of an organisation.
fn told(organisation: &Organisation) -> serde_json::Value {
    json!({
        "name": organisation.name,
        "code": organisation.code,
        "parent": organisation.parent,
        "cascade_parent": organisation.cascade_parent,
        "state": organisation.state,
        "version": organisation.version,
    })
}
