//! Who may do what: one question, [`can`], asked by REST, by every grant that signalling and the cascade enforce, and
//! by this crate's own changes.
//!
//! It is pure. It reads the [`matrix`], the actor's grants and what is said of the subject, and nothing else. The
//! matrix is the table of the requirements (roles × actions) and what we added to it, and `docs/rights.md` is printed
//! from it.
//!
//! Invariants: without a grant that holds now nothing is allowed; a grant more never takes anything away, save that
//! who belongs to an accused unit sees nothing of the accusation; what one may not know of is answered as what does
//! not exist ([`Decision::Hidden`]), never as refused.

mod action;
mod document;
mod matrix;
mod role;
#[cfg(test)]
mod tests;

pub use action::{Action, Kind};
pub use document::print;
pub use matrix::{Cell, MATRIX, Need, Reach, Row, Source, Verdict};
pub use role::{Role, may_be_one_person};

use crate::Timestamp;
use crate::id::{MatterId, OrganisationId, PersonId};

/// An organisation with all above it, the topmost first. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    above: Vec<OrganisationId>,
    own: OrganisationId,
}

impl Lineage {
    /// An organisation under others, the topmost first.
    pub fn new(above: Vec<OrganisationId>, own: OrganisationId) -> Lineage {
        Lineage { above, own }
    }

    /// The organisation itself.
    pub fn own(&self) -> OrganisationId {
        self.own
    }

    /// The organisation and all above it, the topmost last.
    pub fn upwards(&self) -> Vec<OrganisationId> {
        let above = self.above.iter().rev().copied();
        std::iter::once(self.own).chain(above).collect()
    }

    /// Whether it is this organisation or one under it.
    pub fn is_in(&self, organisation: OrganisationId) -> bool {
        self.own == organisation || self.above.contains(&organisation)
    }
}

/// Where the subject's organisation is, as seen from that of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// It is the same: 本单位.
    Own,
    /// It is under it: 下级.
    Below,
    /// It is above it: 上级.
    Above,
    /// It is in another branch: 旁系.
    Beside,
}

/// How somebody came to a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By a post.
    Post,
    /// Somebody who has it delegated it.
    Delegation,
    /// As a guest, in one matter.
    Guest,
}

/// A role somewhere, from when until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    role: Role,
    at: Lineage,
    origin: Origin,
    matter: Option<MatterId>,
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
}

impl Grant {
    /// A post's role, as long as the post is held.
    pub fn by_post(role: Role, at: Lineage, starts_at: Timestamp) -> Grant {
        Grant {
            role,
            at,
            origin: Origin::Post,
            matter: None,
            starts_at,
            ends_at: None,
        }
    }

    /// Another's role, for a time.
    pub fn by_delegation(
        role: Role,
        at: Lineage,
        starts_at: Timestamp,
        ends_at: Timestamp,
    ) -> Grant {
        Grant {
            role,
            at,
            origin: Origin::Delegation,
            matter: None,
            starts_at,
            ends_at: Some(ends_at),
        }
    }

    /// A role in one matter of an organisation, for a time.
    pub fn as_guest(
        role: Role,
        at: Lineage,
        matter: MatterId,
        starts_at: Timestamp,
        ends_at: Timestamp,
    ) -> Grant {
        Grant {
            role,
            at,
            origin: Origin::Guest,
            matter: Some(matter),
            starts_at,
            ends_at: Some(ends_at),
        }
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where.
    pub fn at(&self) -> &Lineage {
        &self.at
    }

    /// How it came about.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// When it ends by itself.
    pub fn ends_at(&self) -> Option<Timestamp> {
        self.ends_at
    }

    /// Whether it is for one matter only.
    pub fn is_of_a_matter(&self) -> bool {
        self.matter.is_some()
    }

    fn holds(&self, now: Timestamp) -> bool {
        self.starts_at <= now && self.ends_at.is_none_or(|end| now < end)
    }
}

/// Who asks, and when.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Nobody for a hall's terminal.
    pub person: Option<PersonId>,
    /// All that it has, also what does not hold now.
    pub grants: Vec<Grant>,
    /// When it asks.
    pub now: Timestamp,
    /// Whether it said why; the reason itself goes into the audit log.
    pub has_reason: bool,
}

