//! What a person may act by now.

use sqlx::AnyConnection;

use crate::Timestamp;
use crate::authority::{Grant, Lineage, Role};
use crate::id::{OrganisationId, PersonId};
use crate::permit;
use crate::store::{self, StoreError};

/// The roles of a post, as they stand in the database.
pub(super) fn read_roles(text: &str) -> Result<Vec<Role>, StoreError> {
    text.split(',')
        .filter(|role| !role.is_empty())
        .map(|role| role.parse().map_err(|_| StoreError::Unreadable("roles")))
        .collect()
}

/// All that a person may act by now: the roles of posts, and those lent for a time by who has them still.
pub(crate) async fn grants_of(
    connection: &mut AnyConnection,
    person: PersonId,
    now: Timestamp,
) -> Result<Vec<Grant>, StoreError> {
    let mut grants = Vec::new();
    let posts = "SELECT p.organisation_id, p.roles, h.starts_at FROM post_holders h \
                 JOIN posts p ON p.id = h.post_id \
                 JOIN organisations o ON o.id = p.organisation_id \
                 JOIN persons x ON x.id = h.person_id \
                 WHERE h.person_id = $1 AND (h.ends_at IS NULL OR h.ends_at > $2) \
                 AND h.starts_at <= $2 AND p.closed_at IS NULL AND o.state = 'active' \
                 AND x.state = 'active'";
    let rows = sqlx::query(posts)
        .bind(person.to_string())
        .bind(now.as_millis())
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let at = lineage(connection, store::parsed(row, "organisation_id")?).await?;
        let since = store::moment(row, "starts_at")?;
        for role in read_roles(&store::text(row, "roles")?)? {
            grants.push(Grant::by_post(role, at.clone(), since));
        }
    }
    let lent = "SELECT g.kind, g.role, g.organisation_id, g.matter_id, g.starts_at, g.ends_at, \
                g.from_person_id, g.from_post_id FROM temporary_grants g \
                JOIN organisations o ON o.id = g.organisation_id \
                JOIN persons x ON x.id = g.person_id \
                WHERE g.person_id = $1 AND g.ended_at IS NULL AND g.starts_at <= $2 \
                AND g.ends_at > $2 AND o.state = 'active' AND x.state = 'active'";
    let rows = sqlx::query(lent)
        .bind(person.to_string())
        .bind(now.as_millis())
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let role: Role = store::parsed(row, "role")?;
        let at = lineage(connection, store::parsed(row, "organisation_id")?).await?;
        let (start, end) = (
            store::moment(row, "starts_at")?,
            store::moment(row, "ends_at")?,
        );
        match store::text(row, "kind")?.as_str() {
            "guest" => {
                let matter = store::maybe_parsed(row, "matter_id")?
                    .ok_or(StoreError::Unreadable("matter_id"))?;
                grants.push(Grant::as_guest(role, at, matter, start, end));
            }
            "delegation" => {
                let from = store::text(row, "from_person_id")?;
                let post = store::text(row, "from_post_id")?;
                if holds(connection, &from, &post, role, now).await? {
                    grants.push(Grant::by_delegation(role, at, start, end));
                }
            }
            _ => return Err(StoreError::Unreadable("kind")),
        }
    }
    Ok(grants)
}

/// Whether somebody has a role by a post now.
pub(super) async fn holds(
    connection: &mut AnyConnection,
    person: &str,
    post: &str,
    role: Role,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let query = "SELECT p.roles FROM post_holders h JOIN posts p ON p.id = h.post_id \
                 JOIN persons x ON x.id = h.person_id WHERE h.person_id = $1 AND h.post_id = $2 \
                 AND (h.ends_at IS NULL OR h.ends_at > $3) AND h.starts_at <= $3 \
                 AND p.closed_at IS NULL AND x.state = 'active'";
    let rows = sqlx::query(query)
        .bind(person.to_owned())
        .bind(post.to_owned())
        .bind(now.as_millis())
        .fetch_all(connection)
        .await?;
    for row in &rows {
        if read_roles(&store::text(row, "roles")?)?.contains(&role) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn lineage(
    connection: &mut AnyConnection,
    organisation: OrganisationId,
) -> Result<Lineage, StoreError> {
    permit::lineage(connection, organisation)
        .await?
        .ok_or(StoreError::Unreadable("organisation_id"))
}

/// From which organisations a person sees what is under and above them.
pub(crate) async fn sees_organisations_from(
    connection: &mut AnyConnection,
    person: PersonId,
    now: Timestamp,
) -> Result<Vec<OrganisationId>, StoreError> {
    let mut seen: Vec<OrganisationId> = grants_of(connection, person, now)
        .await?
        .iter()
        .filter(|grant| !grant.role().is_of_a_matter() && !grant.is_of_a_matter())
        .map(|grant| grant.at().own())
        .collect();
    seen.sort();
    seen.dedup();
    Ok(seen)
}
