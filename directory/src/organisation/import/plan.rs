//! Holds a table against the directory: what is wrong with it, and what it would change.

use std::collections::{BTreeMap, HashMap, HashSet};

use aws_lc_rs::digest::{Context, SHA256};
use sqlx::AnyConnection;

use super::super::{
    COLUMNS, DivisionCode, Kind, Level, Organisation, TABLES, may_be_under, name, read_row,
};
use super::{Column, Fault, Missing, PROBLEMS, Problem, Row, Sheet};
use crate::id::OrganisationId;
use crate::store::{self, StoreError};

/// How many codes are looked up at once.
const CODES_AT_ONCE: usize = 500;

/// Under what something is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Nothing: it is a province.
    None,
    /// What is there already.
    There(OrganisationId),
    /// What is new itself: its place in [`Plan::new`].
    New(usize),
}

/// Something that is not there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct New {
    /// In which line it stands.
    pub line: u64,
    /// What it is.
    pub kind: Kind,
    /// A centre's level.
    pub level: Option<Level>,
    /// Its name.
    pub name: String,
    /// Its code.
    pub code: Option<DivisionCode>,
    /// Under what; always before it in the list where that is new too.
    pub parent: Parent,
    /// Whose node its own joins, where that is not its parent's.
    pub cascade_parent: Parent,
}

/// Something that has another name in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// In which line it stands.
    pub line: u64,
    /// What.
    pub id: OrganisationId,
    /// What it is called.
    pub from: String,
    /// What it will be called.
    pub to: String,
}

/// Something that is under another one in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// In which line it stands.
    pub line: u64,
    /// What.
    pub id: OrganisationId,
    /// What it is called.
    pub name: String,
    /// Under what it is.
    pub from: Option<OrganisationId>,
    /// Under what it will be.
    pub to: Parent,
}

/// Something whose node joins another one in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejoined {
    /// In which line it stands.
    pub line: u64,
    /// What.
    pub id: OrganisationId,
    /// What it is called.
    pub name: String,
    /// Whose node its own joins, where that is not its parent's.
    pub from: Option<OrganisationId>,
    /// Whose it will join.
    pub to: Parent,
}

/// Something of the branch that is not in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// What.
    pub id: OrganisationId,
    /// Its code.
    pub code: DivisionCode,
    /// What it is called.
    pub name: String,
}

/// What a file would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What must be put right first. While there is something, nothing is applied.
    pub problems: Vec<Problem>,
    /// What is not there yet.
    pub new: Vec<New>,
    /// What has another name.
    pub renamed: Vec<Renamed>,
    /// What is under another one.
    pub moved: Vec<Moved>,
    /// What joins another node.
    pub rejoined: Vec<Rejoined>,
    /// What is not in the file.
    pub gone: Vec<Gone>,
    /// How many are as they are in the file.
    pub unchanged: usize,
    /// Names this plan for this state of the directory. Who applies it says it.
    pub fingerprint: String,
}

/// What is there: the branch, and who else has a code of the file.
pub(super) struct There {
    pub(super) organisations: HashMap<OrganisationId, Organisation>,
    by_code: HashMap<DivisionCode, OrganisationId>,
    by_name: HashMap<(OrganisationId, Kind, String), OrganisationId>,
    elsewhere: HashSet<DivisionCode>,
    top: Option<OrganisationId>,
}

#[cfg(test)]
impl There {
    /// An empty directory.
    pub(super) fn nothing() -> There {
        There {
            organisations: HashMap::new(),
            by_code: HashMap::new(),
            by_name: HashMap::new(),
            elsewhere: HashSet::new(),
            top: None,
        }
    }
}

