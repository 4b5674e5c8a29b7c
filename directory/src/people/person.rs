//! Making people, finding them, and letting them go.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::AnyConnection;

use super::{InvitationToken, PeopleError, Person, find, grants_of, invitation, post, read_row};
use crate::act::{Act, Who};
use crate::audit::{self, Fresh, Outcome};
use crate::authority::{Action, Grant, Role};
use crate::id::{OrganisationId, PersonId};
use crate::organisation::{self, NewOrganisation, NoSuch, Organisation, active, name};
use crate::permit::Denied;
use crate::store::{self, StoreError, Writing};
use crate::{Directory, Timestamp};

const ACTION: Action = Action::ManagePersons;

/// How many people a page has at most.
const PAGE: usize = 200;

/// Whether somebody may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonState {
    /// 待激活: has not used the invitation yet.
    Invited,
    /// 正常
    Active,
    /// 锁定: by an administrator, until unlocked.
    Locked,
    /// 离任
    Left,
}

impl PersonState {
    pub(crate) fn code(self) -> &'static str {
        match self {
            PersonState::Invited => "invited",
            PersonState::Active => "active",
            PersonState::Locked => "locked",
            PersonState::Left => "left",
        }
    }
}

impl FromStr for PersonState {
    type Err = NoSuch;

    fn from_str(text: &str) -> Result<PersonState, NoSuch> {
        let all = [
            PersonState::Invited,
            PersonState::Active,
            PersonState::Locked,
            PersonState::Left,
        ];
        all.into_iter()
            .find(|state| state.code() == text)
            .ok_or(NoSuch)
    }
}

/// Somebody to be made.
#[derive(Clone, Debug)]
pub struct NewPerson {
    /// As shown.
    pub name: String,
    /// What they will sign in with.
    pub login: String,
}

/// The first three, in a deployment where nobody is yet.
#[derive(Clone, Debug)]
pub struct Administrators {
    /// 系统管理员
    pub system: NewPerson,
    /// 安全管理员
    pub security: NewPerson,
    /// 审计员
    pub auditor: NewPerson,
}

/// Which people are wanted.
#[derive(Clone, Debug, Default)]
pub struct PersonQuery {
    /// Part of a name, first letters of its pinyin, or of the sign-in name.
    pub text: Option<String>,
    /// Also those who have left.
    pub with_left: bool,
    /// Where the page begins: `next` of the one before.
    pub cursor: Option<String>,
    /// How many at most.
    pub limit: usize,
}

/// A part of an organisation's people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonPage {
    /// The people.
    pub persons: Vec<Person>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

impl Directory {
    /// Makes the first three administrators of an organisation, with a post and an invitation each. At the machine, and
    /// once: while there is nobody.
    pub async fn create_administrators(
        &self,
        act: &mut Act<'_>,
        organisation: OrganisationId,
        three: Administrators,
    ) -> Result<[(Person, InvitationToken); 3], PeopleError> {
        if act.who != Who::Machine {
            return Err(Denied::NotFound.into());
        }
        let mut writing = self.store.write().await?;
        let made = first_three(writing.connection(), act, organisation, three).await?;
        writing.commit().await?;
        Ok(made)
    }

    /// Makes the first organisation with its three administrators, all or nothing. At the machine, and once: while there
    /// is nobody. An organisation of this division code that is there already is taken as it is.
    pub async fn set_up(
        &self,
        act: &mut Act<'_>,
        new: NewOrganisation,
        three: Administrators,
    ) -> Result<(Organisation, [(Person, InvitationToken); 3]), PeopleError> {
        if act.who != Who::Machine {
            return Err(Denied::NotFound.into());
        }
        let mut writing = self.store.write().await?;
        let connection = writing.connection();
        let organisation = organisation::found(connection, act, new).await?;
        let made = first_three(connection, act, organisation.id, three).await?;
        writing.commit().await?;
        Ok((organisation, made))
    }

    /// Makes somebody, with an invitation that is shown once.
    pub async fn create_person(
        &self,
        act: &mut Act<'_>,
        organisation: OrganisationId,
        new: NewPerson,
    ) -> Result<(Person, InvitationToken), PeopleError> {
        let mut writing = self.begin(act, ACTION, organisation).await?;
        let connection = writing.connection();
        active(connection, organisation).await?;
        let person = create(connection, act, organisation, new).await?;
        let token = invitation::invite(connection, act, person.id).await?;
        writing.commit().await?;
        Ok((person, token))
    }

