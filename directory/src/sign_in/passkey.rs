//! Passkeys (Web Authentication, W3C): a second factor that nobody can be talked into giving away.
//!
//! They belong to a domain name; a deployment that is reached by IP address has none. Challenges are drawn inside
//! `webauthn-rs`, the one place of this crate where randomness is not an argument.

use std::time::Duration;

use sqlx::AnyConnection;
use webauthn_rs::prelude::{
    CreationChallengeResponse, Passkey, PasskeyAuthentication, PasskeyRegistration,
    PublicKeyCredential, RegisterPublicKeyCredential, RequestChallengeResponse, Url, Webauthn,
    WebauthnBuilder,
};

use super::session::{Session, SessionToken};
use super::{FactorKind, SignIn, SignInError, factor};
use crate::Timestamp;
use crate::act::{Act, Who};
use crate::id::{FactorId, PersonId};
use crate::organisation::name;
use crate::people::{self, PeopleError};
use crate::permit::Denied;
use crate::store::{self, StoreError};

/// What the log calls a second factor that was one.
const BY: &str = "passkey";

/// How long a browser has for its answer.
const CEREMONY_TIME: Duration = Duration::from_secs(5 * 60);

/// Passkeys for one deployment.
pub struct Passkeys(Webauthn);

/// Why a deployment has no passkeys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasskeysUnavailable {
    /// It is reached by IP address, and passkeys belong to a domain name: it has one-time passwords only.
    #[error("passkeys need a domain name")]
    NoDomain,
    /// The address is not under the domain, or not one of a page.
    #[error("the address is not one of a page under the domain")]
    BadOrigin,
}

impl Passkeys {
    /// For a domain and the address of its pages; those of every node under the domain are good too.
    pub fn new(domain: &str, origin: &str, shown: &str) -> Result<Passkeys, PasskeysUnavailable> {
        let is_address = domain.parse::<std::net::IpAddr>().is_ok() || domain.starts_with('[');
        if is_address || domain.is_empty() {
            return Err(PasskeysUnavailable::NoDomain);
        }
        let origin = Url::parse(origin).map_err(|_| PasskeysUnavailable::BadOrigin)?;
        let built = WebauthnBuilder::new(domain, &origin)
            .map(|builder| builder.rp_name(shown).allow_subdomains(true))
            .and_then(WebauthnBuilder::build);
        built
            .map(Passkeys)
            .map_err(|_| PasskeysUnavailable::BadOrigin)
    }
}

impl SignIn {
    fn webauthn(&self) -> Result<&Webauthn, SignInError> {
        match &self.passkeys {
            Some(passkeys) => Ok(&passkeys.0),
            None => Err(SignInError::NoPasskeys),
        }
    }

    /// Begins to set up a passkey: what the browser is to be asked.
    pub async fn begin_passkey(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
    ) -> Result<(FactorId, CreationChallengeResponse), SignInError> {
        let webauthn = self.webauthn()?;
        let (mut writing, session) = self.begin_for_factors(act, token).await?;
        let connection = writing.connection();
        let person = people::find(connection, session.person)
            .await?
            .ok_or(Denied::NotFound)?;
        let known = self.passkeys_of(connection, session.person).await?;
        let known = known
            .iter()
            .map(|(_, passkey)| passkey.cred_id().clone())
            .collect();
        let (challenge, state) = webauthn
            .start_passkey_registration(
                *session.person.as_uuid(),
                &person.login,
                &person.name,
                Some(known),
            )
            .map_err(|_| SignInError::Wrong)?;
        let id = FactorId::draw(act.now, act.random);
        keep(
            connection,
            act.now,
            &session,
            &id.to_string(),
            "register",
            &state,
        )
        .await?;
        writing.commit().await?;
        Ok((id, challenge))
    }

    /// The browser's answer: from now on the passkey works. The session counts as proven by two factors; who had none
    /// before gets recovery codes, shown once.
    pub async fn confirm_passkey(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
        id: FactorId,
        called: &str,
        answer: &RegisterPublicKeyCredential,
    ) -> Result<(SessionToken, Option<Vec<String>>), SignInError> {
        let webauthn = self.webauthn()?;
        let called = name::read_name(called).ok_or(PeopleError::BadName)?;
        let (mut writing, session) = self.begin_for_factors(act, token).await?;
        let connection = writing.connection();
        let state: PasskeyRegistration = take(
            connection,
            act.now,
            session.person,
            &id.to_string(),
            "register",
        )
        .await?;
        let passkey = webauthn
            .finish_passkey_registration(answer, &state)
            .map_err(|_| SignInError::Wrong)?;
        let others = self.passkeys_of(connection, session.person).await?;
        if others
            .iter()
            .any(|(_, other)| other.cred_id() == passkey.cred_id())
        {
            return Err(SignInError::Wrong);
        }
        let text = serde_json::to_vec(&passkey).map_err(|_| StoreError::Unreadable("secret"))?;
        let sealed = self.vault.seal(&id.to_string(), &text, act.random);
        let kind = FactorKind::Passkey;
        factor::insert(
            connection,
            act.now,
            id,
            session.person,
            kind,
            &called,
            &sealed,
        )
        .await?;
        sqlx::query("UPDATE factors SET confirmed_at = $1, last_used_at = $1 WHERE id = $2")
            .bind(act.now.as_millis())
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        let token = factor::raise(connection, act, &session).await?;
        let codes = self.first_codes(connection, act, session.person).await?;
        self.note_factor(connection, act, &session, "add_factor", kind)
            .await?;
        writing.commit().await?;
        Ok((token, codes))
    }

