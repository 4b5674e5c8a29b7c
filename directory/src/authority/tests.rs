use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testing::{MORNING, random};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

const INVOLVEMENTS: [Involvement; 6] = [
    Involvement::Handler,
    Involvement::Party,
    Involvement::Called,
    Involvement::Assisting,
    Involvement::Invited,
    Involvement::Oneself,
];

const FACTS: [Fact; 7] = [
    Fact::Consented,
    Fact::Notified,
    Fact::Incident,
    Fact::OfficialTerminal,
    Fact::DutyTerminal,
    Fact::ApplicationGranted,
    Fact::Witnessed,
];

const RELATIONS: [Relation; 4] = [
    Relation::Own,
    Relation::Below,
    Relation::Above,
    Relation::Beside,
];

/// A province, a city in it, a county in that and another city, with two people and two matters.
struct World {
    province: OrganisationId,
    city: OrganisationId,
    county: OrganisationId,
    other_city: OrganisationId,
    person: PersonId,
    approver: PersonId,
    matter: MatterId,
    other_matter: MatterId,
}

impl World {
    fn new() -> World {
        let mut source = random(1);
        let random = &mut source;
        World {
            province: OrganisationId::draw(MORNING, random),
            city: OrganisationId::draw(MORNING, random),
            county: OrganisationId::draw(MORNING, random),
            other_city: OrganisationId::draw(MORNING, random),
            person: PersonId::draw(MORNING, random),
            approver: PersonId::draw(MORNING, random),
            matter: MatterId::draw(MORNING, random),
            other_matter: MatterId::draw(MORNING, random),
        }
    }

    fn lineage(&self, relation: Relation) -> Lineage {
        match relation {
            Relation::Own => Lineage::new(vec![self.province], self.city),
            Relation::Below => Lineage::new(vec![self.province, self.city], self.county),
            Relation::Above => Lineage::new(vec![], self.province),
            Relation::Beside => Lineage::new(vec![self.province], self.other_city),
        }
    }

    /// Somebody with a role in the city.
    fn actor(&self, role: Role) -> Actor {
        let at = self.lineage(Relation::Own);
        let grant = if role.is_of_a_matter() {
            let end = MORNING.after(HOUR);
            Grant::as_guest(role, at, self.matter, MORNING, end)
        } else {
            Grant::by_post(role, at, MORNING)
        };
        Actor {
            person: Some(self.person),
            grants: vec![grant],
            now: MORNING,
            has_reason: false,
        }
    }

    /// Something of an organisation, where all is so that could be, or nothing is.
    fn subject(&self, relation: Relation, is_full: bool) -> Subject {
        let bare = Subject {
            matter: Some(self.other_matter),
            ..Subject::organisation(self.lineage(relation))
        };
        if !is_full {
            return bare;
        }
        Subject {
            matter: Some(self.matter),
            involvement: INVOLVEMENTS.to_vec(),
            facts: FACTS.to_vec(),
            approved_by: Some(self.approver),
            ..bare
        }
    }
}

/// The fixture: action and role to what is expected, own, below, above, beside; all of it so, then nothing.
fn fixture() -> BTreeMap<(Action, Role), Vec<char>> {
    let mut expected = BTreeMap::new();
    for line in include_str!("fixture.txt").lines() {
        if line.starts_with('#') {
            continue;
        }
        let (action, cells) = line.split_once(": ").unwrap();
        let action: Action = action.parse().unwrap();
        for role in Role::ALL {
            let old = expected.insert((action, *role), vec!['-'; 8]);
            assert_eq!(old, None, "{action} stands there twice");
        }
        for cell in cells.split(' ') {
            let (role, outcome) = cell.split_once('=').unwrap();
            let outcome: Vec<char> = outcome.chars().filter(|c| *c != '/').collect();
            assert_eq!(outcome.len(), 8, "{line}");
            expected.insert((action, role.parse().unwrap()), outcome);
        }
    }
    expected
}

