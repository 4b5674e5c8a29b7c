//! What may be done: the rows of the rights matrix.

use std::fmt;
use std::str::FromStr;

/// What an action is done to, which decides what it takes to hear of it at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An organisation, its people and what is its own.
    Organisation,
    /// A conference.
    Conference,
    /// A case and what belongs to it, its recordings too.
    Matter,
    /// A camera.
    Camera,
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident $code:literal $kind:ident $chinese:literal)*) => {
        /// What may be done.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// All of them, in the order of the matrix.
            pub const ALL: &[Action] = &[$(Action::$name),*];

            /// As it is written in the database, in the API and in logs.
            pub fn code(self) -> &'static str {
                match self { $(Action::$name => $code),* }
            }

            /// As people call it.
            pub fn chinese(self) -> &'static str {
                match self { $(Action::$name => $chinese),* }
            }

            /// What it is done to.
            pub fn kind(self) -> Kind {
                match self { $(Action::$name => Kind::$kind),* }
            }
        }
    };
}

actions! {
    /// See an organisation: its name, level, code, halls and where it belongs.
    SeeOrganisation "see_organisation" Organisation "查看机构"
    /// See an organisation's figures.
    SeeStatistics "see_statistics" Organisation "查看统计"
    /// Make, rename, move, merge, split and close organisations, halls and rooms, and import them.
    ManageOrganisations "manage_organisations" Organisation "管理机构"
    /// Issue and revoke a hall's device key.
    IssueHallKeys "issue_hall_keys" Organisation "发放会场密钥"
    /// Let another organisation see something of this one.
    ShareOrganisation "share_organisation" Organisation "跨机构共享"
    /// Read the personal data of an organisation's people.
    SeePersons "see_persons" Organisation "查看人员"
    /// Create, invite and lock people, and say that they have left.
    ManagePersons "manage_persons" Organisation "管理人员"
    /// Make posts, give them roles and people, and grant roles for a time.
    GrantRoles "grant_roles" Organisation "授予角色"
    /// Mark what is secret.
    MarkSecrecy "mark_secrecy" Organisation "设置密级"
    /// Lend one's own role for a time.
    DelegateRoles "delegate_roles" Organisation "委托代理"
    /// Read the audit log.
    ReadAudit "read_audit" Organisation "查阅审计日志"
    /// Export the audit log.
    ExportAudit "export_audit" Organisation "导出审计日志"
    /// See that a conference is there.
    SeeConference "see_conference" Conference "查看会议"
    /// Convene a conference with an organisation's halls.
    ConveneConference "convene_conference" Organisation "召集会议"
    /// Use the chair's controls.
    ControlConference "control_conference" Conference "会控"
    /// Open a terminal's camera or microphone without asking.
    OpenTerminal "open_terminal" Conference "强开终端"
    /// See a case's number, kind, unit and dates.
    SeeCaseHeader "see_case_header" Matter "查看案件概要"
    /// See what a case says.
    SeeCase "see_case" Matter "查看案件内容"
    /// See that an accusation is there, and what it says.
    SeeAccusation "see_accusation" Matter "查看检举控告"
    /// Enter a caucus.
    EnterCaucus "enter_caucus" Matter "进入单独沟通"
    /// Start to record a case's session.
    StartRecording "start_recording" Matter "开始录制"
    /// Play a recording.
    PlayRecording "play_recording" Matter "播放录像"
    /// Export a recording.
    ExportRecording "export_recording" Matter "导出录像"
    /// Destroy a recording.
    DestroyRecording "destroy_recording" Matter "销毁录像"
    /// Approve that a recording is exported or destroyed.
    ApproveRelease "approve_release" Matter "批准导出销毁"
    /// Witness that a recording is exported or destroyed.
    WitnessRelease "witness_release" Matter "监督导出销毁"
    /// Set and lift a legal hold.
    SetLegalHold "set_legal_hold" Matter "封存"
    /// Ask for a legal hold.
    RequestLegalHold "request_legal_hold" Matter "申请封存"
    /// Approve a longer time limit.
    ApproveExtension "approve_extension" Matter "批准延期"
    /// Ask for a longer time limit.
    RequestExtension "request_extension" Matter "申请延期"
    /// Consent to a longer time limit.
    ConsentToExtension "consent_to_extension" Matter "同意延期"
    /// Watch a camera.
    ViewCamera "view_camera" Camera "查看监控"
    /// Play what a camera has recorded.
    PlayCamera "play_camera" Camera "回放监控"
    /// Export what a camera has recorded.
    ExportCamera "export_camera" Camera "导出监控"
    /// Order that a matter be seen to: 督办.
    Supervise "supervise" Matter "督办"
}

impl Action {
    /// What it takes to hear that the subject is there at all.
    pub fn knowing(self) -> Action {
        match self.kind() {
            Kind::Organisation => Action::SeeOrganisation,
            Kind::Conference => Action::SeeConference,
            Kind::Matter => Action::SeeCaseHeader,
            Kind::Camera => Action::ViewCamera,
        }
    }

    /// Whether an organisation may let another branch do it: only what looks and changes nothing.
    pub fn is_shareable(self) -> bool {
        matches!(
            self,
            Action::SeeOrganisation
                | Action::SeeStatistics
                | Action::SeeConference
                | Action::SeeCaseHeader
                | Action::SeeCase
                | Action::PlayRecording
                | Action::ViewCamera
                | Action::PlayCamera
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.code())
    }
}

/// There is no such action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such action")]
pub struct NoSuchAction;

impl FromStr for Action {
    type Err = NoSuchAction;

    fn from_str(text: &str) -> Result<Action, NoSuchAction> {
        let action = Action::ALL.iter().find(|action| action.code() == text);
        action.copied().ok_or(NoSuchAction)
    }
}
