use std::time::Duration;

use super::*;
use crate::Directory;
use crate::act::{Act, Who};
use crate::authority::{Action, Refusal};
use crate::id::PersonId;
use crate::place::{PlaceData, PlaceError, PlaceKind, Use};
use crate::store::Store;
use crate::testing::{MORNING, appoint, by_machine, on_both_open, random};

/// A directory with somebody at the machine who does everything at once.
struct World {
    directory: Directory,
    source: rand::rngs::StdRng,
    now: Timestamp,
}

impl World {
    async fn new(store: Store) -> World {
        let mut source = random(1);
        let directory = Directory::new(store, MORNING, &mut source).await.unwrap();
        World {
            directory,
            source,
            now: MORNING,
        }
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

    async fn make_by(
        &mut self,
        who: Who,
        level: Option<Level>,
        name: &str,
        code: &str,
        parent: Option<OrganisationId>,
    ) -> Result<Organisation, OrganisationError> {
        let new = NewOrganisation {
            kind: if level.is_some() {
                Kind::Centre
            } else {
                Kind::Department
            },
            level,
            name: name.to_owned(),
            code: (!code.is_empty()).then(|| code.parse().unwrap()),
            parent,
            cascade_parent: None,
        };
        let directory = self.directory.clone();
        directory.create_organisation(&mut self.act(who), new).await
    }

    async fn make(
        &mut self,
        level: Level,
        name: &str,
        code: &str,
        parent: Option<OrganisationId>,
    ) -> Organisation {
        self.make_by(Who::Machine, Some(level), name, code, parent)
            .await
            .unwrap()
    }

    async fn change(
        &mut self,
        one: &Organisation,
        change: Change,
    ) -> Result<Organisation, OrganisationError> {
        let directory = self.directory.clone();
        let mut act = self.act(Who::Machine);
        directory
            .change_organisation(&mut act, one.id, one.version, change)
            .await
    }

    async fn see(&mut self, who: Who, id: OrganisationId) -> Result<Organisation, Denied> {
        let directory = self.directory.clone();
        directory.organisation(&self.act(who), id).await
    }

    async fn names(&mut self, who: Who, wanted: OrganisationQuery) -> Vec<String> {
        let directory = self.directory.clone();
        let page = directory
            .organisations(&self.act(who), &wanted)
            .await
            .unwrap();
        page.organisations.into_iter().map(|one| one.name).collect()
    }

    async fn found(&mut self, who: Who, text: &str) -> Vec<String> {
        let wanted = OrganisationQuery {
            text: Some(text.to_owned()),
            limit: 50,
            ..OrganisationQuery::default()
        };
        self.names(who, wanted).await
    }

    /// 辽宁 with two cities, counties in them and a department.
    async fn liaoning(&mut self) -> Liaoning {
        let province = self
            .make(Level::Province, "辽宁省综治中心", "21", None)
            .await;
        let shenyang = self
            .make(Level::City, "沈阳市综治中心", "2101", Some(province.id))
            .await;
        let dalian = self
            .make(Level::City, "大连市综治中心", "2102", Some(province.id))
            .await;
        let heping = self
            .make(Level::County, "和平区综治中心", "210102", Some(shenyang.id))
            .await;
        let shenhe = self
            .make(Level::County, "沈河区综治中心", "210103", Some(shenyang.id))
            .await;
        let street = self
            .make(
                Level::Township,
                "马路湾街道综治中心",
                "210102003",
                Some(heping.id),
            )
            .await;
        let police = self
            .make_by(Who::Machine, None, "沈阳市公安局", "", Some(shenyang.id))
            .await
            .unwrap();
        Liaoning {
            province,
            shenyang,
            dalian,
            heping,
            shenhe,
            street,
            police,
        }
    }
}

struct Liaoning {
    province: Organisation,
    shenyang: Organisation,
    dalian: Organisation,
    heping: Organisation,
    shenhe: Organisation,
    street: Organisation,
    police: Organisation,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_takes_what_may_be_in_it_and_levels_may_be_skipped() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let tree = world.liaoning().await;
        let county = Some(Level::County);
        let province = Some(tree.province.id);
        // A county directly under its province: 市辖区 and 省直辖县级行政区划 have no city in between.
        world
            .make_by(Who::Machine, county, "某县", "219021", province)
            .await
            .unwrap();
        for (level, parent, is_wrong) in [
            (
                Some(Level::Province),
                Some(tree.province.id),
                "a province under one",
            ),
            (
                Some(Level::City),
                Some(tree.heping.id),
                "a city under a county",
            ),
            (
                Some(Level::County),
                Some(tree.heping.id),
                "a county under a county",
            ),
            (
                Some(Level::County),
                Some(tree.police.id),
                "a county under a department",
            ),
            (Some(Level::City), None, "a city under nothing"),
            (None, None, "a department under nothing"),
        ] {
            let made = world
                .make_by(Who::Machine, level, "某机构", "", parent)
                .await;
            assert!(
                matches!(made, Err(OrganisationError::WrongParent)),
                "{is_wrong}: {made:?}"
            );
        }
        let made = world
            .make_by(Who::Machine, county, "又一县", "219021", province)
            .await;
        assert!(
            matches!(made, Err(OrganisationError::CodeTaken)),
            "{made:?}"
        );
        for name in ["", "  ", "一\u{0}二", "一\u{202e}二"] {
            let made = world
                .make_by(Who::Machine, county, name, "", province)
                .await;
            assert!(matches!(made, Err(OrganisationError::BadName)), "{name:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_what_another_has_just_changed_is_told() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let tree = world.liaoning().await;
        let seen_by_both = tree.heping;
        let renamed = world
            .change(
                &seen_by_both,
                Change::Rename("和平区社会治安综合治理中心".to_owned()),
            )
            .await
            .unwrap();
        assert_eq!(renamed.version, 2);
        let second = world
            .change(&seen_by_both, Change::Move(tree.dalian.id))
            .await;
        assert!(
            matches!(second, Err(OrganisationError::Stale { current: 2 })),
            "{second:?}"
        );
        let now = world.see(Who::Machine, renamed.id).await.unwrap();
        assert_eq!(now, renamed);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_write_at_once_are_one_after_the_other() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let tree = world.liaoning().await;
        let tries = (0..8).map(|number| {
            let (directory, one) = (world.directory.clone(), tree.heping.clone());
            tokio::spawn(async move {
                let mut source = random(number);
                let mut act = by_machine(&mut source);
                let change = Change::Rename(format!("和平区{number}"));
                directory
                    .change_organisation(&mut act, one.id, one.version, change)
                    .await
            })
        });
        let mut done = 0;
        for one in tries.collect::<Vec<_>>() {
            match one.await.unwrap() {
                Ok(_) => done += 1,
                Err(error) => assert!(
                    matches!(error, OrganisationError::Stale { current: 2 }),
                    "{error:?}"
                ),
            }
        }
        assert_eq!(done, 1);
        let report = world.directory.verify_audit(&[], &[]).await.unwrap();
        assert_eq!(report.findings, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_moved_takes_all_under_it_along() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let tree = world.liaoning().await;
        world
            .change(&tree.heping, Change::Move(tree.dalian.id))
            .await
            .unwrap();
        let under = |id| OrganisationQuery {
            under: Some(id),
            limit: 50,
            ..OrganisationQuery::default()
        };
        let names = world.names(Who::Machine, under(tree.dalian.id)).await;
        assert_eq!(
            names,
            ["和平区综治中心", "马路湾街道综治中心", "大连市综治中心"]
        );
        let names = world.names(Who::Machine, under(tree.shenyang.id)).await;
        assert_eq!(names, ["沈阳市综治中心", "沈河区综治中心", "沈阳市公安局"]);
        assert_eq!(
            world
                .names(Who::Machine, under(tree.province.id))
                .await
                .len(),
            7
        );
        // And back, and nowhere else.
        let heping = world.see(Who::Machine, tree.heping.id).await.unwrap();
        let heping = world
            .change(&heping, Change::Move(tree.shenyang.id))
            .await
            .unwrap();
        assert_eq!(
            world
                .names(Who::Machine, under(tree.shenyang.id))
                .await
                .len(),
            5
        );
        for (below, what) in [(heping.id, "itself"), (tree.street.id, "one under it")] {
            let moved = world.change(&heping, Change::Move(below)).await;
            assert!(
                matches!(moved, Err(OrganisationError::Cycle)),
                "under {what}: {moved:?}"
            );
        }
        let police = world
            .change(&tree.police, Change::Move(tree.heping.id))
            .await
            .unwrap();
        assert_eq!(police.parent, Some(tree.heping.id));
        assert_eq!(
            world.names(Who::Machine, under(tree.heping.id)).await.len(),
            3
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cascade_is_an_edge_of_its_own_and_ends_at_the_top() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let tree = world.liaoning().await;
        // 和平区's node joins the province's directly.
        let change = Change::Cascade(Some(tree.province.id));
        let heping = world.change(&tree.heping, change).await.unwrap();
        assert_eq!(heping.cascade_parent, Some(tree.province.id));
        assert_eq!(heping.parent, Some(tree.shenyang.id));
        // 沈阳's node can't join that of a street whose way up goes over 沈阳.
        let street = world
            .change(&tree.street, Change::Cascade(Some(tree.shenyang.id)))
            .await
            .unwrap();
        let around = world
            .change(&tree.shenyang, Change::Cascade(Some(street.id)))
            .await;
        assert!(
            matches!(around, Err(OrganisationError::CascadeCycle)),
            "{around:?}"
        );
        let itself = world
            .change(&heping, Change::Cascade(Some(heping.id)))
            .await;
        assert!(
            matches!(itself, Err(OrganisationError::CascadeCycle)),
            "{itself:?}"
        );
        let office = world
            .change(&heping, Change::Cascade(Some(tree.police.id)))
            .await;
        assert!(
            matches!(office, Err(OrganisationError::CascadeCycle)),
            "{office:?}"
        );
        let heping = world.change(&heping, Change::Cascade(None)).await.unwrap();
        assert_eq!(heping.cascade_parent, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_an_attribute_with_a_time_and_is_found_by_for_ever() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let tree = world.liaoning().await;
        let new: DivisionCode = "210199".parse().unwrap();
        let heping = world
            .change(&tree.heping, Change::Recode(Some(new.clone())))
            .await
            .unwrap();
        assert_eq!(heping.code, Some(new));
        // The old code is free, and who searches for it finds who has and who had it.
        world
            .make(
                Level::County,
                "新和平区综治中心",
                "210102",
                Some(tree.shenyang.id),
            )
            .await;
        let mut found = world.found(Who::Machine, "210102").await;
        found.sort();
        assert_eq!(
            found,
            ["和平区综治中心", "新和平区综治中心", "马路湾街道综治中心"]
        );
        let heping = world.change(&heping, Change::Recode(None)).await.unwrap();
        assert_eq!(heping.code, None);
        let history = world.directory.clone();
        let history = history
            .organisation_history(&world.act(Who::Machine), heping.id)
            .await
            .unwrap();
        let codes: Vec<Option<String>> = history
            .into_iter()
            .map(|one| one.code.map(String::from))
            .collect();
        let text = |code: &str| Some(code.to_owned());
        assert_eq!(codes, [text("210102000000"), text("210199000000"), None]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_merged_or_split_keeps_its_history_and_names_its_successors() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let tree = world.liaoning().await;
        let directory = world.directory.clone();
        let hall = PlaceData {
            name: "和平区会场".to_owned(),
            kind: PlaceKind::Hall { screens: 2 },
            seats: Some(40),
        };
        let hall = directory
            .create_place(&mut world.act(Who::Machine), tree.heping.id, hall)
            .await
            .unwrap();
        let merged = directory
            .merge_organisation(
                &mut world.act(Who::Machine),
                tree.heping.id,
                1,
                tree.shenhe.id,
            )
            .await
            .unwrap();
        assert_eq!((merged.state, &merged.code), (State::Merged, &None));
        let street = world.see(Who::Machine, tree.street.id).await.unwrap();
        assert_eq!(street.parent, Some(tree.shenhe.id));
        let halls = directory
            .places(&world.act(Who::Machine), tree.shenhe.id)
            .await
            .unwrap();
        assert_eq!(
            halls.iter().map(|hall| hall.id).collect::<Vec<_>>(),
            [hall.id]
        );
        let successors = directory
            .organisation_successors(&world.act(Who::Machine), tree.heping.id)
            .await;
        assert_eq!(successors.unwrap(), [tree.shenhe.id]);
        let again = world.change(&merged, Change::Rename("甲".to_owned())).await;
        assert!(
            matches!(again, Err(OrganisationError::NotActive)),
            "{again:?}"
        );
        let history = directory
            .organisation_history(&world.act(Who::Machine), tree.street.id)
            .await
            .unwrap();
        let changes: Vec<&str> = history.iter().map(|one| one.change.as_str()).collect();
        assert_eq!(changes, ["create", "move"]);
        assert_eq!(history[0].parent, Some(tree.heping.id));

        let one = world
            .make(Level::County, "东区", "", Some(tree.shenyang.id))
            .await;
        let other = world
            .make(Level::County, "西区", "", Some(tree.shenyang.id))
            .await;
        let part = |id, children: &[OrganisationId]| Successor {
            id,
            children: children.to_vec(),
        };
        let incomplete = [part(one.id, &[]), part(other.id, &[])];
        let mut act = world.act(Who::Machine);
        let refused = directory
            .split_organisation(&mut act, tree.shenhe.id, 1, &incomplete)
            .await;
        assert!(
            matches!(refused, Err(OrganisationError::ChildrenLeft)),
            "{refused:?}"
        );
        let parts = [part(one.id, &[]), part(other.id, &[tree.street.id])];
        let split = directory
            .split_organisation(&mut act, tree.shenhe.id, 1, &parts)
            .await
            .unwrap();
        assert_eq!(split.state, State::Split);
        let street = world.see(Who::Machine, tree.street.id).await.unwrap();
        assert_eq!(street.parent, Some(other.id));
        let successors = directory
            .organisation_successors(&world.act(Who::Machine), tree.shenhe.id)
            .await;
        assert_eq!(successors.unwrap(), [one.id, other.id]);
        let report = directory.verify_audit(&[], &[]).await.unwrap();
        assert_eq!(report.findings, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_empty_is_closed() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let tree = world.liaoning().await;
        let directory = world.directory.clone();
        let mut act = world.act(Who::Machine);
        let closed = directory
            .close_organisation(&mut act, tree.heping.id, 1)
            .await;
        assert!(
            matches!(closed, Err(OrganisationError::NotEmpty)),
            "{closed:?}"
        );
        directory
            .close_organisation(&mut act, tree.street.id, 1)
            .await
            .unwrap();
        let heping = directory
            .close_organisation(&mut act, tree.heping.id, 1)
            .await
            .unwrap();
        assert_eq!(heping.state, State::Closed);
        assert_eq!(
            world.found(Who::Machine, "和平").await,
            Vec::<String>::new()
        );
        let wanted = OrganisationQuery {
            text: Some("和平".to_owned()),
            with_closed: true,
            limit: 10,
            ..OrganisationQuery::default()
        };
        assert_eq!(world.names(Who::Machine, wanted).await, ["和平区综治中心"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn organisations_are_found_by_name_first_letters_and_code() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        world.liaoning().await;
        for (text, expected) in [
            ("和平", vec!["和平区综治中心"]),
            ("hpq", vec!["和平区综治中心"]),
            ("ＨＰＱ", vec!["和平区综治中心"]),
            ("mlw", vec!["马路湾街道综治中心"]),
            ("2102", vec!["大连市综治中心"]),
            ("210102", vec!["和平区综治中心", "马路湾街道综治中心"]),
            ("公安", vec!["沈阳市公安局"]),
            ("%", vec![]),
            ("_", vec![]),
            ("'; DROP TABLE organisations; --", vec![]),
        ] {
            assert_eq!(world.found(Who::Machine, text).await, expected, "{text}");
        }
        assert_eq!(world.found(Who::Machine, "").await.len(), 7);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_without_gap_or_repetition() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let tree = world.liaoning().await;
        for number in 0..23 {
            world
                .make(
                    Level::Village,
                    &format!("第{number}村"),
                    "",
                    Some(tree.street.id),
                )
                .await;
        }
        let directory = world.directory.clone();
        let mut seen = Vec::new();
        let mut wanted = OrganisationQuery {
            parent: Some(tree.street.id),
            limit: 5,
            ..OrganisationQuery::default()
        };
        loop {
            let page = directory
                .organisations(&world.act(Who::Machine), &wanted)
                .await
                .unwrap();
            seen.extend(page.organisations.into_iter().map(|one| one.id));
            wanted.cursor = page.next;
            if wanted.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 23);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 23);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_rules_their_own_branch_and_sees_nothing_of_others() {
    on_both_open(|store| async move {
        let mut world = World::new(store.clone()).await;
        let tree = world.liaoning().await;
        let admin = appoint(&store, tree.shenyang.id, &["system_administrator"], world.now).await;
        let head = appoint(&store, tree.shenyang.id, &["head"], world.now).await;
        let (admin, head) = (Who::Person(admin), Who::Person(head));
        let directory = world.directory.clone();
        let level = Some(Level::Township);
        world.make_by(admin, level, "新街道", "210102009", Some(tree.heping.id)).await.unwrap();
        // Another branch is not there.
        let made = world.make_by(admin, level, "新街道", "", Some(tree.dalian.id)).await;
        assert!(matches!(made, Err(OrganisationError::Denied(Denied::NotFound))), "{made:?}");
        // What is above is known, and not theirs.
        let rename = Change::Rename("甲".to_owned());
        let mut act = world.act(admin);
        let refused = directory.change_organisation(&mut act, tree.province.id, 1, rename.clone()).await;
        let role = Denied::Refused(Refusal::Role);
        assert!(
            matches!(&refused, Err(OrganisationError::Denied(denied)) if format!("{denied:?}") == format!("{role:?}")),
            "{refused:?}"
        );
        // A move out of the branch takes a right on the other side too.
        let moved = directory
            .change_organisation(&mut act, tree.heping.id, 1, Change::Move(tree.dalian.id))
            .await;
        assert!(matches!(moved, Err(OrganisationError::Denied(Denied::NotFound))), "{moved:?}");
        let closed = directory.close_organisation(&mut act, tree.shenyang.id, 1).await;
        assert!(matches!(closed, Err(OrganisationError::Denied(Denied::Refused(_)))), "{closed:?}");
        // A head sees the branch, and changes nothing in it.
        let refused = directory
            .change_organisation(&mut world.act(head), tree.heping.id, 1, rename)
            .await;
        assert!(matches!(refused, Err(OrganisationError::Denied(Denied::Refused(_)))), "{refused:?}");

        // What a list shows is what may be seen one by one.
        let all = OrganisationQuery { limit: 50, ..OrganisationQuery::default() };
        for who in [admin, head, Who::Nobody, Who::Person(PersonId::draw(MORNING, &mut random(9)))] {
            let listed = world.names(who, all.clone()).await;
            let everything = directory.organisations(&world.act(Who::Machine), &all).await.unwrap();
            let mut seen = Vec::new();
            for one in everything.organisations {
                match world.see(who, one.id).await {
                    Ok(one) => seen.push(one.name),
                    Err(denied) => assert!(matches!(denied, Denied::NotFound), "{denied:?}"),
                }
            }
            assert_eq!(listed, seen, "{who:?}");
            let is_somebody = who == admin || who == head;
            assert_eq!(listed.len(), if is_somebody { 7 } else { 0 });
        }
        // Refusals are in the log, and no change to 大连.
        let filter = crate::audit::Filter { limit: 100, ..Default::default() };
        let act = world.act(Who::Machine);
        let page = directory.audit_page(&act, tree.province.id, &filter).await.unwrap();
        let refused = page.entries.iter().filter(|entry| entry.outcome == "refused").count();
        assert_eq!(refused, 5, "of a province's machine, that of no organisation too");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn halls_and_rooms_are_made_changed_and_closed() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let tree = world.liaoning().await;
        let directory = world.directory.clone();
        let mut act = world.act(Who::Machine);
        let room = |name: &str, kind| PlaceData {
            name: name.to_owned(),
            kind,
            seats: None,
        };
        for kind in [
            PlaceKind::Hall { screens: 0 },
            PlaceKind::Hall { screens: 3 },
            PlaceKind::Room { uses: vec![] },
        ] {
            let made = directory
                .create_place(&mut act, tree.heping.id, room("某室", kind))
                .await;
            assert!(matches!(made, Err(PlaceError::BadKind)), "{made:?}");
        }
        let uses = vec![Use::Mediation, Use::Reception, Use::Mediation];
        let one = directory
            .create_place(
                &mut act,
                tree.street.id,
                room("综合室", PlaceKind::Room { uses }),
            )
            .await
            .unwrap();
        assert_eq!(
            one.kind,
            PlaceKind::Room {
                uses: vec![Use::Reception, Use::Mediation]
            }
        );
        let hall = room("大会场", PlaceKind::Hall { screens: 1 });
        let two = directory
            .change_place(&mut act, one.id, 1, Some(hall.clone()))
            .await
            .unwrap();
        assert_eq!((two.version, two.name.as_str()), (2, "大会场"));
        let stale = directory
            .change_place(&mut act, one.id, 1, Some(hall.clone()))
            .await;
        assert!(
            matches!(stale, Err(PlaceError::Stale { current: 2 })),
            "{stale:?}"
        );
        directory
            .change_place(&mut act, one.id, 2, None)
            .await
            .unwrap();
        let closed = directory
            .change_place(&mut act, one.id, 3, Some(hall))
            .await;
        assert!(matches!(closed, Err(PlaceError::Closed)), "{closed:?}");
        assert!(
            directory
                .places(&act, tree.street.id)
                .await
                .unwrap()
                .is_empty()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shared_is_seen_by_who_may_look_at_home_with_a_reason_until_its_day() {
    on_both_open(|store| async move {
        let mut world = World::new(store.clone()).await;
        let tree = world.liaoning().await;
        let (own, other) = (tree.shenyang.id, tree.dalian.id);
        let security = appoint(&store, own, &["security_administrator"], world.now).await;
        let head = appoint(&store, other, &["head"], world.now).await;
        let directory = world.directory.clone();
        let day = Duration::from_secs(24 * 3600);
        let share = |with, action, days: u32, purpose: &str| NewShare {
            with,
            actions: vec![action],
            purpose: purpose.to_owned(),
            ends_at: MORNING.after(day * days),
        };
        let see = Action::SeeOrganisation;
        let mut act = world.act(Who::Person(security));
        let unreasoned = directory
            .share_organisation(&mut act, own, share(other, see, 2, "联合调解"))
            .await;
        assert!(
            matches!(
                unreasoned,
                Err(OrganisationError::Denied(Denied::ReasonNeeded))
            ),
            "{unreasoned:?}"
        );
        act.reason = Some("联合调解需要".to_owned());
        for (bad, what) in [
            (
                share(other, Action::ManageOrganisations, 2, "联合调解"),
                "it changes",
            ),
            (share(other, see, 0, "联合调解"), "it is over"),
            (share(other, see, 400, "联合调解"), "it is too long"),
            (share(other, see, 2, " "), "it has no purpose"),
            (share(tree.heping.id, see, 2, "联合调解"), "it is below"),
            (share(tree.province.id, see, 2, "联合调解"), "it is above"),
            (share(own, see, 2, "联合调解"), "it is itself"),
        ] {
            let shared = directory.share_organisation(&mut act, own, bad).await;
            assert!(
                matches!(shared, Err(OrganisationError::BadShare)),
                "{what}: {shared:?}"
            );
        }
        let shared = directory
            .share_organisation(&mut act, own, share(other, see, 2, "联合调解"))
            .await
            .unwrap();
        let listed = directory.shares(&act, own).await.unwrap();
        assert_eq!(listed, std::slice::from_ref(&shared));

        let mut act = world.act(Who::Person(head));
        let seen = directory.organisation(&act, own).await;
        assert!(matches!(seen, Err(Denied::ReasonNeeded)), "{seen:?}");
        act.reason = Some("联合调解".to_owned());
        assert_eq!(directory.organisation(&act, own).await.unwrap().id, own);
        let below = directory.organisation(&act, tree.heping.id).await;
        assert!(matches!(below, Err(Denied::NotFound)), "{below:?}");
        act.now = shared.ends_at;
        let seen = directory.organisation(&act, own).await;
        assert!(matches!(seen, Err(Denied::NotFound)), "{seen:?}");

        let mut act = world.act(Who::Person(security));
        act.reason = Some("不再需要".to_owned());
        directory.end_share(&mut act, own, shared.id).await.unwrap();
        let again = directory.end_share(&mut act, own, shared.id).await;
        assert!(
            matches!(again, Err(OrganisationError::Denied(Denied::NotFound))),
            "{again:?}"
        );
        let mut act = world.act(Who::Person(head));
        act.reason = Some("联合调解".to_owned());
        let seen = directory.organisation(&act, own).await;
        assert!(matches!(seen, Err(Denied::NotFound)), "{seen:?}");
    })
    .await;
}
