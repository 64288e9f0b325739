//! Completion in shells, of `kubectl-ko` and, through kubectl, of `kubectl ko`.

use clap::{Arg, ArgMatches, Command, builder::PossibleValuesParser};
use clap_complete::Shell;

use super::{Arguments, Tool, argument};

pub const TOOL: Tool = Tool {
    name: "completion",
    aliases: &[],
    about: "Print the completion script of a shell (kubectl ko <TAB> needs none: a link named \
            kubectl_complete-ko to this program is enough)",
    example: "completion bash > /etc/bash_completion.d/kubectl-ko",
    arguments: Arguments::Own,
    command: |command| {
        let shells = PossibleValuesParser::new(["bash", "zsh", "fish"]);
        command.arg(Arg::new("shell").required(true).value_name("SHELL").value_parser(shells))
    },
    run: |_, matches| {
        Box::pin(async move {
            let shell = match argument(matches, "shell") {
                "zsh" => Shell::Zsh,
                "fish" => Shell::Fish,
                _ => Shell::Bash,
            };
            print!("{}", script(shell));
            Ok(0)
        })
    },
};

const NAME: &str = "kubectl-ko";

/// clap_complete's script for bash knows a program with a hyphen by one name where it reads words
/// and by another where it looks for their candidates: nothing was found after the first word. It is
/// made for a name without one.
fn script(shell: Shell) -> String {
    let name = if shell == Shell::Bash { "kubectl_ko" } else { NAME };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut super::command(), name, &mut text);
    let text = String::from_utf8_lossy(&text);
    // Only where it says which program the function completes.
    text.replace(&format!(" {name}\n"), &format!(" {NAME}\n"))
}

/// `kubectl_complete-ko WORD...`
pub fn command() -> Command {
    Command::new("kubectl_complete-ko").arg(super::handed_on("words"))
}

/// Prints what may stand for the last word, in the form of Cobra's `__complete`.
pub fn print_candidates(matches: &ArgMatches) {
    let words = super::words(matches, "words");
    for candidate in candidates(&words) {
        println!("{candidate}");
    }
    // ShellCompDirectiveNoFileComp
    println!(":4");
}

/// Names that begin with the last word: subcommands, then flags and values.
pub fn candidates(words: &[String]) -> Vec<String> {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let mut at = super::command();
    for word in before {
        if let Some(inner) = at.find_subcommand(word) {
            at = inner.clone();
        }
    }
    let mut all: Vec<String> = at
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .map(|c| c.get_name().to_owned())
        .collect();
    if last.starts_with('-') {
        all.extend(at.get_arguments().filter_map(|a| a.get_long()).map(|l| format!("--{l}")));
    }
    for argument in at.get_positionals() {
        let values = argument.get_possible_values();
        all.extend(values.iter().map(|value| value.get_name().to_owned()));
    }
    all.retain(|name| name.starts_with(last));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Vec<String> {
        candidates(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn every_word_of_bash_leads_to_candidates() {
        let text = script(Shell::Bash);
        let reached =
            text.lines().filter_map(|l| l.trim().strip_prefix("cmd=\"")?.strip_suffix('"'));
        let reached: Vec<&str> = reached.filter(|cmd| !cmd.is_empty()).collect();
        assert!(reached.len() > 30, "{reached:?}");
        for cmd in reached {
            assert!(text.contains(&format!("        {cmd})\n            opts=")), "{cmd}");
        }
        let ends = text.lines().filter(|line| line.trim_start().starts_with("complete -F"));
        let ends: Vec<&str> = ends.collect();
        assert!(!ends.is_empty() && ends.iter().all(|l| l.ends_with(" kubectl-ko")), "{ends:?}");
    }

    #[test]
    fn subcommands_values_and_flags() {
        assert_eq!(of("nbc"), ["nbctl"]);
        assert_eq!(of("completion b"), ["bash"]);
        assert!(of("nb sta").contains(&"status".to_owned()));
        assert!(of("--kube").contains(&"--kubeconfig".to_owned()));
    }
}
