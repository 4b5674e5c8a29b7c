//! Organisations from a table: a file is read ([`read`]), held against what is there ([`Directory::plan_import`]: all
//! problems by line, and what would be new, renamed, moved and gone), and then applied as a whole or not at all
//! ([`Directory::apply_import`]).
//!
//! What a division code names is taken for the same organisation as what has that code now. A row without a code (a
//! department, committee or grid) is the same as what has its name and kind under its parent.
//!
//! Invariants: a dry run changes nothing; what is applied is what was shown, or it is not applied; a file with one bad
//! line changes nothing; an import touches nothing outside the branch that it is for.

mod apply;
mod plan;
mod read;
#[cfg(test)]
mod tests;

pub use plan::{Gone, Moved, New, Parent, Plan, Rejoined, Renamed};
pub use read::{Column, Row, Sheet, read};

use super::{NotACode, OrganisationError};
#[cfg(doc)]
use crate::Directory;
use crate::permit::Denied;
use crate::store::StoreError;

/// How large a file may be, in bytes. A province's villages take a few megabytes.
pub const FILE_SIZE: usize = 32 << 20;

/// How many rows a file may have. The largest province has 62,000 villages.
pub const ROWS: usize = 100_000;

/// How many problems are listed. Who has more has the wrong file.
pub const PROBLEMS: usize = 10_000;

/// What is to be done with organisations of the branch that have a code and are not in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// They stay; the file is a part.
    Keep,
    /// They are closed; the file is all there is.
    Close,
}

/// Something in the file that must be put right first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where, counted from 1 as editors and spreadsheets do.
    pub line: u64,
    /// In which column, if it is one's.
    pub column: Option<Column>,
    /// What.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// There is no such column in the first line.
    MissingColumn,
    /// A column stands there twice.
    ColumnTwice,
    /// The characters can't be read in any encoding that we know.
    Undecodable,
    /// The cell is calculated. What it shows may be something else tomorrow.
    Formula,
    /// The cell is one of the spreadsheet's error values, a truth or a date.
    NotText,
    /// Nothing stands there.
    Empty,
    /// A name has 1 to 64 characters and no control characters.
    BadName,
    /// This is no division code.
    BadCode(CodeFault),
    /// A level is one of 省级、市级、县级、乡镇级、村级, or 1 to 5.
    BadLevel,
    /// A kind is one of 综治中心、部门、调解委员会、网格.
    BadKind,
    /// Only centres have a level and a code.
    OnlyCentres,
    /// The same stands in another line.
    Twice {
        /// In which.
        line: u64,
    },
    /// Nothing has this code, neither in the file nor in the directory.
    Unknown,
    /// It is under itself, over whatever others.
    Cycle,
    /// Its level is not below that of its parent, or its parent can't have anything under it.
    WrongParent,
    /// What is in the directory under this code has another level.
    LevelChanged,
    /// It is outside the branch that the import is for.
    OutsideBranch,
    /// It can't be closed while there are people in it or others under it.
    NotEmpty,
    /// There are more lines than are read.
    TooMany,
}

/// See [`NotACode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodeFault {
    /// Neither 2, 4, 6, 9 nor 12 digits.
    Digits,
    /// The first two digits are no province's.
    Province,
    /// A division and not the one above it.
    Gap,
}

impl From<NotACode> for CodeFault {
    fn from(problem: NotACode) -> CodeFault {
        match problem {
            NotACode::Digits => CodeFault::Digits,
            NotACode::Province => CodeFault::Province,
            NotACode::Gap => CodeFault::Gap,
        }
    }
}

impl Fault {
    /// What an administrator is told.
    pub fn chinese(&self) -> String {
        let words = match self {
            Fault::MissingColumn => "首行缺少此列",
            Fault::ColumnTwice => "此列出现了两次",
            Fault::Undecodable => "文字无法识别，请将文件另存为 UTF-8 或 GBK 编码",
            Fault::Formula => "单元格是公式，请改为“粘贴为数值”后再导入",
            Fault::NotText => "单元格不是文字，请改为文本格式",
            Fault::Empty => "不能为空",
            Fault::BadName => "名称须为 1 至 64 个字，且不含控制字符",
            Fault::BadCode(CodeFault::Digits) => "区划代码须为 2、4、6、9 或 12 位数字",
            Fault::BadCode(CodeFault::Province) => "区划代码的前两位不是任何省份",
            Fault::BadCode(CodeFault::Gap) => "区划代码缺少上一级的数字",
            Fault::BadLevel => "层级须为省级、市级、县级、乡镇级、村级之一",
            Fault::BadKind => "类型须为综治中心、部门、调解委员会、网格之一",
            Fault::OnlyCentres => "只有综治中心有层级和区划代码",
            Fault::Twice { line } => return format!("与第 {line} 行重复"),
            Fault::Unknown => "文件和系统中都没有这个区划代码",
            Fault::Cycle => "上下级关系成环",
            Fault::WrongParent => "层级必须低于上级机构",
            Fault::LevelChanged => "与系统中同一代码的机构层级不同",
            Fault::OutsideBranch => "不在本次导入的机构范围内",
            Fault::NotEmpty => "仍有人员或下级机构，不能停用",
            Fault::TooMany => "行数过多，请分成几个文件",
        };
        words.to_owned()
    }
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is no right to it, or no such branch.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The file is larger than [`FILE_SIZE`].
    #[error("the file is too large")]
    TooLarge,
    /// It is neither CSV nor a workbook that can be read.
    #[error("the file is neither CSV nor XLSX")]
    NotATable,
    /// There are problems; these.
    #[error("the file has {} problems", .0.len())]
    Problems(Vec<Problem>),
    /// The directory is not what the plan was made for any more: here is the plan for what it is now.
    #[error("the directory was changed meanwhile")]
    ChangedMeanwhile(Box<Plan>),
    /// A change was refused that the plan had found good.
    #[error(transparent)]
    Organisation(#[from] OrganisationError),
}

impl From<StoreError> for ImportError {
    fn from(error: StoreError) -> ImportError {
        ImportError::Denied(Denied::Store(error))
    }
}

impl From<sqlx::Error> for ImportError {
    fn from(error: sqlx::Error) -> ImportError {
        ImportError::from(StoreError::from(error))
    }
}
