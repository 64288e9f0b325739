//! packaging/manual.md tells of every command what the program itself says.
//! `UPDATE=1 cargo test --test pure manual` writes that part anew.

use std::{fs, path::PathBuf};

use kube_ovn::cli;

const BEGIN: &str = "<!-- written by tests/pure/manual.rs -->\n";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("packaging/manual.md")
}

/// `--help` of every command and of its subcommands.
fn reference() -> String {
    let mut all = String::new();
    for command in cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = command.get_name();
        let mut shown = command.clone().bin_name(format!("kubectl ko {name}")).term_width(98);
        all += &format!("\n### {name}\n\n```text\n{}```\n", tidy(&shown.render_help().to_string()));
        for inner in command.get_subcommands() {
            let name = format!("{name} {}", inner.get_name());
            let mut shown = inner.clone().bin_name(format!("kubectl ko {name}")).term_width(98);
            let help = tidy(&shown.render_help().to_string());
            all += &format!("\n#### {name}\n\n```text\n{help}```\n");
        }
    }
    all
}

fn tidy(help: &str) -> String {
    help.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn the_manual_tells_what_every_command_says() {
    let text = fs::read_to_string(path()).expect("packaging/manual.md");
    let (before, written) = text.split_once(BEGIN).expect("the mark of the written part");
    let wanted = reference();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path(), format!("{before}{BEGIN}{wanted}")).expect("write the manual");
    } else {
        assert_eq!(written, wanted, "UPDATE=1 cargo test --test pure manual");
    }
}
