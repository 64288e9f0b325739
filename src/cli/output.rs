//! How results are printed: text for people, JSON or YAML for programs; colour on terminals only.

use std::io::IsTerminal;

use anyhow::Context;
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
    Yaml,
}

impl Format {
    pub fn parse(text: &str) -> Format {
        match text {
            "json" => Format::Json,
            "yaml" => Format::Yaml,
            _ => Format::Text,
        }
    }
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    Plain,
    Colour,
}

/// What a piece of text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Good,
    Bad,
    Note,
    Title,
}

impl Paint {
    /// `auto` asks the terminal and NO_COLOR.
    pub fn choose(wish: &str) -> Paint {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        match wish {
            "always" => Paint::Colour,
            "never" => Paint::Plain,
            _ if std::io::stdout().is_terminal() && !plain => Paint::Colour,
            _ => Paint::Plain,
        }
    }

    pub fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            _ if self == Paint::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Note => "33",
            Tone::Title => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// Prints `value` in the format asked for; `text` makes the form for people.
pub fn emit<T: Serialize>(
    format: Format,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let rendered = match format {
        Format::Text => text(value),
        Format::Json => serde_json::to_string_pretty(value).context("write JSON")? + "\n",
        Format::Yaml => serde_saphyr::to_string(value).context("write YAML")?,
    };
    print!("{rendered}");
    if !rendered.is_empty() && !rendered.ends_with('\n') {
        println!();
    }
    Ok(())
}

/// Columns as wide as their widest cell, two spaces between; no trailing spaces.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let columns = head.len();
    let cell = |row: &[String], i: usize| row.get(i).map_or(0, |c| c.chars().count());
    let width = |i: usize| {
        let title = head.get(i).map_or(0, |h| h.chars().count());
        rows.iter().map(|row| cell(row, i)).max().unwrap_or(0).max(title)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(&format!("{cell:width$}  "));
        }
        text.trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// `1 pod`, `2 pods`
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_without_trailing_spaces() {
        let rows = vec![vec!["a".into(), "b".into()], vec!["longer".into(), String::new()]];
        assert_eq!(table(&["NAME", "X"], &rows), "NAME    X\na       b\nlonger\n");
    }

    #[test]
    fn colour_only_where_it_is_wanted() {
        assert_eq!(Paint::Plain.tone(Tone::Bad, "x"), "x");
        assert_eq!(Paint::Colour.tone(Tone::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Paint::choose("never"), Paint::Plain);
    }
}
