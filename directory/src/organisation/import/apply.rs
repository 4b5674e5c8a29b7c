//! Plans and applies an import: what is new in a few large statements, what is changed by the same way as by hand.

use std::collections::HashMap;

use serde_json::json;
use sqlx::AnyConnection;

use super::plan::{self, There};
use super::{ImportError, Missing, New, Parent, Plan, Sheet};
use crate::Directory;
use crate::act::{Act, Who};
use crate::audit::{self, Fresh, Outcome};
use crate::authority::{Action, Lineage};
use crate::id::OrganisationId;
use crate::organisation::change::{self, Change};
use crate::organisation::{DivisionCode, OrganisationError, name};
use crate::permit::{self, Denied};
use crate::store::{self, StoreError};

const ACTION: Action = Action::ManageOrganisations;

/// How many organisations are written with one statement; with twelve columns, far within what both engines take.
const ROWS_AT_ONCE: usize = 200;

impl Directory {
    /// The dry run: what a file would change in a branch (in all, at the machine), and what is wrong with it.
    pub async fn plan_import(
        &self,
        act: &Act<'_>,
        top: Option<OrganisationId>,
        sheet: &Sheet,
        missing: Missing,
    ) -> Result<Plan, ImportError> {
        let mut reading = self.store.read().await?;
        let connection = reading.connection();
        match top {
            Some(top) => {
                permit::decide(connection, act, ACTION, top).await??;
            }
            None if act.who == Who::Machine => {}
            None => return Err(Denied::NotFound.into()),
        }
        let there = plan::what_is_there(connection, top, sheet).await?;
        Ok(plan::plan(sheet, &there, missing))
    }

    /// Applies a file as its dry run showed it, whose fingerprint is said; all of it, or nothing.
    pub async fn apply_import(
        &self,
        act: &mut Act<'_>,
        top: Option<OrganisationId>,
        sheet: &Sheet,
        missing: Missing,
        fingerprint: &str,
    ) -> Result<Plan, ImportError> {
        let mut writing = match top {
            Some(top) => self.begin(act, ACTION, top).await?,
            None if act.who == Who::Machine => self.store.write().await?,
            None => return Err(Denied::NotFound.into()),
        };
        let connection = writing.connection();
        let there = plan::what_is_there(connection, top, sheet).await?;
        let plan = plan::plan(sheet, &there, missing);
        if !plan.problems.is_empty() {
            return Err(ImportError::Problems(plan.problems));
        }
        if plan.fingerprint != fingerprint {
            return Err(ImportError::ChangedMeanwhile(Box::new(plan)));
        }
        let made = insert(connection, act, &plan.new).await?;
        alter(connection, act, &plan, &there, &made).await?;
        if missing == Missing::Close {
            close(connection, act, &plan, &there).await?;
        }
        let fresh = Fresh {
            action: "import_organisations",
            object_kind: "organisation",
            object_id: top.map(|top| top.to_string()),
            organisation: top,
            outcome: Outcome::Done,
            detail: json!({
                "new": plan.new.len(),
                "renamed": plan.renamed.len(),
                "moved": plan.moved.len(),
                "rejoined": plan.rejoined.len(),
                "closed": if missing == Missing::Close { plan.gone.len() } else { 0 },
                "unchanged": plan.unchanged,
            }),
        };
        audit::append(connection, act, fresh).await?;
        writing.commit().await?;
        Ok(plan)
    }
}

fn resolve(parent: &Parent, made: &[OrganisationId]) -> Option<OrganisationId> {
    match parent {
        Parent::None => None,
        Parent::There(id) => Some(*id),
        Parent::New(at) => made.get(*at).copied(),
    }
}

/// Makes what is new; returns the ids, in the plan's order.
async fn insert(
    connection: &mut AnyConnection,
    act: &mut Act<'_>,
    new: &[New],
) -> Result<Vec<OrganisationId>, ImportError> {
    let mut made: Vec<OrganisationId> = Vec::with_capacity(new.len());
    let mut lineages: Vec<Vec<OrganisationId>> = Vec::with_capacity(new.len());
    let mut known: HashMap<OrganisationId, Lineage> = HashMap::new();
    for one in new {
        let id = OrganisationId::draw(act.now, act.random);
        // The parent first, then what is above it.
        let above = match &one.parent {
            Parent::None => Vec::new(),
            Parent::New(at) => std::iter::once(made[*at])
                .chain(lineages[*at].iter().copied())
                .collect(),
            Parent::There(parent) => {
                if !known.contains_key(parent) {
                    let lineage = permit::lineage(connection, *parent).await?;
                    known.insert(*parent, lineage.ok_or(Denied::NotFound)?);
                }
                known[parent].upwards()
            }
        };
        made.push(id);
        lineages.push(above);
    }
    // The cascade's parent may be further down the list: rows refer to each other once all are there.
    for (from, some) in (0..).step_by(ROWS_AT_ONCE).zip(new.chunks(ROWS_AT_ONCE)) {
        insert_organisations(connection, act, some, from, &made).await?;
        insert_lineages(connection, from, some.len(), &made, &lineages).await?;
        insert_codes(connection, act, some, from, &made).await?;
        insert_history(connection, act, some, from, &made).await?;
    }
    for (one, id) in new.iter().zip(&made) {
        if let Some(parent) = resolve(&one.cascade_parent, &made) {
            sqlx::query("UPDATE organisations SET cascade_parent_id = $1 WHERE id = $2")
                .bind(parent.to_string())
                .bind(id.to_string())
                .execute(&mut *connection)
                .await?;
        }
    }
    let entries = new.iter().zip(&made).map(|(one, id)| Fresh {
        action: ACTION.code(),
        object_kind: "organisation",
        object_id: Some(id.to_string()),
        organisation: Some(*id),
        outcome: Outcome::Done,
        detail: json!({
            "change": "create",
            "line": one.line,
            "after": {
                "name": one.name,
                "code": one.code,
                "parent": resolve(&one.parent, &made),
                "cascade_parent": resolve(&one.cascade_parent, &made),
                "state": "active",
                "version": 1,
            },
        }),
    });
    audit::append_all(connection, act, entries.collect()).await?;
    Ok(made)
}

