use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use proptest::prelude::*;
use rand::Rng as _;

use super::*;
use crate::act::{Act, Who};
use crate::id::OrganisationId;
use crate::organisation::{Kind, Level, OrganisationQuery};
use crate::store::{Location, Store};
use crate::testing::{MORNING, appoint, on_both, on_both_open, postgres_database, random};
use crate::{Directory, Timestamp};

const SMALL: &str = "\
名称,区划代码,类型,层级,上级代码
辽宁省综治中心,21,,,
沈阳市综治中心,2101,综治中心,市级,21
和平区综治中心,210102,,县级,
马路湾街道综治中心,210102003,,,210102
沈阳市公安局,,部门,,2101
";

/// How many processes are killed on each engine; `TERRACE_KILLS` says another number.
const KILLS: usize = 4;

/// Tells a test that it is the process to be killed, and which database it works on.
const VICTIM: &str = "TERRACE_TEST_VICTIM";

struct World {
    directory: Directory,
    source: rand::rngs::StdRng,
}

impl World {
    async fn new(store: Store) -> World {
        World::with_seed(store, 1).await
    }

    async fn with_seed(store: Store, seed: u64) -> World {
        let mut source = random(seed);
        let directory = Directory::new(store, MORNING, &mut source).await.unwrap();
        World { directory, source }
    }

    fn act(&mut self, who: Who, now: Timestamp) -> Act<'_> {
        Act {
            who,
            now,
            address: None,
            reason: None,
            random: &mut self.source,
        }
    }

    async fn plan(&mut self, file: &str, missing: Missing) -> Plan {
        let sheet = read(file.as_bytes()).unwrap();
        let directory = self.directory.clone();
        let act = self.act(Who::Machine, MORNING);
        directory
            .plan_import(&act, None, &sheet, missing)
            .await
            .unwrap()
    }

    async fn apply(&mut self, file: &str, missing: Missing) -> Result<Plan, ImportError> {
        let fingerprint = self.plan(file, missing).await.fingerprint;
        let sheet = read(file.as_bytes()).unwrap();
        let directory = self.directory.clone();
        let mut act = self.act(Who::Machine, MORNING);
        directory
            .apply_import(&mut act, None, &sheet, missing, &fingerprint)
            .await
    }

    async fn names(&mut self) -> Vec<String> {
        let directory = self.directory.clone();
        let mut wanted = OrganisationQuery {
            limit: 200,
            ..OrganisationQuery::default()
        };
        let mut names = Vec::new();
        loop {
            let act = self.act(Who::Machine, MORNING);
            let page = directory.organisations(&act, &wanted).await.unwrap();
            names.extend(page.organisations.into_iter().map(|one| one.name));
            wanted.cursor = page.next;
            if wanted.cursor.is_none() {
                return names;
            }
        }
    }

    async fn id(&mut self, name: &str) -> OrganisationId {
        let directory = self.directory.clone();
        let wanted = OrganisationQuery {
            text: Some(name.to_owned()),
            limit: 1,
            ..OrganisationQuery::default()
        };
        let act = self.act(Who::Machine, MORNING);
        directory
            .organisations(&act, &wanted)
            .await
            .unwrap()
            .organisations[0]
            .id
    }
}

/// A province with so many villages.
fn large(villages: usize) -> String {
    let mut file = String::from("名称,区划代码\n某省,21\n某市,2101\n某县,210101\n");
    for number in 0..villages {
        let (township, village) = (number / 900 + 1, number % 900 + 1);
        if village == 1 {
            file.push_str(&format!("第{township}乡,210101{township:03}\n"));
        }
        file.push_str(&format!("第{number}村,210101{township:03}{village:03}\n"));
    }
    file
}

fn told(problems: &[Problem]) -> Vec<(u64, Option<Column>, Fault)> {
    problems
        .iter()
        .map(|problem| (problem.line, problem.column, problem.fault.clone()))
        .collect()
}