/// What the actor has to do with the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Involvement {
    /// It is named to deal with it, made it or organises it: 经办.
    Handler,
    /// It is a party of it: 当事人.
    Party,
    /// It was called into this caucus: 被单独沟通.
    Called,
    /// It assists a party in the session that runs: 协办.
    Assisting,
    /// It is invited: 受邀.
    Invited,
    /// The subject is the actor itself: 本人.
    Oneself,
}

/// What is so in the matter now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fact {
    /// Everybody who must consent has: 均已同意.
    Consented,
    /// Everybody was told: 已告知.
    Notified,
    /// It belongs to an incident that is open: 突发事件.
    Incident,
    /// The terminal is an official room's: 公务会场终端.
    OfficialTerminal,
    /// The terminal is a duty room's: 值守终端.
    DutyTerminal,
    /// The application for it was granted: 申请已批准.
    ApplicationGranted,
    /// An auditor has witnessed it: 已监督.
    Witnessed,
}

/// That an organisation of another branch may see something, for a purpose and a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who may see it, with all under it.
    pub with: OrganisationId,
    /// What may be done; only what [`Action::is_shareable`] counts.
    pub actions: Vec<Action>,
    /// Until when.
    pub ends_at: Timestamp,
}

/// What is asked about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Whose it is.
    pub at: Lineage,
    /// Which matter it belongs to.
    pub matter: Option<MatterId>,
    /// What the actor has to do with it.
    pub involvement: Vec<Involvement>,
    /// What is so in it now.
    pub facts: Vec<Fact>,
    /// Who approved this act, where that takes a second person.
    pub approved_by: Option<PersonId>,
    /// The unit that an accusation (检举控告) is about.
    pub accused: Option<OrganisationId>,
    /// With whom it is shared.
    pub shares: Vec<Share>,
}

impl Subject {
    /// An organisation itself, or what is its own and no matter of anybody.
    pub fn organisation(at: Lineage) -> Subject {
        Subject {
            at,
            matter: None,
            involvement: Vec::new(),
            facts: Vec::new(),
            approved_by: None,
            accused: None,
            shares: Vec::new(),
        }
    }
}

/// By which role something is allowed, for the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// The role.
    pub role: Role,
    /// Where the actor has it.
    pub organisation: OrganisationId,
    /// How the actor has it.
    pub origin: Origin,
}

/// Why somebody who may know of something may not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// None of the actor's roles may.
    Role,
    /// A role of the actor's may, if this were so.
    Unmet(Need),
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allowed(Basis),
    /// Yes, once the actor says why.
    NeedsReason(Basis),
    /// Yes, once another person has approved it.
    NeedsSecondPerson(Basis),
    /// No.
    Refused(Refusal),
    /// No, and the answer is that of what does not exist.
    Hidden,
}

impl Decision {
    /// Whether it may be done now.
    pub fn is_allowed(self) -> bool {
        matches!(self, Decision::Allowed(_))
    }

    /// The greater, the better for the actor.
    fn rank(self) -> u8 {
        match self {
            Decision::Allowed(_) => 4,
            Decision::NeedsReason(_) => 3,
            Decision::NeedsSecondPerson(_) => 2,
            Decision::Refused(Refusal::Unmet(_)) => 1,
            Decision::Refused(Refusal::Role) | Decision::Hidden => 0,
        }
    }
}

/// Whether `actor` may do `action` to `subject`.
pub fn can(actor: &Actor, action: Action, subject: &Subject) -> Decision {
    if action.kind() == Kind::Matter
        && subject.accused.is_some()
        && !knows(actor, Action::SeeAccusation, subject)
    {
        return Decision::Hidden;
    }
    match best(actor, action, subject) {
        Decision::Refused(Refusal::Role) | Decision::Hidden => {
            if knows(actor, action.knowing(), subject) {
                Decision::Refused(Refusal::Role)
            } else {
                Decision::Hidden
            }
        }
        decision => decision,
    }
}

