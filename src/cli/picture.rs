//! Pictures: boxes in columns, joined by lines, as one SVG or HTML file without scripts.

use std::{fmt::Write, path::Path};

use anyhow::Context;

use super::trace_text::{End, Walk};

/// What a box stands for; decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Router,
    Switch,
    Endpoint,
    Outside,
    Drop,
}

impl Shape {
    fn fill(self) -> &'static str {
        match self {
            Shape::Router => "#dbe9ff",
            Shape::Switch => "#dff5e1",
            Shape::Endpoint => "#ffffff",
            Shape::Outside => "#fff3d6",
            Shape::Drop => "#ffdede",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub shape: Shape,
    /// First line is the title.
    pub lines: Vec<String>,
    /// Column, from the left.
    pub column: usize,
}

/// Nodes, and lines between them by index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    pub title: String,
    pub nodes: Vec<Node>,
    pub lines: Vec<(usize, usize)>,
}

const WIDTH: usize = 230;
const GAP_X: usize = 70;
const GAP_Y: usize = 14;
const LINE: usize = 16;

impl Picture {
    pub fn add(&mut self, shape: Shape, column: usize, lines: Vec<String>) -> usize {
        self.nodes.push(Node { shape, lines, column });
        self.nodes.len() - 1
    }

    /// `(x, y, height)` of every node: each column is filled from above.
    fn places(&self) -> Vec<(usize, usize, usize)> {
        let mut used: Vec<usize> = Vec::new();
        let place = |node: &Node| {
            if used.len() <= node.column {
                used.resize(node.column + 1, 50);
            }
            let height = node.lines.len().max(1) * LINE + 12;
            let y = used.get(node.column).copied().unwrap_or(50);
            if let Some(next) = used.get_mut(node.column) {
                *next = y + height + GAP_Y;
            }
            (20 + node.column * (WIDTH + GAP_X), y, height)
        };
        self.nodes.iter().map(place).collect()
    }

    pub fn svg(&self) -> String {
        let places = self.places();
        let width = places.iter().map(|p| p.0 + WIDTH).max().unwrap_or(0) + 20;
        let height = places.iter().map(|p| p.1 + p.2).max().unwrap_or(0) + 20;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fafafa\"/>\n\
             <text x=\"20\" y=\"30\" font-size=\"16\" font-weight=\"bold\">{}</text>\n",
            escaped(&self.title)
        );
        for (from, to) in &self.lines {
            if let (Some(a), Some(b)) = (places.get(*from), places.get(*to)) {
                let (x1, y1) = (a.0 + WIDTH, a.1 + a.2 / 2);
                let (x2, y2) = (b.0, b.1 + b.2 / 2);
                let middle = x1.midpoint(x2);
                let _ = writeln!(
                    svg,
                    "<path d=\"M {x1} {y1} C {middle} {y1} {middle} {y2} {x2} {y2}\" \
                     fill=\"none\" stroke=\"#888\"/>"
                );
            }
        }
        for (node, (x, y, height)) in self.nodes.iter().zip(&places) {
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\" \
                 fill=\"{}\" stroke=\"#666\"/>",
                node.shape.fill()
            );
            for (i, line) in node.lines.iter().enumerate() {
                let weight = if i == 0 { " font-weight=\"bold\"" } else { "" };
                let _ = writeln!(
                    svg,
                    "<text x=\"{}\" y=\"{}\"{weight}>{}</text>",
                    x + 8,
                    y + 18 + i * LINE,
                    escaped(&cut(line, 34))
                );
            }
        }
        svg + "</svg>\n"
    }

    pub fn html(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\
             </head><body>\n{}</body></html>\n",
            escaped(&self.title),
            self.svg()
        )
    }
}

fn cut(line: &str, length: usize) -> String {
    if line.chars().count() <= length {
        return line.to_owned();
    }
    line.chars().take(length - 1).chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Writes HTML or SVG by the file's name.
pub fn write(file: &str, picture: &Picture) -> anyhow::Result<()> {
    let html = Path::new(file).extension().is_some_and(|e| e == "html" || e == "htm");
    let content = if html { picture.html() } else { picture.svg() };
    std::fs::write(file, content).with_context(|| format!("write {file}"))?;
    eprintln!("wrote {file}");
    Ok(())
}

/// The way of a packet, from left to right.
pub fn of_walk(walk: &Walk, from: &str, to: &str) -> Picture {
    let mut picture = Picture { title: format!("{from} to {to}"), ..Picture::default() };
    let mut last = picture.add(Shape::Endpoint, 0, vec![from.to_owned()]);
    let mut column = 0;
    let mut datapath = "";
    for hop in &walk.hops {
        if hop.datapath == datapath {
            if let Some(node) = picture.nodes.get_mut(last) {
                node.lines.extend(hop.notes.iter().cloned());
            }
            continue;
        }
        datapath = &hop.datapath;
        column += 1;
        let mut lines = vec![hop.datapath.clone(), format!("in: {}", hop.inport)];
        lines.extend(hop.notes.iter().cloned());
        let next = picture.add(Shape::Switch, column, lines);
        picture.lines.push((last, next));
        last = next;
    }
    for end in &walk.ends {
        let (shape, lines) = match end {
            End::Delivered { port } => (Shape::Endpoint, vec![port.clone(), to.to_owned()]),
            End::Dropped { stage, .. } => (Shape::Drop, vec!["dropped".to_owned(), stage.clone()]),
        };
        let next = picture.add(shape, column + 1, lines);
        picture.lines.push((last, next));
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_hold_every_box_and_escape_text() {
        let mut picture = Picture { title: "a < b".into(), ..Picture::default() };
        let a = picture.add(Shape::Router, 0, vec!["r\"1\"".into()]);
        let b = picture.add(Shape::Switch, 1, vec!["s".into(), "10.0.0.0/8".into()]);
        picture.lines.push((a, b));
        let svg = picture.svg();
        assert!(svg.contains("a &lt; b") && svg.contains("r&quot;1&quot;"));
        assert_eq!(svg.matches("<path").count(), 1);
        assert_eq!(svg.matches("<rect").count(), 3);
        assert!(picture.html().starts_with("<!doctype html>"));
    }
}
