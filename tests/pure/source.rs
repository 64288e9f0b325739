//! Just enough Rust to check rules on: comments and literals blanked, tests cut out, paths of `use`
//! trees expanded, functions measured.

use std::path::{Path, PathBuf};

/// One file of the crate.
pub struct Source {
    /// Relative to the package, with `/`.
    pub path: String,
    pub raw: String,
    /// Same length and lines as `raw`; comments, strings and chars are blanks.
    pub code: String,
    /// `code` without items under `#[cfg(test)]`.
    pub product: String,
}

pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
    /// Types of the parameters but `self`.
    pub parameters: Vec<String>,
}

impl Source {
    pub fn parse(path: &str, raw: &str) -> Source {
        let code = blank(raw);
        let product = without_tests(&code);
        Source { path: path.to_owned(), raw: raw.to_owned(), code, product }
    }

    pub fn generated(&self) -> bool {
        self.raw.lines().take(3).any(|line| line.contains("@generated"))
    }

    /// Words of the product code with their line: identifiers and paths joined by `::`.
    pub fn paths(&self) -> Vec<(usize, String)> {
        let mut paths = Vec::new();
        let mut rest = self.product.as_str();
        let mut line = 1;
        while let Some(start) = rest.find(is_word) {
            line += rest[..start].matches('\n').count();
            let (path, after) = take_path(&rest[start..]);
            let before = rest;
            rest = match after.strip_prefix("::{") {
                Some(tree) => expand(&path, tree, line, &mut paths),
                None => {
                    paths.push((line, path));
                    after
                }
            };
            line += before[start..before.len() - rest.len()].matches('\n').count();
        }
        paths
    }

    /// Functions of product and tests.
    pub fn functions(&self) -> Vec<Function> {
        functions(&self.code)
    }

    pub fn product_functions(&self) -> Vec<Function> {
        functions(&self.product)
    }
}

fn functions(code: &str) -> Vec<Function> {
    let starts = code.match_indices("fn ").map(|(at, _)| at);
    let whole = starts.filter(|at| !code[..*at].chars().next_back().is_some_and(is_word));
    whole.filter_map(|at| function(code, at)).collect()
}

/// All `.rs` files below the folders.
pub fn read_all(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.push(Source::parse(&name, &std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `a::b::c` at the start of `text`, and what follows.
fn take_path(text: &str) -> (String, &str) {
    let mut path = String::new();
    let mut rest = text;
    loop {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        path.push_str(&rest[..end]);
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(after) if after.starts_with(is_word) => {
                path.push_str("::");
                rest = after;
            }
            _ => return (path, rest),
        }
    }
}

/// Expands the inside of `{...}` under `prefix`; returns what follows the closing brace.
fn expand<'a>(
    prefix: &str,
    tree: &'a str,
    line: usize,
    paths: &mut Vec<(usize, String)>,
) -> &'a str {
    let mut rest = tree;
    loop {
        let Some(next) = rest.find(|c| is_word(c) || c == '}' || c == '*') else { return "" };
        rest = &rest[next..];
        if let Some(after) = rest.strip_prefix('}') {
            return after;
        }
        if let Some(after) = rest.strip_prefix('*') {
            paths.push((line, prefix.to_owned()));
            rest = after;
            continue;
        }
        let (name, after) = take_path(rest);
        let whole = match name.as_str() {
            "self" => prefix.to_owned(),
            name => format!("{prefix}::{name}"),
        };
        rest = after;
        match after.strip_prefix("::{") {
            Some(inner) => rest = expand(&whole, inner, line, paths),
            None => paths.push((line, whole)),
        }
        if let Some(renamed) = rest.strip_prefix(" as ") {
            rest = renamed.trim_start_matches(is_word);
        }
    }
}