    /// Invites somebody again: the invitation before is not good any more.
    pub async fn invite_person(
        &self,
        act: &mut Act<'_>,
        id: PersonId,
    ) -> Result<InvitationToken, PeopleError> {
        let (mut writing, person) = self.begin_with_person(act, ACTION, id).await?;
        if person.state != PersonState::Invited {
            return Err(PeopleError::NotActive);
        }
        let token = invitation::invite(writing.connection(), act, id).await?;
        writing.commit().await?;
        Ok(token)
    }

    /// Calls somebody by another name.
    pub async fn rename_person(
        &self,
        act: &mut Act<'_>,
        id: PersonId,
        version: u64,
        to: &str,
    ) -> Result<Person, PeopleError> {
        let (mut writing, old) = self.begin_with_person(act, ACTION, id).await?;
        check_version(&old, version)?;
        let mut new = old.clone();
        new.name = name::read_name(to).ok_or(PeopleError::BadName)?;
        save(writing.connection(), act, "rename", &old, &mut new).await?;
        writing.commit().await?;
        Ok(new)
    }

    /// Somebody belongs to another organisation from now on. All that they were by posts and for a time ends.
    pub async fn move_person(
        &self,
        act: &mut Act<'_>,
        id: PersonId,
        version: u64,
        to: OrganisationId,
    ) -> Result<Person, PeopleError> {
        let (mut writing, old) = self.begin_with_person(act, ACTION, id).await?;
        writing = self.also(writing, act, ACTION, to).await?;
        check_version(&old, version)?;
        let connection = writing.connection();
        active(connection, to).await?;
        end_roles(connection, act, id).await?;
        let mut new = old.clone();
        new.organisation = to;
        save(connection, act, "move", &old, &mut new).await?;
        writing.commit().await?;
        Ok(new)
    }

    /// Locks somebody out, or lets them in again. Sessions that are open end.
    pub async fn lock_person(
        &self,
        act: &mut Act<'_>,
        id: PersonId,
        version: u64,
        is_locked: bool,
    ) -> Result<Person, PeopleError> {
        let (mut writing, old) = self.begin_with_person(act, ACTION, id).await?;
        check_version(&old, version)?;
        if act.who.person() == Some(id) {
            return Err(PeopleError::Oneself);
        }
        let (from, to) = match is_locked {
            true => (PersonState::Active, PersonState::Locked),
            false => (PersonState::Locked, PersonState::Active),
        };
        if old.state != from {
            return Err(PeopleError::NotActive);
        }
        let connection = writing.connection();
        let mut new = old.clone();
        new.state = to;
        if is_locked {
            end_sessions(connection, act, id, "locked").await?;
        }
        let change = if is_locked { "lock" } else { "unlock" };
        save(connection, act, change, &old, &mut new).await?;
        writing.commit().await?;
        Ok(new)
    }

    /// Somebody has left: every right and session, and what they lent to others, ends now.
    pub async fn let_person_go(
        &self,
        act: &mut Act<'_>,
        id: PersonId,
        version: u64,
    ) -> Result<Person, PeopleError> {
        let (mut writing, old) = self.begin_with_person(act, ACTION, id).await?;
        check_version(&old, version)?;
        if act.who.person() == Some(id) {
            return Err(PeopleError::Oneself);
        }
        let connection = writing.connection();
        let mut new = old.clone();
        new.state = PersonState::Left;
        new.left_at = Some(act.now);
        end_roles(connection, act, id).await?;
        end_sessions(connection, act, id, "left").await?;
        forget_secrets(connection, id).await?;
        invitation::revoke(connection, act, id).await?;
        save(connection, act, "leave", &old, &mut new).await?;
        writing.commit().await?;
        Ok(new)
    }

    /// One person, who has left perhaps. That they were read is written down.
    pub async fn person(&self, act: &Act<'_>, id: PersonId) -> Result<Person, PeopleError> {
        let mut reading = self.store.read().await?;
        let before = find(reading.connection(), id).await?;
        drop(reading);
        let before = before.ok_or(Denied::NotFound)?;
        let action = Action::SeePersons;
        let mut writing = self.begin(act, action, before.organisation).await?;
        let connection = writing.connection();
        let person = find(connection, id).await?;
        // Moved in between, the right was asked for the wrong place.
        let person = person
            .filter(|now| now.organisation == before.organisation)
            .ok_or(Denied::NotFound)?;
        let fresh = Fresh {
            action: action.code(),
            object_kind: "person",
            object_id: Some(id.to_string()),
            organisation: Some(person.organisation),
            outcome: Outcome::Done,
            detail: serde_json::Value::Null,
        };
        audit::append(connection, act, fresh).await?;
        writing.commit().await?;
        Ok(person)
    }