async fn insert_organisations(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    new: &[New],
    from: usize,
    made: &[OrganisationId],
) -> Result<(), StoreError> {
    let statement = format!(
        "INSERT INTO organisations (id, kind, level, name, search_name, initials, parent_id, \
         state, created_at, version, sort_key) VALUES {}",
        store::places(new.len(), 11)
    );
    let mut query = sqlx::query(&statement);
    for (one, id) in new.iter().zip(&made[from..]) {
        let id = id.to_string();
        let code = one.code.as_ref().map(DivisionCode::as_str);
        query = query
            .bind(id.clone())
            .bind(one.kind.code())
            .bind(one.level.map_or(0, |level| level as i64))
            .bind(one.name.clone())
            .bind(name::folded(&one.name))
            .bind(name::initials(&one.name))
            .bind(resolve(&one.parent, made).map(|id| id.to_string()))
            .bind("active")
            .bind(act.now.as_millis())
            .bind(1_i64)
            .bind(name::sort_key(code, &one.name, &id));
    }
    query.execute(connection).await?;
    Ok(())
}

async fn insert_lineages(
    connection: &mut AnyConnection,
    from: usize,
    count: usize,
    made: &[OrganisationId],
    lineages: &[Vec<OrganisationId>],
) -> Result<(), StoreError> {
    let mut rows = Vec::new();
    for at in from..from + count {
        rows.push((made[at], made[at], 0_i64));
        rows.extend(
            (1..)
                .zip(&lineages[at])
                .map(|(depth, above)| (made[at], *above, depth)),
        );
    }
    for some in rows.chunks(ROWS_AT_ONCE) {
        let statement = format!(
            "INSERT INTO organisation_lineages (organisation_id, ancestor_id, depth) VALUES {}",
            store::places(some.len(), 3)
        );
        let mut query = sqlx::query(&statement);
        for (own, above, depth) in some {
            query = query
                .bind(own.to_string())
                .bind(above.to_string())
                .bind(*depth);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

async fn insert_codes(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    new: &[New],
    from: usize,
    made: &[OrganisationId],
) -> Result<(), StoreError> {
    let coded: Vec<(String, String)> = new
        .iter()
        .zip(&made[from..])
        .filter_map(|(one, id)| Some((id.to_string(), one.code.as_ref()?.to_string())))
        .collect();
    if coded.is_empty() {
        return Ok(());
    }
    let statement = format!(
        "INSERT INTO division_codes (organisation_id, code, valid_from) VALUES {}",
        store::places(coded.len(), 3)
    );
    let mut query = sqlx::query(&statement);
    for (id, code) in coded {
        query = query.bind(id).bind(code).bind(act.now.as_millis());
    }
    query.execute(connection).await?;
    Ok(())
}

async fn insert_history(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    new: &[New],
    from: usize,
    made: &[OrganisationId],
) -> Result<(), StoreError> {
    let statement = format!(
        "INSERT INTO organisation_history (organisation_id, version, at, change, name, level, \
         code, parent_id, cascade_parent_id, state) VALUES {}",
        store::places(new.len(), 10)
    );
    let mut query = sqlx::query(&statement);
    for (one, id) in new.iter().zip(&made[from..]) {
        query = query
            .bind(id.to_string())
            .bind(1_i64)
            .bind(act.now.as_millis())
            .bind("create")
            .bind(one.name.clone())
            .bind(one.level.map_or(0, |level| level as i64))
            .bind(one.code.as_ref().map(ToString::to_string))
            .bind(resolve(&one.parent, made).map(|id| id.to_string()))
            .bind(resolve(&one.cascade_parent, made).map(|id| id.to_string()))
            .bind("active");
    }
    query.execute(connection).await?;
    Ok(())
}

/// Renames, moves and joins what is there already.
async fn alter(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    plan: &Plan,
    there: &There,
    made: &[OrganisationId],
) -> Result<(), ImportError> {
    let mut changes: Vec<(OrganisationId, Change)> = Vec::new();
    for one in &plan.renamed {
        changes.push((one.id, Change::Rename(one.to.clone())));
    }
    for one in &plan.moved {
        let to = resolve(&one.to, made).ok_or(OrganisationError::WrongParent)?;
        changes.push((one.id, Change::Move(to)));
    }
    for one in &plan.rejoined {
        changes.push((one.id, Change::Cascade(resolve(&one.to, made))));
    }
    let mut latest = HashMap::new();
    for (id, change) in changes {
        let old = latest.remove(&id);
        let old = old.unwrap_or_else(|| there.organisations[&id].clone());
        let new = change::apply(connection, act, &old, old.version, &change).await?;
        latest.insert(id, new);
    }
    Ok(())
}

/// Closes what is not in the file, the lowest first.
async fn close(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    plan: &Plan,
    there: &There,
) -> Result<(), ImportError> {
    let mut gone: Vec<_> = plan
        .gone
        .iter()
        .map(|gone| &there.organisations[&gone.id])
        .collect();
    gone.sort_by_key(|one| std::cmp::Reverse(one.level));
    for one in gone {
        change::close(connection, act, one, one.version).await?;
    }
    Ok(())
}
