//! Reads a file into rows of text: CSV in UTF-8, GBK or UTF-16, or the first sheet of an XLSX workbook.

use std::collections::BTreeMap;
use std::io::Cursor;

use calamine::{Data, Reader as _, Xlsx};
use encoding_rs::{Encoding, GB18030, UTF_8};

use super::{FILE_SIZE, Fault, ImportError, PROBLEMS, Problem, ROWS};

/// What a table may tell of an organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// 名称
    Name,
    /// 区划代码
    Code,
    /// 类型
    Kind,
    /// 层级
    Level,
    /// 上级代码
    Parent,
    /// 级联上级代码
    CascadeParent,
}

impl Column {
    const ALL: [Column; 6] = [
        Column::Name,
        Column::Code,
        Column::Kind,
        Column::Level,
        Column::Parent,
        Column::CascadeParent,
    ];

    /// The names by which a first line may call it.
    fn names(self) -> &'static [&'static str] {
        match self {
            Column::Name => &["名称", "机构名称", "单位名称", "name"],
            Column::Code => &["区划代码", "行政区划代码", "代码", "code"],
            Column::Kind => &["类型", "机构类型", "kind"],
            Column::Level => &["层级", "级别", "level"],
            Column::Parent => &["上级代码", "上级区划代码", "parent"],
            Column::CascadeParent => &["级联上级代码", "cascade_parent"],
        }
    }
}

/// A line of the table that has something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Counted from 1, the first line with the columns' names included.
    pub line: u64,
    /// What stands in it, without the spaces around.
    pub cells: BTreeMap<Column, String>,
}

/// A table that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    /// Its rows.
    pub rows: Vec<Row>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

/// Reads a file. What is a table with faults is read as far as it goes, and the faults are listed.
pub fn read(file: &[u8]) -> Result<Sheet, ImportError> {
    if file.len() > FILE_SIZE {
        return Err(ImportError::TooLarge);
    }
    let mut sheet = if file.starts_with(b"PK\x03\x04") {
        read_workbook(file)?
    } else {
        read_csv(file)?
    };
    sheet.problems.sort();
    sheet.problems.dedup();
    sheet.problems.truncate(PROBLEMS);
    Ok(sheet)
}

/// A cell before its column is known.
enum Cell {
    Text(String),
    Faulty(Fault),
}

/// Makes a sheet of lines: the first names the columns.
fn assemble(mut lines: impl Iterator<Item = (u64, Vec<Cell>)>) -> Sheet {
    let mut sheet = Sheet {
        rows: Vec::new(),
        problems: Vec::new(),
    };
    let Some((first, names)) = lines.next() else {
        sheet.problems.push(missing(1, Column::Name));
        return sheet;
    };
    let mut columns: BTreeMap<usize, Column> = BTreeMap::new();
    for (at, cell) in names.iter().enumerate() {
        let Cell::Text(text) = cell else { continue };
        let text = crate::organisation::name::folded(text);
        let named = Column::ALL
            .into_iter()
            .find(|column| column.names().contains(&text.as_str()));
        let Some(column) = named else { continue };
        if columns.values().any(|known| *known == column) {
            let fault = Fault::ColumnTwice;
            sheet.problems.push(problem(first, Some(column), fault));
        }
        columns.insert(at, column);
    }
    for column in [Column::Name, Column::Code] {
        if !columns.values().any(|known| *known == column) {
            sheet.problems.push(missing(first, column));
        }
    }
    if !sheet.problems.is_empty() {
        return sheet;
    }
    for (line, cells) in lines {
        if sheet.rows.len() == ROWS {
            sheet.problems.push(problem(line, None, Fault::TooMany));
            break;
        }
        let mut row = Row {
            line,
            cells: BTreeMap::new(),
        };
        let mut is_empty = true;
        for (at, cell) in cells.into_iter().enumerate() {
            let Some(column) = columns.get(&at).copied() else {
                continue;
            };
            match cell {
                Cell::Faulty(fault) => {
                    is_empty = false;
                    sheet.problems.push(problem(line, Some(column), fault));
                    // Something stands there, so that it is not told to be empty as well.
                    row.cells.insert(column, String::new());
                }
                Cell::Text(text) => {
                    let text = text.trim();
                    if text.is_empty() {
                        continue;
                    }
                    is_empty = false;
                    if text.starts_with(['=', '+', '-', '@']) {
                        sheet
                            .problems
                            .push(problem(line, Some(column), Fault::Formula));
                        row.cells.insert(column, String::new());
                    } else {
                        row.cells.insert(column, text.to_owned());
                    }
                }
            }
        }
        if !is_empty {
            sheet.rows.push(row);
        }
        if sheet.problems.len() >= PROBLEMS {
            break;
        }
    }
    sheet
}

