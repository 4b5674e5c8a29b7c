//! The matrix: who may do what, how far, and on which condition. Read by [`super::can`] and printed to `docs/rights.md`.

use super::Involvement::{Assisting, Called, Handler, Invited, Oneself, Party as IsParty};
use super::Role::{
    Assistant, Auditor, BranchChair, Chair, ConferenceOperator, DutyOfficer, GridWorker, Head,
    Mediator, Party, PetitionReceptionist, SecurityAdministrator, Superior, SystemAdministrator,
};
use super::{Action, Fact, Involvement, Role};

/// What a role may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// ✔
    Yes,
    /// ▲: once the reason is said, which is kept.
    WithReason,
    /// ▲▲: once another person has approved.
    WithSecondPerson,
}

impl Verdict {
    pub(super) fn at_least_reason(self) -> Verdict {
        match self {
            Verdict::Yes => Verdict::WithReason,
            other => other,
        }
    }
}

/// Whose things a role reaches, as seen from where somebody has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The own organisation's.
    Unit,
    /// The own organisation's and those of all under it.
    Branch,
    /// Those of all under it, not the own organisation's.
    Lower,
    /// The own organisation's, and those of all under and above it.
    Line,
    /// Those of the one matter for which the role is had, wherever they are.
    Matter,
}

/// What must be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The actor has this to do with the matter.
    Is(Involvement),
    /// This is so.
    So(Fact),
    /// One of these is so.
    Either(Fact, Fact),
}

/// What one role may of one action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Whether.
    pub verdict: Verdict,
    /// How far.
    pub reach: Reach,
    /// On which conditions; all of them.
    pub needs: &'static [Need],
}

/// Where a row is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The matrix of the requirements.
    Requirements,
    /// Ours, for what the requirements' matrix does not name.
    Ours,
}

/// One action and who may do it; a role that is not named may not.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What.
    pub action: Action,
    /// From where.
    pub source: Source,
    /// Who.
    pub cells: &'static [(Role, Cell)],
}

/// What a role may of an action, if anything.
pub(super) fn cell(action: Action, role: Role) -> Option<&'static Cell> {
    let row = MATRIX.iter().find(|row| row.action == action)?;
    let (_, cell) = row.cells.iter().find(|(named, _)| *named == role)?;
    Some(cell)
}

const fn yes(reach: Reach) -> Cell {
    if_yes(reach, &[])
}

const fn if_yes(reach: Reach, needs: &'static [Need]) -> Cell {
    Cell {
        verdict: Verdict::Yes,
        reach,
        needs,
    }
}

const fn reason(reach: Reach) -> Cell {
    if_reason(reach, &[])
}

const fn if_reason(reach: Reach, needs: &'static [Need]) -> Cell {
    Cell {
        verdict: Verdict::WithReason,
        reach,
        needs,
    }
}

const fn second(reach: Reach, needs: &'static [Need]) -> Cell {
    Cell {
        verdict: Verdict::WithSecondPerson,
        reach,
        needs,
    }
}

const fn required(action: Action, cells: &'static [(Role, Cell)]) -> Row {
    Row {
        action,
        source: Source::Requirements,
        cells,
    }
}

const fn ours(action: Action, cells: &'static [(Role, Cell)]) -> Row {
    Row {
        action,
        source: Source::Ours,
        cells,
    }
}

const OWN: &[Need] = &[Need::Is(Handler)];
const INVITED: &[Need] = &[Need::Is(Invited)];
const AS_PARTY: &[Need] = &[Need::Is(IsParty)];
const AS_ASSISTANT: &[Need] = &[Need::Is(Assisting)];
const INCIDENT: &[Need] = &[Need::So(Fact::Incident)];
const OFFICIAL_TERMINAL: &[Need] = &[Need::So(Fact::OfficialTerminal)];

