//! Signing in and out, second factors, one's own sessions, and halls by their device keys.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use directory::authority::{Grant, Origin};
use directory::id::{FactorId, SessionId};
use directory::sign_in::{
    Factor, FactorKind, Proof, PublicKeyCredential, RegisterPublicKeyCredential, Session,
    SessionToken, Strength,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::extract::{Asker, Body, Caller, HalfSignedIn, Id, Kept};
use super::fault::{Fault, Kind};
use super::open::SHOWN;
use super::persons::PersonView;
use super::places::PlaceView;

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(sign_in, me, sign_out))
        .routes(routes!(prove))
        .routes(routes!(begin_passkey_proof))
        .routes(routes!(change_password))
        .routes(routes!(sessions))
        .routes(routes!(end_session))
        .routes(routes!(factors))
        .routes(routes!(begin_totp))
        .routes(routes!(confirm_totp))
        .routes(routes!(begin_passkey))
        .routes(routes!(confirm_passkey))
        .routes(routes!(remove_factor))
        .routes(routes!(new_recovery_codes))
        .routes(routes!(accept_invitation))
        .routes(routes!(sign_in_hall, hall, sign_out_hall))
}

type Cookie = [(HeaderName, HeaderValue); 1];

fn cookie(api: &Api, kept: Kept, value: Option<&str>) -> Cookie {
    [(header::SET_COOKIE, kept.set(value, api.is_secure))]
}

/// A session of one's own.
#[derive(Serialize, ToSchema)]
struct SessionView {
    id: String,
    person: String,
    /// What the browser calls itself.
    device: String,
    address: Option<String>,
    created_at: i64,
    last_seen_at: i64,
    expires_at: i64,
    /// `password` or `two_factors`.
    strength: &'static str,
    /// When it was last proved who it is; some acts take a proof not older than five minutes.
    verified_at: i64,
    /// Whether a second factor must be given, or set up, before anything else.
    needs_second_factor: bool,
    /// Whether it is the one that asks.
    is_this: bool,
}

impl SessionView {
    fn of(session: Session, this: SessionId) -> SessionView {
        SessionView {
            is_this: session.id == this,
            needs_second_factor: !session.is_complete(),
            id: session.id.to_string(),
            person: session.person.to_string(),
            device: session.device,
            address: session.address,
            created_at: session.created_at.as_millis(),
            last_seen_at: session.last_seen_at.as_millis(),
            expires_at: session.expires_at.as_millis(),
            strength: match session.strength {
                Strength::Password => "password",
                Strength::TwoFactors => "two_factors",
            },
            verified_at: session.verified_at.as_millis(),
        }
    }
}

/// A role that one has.
#[derive(Serialize, ToSchema)]
struct GrantView {
    role: &'static str,
    organisation: String,
    /// `post`, `delegation` or `guest`.
    origin: &'static str,
    ends_at: Option<i64>,
    is_of_a_matter: bool,
}

impl From<&Grant> for GrantView {
    fn from(grant: &Grant) -> GrantView {
        GrantView {
            role: grant.role().code(),
            organisation: grant.at().own().to_string(),
            origin: match grant.origin() {
                Origin::Post => "post",
                Origin::Delegation => "delegation",
                Origin::Guest => "guest",
            },
            ends_at: grant.ends_at().map(|end| end.as_millis()),
            is_of_a_matter: grant.is_of_a_matter(),
        }
    }
}

/// Who is signed in.
#[derive(Serialize, ToSchema)]
struct Me {
    session: SessionView,
    person: PersonView,
    /// Nothing while the second factor is missing.
    roles: Vec<GrantView>,
    /// Whether passkeys can be used here.
    has_passkeys: bool,
}

#[derive(Deserialize, ToSchema)]
struct SignInBody {
    login: String,
    password: String,
}

async fn told(api: &Api, session: Session, asker: &Asker) -> Result<Json<Me>, Fault> {
    let (person, grants) = api.directory.oneself(session.person, asker.now).await?;
    let grants = if session.is_complete() {
        grants
    } else {
        Vec::new()
    };
    let this = session.id;
    Ok(Json(Me {
        session: SessionView::of(session, this),
        person: person.into(),
        roles: grants.iter().map(Into::into).collect(),
        has_passkeys: api.sign_in.has_passkeys(),
    }))
}

