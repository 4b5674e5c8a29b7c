use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::act::{Act, Who};
use crate::audit::Filter;
use crate::id::{OrganisationId, PersonId};
use crate::organisation::{Kind, Level, NewOrganisation};
use crate::people::{Administrators, NewPerson, Person};
use crate::place::{PlaceData, PlaceKind, Use};
use crate::store::{Store, bytes};
use crate::testing::{MORNING, by_machine, on_both_open, random};

const GOOD: &str = "Abcdefgh12";
const OTHER: &str = "Bcdefghi23";
const SECOND: Duration = Duration::from_secs(1);

mod authenticator;

struct World {
    sign_in: SignIn,
    store: Store,
    source: rand::rngs::StdRng,
    now: Timestamp,
    address: IpAddr,
    city: OrganisationId,
    system: Person,
    invitation: String,
}

impl World {
    async fn new(store: Store) -> World {
        let mut source = random(1);
        let directory = Directory::new(store.clone(), MORNING, &mut source)
            .await
            .unwrap();
        let mut act = by_machine(&mut source);
        let city = NewOrganisation {
            kind: Kind::Centre,
            level: Some(Level::Province),
            name: "某省".to_owned(),
            code: None,
            parent: None,
            cascade_parent: None,
        };
        let city = directory
            .create_organisation(&mut act, city)
            .await
            .unwrap()
            .id;
        let person = |name: &str, login: &str| NewPerson {
            name: name.to_owned(),
            login: login.to_owned(),
        };
        let three = Administrators {
            system: person("系统", "system"),
            security: person("安全", "security"),
            auditor: person("审计", "auditor"),
        };
        let [(system, invitation), ..] = directory
            .create_administrators(&mut act, city, three)
            .await
            .unwrap();
        let breached = BreachedPasswords::read(b"Password123\n").unwrap();
        let passkeys = Passkeys::new("example.cn", "https://example.cn", "综治视联").unwrap();
        let hashing = Hashing {
            memory: 64,
            passes: 1,
        };
        let vault = Vault::new(&[7; 32]);
        World {
            sign_in: SignIn::new(directory, vault, breached, Some(passkeys), hashing),
            store,
            source,
            now: MORNING,
            address: "192.0.2.1".parse().unwrap(),
            city,
            system,
            invitation: invitation.as_str().to_owned(),
        }
    }