#[test]
fn a_table_is_read_in_the_encodings_that_spreadsheets_write() {
    let (gbk, _, _) = encoding_rs::GBK.encode(SMALL);
    let with_mark = [b"\xef\xbb\xbf", SMALL.as_bytes()].concat();
    let wide: Vec<u8> = std::iter::once(0xfeff)
        .chain(SMALL.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let tabs = SMALL.replace(',', "\t");
    let semicolons = SMALL.replace(',', ";").replace('\n', "\r\n");
    let expected = read(SMALL.as_bytes()).unwrap();
    assert_eq!(expected.problems, []);
    assert_eq!(expected.rows.len(), 5);
    assert_eq!(expected.rows[4].line, 6);
    assert_eq!(expected.rows[4].cells[&Column::Kind], "部门");
    for (file, what) in [
        (&gbk[..], "GBK"),
        (&with_mark[..], "a byte order mark"),
        (&wide[..], "UTF-16"),
        (tabs.as_bytes(), "tabs"),
        (semicolons.as_bytes(), "semicolons"),
    ] {
        assert_eq!(read(file).unwrap(), expected, "{what}");
    }
}

#[test]
fn what_cannot_be_read_is_told_by_line() {
    let mut damaged = SMALL.as_bytes().to_vec();
    let at = SMALL.find("和平").unwrap();
    damaged[at] = 0xff;
    let sheet = read(&damaged).unwrap();
    assert_eq!(told(&sheet.problems), [(4, None, Fault::Undecodable)]);
    for file in [
        &b""[..],
        b"\n\n",
        b"a,b,c\n1,2,3\n",
        b"\xff\xfe",
        &[0x81; 1000],
    ] {
        let sheet = read(file).unwrap();
        assert!(!sheet.problems.is_empty(), "{file:?}");
        assert!(sheet.rows.is_empty(), "{file:?}");
    }
    let twice = read("名称,代码,机构名称\n甲,21,乙\n".as_bytes()).unwrap();
    assert_eq!(
        told(&twice.problems),
        [(1, Some(Column::Name), Fault::ColumnTwice)]
    );
    assert!(matches!(
        read(b"PK\x03\x04 not a workbook"),
        Err(ImportError::NotATable)
    ));
    assert!(matches!(
        read(&vec![b'a'; FILE_SIZE + 1]),
        Err(ImportError::TooLarge)
    ));
}

#[test]
fn formulas_are_refused_in_tables_and_in_workbooks() {
    let file = "名称,代码\n\"=HYPERLINK(\"\"http://x\"\")\",21\n+1,22\n@甲,23\n-甲,31\n甲,=A1\n";
    let formulas = told(&read(file.as_bytes()).unwrap().problems);
    let expected: Vec<_> = [
        (2, Column::Name),
        (3, Column::Name),
        (4, Column::Name),
        (5, Column::Name),
        (6, Column::Code),
    ]
    .into_iter()
    .map(|(line, column)| (line, Some(column), Fault::Formula))
    .collect();
    assert_eq!(formulas, expected);

    let mut workbook = rust_xlsxwriter::Workbook::new();
    let sheet = workbook.add_worksheet();
    for (column, name) in [(0, "名称"), (1, "区划代码"), (2, "备注")] {
        sheet.write(0, column, name).unwrap();
    }
    sheet.write(1, 0, "辽宁省").unwrap();
    sheet.write(1, 1, "210000000000").unwrap();
    sheet.write(2, 0, "沈阳市").unwrap();
    sheet.write(2, 1, 210_100_000_000_f64).unwrap();
    sheet
        .write_formula(2, 2, rust_xlsxwriter::Formula::new("1+1").set_result("2"))
        .unwrap();
    sheet
        .write_formula(
            3,
            0,
            rust_xlsxwriter::Formula::new("A2").set_result("辽宁省"),
        )
        .unwrap();
    sheet.write(3, 1, 2102).unwrap();
    sheet.write(4, 0, true).unwrap();
    sheet.write(4, 1, 21.5).unwrap();
    // An empty line, and a last one behind it.
    sheet.write(6, 0, "大连市").unwrap();
    sheet.write(6, 1, "2102").unwrap();
    let file = workbook.save_to_buffer().unwrap();
    let sheet = read(&file).unwrap();
    assert_eq!(
        told(&sheet.problems),
        [
            (4, Some(Column::Name), Fault::Formula),
            (5, Some(Column::Name), Fault::NotText),
            (5, Some(Column::Code), Fault::NotText),
        ]
    );
    assert_eq!(sheet.rows[1].cells[&Column::Code], "210100000000");
    assert_eq!(
        (
            sheet.rows[4].line,
            sheet.rows[4].cells[&Column::Name].as_str()
        ),
        (7, "大连市")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dry_run_lists_every_problem_by_line_and_changes_nothing() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let file = "\
名称,代码,类型,层级,上级代码,级联上级代码
某省,21,,,,
,2101,,,,
乙市,21x,,,,
丙市,2103,机关,,,
丁市,2104,,四级,,
戊市,2101,,,,
己县,210501,,,2105,
庚县,210601,,市级,210101,
辛县,210101,,,210601,
壬县,220101,,,,
某局,,部门,,,
某局,2109,部门,,21,
某组,,部门,,21,
某组,,部门,,21,
某县,210102,,,,2188
甲县,210103,,,210102,
";
        let plan = world.plan(file, Missing::Keep).await;
        let expected = [
            (3, Some(Column::Name), Fault::Empty),
            (4, Some(Column::Code), Fault::BadCode(CodeFault::Digits)),
            (5, Some(Column::Kind), Fault::BadKind),
            (6, Some(Column::Level), Fault::BadLevel),
            (7, Some(Column::Code), Fault::Twice { line: 3 }),
            (8, Some(Column::Parent), Fault::Unknown),
            (9, Some(Column::Parent), Fault::Cycle),
            (10, Some(Column::Parent), Fault::Cycle),
            (11, Some(Column::Parent), Fault::Unknown),
            (12, Some(Column::Parent), Fault::Empty),
            (13, Some(Column::Code), Fault::OnlyCentres),
            (15, Some(Column::Name), Fault::Twice { line: 14 }),
            (16, Some(Column::CascadeParent), Fault::Unknown),
            (17, Some(Column::Parent), Fault::WrongParent),
        ];
        assert_eq!(told(&plan.problems), expected);
        assert!(
            plan.problems
                .iter()
                .all(|problem| !problem.fault.chinese().is_empty())
        );
        let refused = world.apply(file, Missing::Keep).await;
        assert!(matches!(refused, Err(ImportError::Problems(list)) if list == plan.problems));
        assert!(world.names().await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_applied_as_its_dry_run_showed_it() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let plan = world.plan(SMALL, Missing::Keep).await;
        assert_eq!(plan.problems, []);
        assert_eq!((plan.new.len(), plan.unchanged), (5, 0));
        world.apply(SMALL, Missing::Keep).await.unwrap();
        assert_eq!(
            world.names().await,
            [
                "辽宁省综治中心",
                "沈阳市综治中心",
                "和平区综治中心",
                "马路湾街道综治中心",
                "沈阳市公安局"
            ]
        );
        // Once more, it changes nothing.
        let plan = world.apply(SMALL, Missing::Close).await.unwrap();
        assert_eq!(
            (
                plan.new.len(),
                plan.renamed.len(),
                plan.moved.len(),
                plan.unchanged
            ),
            (0, 0, 0, 5)
        );
        assert_eq!(plan.gone, []);

        let next = "\
名称,区划代码,类型,层级,上级代码,级联上级代码
辽宁省综治中心,21,,,,
沈阳市综治中心,2101,,,,
大连市综治中心,2102,,,,
和平区社会治安综合治理中心,210102,,,2102,21
沈阳市公安局,,部门,,2101,
";
        let plan = world.plan(next, Missing::Close).await;
        assert_eq!(plan.problems, []);
        let (heping, street) = (world.id("hpq").await, world.id("mlw").await);
        assert_eq!(
            plan.new
                .iter()
                .map(|new| new.name.as_str())
                .collect::<Vec<_>>(),
            ["大连市综治中心"]
        );
        assert_eq!(
            plan.renamed
                .iter()
                .map(|one| (one.line, one.id))
                .collect::<Vec<_>>(),
            [(5, heping)]
        );
        assert_eq!(
            plan.moved
                .iter()
                .map(|one| (one.id, one.to.clone()))
                .collect::<Vec<_>>(),
            [(heping, Parent::New(0))]
        );
        assert_eq!(
            plan.rejoined.iter().map(|one| one.id).collect::<Vec<_>>(),
            [heping]
        );
        assert_eq!(
            plan.gone.iter().map(|one| one.id).collect::<Vec<_>>(),
            [street]
        );
        assert_eq!(plan.unchanged, 3);
        world.apply(next, Missing::Close).await.unwrap();
        assert_eq!(
            world.names().await,
            [
                "辽宁省综治中心",
                "沈阳市综治中心",
                "和平区社会治安综合治理中心",
                "大连市综治中心",
                "沈阳市公安局"
            ]
        );
        let directory = world.directory.clone();
        let history = directory
            .organisation_history(&world.act(Who::Machine, MORNING), heping)
            .await
            .unwrap();
        let changes: Vec<&str> = history.iter().map(|one| one.change.as_str()).collect();
        assert_eq!(changes, ["create", "rename", "move", "cascade"]);
        let report = directory.verify_audit(&[], &[]).await.unwrap();
        assert_eq!(report.findings, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stays_cannot_be_under_what_is_gone() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        world.apply(SMALL, Missing::Keep).await.unwrap();
        // 沈阳 is not in the file, and its police is still under it.
        let file = "名称,区划代码,上级代码\n辽宁省综治中心,21,\n";
        let plan = world.plan(file, Missing::Close).await;
        assert_eq!(
            told(&plan.problems),
            [(1, Some(Column::Code), Fault::NotEmpty)]
        );
        assert_eq!(plan.gone.len(), 3);
        let plan = world.plan(file, Missing::Keep).await;
        assert_eq!(plan.problems, []);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_what_was_is_not_applied_to_what_is() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let before = world.plan(SMALL, Missing::Keep).await.fingerprint;
        world
            .apply("名称,代码\n辽宁省,21\n", Missing::Keep)
            .await
            .unwrap();
        let sheet = read(SMALL.as_bytes()).unwrap();
        let directory = world.directory.clone();
        let mut act = world.act(Who::Machine, MORNING);
        let applied = directory
            .apply_import(&mut act, None, &sheet, Missing::Keep, &before)
            .await;
        let Err(ImportError::ChangedMeanwhile(plan)) = applied else {
            panic!("{applied:?}");
        };
        assert_eq!((plan.new.len(), plan.renamed.len()), (4, 1));
        assert_eq!(world.names().await, ["辽宁省"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_that_are_skipped_are_skipped_in_files_too() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        // 东莞 has no counties; 省直辖县级行政区划 and 市辖区 are left out of the file.
        let file = "\
名称,区划代码
广东省,44
东莞市,4419
东城街道,441900003
北京市,11
东城区,110101
";
        let plan = world.apply(file, Missing::Keep).await.unwrap();
        assert_eq!(plan.new.len(), 5);
        let directory = world.directory.clone();
        for (low, high) in [("东城街道", "东莞市"), ("东城区", "北京市")] {
            let (low, high) = (world.id(low).await, world.id(high).await);
            let act = world.act(Who::Machine, MORNING);
            let low = directory.organisation(&act, low).await.unwrap();
            assert_eq!(low.parent, Some(high));
            assert_eq!(low.kind, Kind::Centre);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_touches_its_own_branch_only() {
    on_both_open(|store| async move {
        let mut world = World::new(store.clone()).await;
        world.apply("名称,代码\n某省,21\n甲市,2101\n乙市,2102\n乙县,210201\n", Missing::Keep).await.unwrap();
        let (top, other) = (world.id("甲市").await, world.id("乙市").await);
        let admin = Who::Person(appoint(&store, top, &["system_administrator"], MORNING).await);
        let directory = world.directory.clone();
        let file = "名称,代码,上级代码\n甲市,2101,\n甲县,210101,\n乙县改名,210201,\n乙二县,210202,2102\n散县,219901,\n";
        let sheet = read(file.as_bytes()).unwrap();
        let act = world.act(admin, MORNING);
        let plan = directory.plan_import(&act, Some(top), &sheet, Missing::Close).await.unwrap();
        assert_eq!(
            told(&plan.problems),
            [
                (4, Some(Column::Code), Fault::OutsideBranch),
                (5, Some(Column::Parent), Fault::OutsideBranch),
            ]
        );
        let refused = directory.plan_import(&act, Some(other), &sheet, Missing::Keep).await;
        assert!(matches!(refused, Err(ImportError::Denied(Denied::NotFound))));
        let refused = directory.plan_import(&act, None, &sheet, Missing::Keep).await;
        assert!(matches!(refused, Err(ImportError::Denied(Denied::NotFound))));
        let file = "名称,代码\n甲县,210101\n散县,219901\n";
        let sheet = read(file.as_bytes()).unwrap();
        let mut act = world.act(admin, MORNING);
        let plan = directory.plan_import(&act, Some(top), &sheet, Missing::Close).await.unwrap();
        assert_eq!(plan.problems, []);
        assert_eq!(plan.gone, []);
        directory
            .apply_import(&mut act, Some(top), &sheet, Missing::Close, &plan.fingerprint)
            .await
            .unwrap();
        assert_eq!(world.names().await, ["某省", "甲市", "甲县", "乙市", "乙县", "散县"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_rows_with_one_bad_one_change_nothing_and_name_it() {
    on_both_open(|store| async move {
        let mut world = World::new(store).await;
        let good = large(10_000);
        let bad = good.replace("第7000村,", "第7000村,9");
        let line = 1 + good
            .lines()
            .position(|line| line.starts_with("第7000村"))
            .unwrap() as u64;
        let plan = world.plan(&bad, Missing::Keep).await;
        let fault = Fault::BadCode(CodeFault::Digits);
        assert_eq!(told(&plan.problems), [(line, Some(Column::Code), fault)]);
        assert!(matches!(
            world.apply(&bad, Missing::Keep).await,
            Err(ImportError::Problems(_))
        ));
        assert!(world.names().await.is_empty());
        let plan = world.apply(&good, Missing::Keep).await.unwrap();
        assert_eq!(plan.new.len(), good.lines().count() - 1);
        let report = world.directory.verify_audit(&[], &[]).await.unwrap();
        assert_eq!(
            (report.findings.len(), report.entries),
            (0, plan.new.len() as u64 + 1)
        );
    })
    .await;
}

/// Cells that go together in good ways and in bad ones.
fn cells() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "",
        "21",
        "2101",
        "2102",
        "210101",
        "210102",
        "210101001",
        "210101001001",
        "219901",
        "99",
        "2100",
        "某机构",
        "=1",
        "部门",
        "综治中心",
        "网格",
        "省级",
        "县级",
        "5",
        "x",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn whatever_bytes_a_file_has_it_is_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..400), is_workbook in any::<bool>(),
    ) {
        let file = if is_workbook { [b"PK\x03\x04", &bytes[..]].concat() } else { bytes };
        if let Ok(sheet) = read(&file) {
            prop_assert!(!sheet.problems.is_empty() || sheet.rows.is_empty());
        }
    }

    #[test]
    fn a_damaged_workbook_is_read_or_refused(at in 0..6_000_usize, value in any::<u8>()) {
        let mut workbook = rust_xlsxwriter::Workbook::new();
        let sheet = workbook.add_worksheet();
        for (row, (name, code)) in [("名称", "代码"), ("某省", "21")].into_iter().enumerate() {
            sheet.write(row as u32, 0, name).unwrap();
            sheet.write(row as u32, 1, code).unwrap();
        }
        let mut file = workbook.save_to_buffer().unwrap();
        let at = at % file.len();
        file[at] = value;
        let _ = read(&file);
    }

    #[test]
    fn what_a_plan_finds_good_is_a_tree(
        rows in prop::collection::vec(prop::collection::vec(cells(), 6), 0..12),
    ) {
        let mut file = String::from("名称,代码,类型,层级,上级代码,级联上级代码\n");
        for row in &rows {
            file.push_str(&row.join(","));
            file.push('\n');
        }
        let sheet = read(file.as_bytes()).unwrap();
        let plan = plan::plan(&sheet, &plan::There::nothing(), Missing::Keep);
        if plan.problems.is_empty() {
            prop_assert_eq!(plan.new.len(), sheet.rows.len());
            for (at, one) in plan.new.iter().enumerate() {
                match one.parent {
                    Parent::New(above) => {
                        prop_assert!(above < at);
                        if one.kind == Kind::Centre {
                            prop_assert!(plan.new[above].level < one.level);
                        }
                    }
                    Parent::None => prop_assert_eq!(one.level, Some(Level::Province)),
                    Parent::There(_) => prop_assert!(false, "nothing is there"),
                }
            }
        } else {
            prop_assert!(plan.new.is_empty());
        }
    }
}

fn location_from(text: &str) -> Location {
    match text.strip_prefix("file:") {
        Some(file) => Location::Sqlite(file.into()),
        None => Location::Postgres(text.to_owned()),
    }
}

fn location_as(location: &Location) -> String {
    match location {
        Location::Sqlite(file) => format!("file:{}", file.display()),
        Location::Postgres(url) => url.clone(),
    }
}

/// Not a test by itself: what is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests that kill it"]
async fn the_victim() {
    let Ok(location) = std::env::var(VICTIM) else {
        return;
    };
    println!("begins");
    let store = Store::open(&location_from(&location)).await.unwrap();
    let mut world = World::new(store).await;
    println!("ready");
    world.apply(&large(1_500), Missing::Keep).await.unwrap();
    println!("done");
}

/// Starts the victim on a database, waits until it says `word`, kills it after a time that is drawn; says whether it was
/// done before.
fn kill_a_victim(location: &Location, word: &str, longest: Duration, seed: u64) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "organisation::import::tests::the_victim",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(VICTIM, location_as(location))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .by_ref()
        .map_while(Result::ok)
        .find(|line| line.ends_with(word))
        .expect("the victim lives");
    std::thread::sleep(longest.mul_f64(random(seed).random_range(0.0..1.0)));
    child.kill().unwrap();
    child.wait().unwrap();
    lines
        .map_while(Result::ok)
        .any(|line| line.ends_with("done"))
}

fn kills() -> usize {
    std::env::var("TERRACE_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(KILLS)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_has_imported_all_or_nothing() {
    on_both(|location| async move {
        for seed in 0..kills() as u64 {
            let location = match &location {
                Location::Sqlite(file) => Location::Sqlite(file.with_extension(seed.to_string())),
                Location::Postgres(_) => postgres_database().await,
            };
            let killed = location.clone();
            let was_done = tokio::task::spawn_blocking(move || {
                kill_a_victim(&killed, "ready", Duration::from_secs(1), seed)
            })
            .await
            .unwrap();
            let store = Store::open(&location).await.unwrap();
            let mut world = World::with_seed(store.clone(), 2).await;
            let names = world.names().await;
            let all = large(1_500).lines().count() - 1;
            assert!(
                names.len() == all || (names.is_empty() && !was_done),
                "{}",
                names.len()
            );
            let report = world.directory.verify_audit(&[], &[]).await.unwrap();
            assert_eq!(report.findings, []);
            // It goes on from there.
            world.apply(SMALL, Missing::Keep).await.unwrap();
            store.close().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_has_migrated_all_or_nothing() {
    on_both(|location| async move {
        for seed in 0..kills() as u64 {
            let location = match &location {
                Location::Sqlite(file) => Location::Sqlite(file.with_extension(seed.to_string())),
                Location::Postgres(_) => postgres_database().await,
            };
            let killed = location.clone();
            tokio::task::spawn_blocking(move || {
                kill_a_victim(&killed, "begins", Duration::from_millis(80), seed)
            })
            .await
            .unwrap();
            let store = Store::open(&location).await.unwrap();
            World::new(store.clone())
                .await
                .apply(SMALL, Missing::Keep)
                .await
                .unwrap();
            store.close().await;
        }
    })
    .await;
}
