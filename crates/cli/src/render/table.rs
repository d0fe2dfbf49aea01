//! Columns of text, as wide as their widest cell. A cell's width counts what is seen, not its colours.

/// Lays rows out; the last column is not padded. `indent` goes before each row.
pub fn table(indent: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(seen(cell));
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (index, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if index + 1 < row.len() {
                line.push_str(&" ".repeat(widths[index] - seen(cell) + 2));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The number of characters that are seen: escape sequences for colour are not.
fn seen(cell: &str) -> usize {
    let mut count = 0;
    let mut inside = false;
    for c in cell.chars() {
        match c {
            '\x1b' => inside = true,
            'm' if inside => inside = false,
            _ if inside => {}
            _ => count += 1,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    #[test]
    fn colours_take_no_width() {
        let rows = [
            vec!["a".to_owned(), "x".to_owned()],
            vec!["\x1b[32mbcd\x1b[0m".to_owned(), "y".to_owned()],
        ];
        assert_eq!(super::table("", &rows), "a    x\n\x1b[32mbcd\x1b[0m  y\n");
    }
}