/// Reads what is there of a branch, or of all.
pub(super) async fn what_is_there(
    connection: &mut AnyConnection,
    top: Option<OrganisationId>,
    sheet: &Sheet,
) -> Result<There, StoreError> {
    let branch = match top {
        Some(_) => {
            "AND o.id IN (SELECT organisation_id FROM organisation_lineages WHERE ancestor_id = $1)"
        }
        None => "AND $1 = ''",
    };
    let query = format!("SELECT {COLUMNS} FROM {TABLES} WHERE o.state = 'active' {branch}");
    let rows = sqlx::query(&query)
        .bind(top.map(|top| top.to_string()).unwrap_or_default())
        .fetch_all(&mut *connection)
        .await?;
    let mut there = There {
        organisations: HashMap::with_capacity(rows.len()),
        by_code: HashMap::new(),
        by_name: HashMap::new(),
        elsewhere: HashSet::new(),
        top,
    };
    for row in &rows {
        let organisation = read_row(row)?;
        let id = organisation.id;
        match (&organisation.code, organisation.parent) {
            (Some(code), _) => {
                there.by_code.insert(code.clone(), id);
            }
            (None, Some(parent)) => {
                let name = name::folded(&organisation.name);
                there.by_name.insert((parent, organisation.kind, name), id);
            }
            (None, None) => {}
        }
        there.organisations.insert(id, organisation);
    }
    if top.is_some() {
        let codes: Vec<DivisionCode> = sheet
            .rows
            .iter()
            .flat_map(|row| {
                [Column::Code, Column::Parent, Column::CascadeParent]
                    .map(|column| row.cells.get(&column))
            })
            .flatten()
            .filter_map(|text| text.parse().ok())
            .filter(|code| !there.by_code.contains_key(code))
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        for some in codes.chunks(CODES_AT_ONCE) {
            let places: Vec<String> = (1..=some.len()).map(|at| format!("${at}")).collect();
            let query = format!(
                "SELECT code FROM division_codes WHERE valid_to IS NULL AND code IN ({})",
                places.join(", ")
            );
            let mut query = sqlx::query(&query);
            for code in some {
                query = query.bind(code.as_str().to_owned());
            }
            for row in &query.fetch_all(&mut *connection).await? {
                there.elsewhere.insert(store::parsed(row, "code")?);
            }
        }
    }
    Ok(there)
}

/// A row of which each cell could be understood.
struct Understood {
    line: u64,
    kind: Kind,
    level: Option<Level>,
    name: String,
    code: Option<DivisionCode>,
    /// As the file says it; without that, the code tells.
    parent: Option<DivisionCode>,
    cascade_parent: Option<DivisionCode>,
}

/// Who something is, whether it is there or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ref {
    There(OrganisationId),
    Row(usize),
}

struct Planner<'a> {
    there: &'a There,
    rows: Vec<Understood>,
    row_by_code: HashMap<DivisionCode, usize>,
    problems: Vec<Problem>,
    /// The lines that a problem is listed for.
    told: HashSet<u64>,
}

/// Makes the plan.
pub(super) fn plan(sheet: &Sheet, there: &There, missing: Missing) -> Plan {
    let mut planner = Planner {
        there,
        rows: Vec::with_capacity(sheet.rows.len()),
        row_by_code: HashMap::new(),
        problems: sheet.problems.clone(),
        told: sheet.problems.iter().map(|problem| problem.line).collect(),
    };
    for row in &sheet.rows {
        planner.understand(row);
    }
    let parents = planner.parents();
    planner.check(&parents);
    let mut plan = planner.diff(&parents, missing);
    plan.problems.sort();
    plan.problems.dedup();
    plan.problems.truncate(PROBLEMS);
    plan.fingerprint = fingerprint(&plan, there);
    plan
}