/// Signs in with a password. The cookie it sets is the session.
#[utoipa::path(post, path = "/api/session", tag = "sign-in", request_body = SignInBody,
    responses((status = 200, body = Me)))]
async fn sign_in(
    State(api): State<Arc<Api>>,
    mut asker: Asker,
    Body(body): Body<SignInBody>,
) -> Result<(Cookie, Json<Me>), Fault> {
    let device = asker.device.clone();
    let mut act = asker.act();
    let opened = api
        .sign_in
        .sign_in(&mut act, &body.login, &body.password, &device);
    let (token, session) = opened.await?;
    let cookie = cookie(&api, Kept::Session, Some(token.as_str()));
    Ok((cookie, told(&api, session, &asker).await?))
}

/// Who is signed in, and with which roles.
#[utoipa::path(get, path = "/api/session", tag = "sign-in", responses((status = 200, body = Me)))]
async fn me(State(api): State<Arc<Api>>, half: HalfSignedIn) -> Result<Json<Me>, Fault> {
    told(&api, half.session, &half.asker).await
}

/// Signs out.
#[utoipa::path(delete, path = "/api/session", tag = "sign-in", responses((status = 204)))]
async fn sign_out(
    State(api): State<Arc<Api>>,
    mut half: HalfSignedIn,
) -> Result<(StatusCode, Cookie), Fault> {
    let mut act = half.asker.act();
    api.sign_in.end_session(&mut act, &half.token, None).await?;
    Ok((StatusCode::NO_CONTENT, cookie(&api, Kept::Session, None)))
}

/// A proof of who one is: one of these.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum ProofBody {
    /// A one-time password.
    Totp(String),
    /// A recovery code; it is used up.
    RecoveryCode(String),
    /// The password once more, for who has no second factor.
    Password(String),
    /// The browser's answer to the challenge for a passkey (`PublicKeyCredential` as JSON).
    Passkey(serde_json::Value),
}

/// Gives the second factor, or proves again who one is.
#[utoipa::path(post, path = "/api/session/proof", tag = "sign-in", request_body = ProofBody,
    responses((status = 200, body = Me)))]
async fn prove(
    State(api): State<Arc<Api>>,
    mut half: HalfSignedIn,
    Body(body): Body<ProofBody>,
) -> Result<(Cookie, Json<Me>), Fault> {
    let mut act = half.asker.act();
    let (sign_in, old) = (&api.sign_in, &half.token);
    let token = match body {
        ProofBody::Totp(code) => sign_in.prove(&mut act, old, Proof::Totp(&code)).await?,
        ProofBody::RecoveryCode(code) => {
            let proof = Proof::RecoveryCode(&code);
            sign_in.prove(&mut act, old, proof).await?
        }
        ProofBody::Password(password) => {
            sign_in.prove_by_password(&mut act, old, &password).await?;
            old.clone()
        }
        ProofBody::Passkey(answer) => {
            let answer: PublicKeyCredential =
                serde_json::from_value(answer).map_err(Fault::invalid)?;
            sign_in.prove_by_passkey(&mut act, old, &answer).await?
        }
    };
    let session = sign_in.session(&token, half.asker.now).await?;
    let cookie = cookie(&api, Kept::Session, Some(token.as_str()));
    Ok((cookie, told(&api, session, &half.asker).await?))
}

/// What a browser is to be asked for (Web Authentication, W3C).
#[derive(Serialize, ToSchema)]
struct Challenge {
    /// Names the factor that is being set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<String>,
    /// For `navigator.credentials`.
    #[schema(value_type = Object)]
    options: serde_json::Value,
}

fn challenge(factor: Option<FactorId>, options: &impl Serialize) -> Result<Json<Challenge>, Fault> {
    Ok(Json(Challenge {
        factor: factor.map(|id| id.to_string()),
        options: serde_json::to_value(options).map_err(|_| Kind::Internal)?,
    }))
}

/// Asks for a challenge, to show a passkey.
#[utoipa::path(post, path = "/api/session/passkey-challenge", tag = "sign-in",
    responses((status = 200, body = Challenge)))]
