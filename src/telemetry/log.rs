//! The log: `tracing` events as text or JSON lines to stderr, to a file, or to both.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{IntGaugeVec, Opts};
use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{Layer, filter, fmt, fmt::MakeWriter, layer::SubscriberExt, registry};

use super::metrics;

/// Where the log goes and how much of it; built from the klog flags.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogOptions {
    /// `None`: stderr only.
    pub file: Option<LogFile>,
    /// Write to stderr beside a file.
    pub also_stderr: bool,
    pub format: Format,
    /// klog's `-v`: 0-3 info, 4 debug, 5 and more trace.
    pub verbosity: u8,
    /// klog's vmodule: a module of this program and its verbosity.
    pub modules: Vec<(String, u8)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    pub path: PathBuf,
    /// Permission bits, 0o640 by default.
    pub mode: u32,
    /// Bytes after which the file is renamed to `<path>.old`; 0 = never.
    pub max_size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("log file {}: {source}; mount its folder writable or change --log_file", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("log metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("a log is already set up: {0}")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sets the log up for the whole process.
pub fn init(options: &LogOptions) -> Result<(), LogError> {
    let file = options.file.as_ref().map(RotatingFile::open).transpose()?;
    let sink = Sink {
        stderr: file.is_none() || options.also_stderr,
        file: file.map(Arc::new),
        counts: Counts::register()?,
    };
    let (verbosity, modules) = (options.verbosity, options.modules.clone());
    let wanted = move |meta: &Metadata<'_>| *meta.level() <= level(verbosity, &modules, meta);
    let filter = filter::filter_fn(wanted).with_max_level_hint(LevelFilter::TRACE);
    let base = fmt::layer().with_ansi(false).with_writer(sink);
    let layer = match options.format {
        Format::Text => base.with_filter(filter).boxed(),
        Format::Json => base.json().flatten_event(true).with_filter(filter).boxed(),
    };
    tracing::subscriber::set_global_default(registry().with(layer))?;
    Ok(())
}

/// Most detailed level that is written for the module of an event.
fn level(verbosity: u8, modules: &[(String, u8)], meta: &Metadata<'_>) -> Level {
    let target = meta.target();
    let ours = target.starts_with("kube_ovn");
    let named = modules.iter().find(|(name, _)| target.split("::").any(|part| part == name));
    match named.map_or(verbosity, |(_, v)| *v) {
        // Libraries print whole requests, with tokens, when they debug.
        v if !ours && named.is_none() => {
            if v < 5 {
                Level::WARN
            } else {
                Level::INFO
            }
        }
        0..=3 => Level::INFO,
        4 => Level::DEBUG,
        _ => Level::TRACE,
    }
}

/// `a=1,b=2`; parts without a number are errors.
pub fn parse_modules(text: &str) -> Result<Vec<(String, u8)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parse = |part: &str| {
        let (name, v) = part.split_once('=').ok_or_else(|| part.to_owned())?;
        Ok((name.to_owned(), v.parse().map_err(|_| part.to_owned())?))
    };
    parts.map(parse).collect()
}

/// Lines and bytes written per level, under klog's names.
#[derive(Clone)]
struct Counts {
    lines: IntGaugeVec,
    bytes: IntGaugeVec,
}

/// Values of the label, upstream's.
const LEVELS: [&str; 3] = ["INFO", "WARN", "ERROR"];

impl Counts {
    fn register() -> Result<Self, prometheus::Error> {
        let vec = |name, help| IntGaugeVec::new(Opts::new(name, help), &["level"]);
        let counts = Counts {
            lines: metrics::register(vec("klog_lines_total", "Total number of log lines")?)?,
            bytes: metrics::register(vec("klog_bytes_total", "Total size of log lines")?)?,
        };
        // Zero is a figure: a series that begins with the first error shows no increase by it.
        for level in LEVELS {
            counts.lines.with_label_values(&[level]);
            counts.bytes.with_label_values(&[level]);
        }
        Ok(counts)
    }
}

struct Sink {
    file: Option<Arc<RotatingFile>>,
    stderr: bool,
    counts: Counts,
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { sink: self, level: "INFO" }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let level = match *meta.level() {
            Level::ERROR => "ERROR",
            Level::WARN => "WARN",
            _ => "INFO",
        };
        LineWriter { sink: self, level }
    }
}

/// Takes one whole line per write.
struct LineWriter<'a> {
    sink: &'a Sink,
    level: &'static str,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let counts = &self.sink.counts;
        counts.lines.with_label_values(&[self.level]).inc();
        counts.bytes.with_label_values(&[self.level]).add(line.len() as i64);
        // A full disk or a closed stderr must not stop the network: the other sink still gets it.
        if let Some(file) = &self.sink.file {
            let _ = file.write_line(line);
        }
        if self.sink.stderr {
            let _ = io::stderr().write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct RotatingFile {
    options: LogFile,
    /// The file and its size.
    open: Mutex<(File, u64)>,
}

impl RotatingFile {
    fn open(options: &LogFile) -> Result<Self, LogError> {
        let failed = |source| LogError::File { path: options.path.clone(), source };
        let file = create(&options.path, options.mode).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(RotatingFile { options: options.clone(), open: Mutex::new((file, size)) })
    }

    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let LogFile { path, mode, max_size } = &self.options;
        if *max_size > 0 && open.1 + line.len() as u64 > *max_size {
            let mut old = path.clone().into_os_string();
            old.push(".old");
            std::fs::rename(path, old)?;
            *open = (create(path, *mode)?, 0);
        }
        open.0.write_all(line)?;
        open.1 += line.len() as u64;
        Ok(())
    }
}

/// Opens for append; an existing file gets the wanted permissions too.
fn create(path: &Path, mode: u32) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(mode).open(path)?;
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_rotates_once_and_keeps_its_mode() {
        let dir = std::env::temp_dir().join(format!("kube-ovn-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let options = LogFile { path: dir.join("x.log"), mode: 0o640, max_size: 10 };
        let file = RotatingFile::open(&options).unwrap();
        for line in ["12345678\n", "abcdefgh\n", "ABCDEFGH\n"] {
            file.write_line(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(dir.join("x.log")).unwrap(), "ABCDEFGH\n");
        assert_eq!(std::fs::read_to_string(dir.join("x.log.old")).unwrap(), "abcdefgh\n");
        let mode = std::fs::metadata(dir.join("x.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        std::fs::remove_dir_all(dir).unwrap();
    }

    /// A series that begins with the first error hides it from `increase()`.
    #[test]
    fn every_level_is_counted_from_the_start() {
        let counts = Counts::register().unwrap();
        let gathered = metrics::registry().gather();
        let family = gathered.iter().find(|f| f.name() == "klog_lines_total").unwrap();
        let levels: Vec<&str> =
            family.get_metric().iter().map(|m| m.get_label()[0].value()).collect();
        assert_eq!(levels, ["ERROR", "INFO", "WARN"]);
        drop(counts);
    }

    #[test]
    fn modules_need_numbers() {
        assert_eq!(parse_modules("ipam=4, plan=5").unwrap().len(), 2);
        assert_eq!(parse_modules("ipam"), Err("ipam".to_owned()));
        assert_eq!(parse_modules(""), Ok(vec![]));
    }
}
