//! The matrix as `docs/rights.md`.

use std::fmt::Write as _;

use super::{Action, Cell, Fact, Involvement, MATRIX, Need, Reach, Role, Row, Source, Verdict};

const HEAD: &str = "\
# Who may do what

Printed from the table that the server decides by (`directory/src/authority/matrix.rs`); a test keeps it current. A
person has roles by posts in organisations, by delegation for a time, or as a guest in one matter for a time. A role
reaches as far as the letter behind the mark says, seen from the organisation where it is had:

| Mark | Meaning |
|---|---|
| ✔ | may |
| ▲ | may, once the reason is said; it is kept in the audit log |
| ▲▲ | may, once another person has approved it |
| (nothing) | may not |
| **u** | in the own organisation (本单位) |
| **b** | in the own organisation and all under it (本单位及下级) |
| **l** | in all under the own organisation, not in it (下级) |
| **v** | in the own organisation and all under and above it (本单位及上下级) |
| **m** | in the one matter for which the role is had |

A small number names a condition from the list below the table. Rows with * are ours, for what the requirements' matrix
does not name.

- Who may see a thing but not do this to it is refused; who may not see it gets the answer of what does not exist.
- An organisation of another branch sees nothing, unless something was shared with it: for a purpose, until a day, to
  look only, and then only who may do the same at home, with a reason.
- Who has a role in the unit that an accusation is about, or under it, can't see that accusation, not even that it is
  there; a party sees its own (《信访工作条例》第三十条).
- System administrator, security administrator and auditor are three people.

";

/// The whole document.
pub fn print() -> String {
    let mut out = HEAD.to_owned();
    let mut conditions: Vec<&'static [Need]> = Vec::new();
    out.push_str("| |");
    for role in Role::ALL {
        write!(out, " {} |", role.chinese()).expect("a string can be written to");
    }
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(Role::ALL.len()));
    out.push('\n');
    for action in Action::ALL {
        let Some(row) = MATRIX.iter().find(|row| row.action == *action) else {
            continue;
        };
        out.push_str(&line(row, &mut conditions));
    }
    out.push_str("\nConditions:\n\n");
    for (number, needs) in (1..).zip(&conditions) {
        let words: Vec<String> = needs.iter().map(|need| need_words(*need)).collect();
        writeln!(out, "{number}. {}", words.join(", and ")).expect("a string can be written to");
    }
    out.push_str("\nThe names by which logs and the API call them:\n\n");
    for role in Role::ALL {
        writeln!(out, "- {}: `{}`", role.chinese(), role.code())
            .expect("a string can be written to");
    }
    out.push('\n');
    for action in Action::ALL {
        writeln!(out, "- {}: `{}`", action.chinese(), action.code())
            .expect("a string can be written to");
    }
    out
}

fn line(row: &Row, conditions: &mut Vec<&'static [Need]>) -> String {
    let star = match row.source {
        Source::Requirements => "",
        Source::Ours => " *",
    };
    let mut out = format!("| {}{star} |", row.action.chinese());
    for role in Role::ALL {
        let found = row.cells.iter().find(|(named, _)| named == role);
        match found {
            None => out.push_str(" |"),
            Some((_, cell)) => {
                out.push(' ');
                out.push_str(&mark(cell, conditions));
                out.push_str(" |");
            }
        }
    }
    out.push('\n');
    out
}

fn mark(cell: &Cell, conditions: &mut Vec<&'static [Need]>) -> String {
    let verdict = match cell.verdict {
        Verdict::Yes => "✔",
        Verdict::WithReason => "▲",
        Verdict::WithSecondPerson => "▲▲",
    };
    let reach = match cell.reach {
        Reach::Unit => "u",
        Reach::Branch => "b",
        Reach::Lower => "l",
        Reach::Line => "v",
        Reach::Matter => "m",
    };
    if cell.needs.is_empty() {
        return format!("{verdict} {reach}");
    }
    let known = conditions.iter().position(|needs| *needs == cell.needs);
    let number = known.unwrap_or_else(|| {
        conditions.push(cell.needs);
        conditions.len() - 1
    });
    format!("{verdict} {reach}<sup>{}</sup>", number + 1)
}

fn need_words(need: Need) -> String {
    match need {
        Need::Is(Involvement::Handler) => "handles, made or organises it (经办)".to_owned(),
        Need::Is(Involvement::Party) => "is a party of it (当事人)".to_owned(),
        Need::Is(Involvement::Called) => "was called into it (被单独沟通)".to_owned(),
        Need::Is(Involvement::Assisting) => "assists a party in it now (协办)".to_owned(),
        Need::Is(Involvement::Invited) => "is invited to it (受邀)".to_owned(),
        Need::Is(Involvement::Oneself) => "it is about oneself (本人)".to_owned(),
        Need::So(fact) => fact_words(fact).to_owned(),
        Need::Either(one, other) => format!("{}, or {}", fact_words(one), fact_words(other)),
    }
}

fn fact_words(fact: Fact) -> &'static str {
    match fact {
        Fact::Consented => "everybody who must has consented (均已同意)",
        Fact::Notified => "everybody was told (已告知)",
        Fact::Incident => "it belongs to an open incident (突发事件)",
        Fact::OfficialTerminal => {
            "the terminal is an official room's, never a person's phone (公务会场终端)"
        }
        Fact::DutyTerminal => "the terminal is a duty room's (值守终端)",
        Fact::ApplicationGranted => "the application for it was granted (申请已批准)",
        Fact::Witnessed => "an auditor has witnessed it (已监督)",
    }
}