/// All of it.
pub const MATRIX: &[Row] = &[
    ours(
        Action::SeeOrganisation,
        &[
            (SystemAdministrator, yes(Reach::Line)),
            (SecurityAdministrator, yes(Reach::Line)),
            (Auditor, yes(Reach::Line)),
            (Head, yes(Reach::Line)),
            (ConferenceOperator, yes(Reach::Line)),
            (Chair, yes(Reach::Line)),
            (BranchChair, yes(Reach::Line)),
            (Mediator, yes(Reach::Line)),
            (PetitionReceptionist, yes(Reach::Line)),
            (DutyOfficer, yes(Reach::Line)),
            (GridWorker, yes(Reach::Line)),
            (Assistant, yes(Reach::Line)),
            (Superior, yes(Reach::Line)),
        ],
    ),
    ours(
        Action::SeeStatistics,
        &[(Head, yes(Reach::Branch)), (Superior, yes(Reach::Lower))],
    ),
    ours(
        Action::ManageOrganisations,
        &[(SystemAdministrator, yes(Reach::Branch))],
    ),
    ours(
        Action::IssueHallKeys,
        &[(SystemAdministrator, yes(Reach::Branch))],
    ),
    ours(
        Action::ShareOrganisation,
        &[(SecurityAdministrator, reason(Reach::Branch))],
    ),
    ours(
        Action::SeePersons,
        &[
            (SystemAdministrator, yes(Reach::Branch)),
            (SecurityAdministrator, yes(Reach::Branch)),
            (Auditor, reason(Reach::Branch)),
            (Head, yes(Reach::Unit)),
            (Superior, reason(Reach::Lower)),
        ],
    ),
    required(
        Action::ManagePersons,
        &[
            (SystemAdministrator, yes(Reach::Branch)),
            (Superior, reason(Reach::Lower)),
        ],
    ),
    required(
        Action::GrantRoles,
        &[(SecurityAdministrator, yes(Reach::Branch))],
    ),
    required(
        Action::MarkSecrecy,
        &[(SecurityAdministrator, yes(Reach::Branch))],
    ),
    ours(
        Action::DelegateRoles,
        &[
            (Head, yes(Reach::Unit)),
            (ConferenceOperator, yes(Reach::Unit)),
            (Mediator, yes(Reach::Unit)),
            (PetitionReceptionist, yes(Reach::Unit)),
            (DutyOfficer, yes(Reach::Unit)),
        ],
    ),
    required(
        Action::ReadAudit,
        &[
            (Auditor, yes(Reach::Branch)),
            (Party, if_yes(Reach::Matter, &[Need::Is(Oneself)])),
            (Superior, reason(Reach::Lower)),
        ],
    ),
    ours(Action::ExportAudit, &[(Auditor, yes(Reach::Branch))]),
    ours(
        Action::SeeConference,
        &[
            (Head, yes(Reach::Branch)),
            (ConferenceOperator, yes(Reach::Branch)),
            (Chair, yes(Reach::Matter)),
            (BranchChair, yes(Reach::Matter)),
            (Mediator, if_yes(Reach::Line, INVITED)),
            (PetitionReceptionist, if_yes(Reach::Line, INVITED)),
            (DutyOfficer, yes(Reach::Unit)),
            (GridWorker, if_yes(Reach::Line, INVITED)),
            (Assistant, if_yes(Reach::Line, INVITED)),
            (Party, yes(Reach::Matter)),
            (Superior, yes(Reach::Lower)),
        ],
    ),
    required(
        Action::ConveneConference,
        &[
            (Head, yes(Reach::Branch)),
            (ConferenceOperator, yes(Reach::Branch)),
            (DutyOfficer, if_reason(Reach::Branch, INCIDENT)),
            (Superior, yes(Reach::Lower)),
        ],
    ),
    required(
        Action::ControlConference,
        &[
            (Head, yes(Reach::Unit)),
            (ConferenceOperator, yes(Reach::Unit)),
            (Chair, yes(Reach::Matter)),
            (BranchChair, yes(Reach::Branch)),
            (Superior, yes(Reach::Lower)),
        ],
    ),
    required(
        Action::OpenTerminal,
        &[
            (ConferenceOperator, if_yes(Reach::Branch, OFFICIAL_TERMINAL)),
            (Chair, if_yes(Reach::Matter, OFFICIAL_TERMINAL)),
            (BranchChair, if_yes(Reach::Branch, OFFICIAL_TERMINAL)),
            (
                DutyOfficer,
                if_yes(Reach::Branch, &[Need::So(Fact::DutyTerminal)]),
            ),
            (Superior, if_yes(Reach::Lower, OFFICIAL_TERMINAL)),
        ],
    ),
    ours(
        Action::SeeCaseHeader,
        &[
            (SecurityAdministrator, yes(Reach::Branch)),
            (Auditor, reason(Reach::Branch)),
            (Head, yes(Reach::Unit)),
            (ConferenceOperator, if_yes(Reach::Unit, OWN)),
            (Mediator, if_yes(Reach::Unit, OWN)),
            (PetitionReceptionist, if_yes(Reach::Unit, OWN)),
            (DutyOfficer, if_yes(Reach::Unit, INCIDENT)),
            (GridWorker, if_yes(Reach::Unit, OWN)),
            (Assistant, if_yes(Reach::Unit, AS_ASSISTANT)),
            (Party, if_yes(Reach::Matter, AS_PARTY)),
            (Superior, yes(Reach::Lower)),
        ],
    ),
    required(
        Action::SeeCase,
        &[
            (Head, reason(Reach::Unit)),
            (Mediator, if_yes(Reach::Unit, OWN)),
            (PetitionReceptionist, if_yes(Reach::Unit, OWN)),
            (DutyOfficer, if_yes(Reach::Unit, INCIDENT)),
            (GridWorker, if_yes(Reach::Unit, OWN)),
            (Assistant, if_yes(Reach::Unit, AS_ASSISTANT)),
            (Party, if_yes(Reach::Matter, AS_PARTY)),
            (Superior, reason(Reach::Lower)),
        ],
    ),
    required(
        Action::SeeAccusation,
        &[
            (Head, reason(Reach::Unit)),
            (PetitionReceptionist, if_yes(Reach::Unit, OWN)),
            (Party, if_yes(Reach::Matter, AS_PARTY)),
            (Superior, if_yes(Reach::Lower, OWN)),
        ],
    ),
    required(
        Action::EnterCaucus,
        &[
            (Mediator, if_yes(Reach::Unit, OWN)),
            (
                Assistant,
                if_yes(
                    Reach::Unit,
                    &[Need::Is(Assisting), Need::So(Fact::Consented)],
                ),
            ),
            (
                Party,
                if_yes(Reach::Matter, &[Need::Is(IsParty), Need::Is(Called)]),
            ),
        ],
    ),
    required(
        Action::StartRecording,
        &[
            (
                Mediator,
                if_yes(Reach::Unit, &[Need::Is(Handler), Need::So(Fact::Consented)]),
            ),
            (
                PetitionReceptionist,
                if_yes(
                    Reach::Unit,
                    &[
                        Need::Is(Handler),
                        Need::Either(Fact::Notified, Fact::Consented),
                    ],
                ),
            ),
        ],
    ),
    required(
        Action::PlayRecording,
        &[
            (Head, reason(Reach::Unit)),
            (ConferenceOperator, if_yes(Reach::Unit, OWN)),
            (Mediator, if_reason(Reach::Unit, OWN)),
            (PetitionReceptionist, if_reason(Reach::Unit, OWN)),
            (
                Party,
                if_reason(
                    Reach::Matter,
                    &[Need::Is(IsParty), Need::So(Fact::ApplicationGranted)],
                ),
            ),
            (Superior, reason(Reach::Lower)),
        ],
    ),
    required(
        Action::ExportRecording,
        &[(SecurityAdministrator, second(Reach::Branch, &[]))],
    ),
    required(
        Action::DestroyRecording,
        &[(
            SecurityAdministrator,
            second(Reach::Branch, &[Need::So(Fact::Witnessed)]),
        )],
    ),
    required(Action::ApproveRelease, &[(Head, reason(Reach::Unit))]),
    required(Action::WitnessRelease, &[(Auditor, reason(Reach::Branch))]),
    required(
        Action::SetLegalHold,
        &[
            (SecurityAdministrator, yes(Reach::Branch)),
            (Head, reason(Reach::Unit)),
            (Superior, yes(Reach::Lower)),
        ],
    ),
    required(
        Action::RequestLegalHold,
        &[
            (Mediator, if_yes(Reach::Unit, OWN)),
            (PetitionReceptionist, if_yes(Reach::Unit, OWN)),
        ],
    ),
    required(Action::ApproveExtension, &[(Head, yes(Reach::Unit))]),
    required(
        Action::RequestExtension,
        &[
            (Mediator, if_yes(Reach::Unit, OWN)),
            (PetitionReceptionist, if_yes(Reach::Unit, OWN)),
        ],
    ),
    required(
        Action::ConsentToExtension,
        &[(Party, if_yes(Reach::Matter, AS_PARTY))],
    ),
    required(Action::ViewCamera, CAMERA),
    required(Action::PlayCamera, CAMERA),
    required(Action::ExportCamera, CAMERA),
    required(
        Action::Supervise,
        &[(Head, yes(Reach::Lower)), (Superior, yes(Reach::Lower))],
    ),
];

/// Live, playback and export stand in one row of the requirements.
const CAMERA: &[(Role, Cell)] = &[
    (Head, reason(Reach::Unit)),
    (DutyOfficer, if_reason(Reach::Unit, INCIDENT)),
    (Superior, reason(Reach::Lower)),
];
