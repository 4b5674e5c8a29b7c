use std::time::Duration;

use super::*;
use crate::act::{Act, Who};
use crate::authority::Action;
use crate::id::MatterId;
use crate::organisation::{Kind, Level, NewOrganisation};
use crate::permit;
use crate::store::Store;
use crate::testing::{MORNING, by_machine, on_both_open, random};
use crate::{Denied, Directory};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// 沈阳 with its three administrators, and a county under it and another city beside it.
struct World {
    directory: Directory,
    store: Store,
    source: rand::rngs::StdRng,
    now: Timestamp,
    city: OrganisationId,
    county: OrganisationId,
    beside: OrganisationId,
    system: Who,
    security: Who,
    auditor: PersonId,
}

impl World {
    async fn new(store: Store) -> World {
        let mut source = random(1);
        let directory = Directory::new(store.clone(), MORNING, &mut source)
            .await
            .unwrap();
        let mut act = by_machine(&mut source);
        let mut ids = Vec::new();
        for (level, name, parent) in [
            (Level::Province, "辽宁省", None),
            (Level::City, "沈阳市", Some(0)),
            (Level::County, "和平区", Some(1)),
            (Level::City, "大连市", Some(0)),
        ] {
            let new = NewOrganisation {
                kind: Kind::Centre,
                level: Some(level),
                name: name.to_owned(),
                code: None,
                parent: parent.map(|at: usize| ids[at]),
                cascade_parent: None,
            };
            ids.push(
                directory
                    .create_organisation(&mut act, new)
                    .await
                    .unwrap()
                    .id,
            );
        }
        let person = |name: &str, login: &str| NewPerson {
            name: name.to_owned(),
            login: login.to_owned(),
        };
        let three = Administrators {
            system: person("系统", "system"),
            security: person("安全", "security"),
            auditor: person("审计", "auditor"),
        };
        let made = directory
            .create_administrators(&mut act, ids[1], three.clone())
            .await
            .unwrap();
        let again = directory
            .create_administrators(&mut act, ids[1], three)
            .await;
        assert!(matches!(again, Err(PeopleError::NotEmpty)));
        let [system, security, auditor] = made.map(|(person, _)| person.id);
        let mut world = World {
            directory,
            store,
            source,
            now: MORNING,
            city: ids[1],
            county: ids[2],
            beside: ids[3],
            system: Who::Person(system),
            security: Who::Person(security),
            auditor,
        };
        for id in [system, security, auditor] {
            world.come(id).await;
        }
        world
    }