async fn begin_passkey_proof(
    State(api): State<Arc<Api>>,
    mut half: HalfSignedIn,
) -> Result<Json<Challenge>, Fault> {
    let mut act = half.asker.act();
    let asked = api
        .sign_in
        .begin_passkey_proof(&mut act, &half.token)
        .await?;
    challenge(None, &asked)
}

#[derive(Deserialize, ToSchema)]
struct PasswordBody {
    old: String,
    new: String,
}

/// Chooses another password. Every other session of one's own ends.
#[utoipa::path(post, path = "/api/password", tag = "sign-in", request_body = PasswordBody,
    responses((status = 204)))]
async fn change_password(
    State(api): State<Arc<Api>>,
    mut half: HalfSignedIn,
    Body(body): Body<PasswordBody>,
) -> Result<StatusCode, Fault> {
    let mut act = half.asker.act();
    let change = api
        .sign_in
        .change_password(&mut act, &half.token, &body.old, &body.new);
    change.await?;
    Ok(StatusCode::NO_CONTENT)
}

/// One's own open sessions, the newest first.
#[utoipa::path(get, path = "/api/sessions", tag = "sign-in",
    responses((status = 200, body = Vec<SessionView>)))]
async fn sessions(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<Json<Vec<SessionView>>, Fault> {
    let half = caller.0;
    let sessions = api.sign_in.sessions(&half.token, half.asker.now).await?;
    let this = half.session.id;
    let views = sessions.into_iter().map(|one| SessionView::of(one, this));
    Ok(Json(views.collect()))
}

/// Ends one of one's own sessions.
#[utoipa::path(delete, path = "/api/sessions/{id}", tag = "sign-in",
    params(("id" = String, Path)), responses((status = 204)))]
async fn end_session(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<SessionId>,
) -> Result<StatusCode, Fault> {
    let token = caller.0.token.clone();
    let act = &mut caller.act();
    api.sign_in.end_session(act, &token, Some(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A second factor that works.
#[derive(Serialize, ToSchema)]
struct FactorView {
    id: String,
    /// `totp` or `passkey`.
    kind: &'static str,
    name: String,
    created_at: i64,
    last_used_at: Option<i64>,
}

impl From<Factor> for FactorView {
    fn from(factor: Factor) -> FactorView {
        FactorView {
            id: factor.id.to_string(),
            kind: match factor.kind {
                FactorKind::Totp => "totp",
                FactorKind::Passkey => "passkey",
            },
            name: factor.name,
            created_at: factor.created_at.as_millis(),
            last_used_at: factor.last_used_at.map(|at| at.as_millis()),
        }
    }
}

/// One's own second factors.
#[utoipa::path(get, path = "/api/factors", tag = "sign-in",
    responses((status = 200, body = Vec<FactorView>)))]
async fn factors(
    State(api): State<Arc<Api>>,
    half: HalfSignedIn,
) -> Result<Json<Vec<FactorView>>, Fault> {
    let factors = api.sign_in.factors(&half.token, half.asker.now).await?;
    Ok(Json(factors.into_iter().map(Into::into).collect()))
}

/// One-time passwords that are being set up; shown once.
#[derive(Serialize, ToSchema)]
struct NewTotpView {
    id: String,
    /// As it is typed into an app.
    secret: String,
    /// What the picture to be photographed holds.
    uri: String,
}

/// Begins to set up one-time passwords.
#[utoipa::path(post, path = "/api/factors/totp", tag = "sign-in",
    responses((status = 201, body = NewTotpView)))]
async fn begin_totp(
    State(api): State<Arc<Api>>,
    mut half: HalfSignedIn,
) -> Result<(StatusCode, Json<NewTotpView>), Fault> {
    let mut act = half.asker.act();
    let new = api.sign_in.begin_totp(&mut act, &half.token, SHOWN).await?;
    let view = NewTotpView {
        id: new.id.to_string(),
        secret: new.secret,
        uri: new.uri,
    };
    Ok((StatusCode::CREATED, Json(view)))
}

#[derive(Deserialize, ToSchema)]
struct CodeBody {
    code: String,
}

