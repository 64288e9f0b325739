//! The tokio runtime of the long-running applets, and their end by signal.

use std::{future::Future, process::ExitCode};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Runs `program` to its end. Few threads: the loops are I/O bound, and a node agent must not
/// spread over all cores of a big machine.
pub fn block_on(
    program: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 4))
        .enable_all()
        .build()
        .context("start the runtime")?;
    let result = runtime.block_on(program);
    // Blocking tasks (kernel calls) may hang; the process ends all the same.
    runtime.shutdown_background();
    result
}

/// Resolves at SIGTERM or SIGINT.
pub async fn shutdown() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
