//! The one place that starts programs: firewall batches.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::Error;

/// Runs `program` with `input` on its standard input and returns its standard output.
pub(super) fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |message: String| Error::Program { program, message };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(format!("cannot start: {e}; install it or add it to PATH")))?;
    // The batch is written by a thread of its own: a program that fills its output pipe before
    // it has read all would block both sides.
    let stdin = child.stdin.take();
    let (written, output) = std::thread::scope(|scope| {
        let writer = scope.spawn(move || match stdin {
            Some(mut pipe) => pipe.write_all(input.as_bytes()),
            None => Ok(()),
        });
        let output = child.wait_with_output();
        (writer.join(), output)
    });
    let output = output.map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}: {}", output.status, describe(text.trim(), input))));
    }
    match written {
        Ok(Ok(())) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Err(e)) => Err(failed(format!("standard input: {e}"))),
        Err(_) => Err(failed("the writer panicked".to_owned())),
    }
}

/// Adds the line of the batch that the program complains about (`line 7`, `line: 7`).
fn describe(message: &str, input: &str) -> String {
    let number = message.split("line").skip(1).find_map(|rest| {
        let digits: String =
            rest.trim_start_matches([' ', ':']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()
    });
    match number.and_then(|n| input.lines().nth(n.checked_sub(1)?)) {
        Some(line) => format!("{message} (that line is {line:?})"),
        None => message.to_owned(),
    }
}
