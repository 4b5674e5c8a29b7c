//! Posts: what an organisation has somebody for, with the roles that this takes.

use serde::Serialize;
use serde_json::json;
use sqlx::AnyConnection;
use sqlx::any::AnyRow;

use super::{
    PeopleError, PersonState, check_roles, find as find_person, grants, organisation_of_post,
};
use crate::act::Act;
use crate::audit::{self, Fresh, Outcome};
use crate::authority::{Action, Role};
use crate::id::{OrganisationId, PersonId, PostId};
use crate::organisation::{active, name};
use crate::permit::Denied;
use crate::store::{self, StoreError};
use crate::{Directory, Timestamp};

const ACTION: Action = Action::GrantRoles;

/// A post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Post {
    /// For ever.
    pub id: PostId,
    /// Whose.
    pub organisation: OrganisationId,
    /// As shown: 主任、值班员 …
    pub title: String,
    /// By their codes.
    #[serde(serialize_with = "as_codes")]
    pub roles: Vec<Role>,
    /// Since when there is no such post any more.
    pub closed_at: Option<Timestamp>,
    /// How often it was changed, and once for its making.
    pub version: u64,
}

/// Who has a post, since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Who.
    pub person: PersonId,
    /// Since when.
    pub since: Timestamp,
}

fn as_codes<S: serde::Serializer>(roles: &[Role], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(roles.iter().map(|role| role.code()))
}

fn codes(roles: &[Role]) -> String {
    let codes: Vec<&str> = roles.iter().map(|role| role.code()).collect();
    codes.join(",")
}

impl Directory {
    /// Makes a post.
    pub async fn create_post(
        &self,
        act: &mut Act<'_>,
        organisation: OrganisationId,
        title: &str,
        roles: &[Role],
    ) -> Result<Post, PeopleError> {
        let mut writing = self.begin(act, ACTION, organisation).await?;
        let connection = writing.connection();
        active(connection, organisation).await?;
        let post = create(connection, act, organisation, title, roles).await?;
        writing.commit().await?;
        Ok(post)
    }

    /// Gives a post of which `version` was seen other roles, or, with none, closes it. Holds for who has it at once.
    pub async fn change_post(
        &self,
        act: &mut Act<'_>,
        id: PostId,
        version: u64,
        roles: &[Role],
    ) -> Result<Post, PeopleError> {
        let (mut writing, mut post) = self.begin_with_post(act, id).await?;
        let connection = writing.connection();
        if post.version != version {
            return Err(PeopleError::Stale {
                current: post.version,
            });
        }
        let before = post.clone();
        post.version += 1;
        if roles.is_empty() {
            post.closed_at = Some(act.now);
            let query =
                "UPDATE post_holders SET ends_at = $1 WHERE post_id = $2 AND ends_at IS NULL";
            sqlx::query(query)
                .bind(act.now.as_millis())
                .bind(id.to_string())
                .execute(&mut *connection)
                .await?;
        } else {
            post.roles = checked(roles)?;
        }
        let query = "UPDATE posts SET roles = $1, closed_at = $2, version = $3 WHERE id = $4";
        sqlx::query(query)
            .bind(codes(&post.roles))
            .bind(post.closed_at.map(Timestamp::as_millis))
            .bind(post.version as i64)
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        // With the post's new roles in place: whoever has it may still be one person.
        for holder in holders(connection, id).await? {
            check_roles(connection, holder.person, &[], act.now).await?;
        }
        let detail = json!({ "change": "change_post", "before": before, "after": post });
        record(connection, act, &post, detail).await?;
        writing.commit().await?;
        Ok(post)
    }

    /// Somebody has a post from now on.
    pub async fn appoint(
        &self,
        act: &mut Act<'_>,
        id: PostId,
        person: PersonId,
    ) -> Result<(), PeopleError> {
        let (mut writing, post) = self.begin_with_post(act, id).await?;
        appoint(writing.connection(), act, &post, person).await?;
        writing.commit().await?;
        Ok(())
    }

    /// Somebody does not have a post any more, and what they lent of it ends too.
    pub async fn dismiss(
        &self,
        act: &mut Act<'_>,
        id: PostId,
        person: PersonId,
    ) -> Result<(), PeopleError> {
        let (mut writing, post) = self.begin_with_post(act, id).await?;
        let connection = writing.connection();
        let query = "UPDATE post_holders SET ends_at = $1 \
                     WHERE post_id = $2 AND person_id = $3 AND ends_at IS NULL";
        let ended = sqlx::query(query)
            .bind(act.now.as_millis())
            .bind(id.to_string())
            .bind(person.to_string())
            .execute(&mut *connection)
            .await?;
        if ended.rows_affected() == 0 {
            return Err(Denied::NotFound.into());
        }
        let query = "UPDATE temporary_grants SET ended_at = $1 \
                     WHERE from_post_id = $2 AND from_person_id = $3 AND ended_at IS NULL";
        sqlx::query(query)
            .bind(act.now.as_millis())
            .bind(id.to_string())
            .bind(person.to_string())
            .execute(&mut *connection)
            .await?;
        let detail = json!({ "change": "dismiss", "person": person });
        record(connection, act, &post, detail).await?;
        writing.commit().await?;
        Ok(())
    }