/// Whether the actor may at least hear of the subject: it may see it, or may once it says why.
fn knows(actor: &Actor, knowing: Action, subject: &Subject) -> bool {
    matches!(
        best(actor, knowing, subject),
        Decision::Allowed(_) | Decision::NeedsReason(_) | Decision::NeedsSecondPerson(_)
    )
}

/// The best answer that any grant gives.
fn best(actor: &Actor, action: Action, subject: &Subject) -> Decision {
    let holding = || actor.grants.iter().filter(|grant| grant.holds(actor.now));
    // 信访工作条例 art. 30: nothing of an accusation goes to the accused person or unit. A party keeps its own.
    let is_accused = |unit| holding().any(|grant| grant.matter.is_none() && grant.at.is_in(unit));
    let only_as_party = subject.accused.is_some_and(is_accused);
    holding()
        .filter(|grant| !only_as_party || grant.role == Role::Party)
        .map(|grant| by_grant(actor, grant, action, subject))
        .max_by_key(|decision| decision.rank())
        .unwrap_or(Decision::Hidden)
}

fn by_grant(actor: &Actor, grant: &Grant, action: Action, subject: &Subject) -> Decision {
    let refused = Decision::Refused(Refusal::Role);
    let Some(cell) = matrix::cell(action, grant.role) else {
        return refused;
    };
    if grant.matter.is_some() && grant.matter != subject.matter {
        return refused;
    }
    let mut verdict = cell.verdict;
    if !reaches(cell.reach, grant, subject) {
        if !is_shared(actor, grant, action, subject) {
            return refused;
        }
        verdict = verdict.at_least_reason();
    }
    for need in cell.needs {
        match unmet(*need, subject) {
            None => {}
            // Somebody else's matter: it is not for this actor to hear what else it would take.
            Some(Need::Is(_)) => return refused,
            Some(need) => return Decision::Refused(Refusal::Unmet(need)),
        }
    }
    let basis = Basis {
        role: grant.role,
        organisation: grant.at.own,
        origin: grant.origin,
    };
    match verdict {
        Verdict::Yes => Decision::Allowed(basis),
        Verdict::WithReason if actor.has_reason => Decision::Allowed(basis),
        Verdict::WithReason => Decision::NeedsReason(basis),
        Verdict::WithSecondPerson => match subject.approved_by {
            Some(approver) if actor.person.is_some_and(|person| person != approver) => {
                Decision::Allowed(basis)
            }
            _ => Decision::NeedsSecondPerson(basis),
        },
    }
}

/// Where the subject's organisation is, as seen from the grant's.
pub fn relation(grant: &Lineage, subject: &Lineage) -> Relation {
    if grant.own == subject.own {
        Relation::Own
    } else if subject.is_in(grant.own) {
        Relation::Below
    } else if grant.is_in(subject.own) {
        Relation::Above
    } else {
        Relation::Beside
    }
}

fn reaches(reach: Reach, grant: &Grant, subject: &Subject) -> bool {
    let relation = relation(&grant.at, &subject.at);
    match reach {
        Reach::Unit => relation == Relation::Own,
        Reach::Branch => matches!(relation, Relation::Own | Relation::Below),
        Reach::Lower => relation == Relation::Below,
        Reach::Line => relation != Relation::Beside,
        Reach::Matter => grant.matter.is_some() && grant.matter == subject.matter,
    }
}

fn is_shared(actor: &Actor, grant: &Grant, action: Action, subject: &Subject) -> bool {
    action.is_shareable()
        && grant.matter.is_none()
        && relation(&grant.at, &subject.at) == Relation::Beside
        && subject.shares.iter().any(|share| {
            actor.now < share.ends_at
                && grant.at.is_in(share.with)
                && share.actions.contains(&action)
        })
}

/// The need, unless it is met.
fn unmet(need: Need, subject: &Subject) -> Option<Need> {
    let is_met = match need {
        Need::Is(involvement) => subject.involvement.contains(&involvement),
        Need::So(fact) => subject.facts.contains(&fact),
        Need::Either(one, other) => subject.facts.contains(&one) || subject.facts.contains(&other),
    };
    (!is_met).then_some(need)
}
