//! The roles of the rights matrix.

use std::fmt;
use std::str::FromStr;

macro_rules! roles {
    ($($(#[$doc:meta])* $name:ident $code:literal $chinese:literal)*) => {
        /// What somebody is somewhere. The columns of the matrix.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Role {
            $($(#[$doc])* $name,)*
        }

        impl Role {
            /// All of them, in the order of the matrix.
            pub const ALL: &[Role] = &[$(Role::$name),*];

            /// As it is written in the database, in the API and in logs.
            pub fn code(self) -> &'static str {
                match self { $(Role::$name => $code),* }
            }

            /// As people call it.
            pub fn chinese(self) -> &'static str {
                match self { $(Role::$name => $chinese),* }
            }
        }
    };
}

roles! {
    /// Keeps organisations, people and devices; sees no content.
    SystemAdministrator "system_administrator" "系统管理员"
    /// Grants roles and holds what must be held; sees no content.
    SecurityAdministrator "security_administrator" "安全管理员"
    /// Reads the audit log.
    Auditor "auditor" "审计员"
    /// Heads the centre of its level.
    Head "head" "本级主任"
    /// Plans and runs conferences.
    ConferenceOperator "conference_operator" "会议管理员"
    /// Chairs one conference.
    Chair "chair" "主席"
    /// Chairs a branch of one conference.
    BranchChair "branch_chair" "分会场主席"
    /// Mediates disputes.
    Mediator "mediator" "调解员"
    /// Receives petitions.
    PetitionReceptionist "petition_receptionist" "信访接待员"
    /// Is on duty.
    DutyOfficer "duty_officer" "值班员"
    /// Works in a grid.
    GridWorker "grid_worker" "网格员"
    /// Helps citizens at a village's terminal.
    Assistant "assistant" "协办员"
    /// Is a party or citizen in one matter.
    Party "party" "当事人"
    /// Acts for an upper level in what is under it.
    Superior "superior" "上级"
}

impl Role {
    /// Of these one person has at most one (GB/T 22239-2019, level 3).
    pub fn is_administrator(self) -> bool {
        matches!(
            self,
            Role::SystemAdministrator | Role::SecurityAdministrator | Role::Auditor
        )
    }

    /// Whether it is had in one matter only, never by a post.
    pub fn is_of_a_matter(self) -> bool {
        matches!(self, Role::Chair | Role::BranchChair | Role::Party)
    }
}

/// Whether one person may have all of these: at most one of the three administrators.
pub fn may_be_one_person(roles: impl IntoIterator<Item = Role>) -> bool {
    let mut administrator = None;
    roles
        .into_iter()
        .filter(|role| role.is_administrator())
        .all(|role| *administrator.get_or_insert(role) == role)
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.code())
    }
}

/// There is no such role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such role")]
pub struct NoSuchRole;

impl FromStr for Role {
    type Err = NoSuchRole;

    fn from_str(text: &str) -> Result<Role, NoSuchRole> {
        let role = Role::ALL.iter().find(|role| role.code() == text);
        role.copied().ok_or(NoSuchRole)
    }
}