/// What a decision looks like in the fixture, where `-` is two things.
fn letter(decision: Decision) -> char {
    match decision {
        Decision::Allowed(_) => 'Y',
        Decision::NeedsReason(_) => 'R',
        Decision::NeedsSecondPerson(_) => 'S',
        Decision::Refused(Refusal::Unmet(_)) => 'u',
        Decision::Refused(Refusal::Role) => 'n',
        Decision::Hidden => 'h',
    }
}

#[test]
fn every_role_may_what_the_requirements_say_and_nothing_else() {
    let world = World::new();
    let expected = fixture();
    assert_eq!(expected.len(), Action::ALL.len() * Role::ALL.len());
    let mut tried = 0;
    for ((action, role), outcome) in &expected {
        for (at, relation) in RELATIONS.iter().enumerate() {
            for (is_full, offset) in [(true, 0), (false, 4)] {
                let subject = world.subject(*relation, is_full);
                let mut actor = world.actor(*role);
                let known = expected[&(action.knowing(), *role)][at + offset];
                let expected = match outcome[at + offset] {
                    '-' if matches!(known, 'Y' | 'R' | 'S') => 'n',
                    '-' => 'h',
                    other => other,
                };
                let what = format!("{action} by {role}, {relation:?}, full: {is_full}");
                assert_eq!(letter(can(&actor, *action, &subject)), expected, "{what}");
                actor.has_reason = true;
                let expected = if expected == 'R' { 'Y' } else { expected };
                assert_eq!(letter(can(&actor, *action, &subject)), expected, "{what}");
                tried += 2;
            }
        }
    }
    assert_eq!(tried, Action::ALL.len() * Role::ALL.len() * 16);
}

#[test]
fn what_is_shared_is_seen_for_its_time_with_a_reason_by_who_may_see_the_like_at_home() {
    let world = World::new();
    let expected = fixture();
    for ((action, role), outcome) in &expected {
        let mut subject = world.subject(Relation::Beside, true);
        subject.shares = vec![Share {
            with: world.city,
            actions: vec![*action],
            ends_at: MORNING.after(HOUR),
        }];
        let mut actor = world.actor(*role);
        let at_home = outcome[0];
        let is_seen = action.is_shareable()
            && !role.is_of_a_matter()
            && (matches!(at_home, 'Y' | 'R') || outcome[1] != '-');
        let what = format!("{action} by {role}");
        let decision = letter(can(&actor, *action, &subject));
        if is_seen {
            assert_eq!(decision, 'R', "{what}");
        } else if role.is_of_a_matter() {
            assert_eq!(
                decision == 'Y' || decision == 'R',
                outcome[3] != '-',
                "{what}"
            );
        } else {
            assert!(matches!(decision, 'n' | 'h'), "{what}: {decision}");
        }
        actor.now = MORNING.after(HOUR);
        if !role.is_of_a_matter() {
            assert!(
                matches!(letter(can(&actor, *action, &subject)), 'n' | 'h'),
                "{what}"
            );
        }
        actor.now = MORNING;
        subject.shares[0].with = world.county;
        if !role.is_of_a_matter() {
            assert!(
                matches!(letter(can(&actor, *action, &subject)), 'n' | 'h'),
                "{what}"
            );
        }
    }
}

#[test]
fn a_share_with_an_organisation_is_one_with_all_under_it() {
    let world = World::new();
    let mut subject = world.subject(Relation::Beside, true);
    subject.shares = vec![Share {
        with: world.city,
        actions: vec![Action::SeeStatistics],
        ends_at: MORNING.after(HOUR),
    }];
    let mut actor = world.actor(Role::Head);
    let at = world.lineage(Relation::Below);
    actor.grants = vec![Grant::by_post(Role::Head, at, MORNING)];
    assert_eq!(letter(can(&actor, Action::SeeStatistics, &subject)), 'R');
}