/// That a factor works, with recovery codes for who had none yet; shown once.
#[derive(Serialize, ToSchema)]
struct Confirmed {
    recovery_codes: Option<Vec<String>>,
}

fn confirmed(
    api: &Api,
    (token, recovery_codes): (SessionToken, Option<Vec<String>>),
) -> (Cookie, Json<Confirmed>) {
    let cookie = cookie(api, Kept::Session, Some(token.as_str()));
    (cookie, Json(Confirmed { recovery_codes }))
}

/// Shows a first one-time password: from now on they work.
#[utoipa::path(post, path = "/api/factors/totp/{id}", tag = "sign-in", request_body = CodeBody,
    params(("id" = String, Path)), responses((status = 200, body = Confirmed)))]
async fn confirm_totp(
    State(api): State<Arc<Api>>,
    mut half: HalfSignedIn,
    Id(id): Id<FactorId>,
    Body(body): Body<CodeBody>,
) -> Result<(Cookie, Json<Confirmed>), Fault> {
    let mut act = half.asker.act();
    let done = api
        .sign_in
        .confirm_totp(&mut act, &half.token, id, &body.code)
        .await?;
    Ok(confirmed(&api, done))
}

/// Begins to set up a passkey.
#[utoipa::path(post, path = "/api/factors/passkey", tag = "sign-in",
    responses((status = 201, body = Challenge)))]
async fn begin_passkey(
    State(api): State<Arc<Api>>,
    mut half: HalfSignedIn,
) -> Result<(StatusCode, Json<Challenge>), Fault> {
    let mut act = half.asker.act();
    let (id, asked) = api.sign_in.begin_passkey(&mut act, &half.token).await?;
    Ok((StatusCode::CREATED, challenge(Some(id), &asked)?))
}

#[derive(Deserialize, ToSchema)]
struct NewPasskeyBody {
    /// What its owner calls it.
    name: String,
    /// The browser's answer (`PublicKeyCredential` as JSON).
    #[schema(value_type = Object)]
    answer: serde_json::Value,
}

/// Shows the new passkey: from now on it works.
#[utoipa::path(post, path = "/api/factors/passkey/{id}", tag = "sign-in",
    request_body = NewPasskeyBody,
    params(("id" = String, Path)), responses((status = 200, body = Confirmed)))]
async fn confirm_passkey(
    State(api): State<Arc<Api>>,
    mut half: HalfSignedIn,
    Id(id): Id<FactorId>,
    Body(body): Body<NewPasskeyBody>,
) -> Result<(Cookie, Json<Confirmed>), Fault> {
    let answer: RegisterPublicKeyCredential =
        serde_json::from_value(body.answer).map_err(Fault::invalid)?;
    let mut act = half.asker.act();
    let confirm = api
        .sign_in
        .confirm_passkey(&mut act, &half.token, id, &body.name, &answer);
    Ok(confirmed(&api, confirm.await?))
}

/// Takes a factor away; an administrator keeps one.
#[utoipa::path(delete, path = "/api/factors/{id}", tag = "sign-in",
    params(("id" = String, Path)), responses((status = 204)))]
async fn remove_factor(
    State(api): State<Arc<Api>>,
    mut half: HalfSignedIn,
    Id(id): Id<FactorId>,
) -> Result<StatusCode, Fault> {
    let mut act = half.asker.act();
    api.sign_in.remove_factor(&mut act, &half.token, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Serialize, ToSchema)]
struct RecoveryCodes {
    recovery_codes: Vec<String>,
}

/// New recovery codes, shown once; the old ones open nothing any more.
#[utoipa::path(post, path = "/api/recovery-codes", tag = "sign-in",
    responses((status = 201, body = RecoveryCodes)))]
async fn new_recovery_codes(
    State(api): State<Arc<Api>>,
    mut half: HalfSignedIn,
) -> Result<(StatusCode, Json<RecoveryCodes>), Fault> {
    let mut act = half.asker.act();
    let codes = api
        .sign_in
        .new_recovery_codes(&mut act, &half.token)
        .await?;
    let codes = RecoveryCodes {
        recovery_codes: codes,
    };
    Ok((StatusCode::CREATED, Json(codes)))
}

