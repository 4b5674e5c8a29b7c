//! Organisations from a table or from the divisions that come along: first the plan, then what was planned.

use std::sync::Arc;

use axum::Json;
use axum::extract::{DefaultBodyLimit, Request, State};
use directory::divisions;
use directory::id::OrganisationId;
use directory::organisation::Level;
use directory::organisation::import::{
    self, Column, FILE_SIZE, Missing, Parent, Plan, Problem, Sheet,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::extract::{Caller, Id, Proven, Query, bytes};
use super::fault::{Fault, Kind};
use super::organisations::{KindView, LevelView};

/// How many changes of each kind a plan lists; the counts say how many there are.
const LISTED: usize = 1_000;

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(plan))
        .routes(routes!(apply))
        .routes(routes!(plan_divisions))
        .routes(routes!(apply_divisions))
        .layer(DefaultBodyLimit::max(FILE_SIZE))
}

/// Something in the file that must be put right first.
#[derive(Serialize, ToSchema)]
#[schema(as = ImportProblem)]
pub(super) struct ProblemView {
    /// Counted from 1, as editors and spreadsheets do.
    line: u64,
    column: Option<&'static str>,
    /// What is wrong, in words.
    message: String,
}

impl From<&Problem> for ProblemView {
    fn from(problem: &Problem) -> ProblemView {
        ProblemView {
            line: problem.line,
            column: problem.column.map(|column| match column {
                Column::Name => "name",
                Column::Code => "code",
                Column::Kind => "kind",
                Column::Level => "level",
                Column::Parent => "parent",
                Column::CascadeParent => "cascade_parent",
            }),
            message: problem.fault.chinese(),
        }
    }
}

/// Something that is not there yet.
#[derive(Serialize, ToSchema)]
struct NewView {
    line: u64,
    kind: KindView,
    level: Option<LevelView>,
    name: String,
    code: Option<String>,
}

/// Something that has another name in the file.
#[derive(Serialize, ToSchema)]
struct RenamedView {
    line: u64,
    id: String,
    from: String,
    to: String,
}

/// Something that is under another one in the file, or whose node joins another one.
#[derive(Serialize, ToSchema)]
struct MovedView {
    line: u64,
    id: String,
    name: String,
    from: Option<String>,
    /// An organisation that is there, or nothing where it is new in the file itself.
    to: Option<String>,
}

/// Something of the branch that is not in the file.
#[derive(Serialize, ToSchema)]
struct GoneView {
    id: String,
    code: String,
    name: String,
}

/// How many there are of each.
#[derive(Serialize, ToSchema)]
struct Counts {
    problems: usize,
    new: usize,
    renamed: usize,
    moved: usize,
    rejoined: usize,
    gone: usize,
    unchanged: usize,
}

/// What a file would change, or has changed; a thousand of each kind are listed.
#[derive(Serialize, ToSchema)]
#[schema(as = ImportPlan)]
pub(super) struct PlanView {
    counts: Counts,
    problems: Vec<ProblemView>,
    new: Vec<NewView>,
    renamed: Vec<RenamedView>,
    moved: Vec<MovedView>,
    rejoined: Vec<MovedView>,
    gone: Vec<GoneView>,
    /// Names this plan for this state of the directory. Who applies it says it.
    fingerprint: String,
}

fn there(parent: &Parent) -> Option<String> {
    match parent {
        Parent::There(id) => Some(id.to_string()),
        Parent::None | Parent::New(_) => None,
    }
}

impl From<&Plan> for PlanView {
    fn from(plan: &Plan) -> PlanView {
        PlanView {
            counts: Counts {
                problems: plan.problems.len(),
                new: plan.new.len(),
                renamed: plan.renamed.len(),
                moved: plan.moved.len(),
                rejoined: plan.rejoined.len(),
                gone: plan.gone.len(),
                unchanged: plan.unchanged,
            },
            problems: plan.problems.iter().take(LISTED).map(Into::into).collect(),
            new: plan
                .new
                .iter()
                .take(LISTED)
                .map(|new| NewView {
                    line: new.line,
                    kind: new.kind.into(),
                    level: new.level.map(Into::into),
                    name: new.name.clone(),
                    code: new.code.as_ref().map(ToString::to_string),
                })
                .collect(),
            renamed: plan
                .renamed
                .iter()
                .take(LISTED)
                .map(|renamed| RenamedView {
                    line: renamed.line,
                    id: renamed.id.to_string(),
                    from: renamed.from.clone(),
                    to: renamed.to.clone(),
                })
                .collect(),
            moved: plan
                .moved
                .iter()
                .take(LISTED)
                .map(|moved| MovedView {
                    line: moved.line,
                    id: moved.id.to_string(),
                    name: moved.name.clone(),
                    from: moved.from.map(|id| id.to_string()),
                    to: there(&moved.to),
                })
                .collect(),
            rejoined: plan
                .rejoined
                .iter()
                .take(LISTED)
                .map(|rejoined| MovedView {
                    line: rejoined.line,
                    id: rejoined.id.to_string(),
                    name: rejoined.name.clone(),
                    from: rejoined.from.map(|id| id.to_string()),
                    to: there(&rejoined.to),
                })
                .collect(),
            gone: plan
                .gone
                .iter()
                .take(LISTED)
                .map(|gone| GoneView {
                    id: gone.id.to_string(),
                    code: gone.code.to_string(),
                    name: gone.name.clone(),
                })
                .collect(),
            fingerprint: plan.fingerprint.clone(),
        }
    }
}

