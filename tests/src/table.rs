//! Small tables for people.

/// Lays out rows under a header; the first column is left-aligned, the others right-aligned.
pub fn lay_out(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        format!("  {}\n", cells.collect::<Vec<_>>().join("  "))
    };
    let header: Vec<_> = header.iter().map(ToString::to_string).collect();
    let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
    [line(&header), line(&rule)].into_iter().chain(rows.iter().map(|row| line(row))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["target".into(), "1.0".into()], vec!["writer".into(), "12.5".into()]];
        assert_eq!(
            lay_out(&["", "MiB"], &rows),
            "           MiB\n  ------  ----\n  target   1.0\n  writer  12.5\n"
        );
    }
}