/// Comments and literals as blanks, newlines kept.
pub fn blank(raw: &str) -> String {
    let bytes = raw.as_bytes();
    let mut out = raw.as_bytes().to_vec();
    let mut i = 0;
    while i < bytes.len() {
        let end = literal_end(bytes, i);
        match end {
            Some(end) => {
                for byte in &mut out[i..end.min(bytes.len())] {
                    if *byte != b'\n' {
                        *byte = b' ';
                    }
                }
                i = end;
            }
            None => i += 1,
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// End of the comment or literal that starts at `i`.
fn literal_end(bytes: &[u8], i: usize) -> Option<usize> {
    let rest = &bytes[i..];
    let word_before = i > 0 && is_word(bytes[i - 1] as char);
    if rest.starts_with(b"//") {
        return Some(i + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        let end = rest.windows(2).position(|w| w == b"*/");
        return Some(i + end.map_or(rest.len(), |end| end + 2));
    }
    let raw = rest.strip_prefix(b"b").unwrap_or(rest);
    if let Some(hashes) = raw.strip_prefix(b"r").filter(|_| !word_before) {
        let count = hashes.iter().take_while(|b| **b == b'#').count();
        if hashes.get(count) == Some(&b'"') {
            let close = [b"\"".as_slice(), &b"#".repeat(count)].concat();
            let body = rest.len() - hashes.len() + count + 1;
            let end = rest[body..].windows(close.len()).position(|w| w == close);
            return Some(i + end.map_or(rest.len(), |end| body + end + close.len()));
        }
    }
    match rest[0] {
        b'"' => quoted(rest, b'"').map(|end| i + end),
        b'\'' if rest.get(1) == Some(&b'\\') => quoted(rest, b'\'').map(|end| i + end),
        // A char and not a lifetime: the quote closes after one character.
        b'\'' => {
            let text = std::str::from_utf8(&rest[1..rest.len().min(6)]);
            let text = text
                .unwrap_or_else(|e| std::str::from_utf8(&rest[1..1 + e.valid_up_to()]).unwrap());
            let width = text.chars().next()?.len_utf8();
            (rest.get(1 + width) == Some(&b'\'')).then_some(i + width + 2)
        }
        _ => None,
    }
}

fn quoted(rest: &[u8], quote: u8) -> Option<usize> {
    let mut j = 1;
    while j < rest.len() {
        match rest[j] {
            b'\\' => j += 1,
            b if b == quote => return Some(j + 1),
            _ => {}
        }
        j += 1;
    }
    Some(rest.len())
}

/// Blanks items under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let body = code[at..].find(['{', ';']).map_or(code.len(), |end| at + end);
        let end = if code[body..].starts_with('{') { close(code, body) } else { body };
        let cut: String = code[at..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        // Blanks have the width of what they replace only in ASCII; code outside literals is.
        if cut.len() == end - at {
            out.replace_range(at..end, &cut);
        }
    }
    out
}

/// Position after the bracket that closes the one at `open`.
fn close(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + i + 1;
        }
    }
    code.len()
}

fn function(code: &str, at: usize) -> Option<Function> {
    let (name, _) = take_path(&code[at + 3..]);
    let open = at + code[at..].find('(')?;
    // `fn(` types and bounds have no name.
    if name.is_empty() || code[at..open].contains([';', '{']) {
        return None;
    }
    let after = close(code, open);
    let body = after + code[after..].find(['{', ';'])?;
    let end = if code[body..].starts_with('{') { close(code, body) } else { body + 1 };
    let inside = &code[open + 1..after - 1];
    Some(Function {
        name,
        line: 1 + code[..at].matches('\n').count(),
        lines: 1 + code[at..end].matches('\n').count(),
        parameters: parameters(inside),
    })
}

/// Types of a parameter list, without `self`.
fn parameters(inside: &str) -> Vec<String> {
    let mut depth = 0;
    let mut parts = vec![String::new()];
    let mut last = ' ';
    for c in inside.chars() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            // `->` closes nothing.
            ')' | ']' | '}' => depth -= 1,
            '>' if last != '-' => depth -= 1,
            _ => {}
        }
        last = c;
        if c == ',' && depth == 0 {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let typed = parts.iter().filter_map(|part| part.split_once(':'));
    typed
        .filter(|(name, _)| name.trim() != "self")
        .map(|(_, kind)| kind.trim().to_owned())
        .collect()
}

#[test]
fn literals_and_comments_are_no_code() {
    let text = "a /* unsafe */ \"un\\\"safe\" r#\"x\"y\"# 'b' '\\'' &'c str // d\nlet e = b'\"'; f";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    let words: Vec<&str> = code.split_whitespace().collect();
    assert_eq!(words, ["a", "&'c", "str", "let", "e", "=", "b", ";", "f"]);
}

#[test]
fn use_trees_are_expanded() {
    let text = "use crate::{a::{self, b::C}, d as e};\n#[cfg(test)]\nmod t { use x::y; }\nz::w(1)";
    let source = Source::parse("x.rs", text);
    let paths: Vec<String> = source.paths().into_iter().map(|(_, path)| path).collect();
    for path in ["crate::a", "crate::a::b::C", "crate::d", "z::w"] {
        assert!(paths.iter().any(|p| p == path), "{path} in {paths:?}");
    }
    assert!(!paths.iter().any(|p| p == "x::y"), "{paths:?}");
}

#[test]
fn functions_are_measured() {
    let text = "impl X {\n fn a(&self, b: Vec<(u8, u8)>, c: impl Fn(u8) -> bool) -> u8 {\n 1\n }\n}\n\
                trait T { fn d(e: bool); }\ntype F = fn(u8);";
    let functions = Source::parse("x.rs", text).functions();
    assert_eq!(functions.len(), 2);
    assert_eq!((functions[0].name.as_str(), functions[0].line, functions[0].lines), ("a", 2, 3));
    assert_eq!(functions[0].parameters, ["Vec<(u8, u8)>", "impl Fn(u8) -> bool"]);
    assert_eq!(functions[1].parameters, ["bool"]);
}