/// What is done with organisations of the branch that have a code and are not in the file.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum MissingView {
    /// They stay; the file is a part.
    #[default]
    Keep,
    /// They are closed; the file is all there is.
    Close,
}

impl From<MissingView> for Missing {
    fn from(missing: MissingView) -> Missing {
        match missing {
            MissingView::Keep => Missing::Keep,
            MissingView::Close => Missing::Close,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PlanQuery {
    /// What is done with those that are not in the file: `keep` or `close`.
    #[serde(default)]
    #[param(inline)]
    missing: MissingView,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ApplyQuery {
    /// What is done with those that are not in the file: `keep` or `close`.
    #[serde(default)]
    #[param(inline)]
    missing: MissingView,
    /// That of the plan that was shown.
    fingerprint: String,
}

/// Which of the divisions that come along are wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DivisionsQuery {
    /// The first two digits of the province's codes.
    province: String,
    /// Down to which level.
    #[param(inline)]
    lowest: LevelView,
    /// What each centre is called after its division's name, such as 综治中心.
    #[serde(default)]
    suffix: String,
    /// That of the plan that was shown; only where it is applied.
    fingerprint: Option<String>,
}

/// One of the few turns to read a large file, and the file as rows.
async fn sheet(api: &Api, request: Request) -> Result<Sheet, Fault> {
    let turn = api.imports.clone().try_acquire_owned();
    let turn = turn.map_err(|_| Fault::from(Kind::Busy).retry_after(10))?;
    let bytes = bytes(request, &()).await?;
    let read = tokio::task::spawn_blocking(move || {
        let sheet = import::read(&bytes);
        drop(turn);
        sheet
    });
    Ok(read.await.map_err(|_| Kind::Internal)??)
}

async fn divisions_sheet(query: &DivisionsQuery) -> Result<Sheet, Fault> {
    let province = query.province.clone();
    if province.len() != 2 || !province.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::invalid("province"));
    }
    let (lowest, suffix) = (Level::from(query.lowest), query.suffix.clone());
    let read =
        tokio::task::spawn_blocking(move || divisions::start(&province, lowest, &suffix)).await;
    read.map_err(|_| Kind::Internal)?
        .map_err(|_| Kind::Internal.into())
}

/// The dry run: what a file (CSV or XLSX) would change in a branch, and what is wrong with it. Changes nothing.
#[utoipa::path(post, path = "/api/organisations/{id}/import/plan", tag = "import",
    params(("id" = String, Path), PlanQuery),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, body = PlanView)))]
async fn plan(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
    Query(query): Query<PlanQuery>,
    request: Request,
) -> Result<Json<PlanView>, Fault> {
    let sheet = sheet(&api, request).await?;
    let missing = query.missing.into();
    let act = &caller.act();
    let plan = api
        .directory
        .plan_import(act, Some(id), &sheet, missing)
        .await?;
    Ok(Json((&plan).into()))
}

/// Applies a file as its plan showed it; all of it, or nothing.
#[utoipa::path(post, path = "/api/organisations/{id}/import", tag = "import",
    params(("id" = String, Path), ApplyQuery),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 200, body = PlanView)))]
async fn apply(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<OrganisationId>,
    Query(query): Query<ApplyQuery>,
    request: Request,
) -> Result<Json<PlanView>, Fault> {
    let sheet = sheet(&api, request).await?;
    let (missing, fingerprint) = (query.missing.into(), &query.fingerprint);
    let act = &mut caller.act();
    let directory = &api.directory;
    let applied = directory.apply_import(act, Some(id), &sheet, missing, fingerprint);
    Ok(Json((&applied.await?).into()))
}

/// The dry run of a province's tree out of the divisions that come along.
#[utoipa::path(post, path = "/api/organisations/{id}/import/divisions/plan", tag = "import",
    params(("id" = String, Path), DivisionsQuery),
    responses((status = 200, body = PlanView)))]
async fn plan_divisions(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
    Query(query): Query<DivisionsQuery>,
) -> Result<Json<PlanView>, Fault> {
    let sheet = divisions_sheet(&query).await?;
    let act = &caller.act();
    let plan = api
        .directory
        .plan_import(act, Some(id), &sheet, Missing::Keep);
    Ok(Json((&plan.await?).into()))
}

/// Makes a province's tree out of the divisions that come along, as its plan showed it; all of it, or nothing.
#[utoipa::path(post, path = "/api/organisations/{id}/import/divisions", tag = "import",
    params(("id" = String, Path), DivisionsQuery),
    responses((status = 200, body = PlanView)))]
async fn apply_divisions(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<OrganisationId>,
    Query(query): Query<DivisionsQuery>,
) -> Result<Json<PlanView>, Fault> {
    let sheet = divisions_sheet(&query).await?;
    let fingerprint = query.fingerprint.as_deref();
    let fingerprint = fingerprint.ok_or_else(|| Fault::invalid("fingerprint"))?;
    let act = &mut caller.act();
    let (directory, keep) = (&api.directory, Missing::Keep);
    let applied = directory.apply_import(act, Some(id), &sheet, keep, fingerprint);
    Ok(Json((&applied.await?).into()))
}
