//! `docs/performance.md`: each benchmark writes a section of its own and leaves the others alone.

use anyhow::Result;

use crate::run::root;

const PAGE: &str = "docs/performance.md";

const HEAD: &str = "# Performance\n\n\
    <!-- Each section is written by the command in its first comment; run that instead of changing it. -->\n";

/// Writes the section of `cargo xtask bench NAME` in Markdown.
pub(crate) fn write_section(name: &str, text: &str) -> Result<()> {
    let path = root().join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(path, with_section(&page, name, text))?;
    println!("wrote the section of {name} to {PAGE}");
    Ok(())
}

/// The page with a section in its old place, or at the end.
fn with_section(page: &str, name: &str, text: &str) -> String {
    let begin = format!("<!-- begin: cargo xtask bench {name} -->\n");
    let end = format!("<!-- end: cargo xtask bench {name} -->\n");
    let section = format!("{begin}\n{}\n\n{end}", text.trim());
    let found = page
        .split_once(&begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    match found {
        Some((before, after)) => format!("{before}{section}{after}"),
        None if page.is_empty() => format!("{HEAD}\n{section}"),
        None => format!("{}\n\n{section}", page.trim_end()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let page = with_section("", "session", "old");
        let page = with_section(&page, "peers", "| a |");
        let page = with_section(&page, "session", "new");
        assert!(page.starts_with("# Performance"));
        assert!(page.contains("new") && page.contains("| a |") && !page.contains("old"));
        assert!(page.find("new") < page.find("| a |"));
        assert_eq!(with_section(&page, "session", "new"), page);
    }
}