    /// Begins to show a passkey, at sign-in or again before a dangerous act.
    pub async fn begin_passkey_proof(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
    ) -> Result<RequestChallengeResponse, SignInError> {
        let webauthn = self.webauthn()?;
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        let session = self.find_session(connection, token, act.now).await?;
        act.who = Who::Person(session.person);
        let known = self.passkeys_of(connection, session.person).await?;
        if known.is_empty() {
            return Err(Denied::NotFound.into());
        }
        let known: Vec<Passkey> = known.into_iter().map(|(_, passkey)| passkey).collect();
        let (challenge, state) = webauthn
            .start_passkey_authentication(&known)
            .map_err(|_| SignInError::Wrong)?;
        // One at a time for a session: the last that was begun.
        keep(
            connection,
            act.now,
            &session,
            &format!("proof:{}", session.id),
            "prove",
            &state,
        )
        .await?;
        writing.commit().await?;
        Ok(challenge)
    }

    /// The browser's answer. The token is another one from now on.
    pub async fn prove_by_passkey(
        &self,
        act: &mut Act<'_>,
        token: &SessionToken,
        answer: &PublicKeyCredential,
    ) -> Result<SessionToken, SignInError> {
        let webauthn = self.webauthn()?;
        let mut writing = self.directory.store.write().await?;
        let connection = writing.connection();
        let session = self.find_session(connection, token, act.now).await?;
        act.who = Who::Person(session.person);
        let ceremony = format!("proof:{}", session.id);
        let state: PasskeyAuthentication =
            take(connection, act.now, session.person, &ceremony, "prove").await?;
        let proven = webauthn.finish_passkey_authentication(answer, &state);
        let mut known = self.passkeys_of(connection, session.person).await?;
        let shown = proven.ok().and_then(|proven| {
            let found = known
                .iter_mut()
                .find(|(_, passkey)| passkey.cred_id() == proven.cred_id());
            found.map(|(id, passkey)| {
                // A counter that went back tells of a copy; the library has refused that already.
                passkey.update_credential(&proven);
                (*id, passkey.clone())
            })
        });
        let Some((id, passkey)) = shown else {
            return factor::settle(writing, act, &session, BY, false).await;
        };
        let text = serde_json::to_vec(&passkey).map_err(|_| StoreError::Unreadable("secret"))?;
        let sealed = self.vault.seal(&id.to_string(), &text, act.random);
        sqlx::query("UPDATE factors SET secret = $1, last_used_at = $2 WHERE id = $3")
            .bind(sealed)
            .bind(act.now.as_millis())
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        factor::settle(writing, act, &session, BY, true).await
    }

    async fn passkeys_of(
        &self,
        connection: &mut AnyConnection,
        person: PersonId,
    ) -> Result<Vec<(FactorId, Passkey)>, StoreError> {
        let query = "SELECT id, secret FROM factors \
                     WHERE person_id = $1 AND kind = 'passkey' AND confirmed_at IS NOT NULL";
        let rows = sqlx::query(query)
            .bind(person.to_string())
            .fetch_all(connection)
            .await?;
        rows.iter()
            .map(|row| {
                let id: FactorId = store::parsed(row, "id")?;
                let opened = self
                    .vault
                    .open(&id.to_string(), &store::bytes(row, "secret")?);
                let passkey = opened.and_then(|text| serde_json::from_slice(&text).ok());
                Ok((id, passkey.ok_or(StoreError::Unreadable("secret"))?))
            })
            .collect()
    }
}

/// Keeps what the browser's answer will be held against.
async fn keep(
    connection: &mut AnyConnection,
    now: Timestamp,
    session: &Session,
    id: &str,
    kind: &str,
    state: &impl serde::Serialize,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM ceremonies WHERE expires_at <= $1 OR id = $2")
        .bind(now.as_millis())
        .bind(id.to_owned())
        .execute(&mut *connection)
        .await?;
    let state = serde_json::to_string(state).map_err(|_| StoreError::Unreadable("state"))?;
    let query = "INSERT INTO ceremonies (id, person_id, kind, state, expires_at) \
                 VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(query)
        .bind(id.to_owned())
        .bind(session.person.to_string())
        .bind(kind.to_owned())
        .bind(state)
        .bind(now.after(CEREMONY_TIME).as_millis())
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes it out: one answer, once.
async fn take<T: serde::de::DeserializeOwned>(
    connection: &mut AnyConnection,
    now: Timestamp,
    person: PersonId,
    id: &str,
    kind: &str,
) -> Result<T, SignInError> {
    let id = id.to_owned();
    let query = "SELECT state FROM ceremonies \
                 WHERE id = $1 AND person_id = $2 AND kind = $3 AND expires_at > $4";
    let row = sqlx::query(query)
        .bind(id.clone())
        .bind(person.to_string())
        .bind(kind.to_owned())
        .bind(now.as_millis())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(SignInError::Wrong)?;
    sqlx::query("DELETE FROM ceremonies WHERE id = $1")
        .bind(id)
        .execute(connection)
        .await?;
    let state = store::text(&row, "state")?;
    Ok(serde_json::from_str(&state).map_err(|_| StoreError::Unreadable("state"))?)
}
