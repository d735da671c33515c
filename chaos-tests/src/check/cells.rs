//! Cells: what SETRANGE and APPEND make of a value holds whole cells, each written by a request on
//! that key at that place, and nothing else but zeros in between.

use bytes::Bytes;

use crate::history::{Ask, Asked, CELL_BYTES, History, op_of_cell};

/// What is promised.
pub const PROMISE: &str = "ranges and appends show bytes that somebody wrote there";

/// Judges a value that was read.
///
/// # Errors
/// What is wrong with it.
pub fn check(history: &History, asked: &Asked, value: &Bytes) -> Result<(), String> {
    for (place, cell) in value.chunks(CELL_BYTES).enumerate() {
        if cell == [0; CELL_BYTES] {
            continue;
        }
        let by = op_of_cell(cell).and_then(|op| history.all().get(op as usize));
        let fits = by.is_some_and(|by| {
            let here = match by.ask {
                Ask::Cell(Some(offset)) => offset == (place * CELL_BYTES) as u64,
                Ask::Cell(None) => true,
                _ => false,
            };
            here && by.rows.first() == asked.rows.first()
        });
        if !fits {
            return Err(format!("{asked:?} showed {value:?}: nobody wrote {cell:?} at {place}"));
        }
    }
    Ok(())
}
