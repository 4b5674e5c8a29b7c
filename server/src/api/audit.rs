//! The audit log: search, export, and the signed heads.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use directory::Timestamp;
use directory::audit::{Entry, Filter, SignedHead};
use directory::id::OrganisationId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::extract::{Caller, Id, Proven, Query};
use super::fault::{Fault, Kind};
use super::organisations::PAGE;

/// How many entries are exported at once where nothing is said, and at most.
const EXPORT: usize = 500;

pub(super) fn router() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(search))
        .routes(routes!(export))
        .routes(routes!(heads))
}

/// Which entries are wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// By whom: a person's or a hall's id.
    actor: Option<String>,
    /// Done to what: an id.
    object: Option<String>,
    /// What was done: an action's code.
    action: Option<String>,
    /// From when.
    from: Option<i64>,
    /// Until before when.
    until: Option<i64>,
    /// Only entries before this number: `next` of the page before.
    before: Option<u64>,
    /// How many, at most 500.
    limit: Option<u32>,
}

impl Wanted {
    fn filter(self, limit: usize) -> Filter {
        Filter {
            actor: self.actor,
            object: self.object,
            action: self.action,
            from: self.from.map(Timestamp::from_millis),
            until: self.until.map(Timestamp::from_millis),
            before: self.before.map(|before| before.min(i64::MAX as u64)),
            limit: self.limit.map_or(limit, |limit| limit as usize),
        }
    }
}

/// An entry of the log.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
struct EntryView {
    sequence: u64,
    at: i64,
    /// `person`, `hall`, `machine` or `nobody`.
    actor_kind: String,
    actor_id: Option<String>,
    organisation_id: Option<String>,
    action: String,
    object_kind: String,
    object_id: Option<String>,
    /// `done`, `refused` or `failed`.
    outcome: String,
    reason: Option<String>,
    address: Option<String>,
    /// More, as JSON in text: as it was hashed.
    detail: String,
    /// The hash of the entry before.
    previous: String,
    /// The hash of this one.
    hash: String,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> EntryView {
        EntryView {
            sequence: entry.sequence,
            at: entry.at.as_millis(),
            actor_kind: entry.actor_kind,
            actor_id: entry.actor_id,
            organisation_id: entry.organisation_id,
            action: entry.action,
            object_kind: entry.object_kind,
            object_id: entry.object_id,
            outcome: entry.outcome,
            reason: entry.reason,
            address: entry.address,
            detail: entry.detail,
            previous: entry.previous.to_string(),
            hash: entry.hash.to_string(),
        }
    }
}

/// A part of the log, the newest first.
#[derive(Serialize, ToSchema)]
struct AuditPage {
    entries: Vec<EntryView>,
    /// What the next page asks for in `before`, if there is one.
    next: Option<u64>,
}

/// What was done in an organisation and all under it. That it was read is written down.
#[utoipa::path(get, path = "/api/organisations/{id}/audit", tag = "audit",
    params(("id" = String, Path), ("Reason" = Option<String>, Header), Wanted),
    responses((status = 200, body = AuditPage)))]
async fn search(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<AuditPage>, Fault> {
    let filter = wanted.filter(PAGE);
    let page = api.directory.audit_page(&caller.act(), id, &filter).await?;
    Ok(Json(AuditPage {
        entries: page.entries.into_iter().map(Into::into).collect(),
        next: page.next,
    }))
}

/// In which form a log is taken away.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// A JSON object in each line.
    #[default]
    Jsonl,
    /// A table with a first line of names, in UTF-8 with a byte order mark, as spreadsheets read it.
    Csv,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FormatQuery {
    /// `jsonl` or `csv`.
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// The same to be taken away, a page at a time. `Terrace-Next` says what the next page asks for in `before`.
#[utoipa::path(get, path = "/api/organisations/{id}/audit/export", tag = "audit",
    params(("id" = String, Path), Wanted, FormatQuery),
    responses((status = 200, body = String, content_type = "application/jsonl")))]