    fn act(&mut self, who: Who) -> Act<'_> {
        self.now = self.now.after(Duration::from_secs(1));
        Act {
            who,
            now: self.now,
            address: None,
            reason: None,
            random: &mut self.source,
        }
    }

    /// Somebody has chosen a password.
    async fn come(&mut self, id: PersonId) {
        let mut writing = self.store.write().await.unwrap();
        sqlx::query("UPDATE persons SET state = 'active' WHERE id = $1")
            .bind(id.to_string())
            .execute(writing.connection())
            .await
            .unwrap();
        writing.commit().await.unwrap();
    }

    async fn person(&mut self, organisation: OrganisationId, login: &str) -> Person {
        let new = NewPerson {
            name: format!("张{login}"),
            login: login.to_owned(),
        };
        let (directory, who) = (self.directory.clone(), self.system);
        let (person, _) = directory
            .create_person(&mut self.act(who), organisation, new)
            .await
            .unwrap();
        self.come(person.id).await;
        person
    }

    async fn post(&mut self, organisation: OrganisationId, roles: &[Role]) -> Post {
        let (directory, who) = (self.directory.clone(), self.security);
        let mut act = self.act(who);
        directory
            .create_post(&mut act, organisation, "某岗", roles)
            .await
            .unwrap()
    }

    async fn appoint(&mut self, post: &Post, person: PersonId) -> Result<(), PeopleError> {
        let (directory, who) = (self.directory.clone(), self.security);
        directory.appoint(&mut self.act(who), post.id, person).await
    }

    /// Whether somebody may do something to an organisation now.
    async fn may(
        &mut self,
        person: PersonId,
        action: Action,
        organisation: OrganisationId,
    ) -> bool {
        let store = self.store.clone();
        let mut reading = store.read().await.unwrap();
        let act = self.act(Who::Person(person));
        let decision = permit::decide(reading.connection(), &act, action, organisation).await;
        decision.unwrap().is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_made_by_one_administrator_and_given_roles_by_another() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let directory = world.directory.clone();
        let (city, county, beside) = (world.city, world.county, world.beside);
        let new = |login: &str| NewPerson {
            name: "李四".to_owned(),
            login: login.to_owned(),
        };
        let (system, security) = (world.system, world.security);
        let refused = directory
            .create_person(&mut world.act(security), city, new("li.si"))
            .await;
        assert!(
            matches!(refused, Err(PeopleError::Denied(Denied::Refused(_)))),
            "{refused:?}"
        );
        let refused = directory
            .create_person(&mut world.act(system), beside, new("li.si"))
            .await;
        assert!(
            matches!(refused, Err(PeopleError::Denied(Denied::NotFound))),
            "{refused:?}"
        );
        let (li, _) = directory
            .create_person(&mut world.act(system), county, new("li.si"))
            .await
            .unwrap();
        let taken = directory
            .create_person(&mut world.act(system), city, new("li.si"))
            .await;
        assert!(matches!(taken, Err(PeopleError::LoginTaken)), "{taken:?}");
        for login in ["", "li", "Li.si", "1li", "李四", "li si", &"l".repeat(33)] {
            let made = directory
                .create_person(&mut world.act(system), city, new(login))
                .await;
            assert!(
                matches!(made, Err(PeopleError::BadLogin)),
                "{login}: {made:?}"
            );
        }
        let refused = directory
            .create_post(&mut world.act(system), county, "主任", &[Role::Head])
            .await;
        assert!(
            matches!(refused, Err(PeopleError::Denied(Denied::Refused(_)))),
            "{refused:?}"
        );
        let head = world.post(county, &[Role::Head, Role::Head]).await;
        assert_eq!(head.roles, [Role::Head]);
        world.appoint(&head, li.id).await.unwrap();
        assert!(
            !world.may(li.id, Action::SeeStatistics, county).await,
            "not before they have come"
        );
        world.come(li.id).await;
        assert!(world.may(li.id, Action::SeeStatistics, county).await);
        assert!(!world.may(li.id, Action::SeeStatistics, city).await);
        for roles in [&[][..], &[Role::Chair], &[Role::Party, Role::Head]] {
            let mut act = world.act(security);
            let made = directory.create_post(&mut act, county, "某岗", roles).await;
            assert!(
                matches!(made, Err(PeopleError::WrongRole)),
                "{roles:?}: {made:?}"
            );
        }
        let page = directory
            .persons(
                &world.act(system),
                county,
                &PersonQuery {
                    limit: 10,
                    ..PersonQuery::default()
                },
            )
            .await
            .unwrap();
        assert_eq!(
            page.persons.iter().map(|one| one.id).collect::<Vec<_>>(),
            [li.id]
        );
        let report = directory.verify_audit(&[], &[]).await.unwrap();
        assert_eq!(report.findings, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_to_two_of_the_three_administrators_roles_on_any_way() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let directory = world.directory.clone();
        let (city, county, security) = (world.city, world.county, world.security);
        let auditor = world.auditor;
        let both = [Role::Auditor, Role::SecurityAdministrator];
        let made = directory
            .create_post(&mut world.act(security), city, "某岗", &both)
            .await;
        assert!(
            matches!(made, Err(PeopleError::OnePersonTwoAdministrators)),
            "{made:?}"
        );
        // By a second post, also of another organisation.
        let post = world.post(county, &[Role::SystemAdministrator]).await;
        let appointed = world.appoint(&post, auditor).await;
        assert!(
            matches!(appointed, Err(PeopleError::OnePersonTwoAdministrators)),
            "{appointed:?}"
        );
        // By a change of the post that they have.
        let plain = world.post(county, &[Role::Head]).await;
        world.appoint(&plain, auditor).await.unwrap();
        let roles = [Role::SystemAdministrator];
        let changed = directory
            .change_post(&mut world.act(security), plain.id, 1, &roles)
            .await;
        assert!(
            matches!(changed, Err(PeopleError::OnePersonTwoAdministrators)),
            "{changed:?}"
        );
        assert!(
            !world
                .may(auditor, Action::ManageOrganisations, county)
                .await
        );
        assert!(world.may(auditor, Action::SeeStatistics, county).await);
        // For a time.
        let (matter, end) = (
            MatterId::draw(MORNING, &mut random(2)),
            world.now.after(DAY),
        );
        let guest = directory
            .invite_guest(
                &mut world.act(security),
                city,
                matter,
                Role::SystemAdministrator,
                auditor,
                Term {
                    ends_at: end,
                    purpose: "临时帮忙",
                },
            )
            .await;
        assert!(matches!(guest, Err(PeopleError::WrongRole)), "{guest:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_lent_for_a_time_and_ends_with_it_or_with_the_lenders_own() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let directory = world.directory.clone();
        let (city, county, security) = (world.city, world.county, world.security);
        let (lender, other) = (
            world.person(city, "lender").await,
            world.person(county, "other").await,
        );
        let third = world.person(city, "third").await;
        let post = world
            .post(city, &[Role::Head, Role::SystemAdministrator])
            .await;
        world.appoint(&post, lender.id).await.unwrap();
        let me = Who::Person(lender.id);
        let lend = async |world: &mut World, who, role, to, days: u32, purpose: &str| {
            let end = world.now.after(DAY * days);
            let directory = world.directory.clone();
            directory
                .delegate(
                    &mut world.act(who),
                    post.id,
                    role,
                    to,
                    Term {
                        ends_at: end,
                        purpose,
                    },
                )
                .await
        };
        for (role, to, days, purpose) in [
            (Role::Head, other.id, 0, "出差"),
            (Role::Head, other.id, 91, "出差"),
            (Role::Head, other.id, 3, " "),
        ] {
            let lent = lend(&mut world, me, role, to, days, purpose).await;
            assert!(
                matches!(lent, Err(PeopleError::BadTerm)),
                "{days} {purpose:?}: {lent:?}"
            );
        }
        let lent = lend(
            &mut world,
            me,
            Role::SystemAdministrator,
            other.id,
            3,
            "出差",
        )
        .await;
        assert!(matches!(lent, Err(PeopleError::WrongRole)), "{lent:?}");
        let lent = lend(&mut world, me, Role::Mediator, other.id, 3, "出差").await;
        assert!(matches!(lent, Err(PeopleError::WrongRole)), "{lent:?}");
        let lent = lend(&mut world, me, Role::Head, lender.id, 3, "出差").await;
        assert!(
            matches!(lent, Err(PeopleError::Denied(Denied::NotFound))),
            "{lent:?}"
        );

        assert!(!world.may(other.id, Action::SeeStatistics, city).await);
        let grant = lend(&mut world, me, Role::Head, other.id, 3, "出差")
            .await
            .unwrap();
        assert!(world.may(other.id, Action::SeeStatistics, city).await);
        // What is lent is not lent on.
        let lent = lend(
            &mut world,
            Who::Person(other.id),
            Role::Head,
            third.id,
            1,
            "出差",
        )
        .await;
        assert!(matches!(lent, Err(PeopleError::WrongRole)), "{lent:?}");
        world.now = grant.ends_at.before(Duration::from_secs(2));
        assert!(world.may(other.id, Action::SeeStatistics, city).await);
        assert!(
            !world.may(other.id, Action::SeeStatistics, city).await,
            "a second later it has ended"
        );

        // Ended by the lender; and by the security administrator.
        let grant = lend(&mut world, me, Role::Head, other.id, 3, "出差")
            .await
            .unwrap();
        let stranger = directory
            .end_grant(&mut world.act(Who::Person(third.id)), grant.id)
            .await;
        assert!(
            matches!(stranger, Err(PeopleError::Denied(_))),
            "{stranger:?}"
        );
        directory
            .end_grant(&mut world.act(me), grant.id)
            .await
            .unwrap();
        assert!(!world.may(other.id, Action::SeeStatistics, city).await);
        let grant = lend(&mut world, me, Role::Head, other.id, 3, "出差")
            .await
            .unwrap();
        directory
            .end_grant(&mut world.act(security), grant.id)
            .await
            .unwrap();
        assert!(!world.may(other.id, Action::SeeStatistics, city).await);

        // With the lender's own right.
        lend(&mut world, me, Role::Head, other.id, 3, "出差")
            .await
            .unwrap();
        directory
            .dismiss(&mut world.act(security), post.id, lender.id)
            .await
            .unwrap();
        assert!(!world.may(other.id, Action::SeeStatistics, city).await);
        assert!(!world.may(lender.id, Action::SeeStatistics, city).await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_left_has_no_right_from_that_moment_on() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let directory = world.directory.clone();
        let (city, system) = (world.city, world.system);
        let (one, other) = (
            world.person(city, "one").await,
            world.person(city, "other").await,
        );
        let post = world.post(city, &[Role::Head]).await;
        world.appoint(&post, one.id).await.unwrap();
        let end = world.now.after(DAY);
        directory
            .delegate(
                &mut world.act(Who::Person(one.id)),
                post.id,
                Role::Head,
                other.id,
                Term {
                    ends_at: end,
                    purpose: "出差",
                },
            )
            .await
            .unwrap();
        assert!(world.may(other.id, Action::SeeStatistics, city).await);
        let version = 1;
        let stale = directory
            .let_person_go(&mut world.act(system), one.id, version + 1)
            .await;
        assert!(
            matches!(stale, Err(PeopleError::Stale { current: 1 })),
            "{stale:?}"
        );
        let left = directory
            .let_person_go(&mut world.act(system), one.id, version)
            .await
            .unwrap();
        assert_eq!(left.state, PersonState::Left);
        assert!(!world.may(one.id, Action::SeeOrganisation, city).await);
        assert!(!world.may(other.id, Action::SeeStatistics, city).await);
        let again = directory
            .let_person_go(&mut world.act(system), one.id, 2)
            .await;
        assert!(matches!(again, Err(PeopleError::NotActive)), "{again:?}");
        let appointed = world.appoint(&post, one.id).await;
        assert!(
            matches!(appointed, Err(PeopleError::NotActive)),
            "{appointed:?}"
        );
        // Nobody ends themselves.
        let own = system.person().unwrap();
        let ended = directory
            .let_person_go(&mut world.act(system), own, 1)
            .await;
        assert!(matches!(ended, Err(PeopleError::Oneself)), "{ended:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_locked_or_moves_away_has_none_of_the_old_rights() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let directory = world.directory.clone();
        let (city, county, system) = (world.city, world.county, world.system);
        let one = world.person(city, "one").await;
        let post = world.post(city, &[Role::Head]).await;
        world.appoint(&post, one.id).await.unwrap();
        let locked = directory
            .lock_person(&mut world.act(system), one.id, 1, true)
            .await
            .unwrap();
        assert!(!world.may(one.id, Action::SeeStatistics, city).await);
        let free = directory
            .lock_person(&mut world.act(system), one.id, locked.version, false)
            .await
            .unwrap();
        assert!(world.may(one.id, Action::SeeStatistics, city).await);
        let moved = directory
            .move_person(&mut world.act(system), one.id, free.version, county)
            .await
            .unwrap();
        assert_eq!(moved.organisation, county);
        assert!(!world.may(one.id, Action::SeeStatistics, city).await);
        let beside = world.beside;
        let refused = directory
            .move_person(&mut world.act(system), one.id, moved.version, beside)
            .await;
        assert!(
            matches!(refused, Err(PeopleError::Denied(Denied::NotFound))),
            "{refused:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_has_a_role_in_one_matter_until_a_day() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let directory = world.directory.clone();
        let (city, security) = (world.city, world.security);
        let guest = world.person(city, "guest").await;
        let (matter, end) = (
            MatterId::draw(MORNING, &mut random(2)),
            world.now.after(DAY),
        );
        directory
            .invite_guest(
                &mut world.act(security),
                city,
                matter,
                Role::Mediator,
                guest.id,
                Term {
                    ends_at: end,
                    purpose: "特邀调解",
                },
            )
            .await
            .unwrap();
        let mut reading = world.store.read().await.unwrap();
        let grants = grants_of(reading.connection(), guest.id, world.now)
            .await
            .unwrap();
        assert_eq!(grants.len(), 1);
        assert!(grants[0].is_of_a_matter());
        assert_eq!(grants[0].ends_at(), Some(end));
        assert!(
            grants_of(reading.connection(), guest.id, end)
                .await
                .unwrap()
                .is_empty()
        );
        drop(reading);
        // It shows nothing of the organisation outside that matter.
        assert!(!world.may(guest.id, Action::SeeOrganisation, city).await);
    })
    .await;
}