#[test]
fn nobody_of_an_accused_unit_hears_of_the_accusation() {
    let world = World::new();
    for role in Role::ALL {
        for action in Action::ALL
            .iter()
            .filter(|action| action.kind() == Kind::Matter)
        {
            let mut subject = world.subject(Relation::Own, true);
            subject.accused = Some(world.city);
            let mut actor = world.actor(*role);
            actor.has_reason = true;
            let decision = can(&actor, *action, &subject);
            if *role != Role::Party {
                assert_eq!(decision, Decision::Hidden, "{action} by {role}");
            }
            // Nor when it has a role elsewhere too.
            let above = world.lineage(Relation::Above);
            actor
                .grants
                .push(Grant::by_post(Role::Superior, above, MORNING));
            if !role.is_of_a_matter() {
                let decision = can(&actor, *action, &subject);
                assert_eq!(decision, Decision::Hidden, "{action} by {role}");
            }
        }
    }
    // The province's handler sees it, and the petitioner, even one who works in that unit.
    let mut subject = world.subject(Relation::Own, true);
    subject.accused = Some(world.city);
    let mut actor = world.actor(Role::Party);
    let at = world.lineage(Relation::Own);
    actor
        .grants
        .push(Grant::by_post(Role::GridWorker, at, MORNING));
    assert!(can(&actor, Action::SeeCase, &subject).is_allowed());
    let mut actor = world.actor(Role::Superior);
    let above = world.lineage(Relation::Above);
    actor.grants = vec![Grant::by_post(Role::Superior, above.clone(), MORNING)];
    actor.has_reason = true;
    assert!(can(&actor, Action::SeeCase, &subject).is_allowed());
    // An upper level that is not named hears nothing, whatever it may see of other cases.
    subject.involvement.clear();
    assert_eq!(can(&actor, Action::SeeCase, &subject), Decision::Hidden);
    actor.grants = vec![Grant::by_post(Role::SecurityAdministrator, above, MORNING)];
    assert_eq!(
        can(&actor, Action::SetLegalHold, &subject),
        Decision::Hidden
    );
}

#[test]
fn a_role_for_a_time_begins_and_ends_to_the_millisecond() {
    let world = World::new();
    let at = world.lineage(Relation::Own);
    let end = MORNING.after(HOUR);
    let subject = world.subject(Relation::Own, true);
    let millisecond = std::time::Duration::from_millis(1);
    for grant in [
        Grant::by_delegation(Role::Head, at.clone(), MORNING, end),
        Grant::as_guest(Role::Head, at, world.matter, MORNING, end),
    ] {
        let mut actor = world.actor(Role::Head);
        actor.grants = vec![grant];
        for (now, is_so) in [
            (MORNING.before(millisecond), false),
            (MORNING, true),
            (end.before(millisecond), true),
            (end, false),
        ] {
            actor.now = now;
            let decision = can(&actor, Action::ApproveExtension, &subject);
            assert_eq!(decision.is_allowed(), is_so, "{now:?}");
        }
    }
}

#[test]
fn a_guest_of_one_matter_is_nobody_in_another() {
    let world = World::new();
    let mut actor = world.actor(Role::Mediator);
    let end = MORNING.after(HOUR);
    let at = world.lineage(Relation::Own);
    actor.grants = vec![Grant::as_guest(
        Role::Mediator,
        at,
        world.matter,
        MORNING,
        end,
    )];
    let mut subject = world.subject(Relation::Own, true);
    assert!(can(&actor, Action::SeeCase, &subject).is_allowed());
    subject.matter = Some(world.other_matter);
    assert_eq!(can(&actor, Action::SeeCase, &subject), Decision::Hidden);
    subject.matter = None;
    assert_eq!(can(&actor, Action::SeeCase, &subject), Decision::Hidden);
}

#[test]
fn nobody_approves_what_they_do_themselves() {
    let world = World::new();
    let mut subject = world.subject(Relation::Own, true);
    subject.approved_by = Some(world.person);
    let mut actor = world.actor(Role::SecurityAdministrator);
    let decision = can(&actor, Action::ExportRecording, &subject);
    assert!(matches!(decision, Decision::NeedsSecondPerson(_)));
    subject.approved_by = Some(world.approver);
    actor.person = None;
    let decision = can(&actor, Action::ExportRecording, &subject);
    assert!(matches!(decision, Decision::NeedsSecondPerson(_)));
}