async fn export(
    State(api): State<Arc<Api>>,
    mut caller: Proven,
    Id(id): Id<OrganisationId>,
    Query(wanted): Query<Wanted>,
    Query(format): Query<FormatQuery>,
) -> Result<impl IntoResponse + use<>, Fault> {
    let filter = wanted.filter(EXPORT);
    let (lines, next) = api
        .directory
        .export_audit(&caller.act(), id, &filter)
        .await?;
    let (kind, name, text) = match format.format {
        Format::Jsonl => ("application/jsonl; charset=utf-8", "audit.jsonl", lines),
        Format::Csv => ("text/csv; charset=utf-8", "audit.csv", table(&lines)?),
    };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
        (
            header::HeaderName::from_static("terrace-next"),
            next.map(|next| next.to_string()).unwrap_or_default(),
        ),
    ];
    Ok((headers, text))
}

/// The columns of an export as a table.
const COLUMNS: [&str; 14] = [
    "sequence",
    "at",
    "actor_kind",
    "actor_id",
    "organisation_id",
    "action",
    "object_kind",
    "object_id",
    "outcome",
    "reason",
    "address",
    "detail",
    "previous",
    "hash",
];

/// Lines of JSON as a table.
fn table(lines: &str) -> Result<String, Fault> {
    let mut writer = csv::Writer::from_writer("\u{feff}".as_bytes().to_vec());
    let failed = |_: csv::Error| Fault::from(Kind::Internal);
    writer.write_record(COLUMNS).map_err(failed)?;
    for line in lines.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).map_err(|_| Kind::Internal)?;
        let cells = COLUMNS.map(|column| match &entry[column] {
            serde_json::Value::Null => String::new(),
            serde_json::Value::String(text) => harmless(text),
            other => other.to_string(),
        });
        writer.write_record(&cells).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|_| Kind::Internal)?;
    String::from_utf8(bytes).map_err(|_| Kind::Internal.into())
}

/// A cell that no spreadsheet takes for a formula.
fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// Where the log ended at a moment, signed.
#[derive(Serialize, ToSchema)]
struct HeadView {
    log: String,
    sequence: u64,
    hash: String,
    at: i64,
    key: String,
    signature: String,
}

impl From<SignedHead> for HeadView {
    fn from(head: SignedHead) -> HeadView {
        HeadView {
            log: head.log.to_string(),
            sequence: head.sequence,
            hash: head.hash,
            at: head.at.as_millis(),
            key: head.key.as_str().to_owned(),
            signature: head.signature,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct After {
    /// Only those that were signed after this moment.
    after: Option<i64>,
}

/// The signed heads of the log, a thousand at a time, the oldest first. Kept elsewhere, they show what was done to the
/// log since.
#[utoipa::path(get, path = "/api/organisations/{id}/audit/heads", tag = "audit",
    params(("id" = String, Path), ("Reason" = Option<String>, Header), After),
    responses((status = 200, body = Vec<HeadView>)))]
async fn heads(
    State(api): State<Arc<Api>>,
    mut caller: Caller,
    Id(id): Id<OrganisationId>,
    Query(after): Query<After>,
) -> Result<Json<Vec<HeadView>>, Fault> {
    let after = Timestamp::from_millis(after.after.unwrap_or(i64::MIN));
    let heads = api
        .directory
        .audit_heads_for(&caller.act(), id, after)
        .await?;
    Ok(Json(heads.into_iter().map(Into::into).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_of_an_export_is_a_formula() {
        let line = r#"{"sequence":1,"reason":"=HYPERLINK(\"x\")","detail":"{}","actor_id":null}"#;
        let text = table(line).unwrap();
        assert!(text.starts_with("\u{feff}sequence,"), "{text}");
        assert!(text.contains(",\"'=HYPERLINK(\"\"x\"\")\","), "{text}");
    }
}