    /// Somebody as they see themselves: with all that they may act by now.
    pub async fn oneself(
        &self,
        id: PersonId,
        now: Timestamp,
    ) -> Result<(Person, Vec<Grant>), StoreError> {
        let mut reading = self.store.read().await?;
        let connection = reading.connection();
        let person = find(connection, id).await?;
        let person = person.ok_or(StoreError::Unreadable("person_id"))?;
        Ok((person, grants_of(connection, id, now).await?))
    }

    /// An organisation's people. That they were read is written down.
    pub async fn persons(
        &self,
        act: &Act<'_>,
        organisation: OrganisationId,
        wanted: &PersonQuery,
    ) -> Result<PersonPage, PeopleError> {
        let mut writing = self.begin(act, Action::SeePersons, organisation).await?;
        let connection = writing.connection();
        let limit = wanted.limit.clamp(1, PAGE);
        let text = name::folded(wanted.text.as_deref().unwrap_or_default());
        let query = format!(
            "SELECT * FROM persons WHERE organisation_id = $1 AND sort_key > $2 \
             AND ($3 = 1 OR state <> 'left') AND (search_name LIKE $4 ESCAPE '!' \
             OR initials LIKE $4 ESCAPE '!' OR login LIKE $4 ESCAPE '!') \
             ORDER BY sort_key LIMIT {}",
            limit + 1
        );
        let rows = sqlx::query(&query)
            .bind(organisation.to_string())
            .bind(wanted.cursor.clone().unwrap_or_default())
            .bind(i64::from(wanted.with_left))
            .bind(store::anywhere(&text))
            .fetch_all(&mut *connection)
            .await?;
        let shown = &rows[..rows.len().min(limit)];
        let next = match shown.last() {
            Some(last) if rows.len() > limit => Some(store::text(last, "sort_key")?),
            _ => None,
        };
        let persons = shown.iter().map(read_row).collect::<Result<Vec<_>, _>>()?;
        let detail = json!({ "count": persons.len(), "text": wanted.text.is_some() });
        super::seen(writing, act, organisation, detail).await?;
        Ok(PersonPage { persons, next })
    }

    /// Opens the transaction for what concerns a person, by the right over their organisation.
    pub(crate) async fn begin_with_person(
        &self,
        act: &Act<'_>,
        action: Action,
        id: PersonId,
    ) -> Result<(Writing, Person), PeopleError> {
        let mut reading = self.store.read().await?;
        let person = find(reading.connection(), id)
            .await?
            .ok_or(Denied::NotFound)?;
        drop(reading);
        let mut writing = self.begin(act, action, person.organisation).await?;
        let now = find(writing.connection(), id)
            .await?
            .ok_or(Denied::NotFound)?;
        if now.organisation != person.organisation {
            // Moved in between: the right was asked for the wrong place.
            return Err(Denied::NotFound.into());
        }
        match now.state {
            PersonState::Left => Err(PeopleError::NotActive),
            _ => Ok((writing, now)),
        }
    }
}

/// Makes the three, if nobody is there.
async fn first_three(
    connection: &mut AnyConnection,
    act: &mut Act<'_>,
    organisation: OrganisationId,
    three: Administrators,
) -> Result<[(Person, InvitationToken); 3], PeopleError> {
    active(connection, organisation).await?;
    let anybody = sqlx::query("SELECT id FROM persons LIMIT 1")
        .fetch_optional(&mut *connection)
        .await?;
    if anybody.is_some() {
        return Err(PeopleError::NotEmpty);
    }
    let system = (three.system, Role::SystemAdministrator);
    let security = (three.security, Role::SecurityAdministrator);
    let auditor = (three.auditor, Role::Auditor);
    let mut made = Vec::new();
    for (new, role) in [system, security, auditor] {
        let person = create(connection, act, organisation, new).await?;
        let title = role.chinese();
        let post = post::create(connection, act, organisation, title, &[role]).await?;
        post::appoint(connection, act, &post, person.id).await?;
        let token = invitation::invite(connection, act, person.id).await?;
        made.push((person, token));
    }
    made.try_into().map_err(|_| PeopleError::NotActive)
}

fn check_version(person: &Person, seen: u64) -> Result<(), PeopleError> {
    match person.version {
        current if current == seen => Ok(()),
        current => Err(PeopleError::Stale { current }),
    }
}

/// A sign-in name: letters that can be said over the telephone, so that none looks like another.
fn read_login(text: &str) -> Option<String> {
    let is_good = (3..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)
        });
    is_good.then(|| text.to_owned())
}