impl Planner<'_> {
    fn fault(&mut self, line: u64, column: Column, fault: Fault) {
        self.told.insert(line);
        self.problems.push(Problem {
            line,
            column: Some(column),
            fault,
        });
    }

    fn understand(&mut self, row: &Row) {
        let before = self.problems.len();
        // Empty where a problem is listed already.
        let cell = |column| row.cells.get(&column).map(String::as_str);
        let is_told = row.cells.values().any(String::is_empty);
        let line = row.line;
        let shown = match cell(Column::Name) {
            None => {
                self.fault(line, Column::Name, Fault::Empty);
                None
            }
            Some("") => None,
            Some(text) => {
                let name = name::read_name(text);
                if name.is_none() {
                    self.fault(line, Column::Name, Fault::BadName);
                }
                name
            }
        };
        let kind = match cell(Column::Kind) {
            None | Some("") => Some(Kind::Centre),
            Some(text) => {
                let kind = Kind::ALL
                    .into_iter()
                    .find(|kind| [kind.code(), kind.chinese()].contains(&text));
                if kind.is_none() {
                    self.fault(line, Column::Kind, Fault::BadKind);
                }
                kind
            }
        };
        let code = self.code(row, Column::Code);
        let parent = self.code(row, Column::Parent);
        let cascade_parent = self.code(row, Column::CascadeParent);
        let level = match cell(Column::Level) {
            None | Some("") => code.as_ref().map(DivisionCode::level),
            Some(text) => {
                let level = read_level(text);
                if level.is_none() {
                    self.fault(line, Column::Level, Fault::BadLevel);
                }
                level
            }
        };
        if kind == Some(Kind::Centre) && cell(Column::Code).is_none() {
            self.fault(line, Column::Code, Fault::Empty);
        }
        if kind.is_some_and(|kind| kind != Kind::Centre) {
            for column in [Column::Code, Column::Level, Column::CascadeParent] {
                if cell(column).is_some() {
                    self.fault(line, column, Fault::OnlyCentres);
                }
            }
            if cell(Column::Parent).is_none() {
                self.fault(line, Column::Parent, Fault::Empty);
            }
        }
        if let Some(code) = &code {
            match self.row_by_code.get(code) {
                Some(other) => {
                    let other = self.rows[*other].line;
                    self.fault(line, Column::Code, Fault::Twice { line: other });
                    return;
                }
                // A row with another fault has its code all the same: what is under it is not told to be nowhere.
                None => {
                    self.row_by_code.insert(code.clone(), self.rows.len());
                }
            }
            if self.there.elsewhere.contains(code) {
                self.fault(line, Column::Code, Fault::OutsideBranch);
            }
        }
        let is_good = self.problems.len() == before && !is_told;
        if !is_good && code.is_none() {
            return;
        }
        self.rows.push(Understood {
            line,
            kind: kind.unwrap_or(Kind::Centre),
            level,
            name: shown.unwrap_or_default(),
            code,
            parent,
            cascade_parent,
        });
    }

    fn code(&mut self, row: &Row, column: Column) -> Option<DivisionCode> {
        let text = row.cells.get(&column).filter(|text| !text.is_empty())?;
        match text.parse::<DivisionCode>() {
            Ok(code) => Some(code),
            Err(problem) => {
                self.fault(row.line, column, Fault::BadCode(problem.into()));
                None
            }
        }
    }

    fn by_code(&self, code: &DivisionCode) -> Option<Ref> {
        let row = self.row_by_code.get(code).map(|row| Ref::Row(*row));
        row.or_else(|| self.there.by_code.get(code).map(|id| Ref::There(*id)))
    }

    /// What each row is under: as the file says, or what has the nearest code above its own.
    fn parents(&mut self) -> Vec<Option<Ref>> {
        let mut parents = Vec::with_capacity(self.rows.len());
        for at in 0..self.rows.len() {
            let row = &self.rows[at];
            let line = row.line;
            let parent = match (&row.parent, &row.code) {
                (Some(code), _) => {
                    let found = self.by_code(code);
                    if found.is_none() {
                        let is_elsewhere = self.there.elsewhere.contains(code);
                        let fault = if is_elsewhere {
                            Fault::OutsideBranch
                        } else {
                            Fault::Unknown
                        };
                        self.fault(line, Column::Parent, fault);
                    }
                    found
                }
                (None, Some(code)) => {
                    let mut above = std::iter::successors(code.above(), DivisionCode::above);
                    let found = above.find_map(|code| self.by_code(&code));
                    let own = self.there.by_code.get(code).copied();
                    let (is_province, top) = (row.level == Some(Level::Province), self.there.top);
                    match (found, own) {
                        (Some(found), _) => Some(found),
                        (None, _) if is_province => None,
                        // What is there and has nothing above it in the file stays where it is.
                        (None, Some(own)) if Some(own) == top => None,
                        (None, Some(own)) => self.there.organisations[&own].parent.map(Ref::There),
                        // What is new is then under the organisation that the import is for.
                        (None, None) if top.is_some() => top.map(Ref::There),
                        (None, None) => {
                            self.fault(line, Column::Parent, Fault::Unknown);
                            None
                        }
                    }
                }
                (None, None) => None,
            };
            parents.push(parent);
        }
        parents
    }

    /// What is there under the code of a row.
    fn by_code_there(&self, at: usize) -> Option<OrganisationId> {
        let code = self.rows[at].code.as_ref()?;
        self.there.by_code.get(code).copied()
    }

    /// Whether the tree would be one.
    fn check(&mut self, parents: &[Option<Ref>]) {
        let mut on_a_cycle: HashSet<usize> = HashSet::new();
        let mut checked: HashSet<usize> = HashSet::new();
        for at in 0..self.rows.len() {
            let mut path: Vec<usize> = Vec::new();
            let mut next = Some(Ref::Row(at));
            while let Some(Ref::Row(row)) = next {
                if let Some(begin) = path.iter().position(|seen| *seen == row) {
                    on_a_cycle.extend(&path[begin..]);
                    break;
                }
                if !checked.insert(row) {
                    break;
                }
                path.push(row);
                next = parents[row];
            }
        }
        for at in 0..self.rows.len() {
            let row = &self.rows[at];
            let (line, kind, level) = (row.line, row.kind, row.level);
            if on_a_cycle.contains(&at) {
                self.fault(line, Column::Parent, Fault::Cycle);
                continue;
            }
            let own = self.by_code_there(at);
            if let Some(own) = own.and_then(|id| self.there.organisations.get(&id))
                && level.is_some()
                && own.level != level
            {
                self.fault(line, Column::Level, Fault::LevelChanged);
                continue;
            }
            let is_top = own.is_some() && own == self.there.top;
            let above = parents[at].map(|parent| self.told(parent));
            if !is_top && !may_be_under(kind, level, above) && !self.is_told(line) {
                self.fault(line, Column::Parent, Fault::WrongParent);
            }
            if self.there.top.is_some() && above.is_none() && !is_top && !self.is_told(line) {
                self.fault(line, Column::Parent, Fault::OutsideBranch);
            }
            self.check_cascade(at, parents);
        }
        self.check_twins(parents);
    }

    fn is_told(&self, line: u64) -> bool {
        self.told.contains(&line)
    }

    /// What something is, as far as what is under it must know.
    fn told(&self, what: Ref) -> (Kind, Option<Level>) {
        match what {
            Ref::There(id) => {
                let one = &self.there.organisations[&id];
                (one.kind, one.level)
            }
            Ref::Row(at) => (self.rows[at].kind, self.rows[at].level),
        }
    }

    /// Whether the way up from a row's node ends, and goes over what is known.
    fn check_cascade(&mut self, at: usize, parents: &[Option<Ref>]) {
        let line = self.rows[at].line;
        let Some(code) = self.rows[at].cascade_parent.clone() else {
            return;
        };
        let Some(first) = self.by_code(&code) else {
            let is_elsewhere = self.there.elsewhere.contains(&code);
            let fault = if is_elsewhere {
                Fault::OutsideBranch
            } else {
                Fault::Unknown
            };
            self.fault(line, Column::CascadeParent, fault);
            return;
        };
        let mut seen = HashSet::from([Ref::Row(at)]);
        let mut next = Some(first);
        while let Some(one) = next {
            if !seen.insert(one) {
                self.fault(line, Column::CascadeParent, Fault::Cycle);
                return;
            }
            next = match one {
                Ref::Row(row) => {
                    let code = self.rows[row].cascade_parent.clone();
                    code.and_then(|code| self.by_code(&code)).or(parents[row])
                }
                Ref::There(id) => self
                    .there
                    .organisations
                    .get(&id)
                    .and_then(|one| one.cascade_parent.or(one.parent))
                    .map(|id| self.as_row(id)),
            };
        }
    }

    /// What is there, as the row that tells of it, if one does.
    fn as_row(&self, id: OrganisationId) -> Ref {
        let code = self
            .there
            .organisations
            .get(&id)
            .and_then(|one| one.code.as_ref());
        let row = code.and_then(|code| self.row_by_code.get(code));
        row.map_or(Ref::There(id), |row| Ref::Row(*row))
    }

    /// Two rows without a code are the same if they have one name under one parent.
    fn check_twins(&mut self, parents: &[Option<Ref>]) {
        let mut seen: HashMap<(Option<Ref>, Kind, String), u64> = HashMap::new();
        let mut twins = Vec::new();
        for (row, parent) in self.rows.iter().zip(parents) {
            if row.code.is_some() {
                continue;
            }
            let key = (*parent, row.kind, name::folded(&row.name));
            match seen.get(&key) {
                Some(first) => twins.push((row.line, *first)),
                None => {
                    seen.insert(key, row.line);
                }
            }
        }
        for (line, first) in twins {
            self.fault(line, Column::Name, Fault::Twice { line: first });
        }
    }

    fn diff(mut self, parents: &[Option<Ref>], missing: Missing) -> Plan {
        let mut plan = Plan {
            problems: std::mem::take(&mut self.problems),
            new: Vec::new(),
            renamed: Vec::new(),
            moved: Vec::new(),
            rejoined: Vec::new(),
            gone: Vec::new(),
            unchanged: 0,
            fingerprint: String::new(),
        };
        if !plan.problems.is_empty() {
            return plan;
        }
        // A row's parent comes before it: then that one is known to be there, or to be new and where in the list.
        let mut found: HashMap<usize, Parent> = HashMap::new();
        for at in self.in_order(parents) {
            let row = &self.rows[at];
            let parent = match parents[at] {
                None => Parent::None,
                Some(Ref::There(id)) => Parent::There(id),
                Some(Ref::Row(above)) => found[&above].clone(),
            };
            let own = match (&row.code, &parent) {
                (Some(code), _) => self.there.by_code.get(code).copied(),
                (None, Parent::There(id)) => {
                    let key = (*id, row.kind, name::folded(&row.name));
                    self.there.by_name.get(&key).copied()
                }
                (None, _) => None,
            };
            let Some(own) = own else {
                found.insert(at, Parent::New(plan.new.len()));
                plan.new.push(New {
                    line: row.line,
                    kind: row.kind,
                    level: row.level,
                    name: row.name.clone(),
                    code: row.code.clone(),
                    parent,
                    cascade_parent: Parent::None,
                });
                continue;
            };
            found.insert(at, Parent::There(own));
            let old = &self.there.organisations[&own];
            let mut is_changed = false;
            if old.name != row.name {
                is_changed = true;
                plan.renamed.push(Renamed {
                    line: row.line,
                    id: own,
                    from: old.name.clone(),
                    to: row.name.clone(),
                });
            }
            let is_top = Some(own) == self.there.top;
            let old_parent = old.parent.map_or(Parent::None, Parent::There);
            if !is_top && parent != old_parent {
                is_changed = true;
                plan.moved.push(Moved {
                    line: row.line,
                    id: own,
                    name: old.name.clone(),
                    from: old.parent,
                    to: parent,
                });
            }
            if !is_changed {
                plan.unchanged += 1;
            }
        }
        for (at, row) in self.rows.iter().enumerate() {
            let Some(code) = &row.cascade_parent else {
                continue;
            };
            let to = match self.by_code(code) {
                Some(Ref::There(id)) => Parent::There(id),
                Some(Ref::Row(other)) => found[&other].clone(),
                None => Parent::None,
            };
            match found[&at] {
                Parent::New(new) => plan.new[new].cascade_parent = to,
                Parent::There(id) => {
                    let old = &self.there.organisations[&id];
                    if to != old.cascade_parent.map_or(Parent::None, Parent::There) {
                        plan.rejoined.push(Rejoined {
                            line: row.line,
                            id,
                            name: old.name.clone(),
                            from: old.cascade_parent,
                            to,
                        });
                    }
                }
                Parent::None => {}
            }
        }
        self.find_gone(&mut plan, missing);
        plan
    }

    /// Rows with those above them first.
    fn in_order(&self, parents: &[Option<Ref>]) -> Vec<usize> {
        let depth = |at: usize| {
            let mut depth = 0;
            let mut next = parents[at];
            while let Some(Ref::Row(above)) = next {
                depth += 1;
                next = parents[above];
            }
            depth
        };
        let mut order: Vec<(usize, usize)> =
            (0..self.rows.len()).map(|at| (depth(at), at)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, at)| at).collect()
    }

    fn find_gone(&self, plan: &mut Plan, missing: Missing) {
        let mut gone: BTreeMap<&DivisionCode, &Organisation> = BTreeMap::new();
        for (code, id) in &self.there.by_code {
            if !self.row_by_code.contains_key(code) && Some(*id) != self.there.top {
                gone.insert(code, &self.there.organisations[id]);
            }
        }
        if missing == Missing::Close {
            // What stays can't be under what goes.
            let going: HashSet<OrganisationId> = gone.values().map(|one| one.id).collect();
            let moving: HashMap<OrganisationId, &Parent> = plan
                .moved
                .iter()
                .map(|moved| (moved.id, &moved.to))
                .collect();
            let stays_under = |one: &Organisation| match moving.get(&one.id) {
                Some(Parent::There(to)) => Some(*to),
                Some(_) => None,
                None => one.parent,
            };
            let is_left_over = self.there.organisations.values().any(|one| {
                !going.contains(&one.id) && stays_under(one).is_some_and(|to| going.contains(&to))
            });
            if is_left_over {
                plan.problems.push(Problem {
                    line: 1,
                    column: Some(Column::Code),
                    fault: Fault::NotEmpty,
                });
            }
        }
        plan.gone = gone
            .into_iter()
            .map(|(code, one)| Gone {
                id: one.id,
                code: code.clone(),
                name: one.name.clone(),
            })
            .collect();
    }
}