#[derive(Deserialize, ToSchema)]
struct InvitationBody {
    /// What stands behind the sign `#` in the link.
    token: String,
    /// The password that is chosen.
    password: String,
}

fn address(asker: &Asker) -> std::net::IpAddr {
    let unknown = std::net::Ipv4Addr::UNSPECIFIED.into();
    asker.address.unwrap_or(unknown)
}

/// Whether an address may try a secret now.
fn may_try(api: &Api, asker: &Asker) -> Result<(), Fault> {
    api.guesses
        .may_try(address(asker), Instant::now())
        .map_err(|wait| Fault::from(Kind::TooManyAttempts).retry_after(wait.as_secs()))
}

fn failed(api: &Api, asker: &Asker) {
    api.guesses.failed(address(asker), Instant::now());
}

/// Chooses a password by an invitation, and is signed in.
#[utoipa::path(post, path = "/api/invitations/accept", tag = "sign-in",
    request_body = InvitationBody, responses((status = 200, body = Me)))]
async fn accept_invitation(
    State(api): State<Arc<Api>>,
    mut asker: Asker,
    Body(body): Body<InvitationBody>,
) -> Result<(Cookie, Json<Me>), Fault> {
    may_try(&api, &asker)?;
    let device = asker.device.clone();
    let mut act = asker.act();
    let accept = api
        .sign_in
        .accept_invitation(&mut act, &body.token, &body.password, &device);
    let (token, session) = accept.await.inspect_err(|error| {
        use directory::people::PeopleError;
        use directory::sign_in::SignInError;
        if matches!(error, SignInError::People(PeopleError::BadInvitation)) {
            failed(&api, &asker);
        }
    })?;
    let cookie = cookie(&api, Kept::Session, Some(token.as_str()));
    Ok((cookie, told(&api, session, &asker).await?))
}

#[derive(Deserialize, ToSchema)]
struct HallBody {
    /// The device key, as it was shown when it was issued.
    key: String,
}

/// A hall's terminal that is signed in.
#[derive(Serialize, ToSchema)]
struct HallView {
    hall: PlaceView,
}

/// Signs a hall's terminal in with its device key, which a cookie keeps from then on.
#[utoipa::path(post, path = "/api/hall/session", tag = "sign-in", request_body = HallBody,
    responses((status = 200, body = HallView)))]
async fn sign_in_hall(
    State(api): State<Arc<Api>>,
    mut asker: Asker,
    Body(body): Body<HallBody>,
) -> Result<(Cookie, Json<HallView>), Fault> {
    may_try(&api, &asker)?;
    let opened = api.sign_in.sign_in_hall(&mut asker.act(), &body.key).await;
    opened.inspect_err(|error| {
        if matches!(error, directory::sign_in::SignInError::Wrong) {
            failed(&api, &asker);
        }
    })?;
    let hall = api.sign_in.hall(&body.key).await?;
    // It is one that was drawn here, so it is plain letters.
    let cookie = cookie(&api, Kept::Hall, Some(&body.key));
    Ok((cookie, Json(HallView { hall: hall.into() })))
}

/// Which hall's terminal this is.
#[utoipa::path(get, path = "/api/hall/session", tag = "sign-in",
    responses((status = 200, body = HallView)))]
async fn hall(
    State(api): State<Arc<Api>>,
    headers: axum::http::HeaderMap,
) -> Result<Json<HallView>, Fault> {
    let key = Kept::Hall.read(&headers, api.is_secure);
    let hall = api.sign_in.hall(&key.ok_or(Kind::SignedOut)?).await;
    let hall = hall.map_err(|error| match error {
        // Revoked, or closed: the terminal is signed out.
        directory::sign_in::SignInError::Wrong => Fault::from(Kind::SignedOut),
        error => error.into(),
    })?;
    Ok(Json(HallView { hall: hall.into() }))
}

/// The terminal forgets the hall's key, which stays good.
#[utoipa::path(delete, path = "/api/hall/session", tag = "sign-in", responses((status = 204)))]
async fn sign_out_hall(State(api): State<Arc<Api>>) -> (StatusCode, Cookie) {
    (StatusCode::NO_CONTENT, cookie(&api, Kept::Hall, None))
}
