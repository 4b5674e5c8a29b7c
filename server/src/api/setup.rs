//! First set-up: while nobody is there, whoever can read what the server prints at its start makes the first
//! organisation and the three administrators.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use directory::act::Who;
use directory::organisation::{Kind as OrganisationKind, Level, NewOrganisation};
use directory::people::{Administrators, NewPerson};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::extract::{Asker, Body};
use super::fault::{Fault, Kind};
use super::organisations::OrganisationView;
use super::persons::{NewPersonBody, PersonView};

/// How many letters a code has: with thirty-one of them, ninety-nine bits.
const LETTERS: usize = 20;

/// A code that is known to whoever sees the server start.
pub(crate) struct SetupCode(String);

impl SetupCode {
    /// A fresh one.
    pub(crate) fn draw(random: &mut impl rand::Rng) -> SetupCode {
        // None that looks like another one.
        const ALPHABET: &[u8; 31] = b"ABCDEFGHJKLMNPQRSTUVWXYZ2345678";
        let letter = |_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]);
        SetupCode((0..LETTERS).map(letter).collect())
    }

    /// As people read it.
    pub(crate) fn shown(&self) -> String {
        let groups: Vec<&str> = (0..LETTERS)
            .step_by(5)
            .map(|at| &self.0[at..at + 5])
            .collect();
        groups.join("-")
    }

    fn is(&self, typed: &str) -> bool {
        let typed: String = typed
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .map(|c| c.to_ascii_uppercase())
            .collect();
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), typed.as_bytes())
            .is_ok()
    }
}

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(state, set_up))
}

/// Whether a deployment is to be set up.
#[derive(Serialize, ToSchema)]
struct SetUpState {
    /// Whether nobody is there yet.
    is_needed: bool,
    /// Whether passkeys can be used; otherwise administrators need an app for one-time passwords.
    has_passkeys: bool,
    /// Whether people reach this server over TLS.
    is_secure: bool,
}

/// The three administrators, who are three people.
#[derive(Deserialize, ToSchema)]
struct ThreeAdministrators {
    /// 系统管理员
    system: NewPersonBody,
    /// 安全管理员
    security: NewPersonBody,
    /// 审计员
    auditor: NewPersonBody,
}

/// A first set-up.
#[derive(Deserialize, ToSchema)]
struct SetUp {
    /// As the server printed it.
    code: String,
    /// The name of the topmost organisation, a province's centre.
    organisation: String,
    /// Its division code.
    division_code: Option<String>,
    administrators: ThreeAdministrators,
}

/// An invitation, shown once.
#[derive(Serialize, ToSchema)]
pub(super) struct InvitedView {
    pub(super) person: PersonView,
    /// Who opens it chooses a password; it is good for a week, and once.
    pub(super) invitation: String,
}

/// What was made.
#[derive(Serialize, ToSchema)]
struct SetUpDone {
    organisation: OrganisationView,
    system: InvitedView,
    security: InvitedView,
    auditor: InvitedView,
}

/// The link of an invitation.
pub(super) fn invitation_link(api: &Api, token: &str) -> String {
    // Behind the sign, it is in no server's or proxy's log.
    format!("{}/invitation#{token}", api.url)
}

/// Says whether the deployment is to be set up.
#[utoipa::path(get, path = "/api/setup", tag = "setup", responses((status = 200, body = SetUpState)))]
async fn state(State(api): State<Arc<Api>>) -> Json<SetUpState> {
    let is_needed = api
        .setup
        .lock()
        .expect("no panic while it is held")
        .is_some();
    Json(SetUpState {
        is_needed,
        has_passkeys: api.sign_in.has_passkeys(),
        is_secure: api.is_secure,
    })
}

fn person(body: NewPersonBody) -> NewPerson {
    NewPerson {
        name: body.name,
        login: body.login,
    }
}

/// Makes the first organisation and the three administrators, once.
#[utoipa::path(
    post, path = "/api/setup", tag = "setup", request_body = SetUp,
    responses((status = 201, description = "The invitations are shown once", body = SetUpDone))
)]
async fn set_up(
    State(api): State<Arc<Api>>,
    mut asker: Asker,
    Body(body): Body<SetUp>,
) -> Result<(StatusCode, Json<SetUpDone>), Fault> {
    let address = asker
        .address
        .unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    let instant = Instant::now();
    if let Err(wait) = api.guesses.may_try(address, instant) {
        return Err(Fault::from(Kind::TooManyAttempts).retry_after(wait.as_secs()));
    }
    {
        let code = api.setup.lock().expect("no panic while it is held");
        let code = code.as_ref().ok_or(Kind::SetUpAlready)?;
        if !code.is(&body.code) {
            api.guesses.failed(address, instant);
            return Err(Kind::Wrong.into());
        }
    }
    let ThreeAdministrators {
        system,
        security,
        auditor,
    } = body.administrators;
    let all = [&system, &security, &auditor];
    let is_twice = |of: fn(&NewPersonBody) -> &str| {
        let mut seen: Vec<&str> = all.iter().map(|person| of(person).trim()).collect();
        seen.sort_unstable();
        seen.dedup();
        seen.len() < all.len()
    };
    if is_twice(|person| &person.name) || is_twice(|person| &person.login) {
        return Err(Kind::SetUpWeak.into());
    }
    let code = body
        .division_code
        .as_deref()
        .filter(|code| !code.is_empty());
    let new = NewOrganisation {
        kind: OrganisationKind::Centre,
        level: Some(Level::Province),
        name: body.organisation,
        code: code.map(str::parse).transpose().map_err(Fault::invalid)?,
        parent: None,
        cascade_parent: None,
    };
    let three = Administrators {
        system: person(system),
        security: person(security),
        auditor: person(auditor),
    };
    asker.who = Who::Machine;
    let (organisation, made) = api.directory.set_up(&mut asker.act(), new, three).await?;
    *api.setup.lock().expect("no panic while it is held") = None;
    let [system, security, auditor] = made.map(|(person, token)| InvitedView {
        person: person.into(),
        invitation: invitation_link(&api, token.as_str()),
    });
    let done = SetUpDone {
        organisation: organisation.into(),
        system,
        security,
        auditor,
    };
    Ok((StatusCode::CREATED, Json(done)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_known_however_it_is_typed() {
        let code = SetupCode::draw(&mut rand::rng());
        let shown = code.shown();
        assert_eq!(shown.len(), LETTERS + 3);
        assert!(code.is(&shown) && code.is(&shown.to_lowercase().replace('-', " ")));
        for other in ["", &shown[..shown.len() - 1], "AAAAA-AAAAA-AAAAA-AAAAA"] {
            assert!(!code.is(other), "{other}");
        }
        assert_ne!(SetupCode::draw(&mut rand::rng()).shown(), shown);
    }
}