/// The level that a cell names.
fn read_level(text: &str) -> Option<Level> {
    let short = text.strip_suffix('级').unwrap_or(text);
    Level::ALL.into_iter().find(|level| {
        text == (*level as u8).to_string()
            || level.chinese() == text
            || level.chinese().strip_suffix('级') == Some(short)
            || (short == "街道" && *level == Level::Township)
            || (short == "社区" && *level == Level::Village)
    })
}

/// Names a plan and the versions of what it changes.
fn fingerprint(plan: &Plan, there: &There) -> String {
    let mut context = Context::new(&SHA256);
    let mut put = |text: String| {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    };
    put(format!("{:?}", there.top));
    put(format!("{:?}", plan.new));
    put(format!("{:?}", plan.renamed));
    put(format!("{:?}", plan.moved));
    put(format!("{:?}", plan.rejoined));
    put(format!("{:?}", plan.gone));
    let changed = plan.renamed.iter().map(|one| one.id);
    let changed = changed.chain(plan.moved.iter().map(|one| one.id));
    let changed = changed.chain(plan.rejoined.iter().map(|one| one.id));
    for id in changed.chain(plan.gone.iter().map(|one| one.id)) {
        put(format!("{id} {}", there.organisations[&id].version));
    }
    crate::hex(context.finish().as_ref())
}
