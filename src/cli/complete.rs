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
            let mut command = super::command().bin_name("kubectl-ko");
            clap_complete::generate(shell, &mut command, "kubectl-ko", &mut std::io::stdout());
            Ok(0)
        })
    },
};

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
    fn subcommands_values_and_flags() {
        assert_eq!(of("nbc"), ["nbctl"]);
        assert_eq!(of("completion b"), ["bash"]);
        assert!(of("nb sta").contains(&"status".to_owned()));
        assert!(of("--kube").contains(&"--kubeconfig".to_owned()));
    }
}