    fn act(&mut self) -> Act<'_> {
        self.now = self.now.after(SECOND);
        Act {
            who: Who::Nobody,
            now: self.now,
            address: Some(self.address),
            reason: None,
            random: &mut self.source,
        }
    }

    fn act_of(&mut self, who: PersonId) -> Act<'_> {
        let mut act = self.act();
        act.who = Who::Person(who);
        act
    }

    /// An official without an administrator's role, who has chosen the password `GOOD`.
    async fn official(&mut self, login: &str) -> (PersonId, SessionToken) {
        let new = NewPerson {
            name: "李四".to_owned(),
            login: login.to_owned(),
        };
        let sign_in = self.sign_in.clone();
        let (city, mut act) = (self.city, self.act());
        act.who = Who::Machine;
        let (person, invitation) = sign_in
            .directory
            .create_person(&mut act, city, new)
            .await
            .unwrap();
        let token = invitation.as_str();
        let (token, session) = sign_in
            .accept_invitation(&mut self.act(), token, GOOD, "Firefox")
            .await
            .unwrap();
        assert_eq!(session.person, person.id);
        (person.id, token)
    }

    async fn sign_in(
        &mut self,
        login: &str,
        password: &str,
    ) -> Result<(SessionToken, Session), SignInError> {
        let sign_in = self.sign_in.clone();
        sign_in
            .sign_in(&mut self.act(), login, password, "Firefox")
            .await
    }

    async fn session(&mut self, token: &SessionToken) -> Result<Session, SignInError> {
        self.sign_in.clone().session(token, self.now).await
    }

    /// The secret of one-time passwords that a person sets up.
    async fn totp(&mut self, token: &SessionToken) -> (Vec<u8>, SessionToken, Option<Vec<String>>) {
        let sign_in = self.sign_in.clone();
        let new = sign_in
            .begin_totp(&mut self.act(), token, "综治")
            .await
            .unwrap();
        let mut reading = self.store.read().await.unwrap();
        let row = sqlx::query("SELECT secret FROM factors WHERE id = $1")
            .bind(new.id.to_string())
            .fetch_one(reading.connection())
            .await
            .unwrap();
        drop(reading);
        let sealed = bytes(&row, "secret").unwrap();
        let secret = sign_in.vault.open(&new.id.to_string(), &sealed).unwrap();
        assert_eq!(totp::base32(&secret), new.secret);
        let wrong = sign_in
            .confirm_totp(&mut self.act(), token, new.id, "000000")
            .await;
        assert!(matches!(wrong, Err(SignInError::Wrong)));
        let mut act = self.act();
        let code = totp::code_at(&secret, act.now);
        let (token, codes) = sign_in
            .confirm_totp(&mut act, token, new.id, &code)
            .await
            .unwrap();
        (secret, token, codes)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_invited_chooses_a_password_once_and_signs_in_with_it() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let sign_in = world.sign_in.clone();
        let invitation = world.invitation.clone();
        for (password, problem) in [
            ("short", PasswordProblem::TooShort),
            ("Password123", PasswordProblem::Breached),
            ("system-A1234", PasswordProblem::HoldsName),
        ] {
            let chosen = sign_in
                .accept_invitation(&mut world.act(), &invitation, password, "")
                .await;
            assert!(
                matches!(chosen, Err(SignInError::Password(why)) if why == problem),
                "{chosen:?}"
            );
        }
        let early = world.sign_in("system", GOOD).await;
        assert!(matches!(early, Err(SignInError::Wrong)));
        sign_in
            .accept_invitation(&mut world.act(), &invitation, GOOD, "")
            .await
            .unwrap();
        for token in [invitation.as_str(), "", "x"] {
            let again = sign_in
                .accept_invitation(&mut world.act(), token, OTHER, "")
                .await;
            assert!(
                matches!(again, Err(SignInError::People(PeopleError::BadInvitation))),
                "{again:?}"
            );
        }
        let (token, session) = world.sign_in(" System ", GOOD).await.unwrap();
        assert_eq!(session.person, world.system.id);
        assert_eq!(world.session(&token).await.unwrap().id, session.id);
        for (login, password) in [
            ("system", OTHER),
            ("nobody@", GOOD),
            ("", ""),
            ("system", ""),
        ] {
            let wrong = world.sign_in(login, password).await;
            assert!(
                matches!(wrong, Err(SignInError::Wrong)),
                "{login}: {wrong:?}"
            );
        }
        // No password, hash or token is in the log.
        let city = world.city;
        let mut act = world.act();
        act.who = Who::Machine;
        let filter = Filter {
            limit: 500,
            ..Filter::default()
        };
        let page = sign_in
            .directory
            .audit_page(&act, city, &filter)
            .await
            .unwrap();
        let log: String = page
            .entries
            .iter()
            .map(crate::audit::Entry::as_line)
            .collect();
        for secret in [
            GOOD,
            OTHER,
            "argon2",
            token.as_str(),
            invitation.as_str(),
            "nobody@",
        ] {
            assert!(!log.contains(secret), "{secret}");
        }
        let failed = page
            .entries
            .iter()
            .filter(|entry| entry.outcome == "failed")
            .count();
        assert_eq!(failed, 5);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_good_for_a_week_and_the_last_one_only() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let sign_in = world.sign_in.clone();
        let system = world.system.id;
        let mut act = world.act();
        act.who = Who::Machine;
        let system = sign_in
            .directory
            .invite_person(&mut act, system)
            .await
            .unwrap();
        let first = world.invitation.clone();
        let used = sign_in
            .accept_invitation(&mut world.act(), &first, GOOD, "")
            .await;
        assert!(matches!(
            used,
            Err(SignInError::People(PeopleError::BadInvitation))
        ));
        world.now = world.now.after(crate::people::INVITATION_TIME);
        let used = sign_in
            .accept_invitation(&mut world.act(), system.as_str(), GOOD, "")
            .await;
        assert!(matches!(
            used,
            Err(SignInError::People(PeopleError::BadInvitation))
        ));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down_and_keeps_nobody_out_elsewhere() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        world.official("li.si").await;
        for _ in 0..6 {
            assert!(matches!(
                world.sign_in("li.si", OTHER).await,
                Err(SignInError::Wrong)
            ));
        }
        // Now even the right one has to wait here, and not elsewhere.
        let blocked = world.sign_in("li.si", GOOD).await;
        let Err(SignInError::TooManyAttempts { until }) = blocked else {
            panic!("{blocked:?}");
        };
        world.address = "192.0.2.2".parse().unwrap();
        world.sign_in("li.si", GOOD).await.unwrap();
        world.address = "192.0.2.1".parse().unwrap();
        world.now = until;
        world.sign_in("li.si", GOOD).await.unwrap();

        // From everywhere at once, the owner waits a minute at most.
        for number in 0..200_u8 {
            world.address = IpAddr::from([198, 51, 100, number]);
            world.sign_in("li.si", OTHER).await.unwrap_err();
        }
        world.address = "192.0.2.3".parse().unwrap();
        world.now = world.now.after(Duration::from_secs(60));
        world.sign_in("li.si", GOOD).await.unwrap();

        // One address that tries many names is slowed down as well.
        let mut blocked = 0;
        for number in 0..60 {
            let tried = world.sign_in(&format!("name{number}"), GOOD).await;
            blocked += usize::from(matches!(tried, Err(SignInError::TooManyAttempts { .. })));
        }
        assert!(blocked > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_attempts_at_once_are_not_more_than_one_after_another() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        world.official("li.si").await;
        let now = world.now.after(SECOND);
        let attempts = (0..24).map(|number| {
            let (sign_in, address) = (world.sign_in.clone(), world.address);
            tokio::spawn(async move {
                let mut source = random(number);
                let mut act = Act {
                    who: Who::Nobody,
                    now,
                    address: Some(address),
                    reason: None,
                    random: &mut source,
                };
                sign_in.sign_in(&mut act, "li.si", OTHER, "").await
            })
        });
        let mut looked_at = 0;
        for attempt in attempts.collect::<Vec<_>>() {
            match attempt.await.unwrap() {
                Err(SignInError::Wrong) => looked_at += 1,
                Err(SignInError::TooManyAttempts { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(looked_at, 6);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_is_nobody_without_a_second_factor() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let sign_in = world.sign_in.clone();
        let invitation = world.invitation.clone();
        let (first, session) = sign_in
            .accept_invitation(&mut world.act(), &invitation, GOOD, "")
            .await
            .unwrap();
        assert!(session.needs_second_factor && !session.is_complete());
        let (secret, token, codes) = world.totp(&first).await;
        let codes = codes.unwrap();
        assert_eq!(codes.len(), RECOVERY_CODES);
        assert!(
            matches!(world.session(&first).await, Err(SignInError::SessionEnded)),
            "the token is another one"
        );
        assert!(world.session(&token).await.unwrap().is_complete());

        // At the next sign-in it is asked for.
        world.now = world.now.after(Duration::from_secs(60));
        let (token, session) = world.sign_in("system", GOOD).await.unwrap();
        assert!(!session.is_complete());
        let refused = sign_in.begin_totp(&mut world.act(), &token, "综治").await;
        assert!(
            matches!(refused, Err(SignInError::SecondFactorNeeded)),
            "nobody sets up another one instead"
        );
        let refused = sign_in
            .change_password(&mut world.act(), &token, GOOD, OTHER)
            .await;
        assert!(matches!(refused, Err(SignInError::SecondFactorNeeded)));
        let mut act = world.act();
        let code = totp::code_at(&secret, act.now);
        let token = sign_in
            .prove(&mut act, &token, Proof::Totp(&code))
            .await
            .unwrap();
        assert!(world.session(&token).await.unwrap().is_complete());
        // A code works once.
        let again = sign_in
            .prove(&mut world.act(), &token, Proof::Totp(&code))
            .await;
        assert!(matches!(again, Err(SignInError::Wrong)));

        // A recovery code as well, however it is typed.
        let (token, _) = world.sign_in("system", GOOD).await.unwrap();
        let typed = codes[0].to_lowercase().replace('-', " ");
        let token = sign_in
            .prove(&mut world.act(), &token, Proof::RecoveryCode(&typed))
            .await
            .unwrap();
        let again = sign_in
            .prove(&mut world.act(), &token, Proof::RecoveryCode(&codes[0]))
            .await;
        assert!(matches!(again, Err(SignInError::Wrong)));
        let fresh = sign_in
            .new_recovery_codes(&mut world.act(), &token)
            .await
            .unwrap();
        let old = sign_in
            .prove(&mut world.act(), &token, Proof::RecoveryCode(&codes[1]))
            .await;
        assert!(matches!(old, Err(SignInError::Wrong)));
        sign_in
            .prove(&mut world.act(), &token, Proof::RecoveryCode(&fresh[1]))
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_factor_of_an_administrator_stays_and_taking_one_away_is_proven_anew() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let sign_in = world.sign_in.clone();
        let invitation = world.invitation.clone();
        let (first, _) = sign_in
            .accept_invitation(&mut world.act(), &invitation, GOOD, "")
            .await
            .unwrap();
        let (_, token, _) = world.totp(&first).await;
        let only = sign_in.factors(&token, world.now).await.unwrap()[0].id;
        let removed = sign_in.remove_factor(&mut world.act(), &token, only).await;
        assert!(matches!(removed, Err(SignInError::SecondFactorNeeded)));
        world.now = world.now.after(Duration::from_secs(60));
        let (secret, token, codes) = world.totp(&token).await;
        assert_eq!(codes, None);
        world.now = world.now.after(STEP_UP_TIME + SECOND);
        let removed = sign_in.remove_factor(&mut world.act(), &token, only).await;
        assert!(matches!(removed, Err(SignInError::StepUpNeeded)));
        let mut act = world.act();
        let code = totp::code_at(&secret, act.now);
        let token = sign_in
            .prove(&mut act, &token, Proof::Totp(&code))
            .await
            .unwrap();
        sign_in
            .remove_factor(&mut world.act(), &token, only)
            .await
            .unwrap();
        assert_eq!(sign_in.factors(&token, world.now).await.unwrap().len(), 1);
        // An official's may go altogether, and nobody takes away another's.
        let (_, theirs) = world.official("li.si").await;
        let (_, theirs, _) = world.totp(&theirs).await;
        let own = sign_in.factors(&theirs, world.now).await.unwrap()[0].id;
        let strange = sign_in.remove_factor(&mut world.act(), &token, own).await;
        assert!(matches!(
            strange,
            Err(SignInError::Denied(Denied::NotFound))
        ));
        sign_in
            .remove_factor(&mut world.act(), &theirs, own)
            .await
            .unwrap();
        assert!(
            sign_in
                .factors(&theirs, world.now)
                .await
                .unwrap()
                .is_empty()
        );
        // A session that was left open sets nothing up.
        let (_, open) = world.official("wang.wu").await;
        world.now = world.now.after(STEP_UP_TIME + SECOND);
        let begun = sign_in.begin_totp(&mut world.act(), &open, "综治").await;
        assert!(matches!(begun, Err(SignInError::StepUpNeeded)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_idle_when_old_and_when_it_is_ended() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let sign_in = world.sign_in.clone();
        let (_, one) = world.official("li.si").await;
        let (other, _) = world.sign_in("li.si", GOOD).await.unwrap();
        let begin = world.now;
        // Used now and then, it lasts its day; the other one is idle.
        while world.now.since(begin) < ABSOLUTE_TIME - IDLE_TIME {
            world.now = world.now.after(IDLE_TIME - Duration::from_secs(60));
            world.session(&one).await.unwrap();
        }
        assert!(matches!(
            world.session(&other).await,
            Err(SignInError::SessionEnded)
        ));
        assert_eq!(sign_in.sessions(&one, world.now).await.unwrap().len(), 1);
        world.now = begin.after(ABSOLUTE_TIME);
        assert!(matches!(
            world.session(&one).await,
            Err(SignInError::SessionEnded)
        ));

        let (one, _) = world.sign_in("li.si", GOOD).await.unwrap();
        let (other, session) = world.sign_in("li.si", GOOD).await.unwrap();
        let (_, stranger) = world.official("zhang.san").await;
        let strange = sign_in
            .end_session(&mut world.act(), &stranger, Some(session.id))
            .await;
        assert!(matches!(
            strange,
            Err(SignInError::Denied(Denied::NotFound))
        ));
        sign_in
            .end_session(&mut world.act(), &one, Some(session.id))
            .await
            .unwrap();
        assert!(matches!(
            world.session(&other).await,
            Err(SignInError::SessionEnded)
        ));
        sign_in
            .end_session(&mut world.act(), &one, None)
            .await
            .unwrap();
        assert!(matches!(
            world.session(&one).await,
            Err(SignInError::SessionEnded)
        ));
        for forged in ["", "x", session.id.to_string().as_str()] {
            let token = SessionToken::from_text(forged);
            assert!(matches!(
                world.session(&token).await,
                Err(SignInError::SessionEnded)
            ));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_locked_or_leaves_is_out_at_once() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let sign_in = world.sign_in.clone();
        let (person, token) = world.official("li.si").await;
        let mut act = world.act();
        act.who = Who::Machine;
        let locked = sign_in
            .directory
            .lock_person(&mut act, person, 2, true)
            .await
            .unwrap();
        assert!(matches!(
            world.session(&token).await,
            Err(SignInError::SessionEnded)
        ));
        assert!(matches!(
            world.sign_in("li.si", GOOD).await,
            Err(SignInError::Wrong)
        ));
        let mut act = world.act();
        act.who = Who::Machine;
        let free = sign_in
            .directory
            .lock_person(&mut act, person, locked.version, false)
            .await
            .unwrap();
        assert!(
            matches!(world.session(&token).await, Err(SignInError::SessionEnded)),
            "it does not come back"
        );
        let (token, _) = world.sign_in("li.si", GOOD).await.unwrap();
        let mut act = world.act();
        act.who = Who::Machine;
        sign_in
            .directory
            .let_person_go(&mut act, person, free.version)
            .await
            .unwrap();
        assert!(matches!(
            world.session(&token).await,
            Err(SignInError::SessionEnded)
        ));
        assert!(matches!(
            world.sign_in("li.si", GOOD).await,
            Err(SignInError::Wrong)
        ));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_ends_other_sessions_and_is_none_of_the_last() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let sign_in = world.sign_in.clone();
        let (_, one) = world.official("li.si").await;
        let (other, _) = world.sign_in("li.si", GOOD).await.unwrap();
        let wrong = sign_in
            .change_password(&mut world.act(), &one, OTHER, OTHER)
            .await;
        assert!(matches!(wrong, Err(SignInError::Wrong)));
        let same = sign_in
            .change_password(&mut world.act(), &one, GOOD, GOOD)
            .await;
        assert!(matches!(
            same,
            Err(SignInError::Password(PasswordProblem::UsedBefore))
        ));
        sign_in
            .change_password(&mut world.act(), &one, GOOD, OTHER)
            .await
            .unwrap();
        assert!(world.session(&one).await.is_ok());
        assert!(matches!(
            world.session(&other).await,
            Err(SignInError::SessionEnded)
        ));
        assert!(matches!(
            world.sign_in("li.si", GOOD).await,
            Err(SignInError::Wrong)
        ));
        let mut last = OTHER.to_owned();
        for number in 0..5 {
            let next = format!("Cdefghij-{number}");
            sign_in
                .change_password(&mut world.act(), &one, &last, &next)
                .await
                .unwrap();
            last = next;
        }
        let before = sign_in
            .change_password(&mut world.act(), &one, &last, OTHER)
            .await;
        assert!(matches!(
            before,
            Err(SignInError::Password(PasswordProblem::UsedBefore))
        ));
        sign_in
            .change_password(&mut world.act(), &one, &last, GOOD)
            .await
            .unwrap();
        // Proven anew by the password, a session is fresh again.
        world.now = world.now.after(STEP_UP_TIME + SECOND);
        assert!(!world.session(&one).await.unwrap().is_fresh(world.now));
        sign_in
            .prove_by_password(&mut world.act(), &one, GOOD)
            .await
            .unwrap();
        assert!(world.session(&one).await.unwrap().is_fresh(world.now));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_everything_is_invited_anew() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let sign_in = world.sign_in.clone();
        let (person, token) = world.official("li.si").await;
        let (_, token, _) = world.totp(&token).await;
        let (stranger, _) = world.official("zhang.san").await;
        let refused = sign_in
            .reset_sign_in(&mut world.act_of(stranger), person)
            .await;
        assert!(
            matches!(refused, Err(SignInError::People(PeopleError::Denied(_)))),
            "{refused:?}"
        );
        let mut act = world.act();
        act.who = Who::Machine;
        let invitation = sign_in.reset_sign_in(&mut act, person).await.unwrap();
        assert!(matches!(
            world.session(&token).await,
            Err(SignInError::SessionEnded)
        ));
        assert!(matches!(
            world.sign_in("li.si", GOOD).await,
            Err(SignInError::Wrong)
        ));
        let (token, session) = sign_in
            .accept_invitation(&mut world.act(), invitation.as_str(), OTHER, "")
            .await
            .unwrap();
        assert!(session.is_complete());
        assert!(sign_in.factors(&token, world.now).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hall_signs_in_with_its_key_until_it_is_revoked() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let sign_in = world.sign_in.clone();
        let (city, system) = (world.city, world.system.id);
        let invitation = world.invitation.clone();
        sign_in
            .accept_invitation(&mut world.act(), &invitation, GOOD, "")
            .await
            .unwrap();
        let place = |name: &str, kind| PlaceData {
            name: name.to_owned(),
            kind,
            seats: None,
        };
        let mut act = world.act_of(system);
        let hall = place("大会场", PlaceKind::Hall { screens: 2 });
        let hall = sign_in
            .directory
            .create_place(&mut act, city, hall)
            .await
            .unwrap();
        let room = place(
            "调处室",
            PlaceKind::Room {
                uses: vec![Use::Mediation],
            },
        );
        let room = sign_in
            .directory
            .create_place(&mut act, city, room)
            .await
            .unwrap();
        let none = sign_in.issue_device_key(&mut act, room.id, "终端").await;
        assert!(matches!(none, Err(SignInError::Denied(Denied::NotFound))));
        let (key, token) = sign_in
            .issue_device_key(&mut act, hall.id, "主终端")
            .await
            .unwrap();
        let (_, second) = sign_in
            .issue_device_key(&mut act, hall.id, "备用终端")
            .await
            .unwrap();
        let mut act = world.act();
        assert_eq!(
            sign_in
                .sign_in_hall(&mut act, token.as_str())
                .await
                .unwrap(),
            hall.id
        );
        assert_eq!(act.who, Who::Hall(hall.id));
        for forged in ["", "x", key.id.to_string().as_str()] {
            let entered = sign_in.sign_in_hall(&mut world.act(), forged).await;
            assert!(matches!(entered, Err(SignInError::Wrong)));
        }
        let (stranger, _) = world.official("li.si").await;
        let refused = sign_in
            .issue_device_key(&mut world.act_of(stranger), hall.id, "终端")
            .await;
        assert!(matches!(refused, Err(SignInError::Denied(_))));
        sign_in
            .revoke_device_key(&mut world.act_of(system), hall.id, key.id)
            .await
            .unwrap();
        let entered = sign_in.sign_in_hall(&mut world.act(), token.as_str()).await;
        assert!(matches!(entered, Err(SignInError::Wrong)));
        sign_in
            .sign_in_hall(&mut world.act(), second.as_str())
            .await
            .unwrap();
        let keys = sign_in
            .device_keys(&world.act_of(system), hall.id)
            .await
            .unwrap();
        assert_eq!(
            keys.iter().filter(|key| key.revoked_at.is_some()).count(),
            1
        );
        // With the hall, its keys go.
        let mut act = world.act_of(system);
        sign_in
            .directory
            .change_place(&mut act, hall.id, 1, None)
            .await
            .unwrap();
        let entered = sign_in
            .sign_in_hall(&mut world.act(), second.as_str())
            .await;
        assert!(matches!(entered, Err(SignInError::Wrong)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_is_a_second_factor() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let sign_in = world.sign_in.clone();
        let invitation = world.invitation.clone();
        let (token, _) = sign_in
            .accept_invitation(&mut world.act(), &invitation, GOOD, "")
            .await
            .unwrap();
        let mut device = authenticator::Authenticator::new(&mut world.source);
        let (id, challenge) = sign_in
            .begin_passkey(&mut world.act(), &token)
            .await
            .unwrap();
        let elsewhere = device.register(&challenge, "https://example.com");
        let wrong = sign_in
            .confirm_passkey(&mut world.act(), &token, id, "钥匙", &elsewhere)
            .await;
        assert!(
            matches!(wrong, Err(SignInError::Wrong)),
            "made for another page"
        );
        let answer = device.register(&challenge, "https://city.example.cn");
        let (token, codes) = sign_in
            .confirm_passkey(&mut world.act(), &token, id, "钥匙", &answer)
            .await
            .unwrap();
        assert_eq!(codes.map(|codes| codes.len()), Some(RECOVERY_CODES));
        let again = sign_in
            .confirm_passkey(&mut world.act(), &token, id, "钥匙", &answer)
            .await;
        assert!(
            matches!(again, Err(SignInError::Wrong)),
            "an answer is good once"
        );

        let (token, session) = world.sign_in("system", GOOD).await.unwrap();
        assert!(!session.is_complete());
        let challenge = sign_in
            .begin_passkey_proof(&mut world.act(), &token)
            .await
            .unwrap();
        let answer = device.show(&challenge, "https://example.cn");
        let token = sign_in
            .prove_by_passkey(&mut world.act(), &token, &answer)
            .await
            .unwrap();
        assert!(world.session(&token).await.unwrap().is_complete());
        let again = sign_in
            .prove_by_passkey(&mut world.act(), &token, &answer)
            .await;
        assert!(matches!(again, Err(SignInError::Wrong)), "replayed");

        // Another key, and an answer that comes too late.
        let challenge = sign_in
            .begin_passkey_proof(&mut world.act(), &token)
            .await
            .unwrap();
        let mut other = authenticator::Authenticator::new(&mut world.source);
        other.take_name_of(&device);
        let forged = other.show(&challenge, "https://example.cn");
        let wrong = sign_in
            .prove_by_passkey(&mut world.act(), &token, &forged)
            .await;
        assert!(matches!(wrong, Err(SignInError::Wrong)));
        let challenge = sign_in
            .begin_passkey_proof(&mut world.act(), &token)
            .await
            .unwrap();
        let late = device.show(&challenge, "https://example.cn");
        world.now = world.now.after(Duration::from_secs(5 * 60));
        let wrong = sign_in
            .prove_by_passkey(&mut world.act(), &token, &late)
            .await;
        assert!(matches!(wrong, Err(SignInError::Wrong)));
        let factors = sign_in.factors(&token, world.now).await.unwrap();
        assert_eq!(
            factors.iter().map(|factor| factor.kind).collect::<Vec<_>>(),
            [FactorKind::Passkey]
        );
    })
    .await;
}

#[test]
fn passkeys_need_a_domain_name() {
    for (domain, origin) in [
        ("192.0.2.1", "https://192.0.2.1"),
        ("[2001:db8::1]", "https://[2001:db8::1]"),
        ("", "https://example.cn"),
    ] {
        let made = Passkeys::new(domain, origin, "x");
        assert_eq!(made.err(), Some(PasskeysUnavailable::NoDomain), "{domain}");
    }
    let made = Passkeys::new("example.cn", "https://example.com", "x");
    assert_eq!(made.err(), Some(PasskeysUnavailable::BadOrigin));
    let made = Passkeys::new("example.cn", "not an address", "x");
    assert_eq!(made.err(), Some(PasskeysUnavailable::BadOrigin));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_may_have_shorter_sessions() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let limits = SessionLimits {
            idle: 60 * SECOND,
            absolute: 300 * SECOND,
        };
        world.sign_in = world.sign_in.clone().with_limits(limits);
        let (_, token) = world.official("li.si").await;
        let begin = world.now;
        while world.now.since(begin) < 250 * SECOND {
            world.now = world.now.after(50 * SECOND);
            // Looking keeps nobody signed in; using does.
            world.sign_in.peek_session(&token, world.now).await.unwrap();
            world.sign_in.session(&token, world.now).await.unwrap();
        }
        let late = begin.after(301 * SECOND);
        let ended = world.sign_in.session(&token, late).await;
        assert!(matches!(ended, Err(SignInError::SessionEnded)));
        let (_, token) = world.official("wang.wu").await;
        let idle = world.now.after(61 * SECOND);
        let ended = world.sign_in.peek_session(&token, idle).await;
        assert!(matches!(ended, Err(SignInError::SessionEnded)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_sealed_for_a_day_for_who_asked() {
    on_both_open(|store| async move {
        let mut world = World::new(store.clone()).await;
        let sign_in = world.sign_in.clone();
        let now = world.now;
        let first = sign_in.begin_once("a", "k", "d", now).await.unwrap();
        assert_eq!(first, Once::First);
        let running = sign_in.begin_once("a", "k", "d", now).await;
        assert!(matches!(running, Err(NotOnce::Unanswered)), "{running:?}");
        let secret = b"an invitation that is shown once";
        sign_in
            .keep_answer(&mut world.act(), "a", "k", 201, secret)
            .await
            .unwrap();
        let again = sign_in.begin_once("a", "k", "d", now).await.unwrap();
        let body = secret.to_vec();
        assert_eq!(again, Once::Done { status: 201, body });
        let other = sign_in.begin_once("a", "k", "e", now).await;
        assert!(matches!(other, Err(NotOnce::Another)), "{other:?}");
        let others = sign_in.begin_once("b", "k", "d", now).await.unwrap();
        assert_eq!(others, Once::First);
        sign_in.forget_request("b", "k").await.unwrap();
        let anew = sign_in.begin_once("b", "k", "e", now).await.unwrap();
        assert_eq!(anew, Once::First);
        let mut reading = store.read().await.unwrap();
        let row = sqlx::query("SELECT answer FROM once_requests WHERE actor = 'a'")
            .fetch_one(reading.connection())
            .await
            .unwrap();
        let kept = bytes(&row, "answer").unwrap();
        assert!(!kept.windows(10).any(|part| secret.starts_with(part)));
        drop(reading);
        let later = now.after(ANSWER_TIME);
        let forgotten = sign_in.begin_once("a", "k", "e", later).await.unwrap();
        assert_eq!(forgotten, Once::First);
    })
    .await;
}