    /// An organisation's posts with who has them.
    pub async fn posts(
        &self,
        act: &Act<'_>,
        organisation: OrganisationId,
    ) -> Result<Vec<(Post, Vec<Holder>)>, PeopleError> {
        let mut writing = self.begin(act, Action::SeePersons, organisation).await?;
        let connection = writing.connection();
        let query =
            "SELECT * FROM posts WHERE organisation_id = $1 AND closed_at IS NULL ORDER BY id";
        let rows = sqlx::query(query)
            .bind(organisation.to_string())
            .fetch_all(&mut *connection)
            .await?;
        let mut posts = Vec::with_capacity(rows.len());
        for row in &rows {
            let post = read_row(row)?;
            let holders = holders(connection, post.id).await?;
            posts.push((post, holders));
        }
        let detail = json!({ "posts": posts.len() });
        super::seen(writing, act, organisation, detail).await?;
        Ok(posts)
    }

    async fn begin_with_post(
        &self,
        act: &Act<'_>,
        id: PostId,
    ) -> Result<(store::Writing, Post), PeopleError> {
        let mut reading = self.store.read().await?;
        let organisation = organisation_of_post(reading.connection(), id).await?;
        drop(reading);
        // A post never changes its organisation.
        let mut writing = self.begin(act, ACTION, organisation).await?;
        let post = find(writing.connection(), id)
            .await?
            .ok_or(Denied::NotFound)?;
        match post.closed_at {
            None => Ok((writing, post)),
            Some(_) => Err(Denied::NotFound.into()),
        }
    }
}

/// The roles that a post may have, each once.
fn checked(roles: &[Role]) -> Result<Vec<Role>, PeopleError> {
    let mut roles = roles.to_vec();
    roles.sort();
    roles.dedup();
    if roles.is_empty() || roles.iter().any(|role| role.is_of_a_matter()) {
        return Err(PeopleError::WrongRole);
    }
    if !crate::authority::may_be_one_person(roles.iter().copied()) {
        return Err(PeopleError::OnePersonTwoAdministrators);
    }
    Ok(roles)
}

pub(super) async fn create(
    connection: &mut AnyConnection,
    act: &mut Act<'_>,
    organisation: OrganisationId,
    title: &str,
    roles: &[Role],
) -> Result<Post, PeopleError> {
    let post = Post {
        id: PostId::draw(act.now, act.random),
        organisation,
        title: name::read_name(title).ok_or(PeopleError::BadName)?,
        roles: checked(roles)?,
        closed_at: None,
        version: 1,
    };
    let query = format!(
        "INSERT INTO posts (id, organisation_id, title, roles, version) VALUES {}",
        store::places(1, 5)
    );
    sqlx::query(&query)
        .bind(post.id.to_string())
        .bind(organisation.to_string())
        .bind(post.title.clone())
        .bind(codes(&post.roles))
        .bind(1_i64)
        .execute(&mut *connection)
        .await?;
    record(
        connection,
        act,
        &post,
        json!({ "change": "create_post", "after": post }),
    )
    .await?;
    Ok(post)
}

pub(super) async fn appoint(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    post: &Post,
    person: PersonId,
) -> Result<(), PeopleError> {
    let found = find_person(connection, person)
        .await?
        .ok_or(Denied::NotFound)?;
    if found.state == PersonState::Left {
        return Err(PeopleError::NotActive);
    }
    check_roles(connection, person, &post.roles, act.now).await?;
    let query = "INSERT INTO post_holders (post_id, person_id, starts_at) VALUES ($1, $2, $3) \
                 ON CONFLICT (post_id, person_id, starts_at) DO UPDATE SET ends_at = NULL";
    if holders(connection, post.id)
        .await?
        .iter()
        .any(|holder| holder.person == person)
    {
        return Ok(());
    }
    sqlx::query(query)
        .bind(post.id.to_string())
        .bind(person.to_string())
        .bind(act.now.as_millis())
        .execute(&mut *connection)
        .await?;
    let detail = json!({ "change": "appoint", "person": person, "roles": codes(&post.roles) });
    record(connection, act, post, detail).await?;
    Ok(())
}

async fn holders(connection: &mut AnyConnection, id: PostId) -> Result<Vec<Holder>, StoreError> {
    let query = "SELECT person_id, starts_at FROM post_holders \
                 WHERE post_id = $1 AND ends_at IS NULL ORDER BY starts_at, person_id";
    let rows = sqlx::query(query)
        .bind(id.to_string())
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            Ok(Holder {
                person: store::parsed(row, "person_id")?,
                since: store::moment(row, "starts_at")?,
            })
        })
        .collect()
}

pub(super) async fn find(
    connection: &mut AnyConnection,
    id: PostId,
) -> Result<Option<Post>, StoreError> {
    let row = sqlx::query("SELECT * FROM posts WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(read_row).transpose()
}

fn read_row(row: &AnyRow) -> Result<Post, StoreError> {
    Ok(Post {
        id: store::parsed(row, "id")?,
        organisation: store::parsed(row, "organisation_id")?,
        title: store::text(row, "title")?,
        roles: grants::read_roles(&store::text(row, "roles")?)?,
        closed_at: store::maybe_moment(row, "closed_at")?,
        version: store::number(row, "version")? as u64,
    })
}

async fn record(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    post: &Post,
    detail: serde_json::Value,
) -> Result<(), StoreError> {
    let fresh = Fresh {
        action: ACTION.code(),
        object_kind: "post",
        object_id: Some(post.id.to_string()),
        organisation: Some(post.organisation),
        outcome: Outcome::Done,
        detail,
    };
    audit::append(connection, act, fresh).await
}
