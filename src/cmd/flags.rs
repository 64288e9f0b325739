//! Tables of flags, in the form Go's pflag and klog accept them.
//!
//! A program's flags are a table of [`Flag`]: the clap command, the refusal of flags whose feature
//! does not exist yet and the list of ignored ones all come from it.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};

use super::Usage;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Text,
    /// Inclusive bounds.
    Integer(i64, i64),
    /// `--x`, `--x=true`, `--x=false`.
    Switch,
}

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Used,
    /// Accepted without effect; the reason is logged once when it is given.
    Ignored(&'static str),
    /// The feature does not exist yet: any value but the default is refused.
    Later(&'static str),
}

/// One flag of a program. Names are upstream's.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    pub name: &'static str,
    pub value: Value,
    pub default: &'static str,
    pub about: &'static str,
    pub support: Support,
}

impl Flag {
    pub const fn text(name: &'static str, default: &'static str, about: &'static str) -> Self {
        Flag { name, value: Value::Text, default, about, support: Support::Used }
    }

    pub const fn switch(name: &'static str, default: &'static str, about: &'static str) -> Self {
        Flag { name, value: Value::Switch, default, about, support: Support::Used }
    }

    /// A number from 0 to `max`.
    pub const fn number(
        name: &'static str,
        default: &'static str,
        max: i64,
        about: &'static str,
    ) -> Self {
        Flag { name, value: Value::Integer(0, max), default, about, support: Support::Used }
    }

    pub const fn support(self, support: Support) -> Self {
        Flag { support, ..self }
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.name)
            .long(self.name)
            .help(self.about)
            .action(ArgAction::Set)
            .default_value(self.default)
            .hide_default_value(self.default.is_empty());
        let arg = if self.name == "v" { arg.short('v') } else { arg };
        match self.value {
            Value::Text => arg.value_name("TEXT").allow_hyphen_values(true),
            Value::Integer(min, max) => {
                arg.value_name("N").value_parser(clap::value_parser!(i64).range(min..=max))
            }
            Value::Switch => arg
                .value_name("BOOL")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(parse_switch),
        }
    }
}

/// The spellings of Go's strconv.ParseBool.
fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

/// Flags of klog; all are accepted, those that steer what our log has too are used.
pub const KLOG: &[Flag] = &[
    Flag::switch("logtostderr", "true", "log to stderr instead of to the log file"),
    Flag::switch("alsologtostderr", "false", "log to stderr as well as to the log file"),
    Flag::text("log_file", "", "log to this file"),
    Flag::number("log_file_max_size", "1800", i64::MAX, "MiB after which the log file rotates"),
    Flag::number("v", "0", 99, "verbosity: 0-2 info, 3-4 debug, 5 and more trace"),
    Flag::text("vmodule", "", "module=N,... verbosity per module of this program"),
    Flag::text("stderrthreshold", "2", "klog's threshold").support(Support::Ignored(KLOG_ONLY)),
    Flag::text("log_dir", "", "klog's log folder").support(Support::Ignored(KLOG_ONLY)),
    Flag::text("log_backtrace_at", ":0", "klog's trace").support(Support::Ignored(KLOG_ONLY)),
    Flag::switch("add_dir_header", "false", "klog's header").support(Support::Ignored(KLOG_ONLY)),
    Flag::switch("one_output", "false", "klog's output").support(Support::Ignored(KLOG_ONLY)),
    Flag::switch("skip_headers", "false", "klog's header").support(Support::Ignored(KLOG_ONLY)),
    Flag::switch("skip_log_headers", "false", "klog's header").support(Support::Ignored(KLOG_ONLY)),
    Flag::text("log-format", "text", "text or json"),
];

const KLOG_ONLY: &str = "it describes klog's files and headers, which this log does not have";

/// A command that takes the flags of `tables` and those of klog.
pub fn build(tables: &[&'static [Flag]]) -> Command {
    tables
        .iter()
        .chain(&[KLOG])
        .fold(Command::new("kube-ovn"), |command, table| command.args(table.iter().map(Flag::arg)))
}

/// Refuses flags whose feature does not exist; returns one note for each ignored flag given.
pub fn check(tables: &[&'static [Flag]], matches: &ArgMatches) -> Result<Vec<String>, Usage> {
    let given = Given(matches);
    let mut notes = Vec::new();
    for flag in tables.iter().chain(&[KLOG]).flat_map(|table| table.iter()) {
        let value = given.shown(flag);
        let feature = match flag.support {
            Support::Used => continue,
            Support::Ignored(why) => {
                if given.is_given(flag.name) {
                    notes.push(format!("--{}={value} has no effect: {why}", flag.name));
                }
                continue;
            }
            Support::Later(feature) => feature,
        };
        if value != flag.default {
            return Err(Usage(format!(
                "--{}={value}: {feature} is not supported by this version; leave the flag out or \
                 set it to {:?}",
                flag.name, flag.default
            )));
        }
    }
    Ok(notes)
}

/// Typed access to parsed flags. A name that is not in the table reads as empty, 0, false.
#[derive(Clone, Copy)]
pub struct Given<'a>(pub &'a ArgMatches);

impl Given<'_> {
    pub fn text(&self, name: &str) -> String {
        self.0.try_get_one::<String>(name).ok().flatten().cloned().unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> i64 {
        self.0.try_get_one::<i64>(name).ok().flatten().copied().unwrap_or_default()
    }

    /// A number of which the table's upper bound fits `u16` (ports) or `u32`.
    pub fn small<T: TryFrom<i64> + Default>(&self, name: &str) -> T {
        T::try_from(self.number(name)).unwrap_or_default()
    }

    pub fn is_on(&self, name: &str) -> bool {
        self.0.try_get_one::<bool>(name).ok().flatten().copied().unwrap_or_default()
    }

    /// Non-empty parts of a comma list, trimmed.
    pub fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name);
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    }

    fn is_given(&self, name: &str) -> bool {
        let known = self.0.try_contains_id(name).is_ok();
        known && self.0.value_source(name) == Some(ValueSource::CommandLine)
    }

    fn shown(&self, flag: &Flag) -> String {
        match flag.value {
            Value::Text => self.text(flag.name),
            Value::Integer(..) => self.number(flag.name).to_string(),
            Value::Switch => self.is_on(flag.name).to_string(),
        }
    }
}

/// Rewrites the spellings Go accepts into those clap knows: `-long=x` -> `--long=x`, and `-`
/// against `_` inside a name. Words that name no flag of `command` stay as they are.
pub fn normalize(command: &Command, args: Vec<OsString>) -> Vec<OsString> {
    let longs: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    let mut only_words = false;
    let rewrite = |word: OsString| {
        only_words |= word == "--";
        match word.to_str() {
            Some(text) if !only_words => spelled(&longs, text).map_or(word, OsString::from),
            _ => word,
        }
    };
    args.into_iter().map(rewrite).collect()
}

fn spelled(longs: &[&str], word: &str) -> Option<String> {
    let body = word.strip_prefix('-').filter(|body| body.len() > 1)?;
    let body = body.strip_prefix('-').unwrap_or(body);
    let (name, value) = body.split_at(body.find('=').unwrap_or(body.len()));
    let plain = name.replace('_', "-");
    let long = longs.iter().find(|long| long.replace('_', "-") == plain)?;
    Some(format!("--{long}{value}"))
}
