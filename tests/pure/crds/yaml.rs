//! A JSON value as YAML that diffs well: sorted keys, two blanks, single quotes where needed.

use serde_json::Value;

pub fn document(value: &Value) -> String {
    let mut out = String::from(
        "# Generated from src/api/crd; after a change there: BLESS=1 cargo test --test pure crds\n",
    );
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) => {
            for (key, below) in map {
                out.push_str(&" ".repeat(indent));
                out.push_str(&text(key));
                out.push(':');
                nested(below, indent + 2, out);
            }
        }
        Value::Array(list) => {
            for below in list {
                item(below, indent, out);
            }
        }
        scalar => out.push_str(&inline(scalar)),
    }
}

fn nested(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            block(value, indent, out);
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            // List items stand under their key, as kubectl writes them.
            block(value, indent - 2, out);
        }
        scalar => {
            out.push(' ');
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
}

fn item(value: &Value, indent: usize, out: &mut String) {
    out.push_str(&" ".repeat(indent));
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut below = String::new();
            block(value, indent + 2, &mut below);
            out.push_str("- ");
            out.push_str(below.trim_start());
        }
        scalar => {
            out.push_str("- ");
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(s) => text(s),
        Value::Number(n) if n.as_f64().is_some_and(|f| f.fract() == 0.0 && f.abs() < 1e15) => {
            format!("{}", n.as_f64().unwrap_or_default())
        }
        other => other.to_string(),
    }
}

/// YAML 1.1 reads these words as something else than text.
const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

fn text(s: &str) -> String {
    let mut chars = s.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || " ./_-;()".contains(c))
        && !s.ends_with(' ')
        && !WORDS.contains(&s.to_ascii_lowercase().as_str());
    if plain { s.to_owned() } else { format!("'{}'", s.replace('\'', "''")) }
}