fn problem(line: u64, column: Option<Column>, fault: Fault) -> Problem {
    Problem {
        line,
        column,
        fault,
    }
}

fn missing(line: u64, column: Column) -> Problem {
    problem(line, Some(column), Fault::MissingColumn)
}

fn read_csv(file: &[u8]) -> Result<Sheet, ImportError> {
    let (text, undecodable) = decode(file);
    // One kind of line end, so that lines are counted as editors count them.
    let text = text.replace("\r\n", "\n");
    let first = text.lines().next().unwrap_or_default();
    let delimiter = [b',', b'\t', b';']
        .into_iter()
        .max_by_key(|delimiter| first.bytes().filter(|byte| byte == delimiter).count())
        .unwrap_or(b',');
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(text.as_bytes());
    let mut lines = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|_| ImportError::NotATable)?;
        let line = record.position().map_or(1, csv::Position::line);
        let cells = record
            .iter()
            .map(|text| Cell::Text(text.to_owned()))
            .collect();
        lines.push((line, cells));
        if lines.len() > ROWS + 1 {
            break;
        }
    }
    let mut sheet = assemble(lines.into_iter());
    for line in undecodable {
        sheet.problems.push(problem(line, None, Fault::Undecodable));
        sheet
            .problems
            .retain(|known| known.line != line || known.fault == Fault::Undecodable);
    }
    Ok(sheet)
}

/// The text, and the lines in which something could not be read.
fn decode(file: &[u8]) -> (String, Vec<u64>) {
    let (encoding, text) = match Encoding::for_bom(file) {
        Some((encoding, length)) => (encoding, &file[length..]),
        None => (guess(file), file),
    };
    let (whole, _, has_errors) = encoding.decode(text);
    if !has_errors {
        return (whole.into_owned(), Vec::new());
    }
    let lines = (1..).zip(whole.lines());
    let odd = lines
        .filter(|(_, line)| line.contains('\u{fffd}'))
        .map(|(number, _)| number)
        .take(PROBLEMS)
        .collect();
    (whole.into_owned(), odd)
}

/// UTF-8 where nearly all is; else what Chinese spreadsheets write, of which GB 18030 is the whole.
fn guess(file: &[u8]) -> &'static Encoding {
    let (mut good, mut bad) = (0, 0);
    for chunk in file.utf8_chunks() {
        good += chunk
            .valid()
            .bytes()
            .filter(|byte| !byte.is_ascii())
            .count();
        bad += chunk.invalid().len();
    }
    // GBK text has a valid sequence of UTF-8 now and then; damaged UTF-8 has many.
    if good >= bad * 4 { UTF_8 } else { GB18030 }
}

fn read_workbook(file: &[u8]) -> Result<Sheet, ImportError> {
    let bad = |_| ImportError::NotATable;
    let mut workbook = Xlsx::new(Cursor::new(file)).map_err(bad)?;
    let Some(name) = workbook.sheet_names().first().cloned() else {
        return Err(ImportError::NotATable);
    };
    let formulas = workbook.worksheet_formula(&name).map_err(bad)?;
    let values = workbook.worksheet_range(&name).map_err(bad)?;
    let (Some((first_row, first_column)), Some(_)) = (values.start(), values.end()) else {
        return Ok(assemble(std::iter::empty()));
    };
    let lines = values.rows().enumerate().map(|(row, cells)| {
        let row = first_row + row as u32;
        let cells = cells.iter().enumerate().map(|(column, value)| {
            let column = first_column + column as u32;
            let formula = formulas.get_value((row, column));
            if formula.is_some_and(|formula| !formula.is_empty()) {
                return Cell::Faulty(Fault::Formula);
            }
            match value {
                Data::Empty => Cell::Text(String::new()),
                Data::String(text) => Cell::Text(text.clone()),
                Data::Int(number) => Cell::Text(number.to_string()),
                // A code that was typed as a number: twelve digits are exact.
                Data::Float(number) if number.fract() == 0.0 && (0.0..1e15).contains(number) => {
                    Cell::Text(format!("{number:.0}"))
                }
                _ => Cell::Faulty(Fault::NotText),
            }
        });
        (u64::from(row) + 1, cells.collect())
    });
    Ok(assemble(lines))
}
