//! Tables: columns as wide as what stands in them, two spaces between, nothing cut off.

/// A colour with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As it should be.
    Good,
    /// On its way.
    Pending,
    /// Amiss.
    Bad,
    /// A name of something.
    Heading,
}

impl Paint {
    /// `text` in this colour.
    pub(crate) fn on(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Good => "32",
            Self::Pending => "33",
            Self::Bad => "1;31",
            Self::Heading => "1",
        };
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// One field of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    paint: Option<Paint>,
    right: bool,
    spans: bool,
}

impl Cell {
    /// Text, on the left of its column.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), paint: None, right: false, spans: false }
    }

    /// A number, on the right of its column.
    pub(crate) fn number(text: impl Into<String>) -> Self {
        Self { right: true, ..Self::text(text) }
    }

    /// The last of its row: may go on over all columns to its right.
    pub(crate) fn spanning(text: impl Into<String>) -> Self {
        Self { spans: true, ..Self::text(text) }
    }

    /// In this colour.
    pub(crate) fn painted(self, paint: Paint) -> Self {
        Self { paint: Some(paint), ..self }
    }
}

/// Rows under a row of headings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

const GAP: usize = 2;

impl Table {
    /// A table with these headings, right-aligned where they begin with `>`.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let heading = |text: &&str| match text.strip_prefix('>') {
            Some(text) => Cell::number(text).painted(Paint::Heading),
            None => Cell::text(*text).painted(Paint::Heading),
        };
        Self { rows: vec![headings.iter().map(heading).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// As lines.
    pub(crate) fn render(&self, colour: bool) -> String {
        let width = |cell: &Cell| if cell.spans { 0 } else { cell.text.chars().count() };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|at| self.rows.iter().filter_map(|row| row.get(at)).map(width).max().unwrap_or(0))
            .collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut blanks = 0;
            for (cell, width) in row.iter().zip(&widths) {
                let missing = width.saturating_sub(cell.text.chars().count());
                let (before, after) = if cell.right { (missing, 0) } else { (0, missing) };
                // Blanks are written only before something: no line ends with one.
                if !cell.text.is_empty() {
                    out.push_str(&" ".repeat(blanks + before));
                    blanks = 0;
                    match cell.paint {
                        Some(paint) => out.push_str(&paint.on(&cell.text, colour)),
                        None => out.push_str(&cell.text),
                    }
                    blanks += after + GAP;
                } else {
                    blanks += missing + GAP;
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_no_line_ends_with_a_blank() {
        let mut table = Table::new(&["", "NAME", ">SIZE", "NOTE"]);
        table.row([Cell::text("a"), Cell::text("longer name"), Cell::number("7"), Cell::text("")]);
        table.row([Cell::text("b"), Cell::text("x"), Cell::spanning("spans all that follows")]);
        assert_eq!(
            table.render(false),
            "   NAME         SIZE  NOTE\n\
             a  longer name     7\n\
             b  x            spans all that follows\n"
        );
        assert!(table.render(true).contains("\x1b[1mNAME\x1b[0m"));
    }
}