async fn create(
    connection: &mut AnyConnection,
    act: &mut Act<'_>,
    organisation: OrganisationId,
    new: NewPerson,
) -> Result<Person, PeopleError> {
    let person = Person {
        id: PersonId::draw(act.now, act.random),
        organisation,
        name: name::read_name(&new.name).ok_or(PeopleError::BadName)?,
        login: read_login(&new.login).ok_or(PeopleError::BadLogin)?,
        state: PersonState::Invited,
        created_at: act.now,
        left_at: None,
        version: 1,
    };
    let taken = sqlx::query("SELECT id FROM persons WHERE login = $1")
        .bind(person.login.clone())
        .fetch_optional(&mut *connection)
        .await?;
    if taken.is_some() {
        return Err(PeopleError::LoginTaken);
    }
    let query = format!(
        "INSERT INTO persons (id, organisation_id, name, search_name, initials, login, state, \
         created_at, version, sort_key) VALUES {}",
        store::places(1, 10)
    );
    sqlx::query(&query)
        .bind(person.id.to_string())
        .bind(organisation.to_string())
        .bind(person.name.clone())
        .bind(name::folded(&person.name))
        .bind(name::initials(&person.name))
        .bind(person.login.clone())
        .bind(person.state.code())
        .bind(act.now.as_millis())
        .bind(1_i64)
        .bind(name::sort_key(None, &person.name, &person.id.to_string()))
        .execute(&mut *connection)
        .await?;
    record(connection, act, "create", &person).await?;
    Ok(person)
}

/// Writes a person's next version.
async fn save(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    change: &str,
    old: &Person,
    new: &mut Person,
) -> Result<(), StoreError> {
    new.version = old.version + 1;
    let query = "UPDATE persons SET organisation_id = $1, name = $2, search_name = $3, \
                 initials = $4, state = $5, left_at = $6, version = $7, sort_key = $8 WHERE id = $9";
    sqlx::query(query)
        .bind(new.organisation.to_string())
        .bind(new.name.clone())
        .bind(name::folded(&new.name))
        .bind(name::initials(&new.name))
        .bind(new.state.code())
        .bind(new.left_at.map(Timestamp::as_millis))
        .bind(new.version as i64)
        .bind(name::sort_key(None, &new.name, &new.id.to_string()))
        .bind(new.id.to_string())
        .execute(&mut *connection)
        .await?;
    record(connection, act, change, new).await
}

/// Says that an invited person has come.
pub(super) async fn activate(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    old: &Person,
) -> Result<(), StoreError> {
    let mut new = old.clone();
    new.state = PersonState::Active;
    save(connection, act, "accept_invitation", old, &mut new).await
}

/// Says that somebody has to come anew: what they signed in with is lost.
pub(crate) async fn set_invited(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    old: &Person,
) -> Result<(), StoreError> {
    forget_secrets(connection, old.id).await?;
    end_sessions(connection, act, old.id, "reset").await?;
    let mut new = old.clone();
    new.state = PersonState::Invited;
    save(connection, act, "reset_sign_in", old, &mut new).await
}

/// What somebody could sign in with is not kept.
async fn forget_secrets(connection: &mut AnyConnection, id: PersonId) -> Result<(), StoreError> {
    for query in [
        "DELETE FROM passwords WHERE person_id = $1",
        "DELETE FROM factors WHERE person_id = $1",
        "DELETE FROM recovery_codes WHERE person_id = $1",
        "DELETE FROM ceremonies WHERE person_id = $1",
    ] {
        sqlx::query(query)
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Every role that somebody has, and every one that they lent, ends now.
async fn end_roles(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    id: PersonId,
) -> Result<(), StoreError> {
    for query in [
        "UPDATE post_holders SET ends_at = $1 WHERE person_id = $2 AND ends_at IS NULL",
        "UPDATE temporary_grants SET ended_at = $1 \
         WHERE (person_id = $2 OR from_person_id = $2) AND ended_at IS NULL",
    ] {
        sqlx::query(query)
            .bind(act.now.as_millis())
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Every session that somebody has open ends now.
async fn end_sessions(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    id: PersonId,
    because: &'static str,
) -> Result<(), StoreError> {
    let query = "UPDATE sessions SET ended_at = $1, ended_because = $2 \
                 WHERE person_id = $3 AND ended_at IS NULL";
    sqlx::query(query)
        .bind(act.now.as_millis())
        .bind(because)
        .bind(id.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

async fn record(
    connection: &mut AnyConnection,
    act: &Act<'_>,
    change: &str,
    person: &Person,
) -> Result<(), StoreError> {
    let fresh = Fresh {
        action: ACTION.code(),
        object_kind: "person",
        object_id: Some(person.id.to_string()),
        organisation: Some(person.organisation),
        outcome: Outcome::Done,
        detail: json!({
            "change": change,
            "after": {
                "name": person.name,
                "login": person.login,
                "organisation": person.organisation,
                "state": person.state,
                "version": person.version,
            },
        }),
    };
    audit::append(connection, act, fresh).await?;
    Ok(())
}