#[test]
fn the_three_administrators_are_three_people() {
    use Role::{Auditor, Head, SecurityAdministrator, SystemAdministrator};
    assert!(may_be_one_person([]));
    assert!(may_be_one_person([Auditor, Auditor]));
    assert!(may_be_one_person([Head, SystemAdministrator]));
    assert!(!may_be_one_person([SystemAdministrator, Head, Auditor]));
    assert!(!may_be_one_person([SecurityAdministrator, Auditor]));
}

#[test]
fn every_action_has_one_row_and_names_have_one_meaning() {
    for action in Action::ALL {
        assert_eq!(MATRIX.iter().filter(|row| row.action == *action).count(), 1);
        assert_eq!(action.code().parse(), Ok(*action));
    }
    for role in Role::ALL {
        assert_eq!(role.code().parse(), Ok(*role));
    }
}

#[test]
fn the_document_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rights.md");
    let printed = print();
    if std::env::var_os("TERRACE_WRITE_DOCUMENTS").is_some() {
        std::fs::write(file, &printed).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        written == printed,
        "docs/rights.md is not what the matrix says; write it with \
         TERRACE_WRITE_DOCUMENTS=1 cargo test -p directory the_document_is_current"
    );
}

prop_compose! {
    fn grants()(drawn in prop::collection::vec((0..Role::ALL.len(), 0..4usize, any::<bool>()), 0..6)) -> Vec<Grant> {
        let world = World::new();
        let grant = |(role, relation, is_guest): (usize, usize, bool)| {
            let (role, at) = (Role::ALL[role], world.lineage(RELATIONS[relation]));
            if is_guest || role.is_of_a_matter() {
                Grant::as_guest(role, at, world.matter, MORNING, MORNING.after(HOUR))
            } else {
                Grant::by_post(role, at, MORNING)
            }
        };
        drawn.into_iter().map(grant).collect()
    }
}

prop_compose! {
    fn subjects()(
        relation in 0..4usize,
        is_of_the_matter in any::<bool>(),
        involvement in prop::sample::subsequence(INVOLVEMENTS.to_vec(), 0..=INVOLVEMENTS.len()),
        facts in prop::sample::subsequence(FACTS.to_vec(), 0..=FACTS.len()),
        is_approved in any::<bool>(),
    ) -> Subject {
        let world = World::new();
        Subject {
            matter: Some(if is_of_the_matter { world.matter } else { world.other_matter }),
            involvement,
            facts,
            approved_by: is_approved.then_some(world.approver),
            ..Subject::organisation(world.lineage(RELATIONS[relation]))
        }
    }
}

proptest! {
    #[test]
    fn a_grant_more_takes_nothing_away(
        grants in grants(), more in grants(), subject in subjects(), action in 0..Action::ALL.len(),
    ) {
        let world = World::new();
        let mut actor = world.actor(Role::Head);
        actor.grants = grants;
        let before = can(&actor, Action::ALL[action], &subject);
        actor.grants.extend(more);
        let after = can(&actor, Action::ALL[action], &subject);
        prop_assert!(after.rank() >= before.rank(), "{before:?} became {after:?}");
    }

    #[test]
    fn what_is_allowed_is_allowed_by_one_grant_alone(
        grants in grants(), subject in subjects(), action in 0..Action::ALL.len(),
    ) {
        let world = World::new();
        let mut actor = world.actor(Role::Head);
        actor.grants = grants.clone();
        let action = Action::ALL[action];
        let alone = grants.into_iter().any(|grant| {
            let mut actor = actor.clone();
            actor.grants = vec![grant];
            can(&actor, action, &subject).is_allowed()
        });
        prop_assert_eq!(can(&actor, action, &subject).is_allowed(), alone);
    }

    #[test]
    fn an_accusation_shows_nothing_more_than_another_case(
        grants in grants(), mut subject in subjects(), action in 0..Action::ALL.len(), unit in 0..4usize,
    ) {
        let world = World::new();
        let mut actor = world.actor(Role::Head);
        actor.grants = grants;
        let action = Action::ALL[action];
        let before = can(&actor, action, &subject);
        subject.accused = Some(world.lineage(RELATIONS[unit]).own());
        prop_assert!(can(&actor, action, &subject).rank() <= before.rank());
    }
}
