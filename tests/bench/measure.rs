//! The stopwatch of bench.sh; std only, built by rustc alone.
//!
//!     measure spawn N STDIN SOCKET PROGRAM    runs PROGRAM N times with the file STDIN; a daemon
//!                                             that answers at once listens on SOCKET
//!     measure raw ADDRESS N BATCH             ports per second of plain OVSDB transactions
//!     measure watch ADDRESS PREFIX N SECONDS  waits for N ports named PREFIX*; the time from the
//!                                             first (or the first deletion) to the last
//!     measure flips SERVER SECONDS            prints when connections to SERVER begin and cease to
//!                                             get through: `SECONDS-SINCE-1970 open|closed`
//!
//! ADDRESS is host:port of an OVN northbound database. Prints one line of figures.

use std::{
    collections::HashSet,
    error::Error,
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixListener,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["spawn", n, stdin, socket, program] => spawn(n.parse()?, stdin, socket, program),
        ["raw", address, n, batch] => raw(address, n.parse()?, batch.parse()?),
        ["watch", address, prefix, n, seconds] => {
            watch(address, prefix, n.parse()?, Duration::from_secs(seconds.parse()?))
        }
        ["flips", server, seconds] => {
            flips(server.parse()?, Duration::from_secs(seconds.parse()?))
        }
        _ => Err("see the head of measure.rs".into()),
    }
}

#[repr(C)]
#[derive(Default)]
struct Usage {
    user: [i64; 2],
    system: [i64; 2],
    max_rss: i64,
    rest: [i64; 13],
}

unsafe extern "C" {
    fn wait4(pid: i32, status: *mut i32, options: i32, usage: *mut Usage) -> i32;
}

const RESPONSE: &str = r#"{"protocol":"IPv4","address":"10.16.0.2","mac_address":"00:00:00:00:00:01","cidr":"10.16.0.0/16","gateway":"10.16.0.1","routes":[],"mtu":1400,"nicname":"eth0","dns":{}}"#;

/// Answers each request as the agent does, without doing anything.
fn answer_all(listener: UnixListener) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            let mut part = [0; 4096];
            while !complete(&seen) {
                match stream.read(&mut part) {
                    Ok(n) if n > 0 => seen.extend_from_slice(&part[..n]),
                    _ => return,
                }
            }
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{RESPONSE}",
                RESPONSE.len()
            );
        });
    }
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|l| {
        l.to_ascii_lowercase().strip_prefix("content-length:").and_then(|v| v.trim().parse().ok())
    });
    body.len() >= length.unwrap_or(0usize)
}

/// Prints p50 and p99 in ms and the largest resident set in KB.
fn spawn(n: usize, stdin: &str, socket: &str, program: &str) -> Result<()> {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    std::thread::spawn(move || answer_all(listener));
    let mut times = Vec::new();
    let mut rss = 0;
    for _ in 0..n {
        let begun = Instant::now();
        let child = Command::new(program)
            .stdin(File::open(stdin)?)
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (mut status, mut usage) = (0, Usage::default());
        // SAFETY: both pointers are to live values of the layout that Linux has on 64 bit.
        let ended = unsafe { wait4(child.id() as i32, &mut status, 0, &mut usage) };
        if ended < 0 || status != 0 {
            return Err(format!("{program} ended with wait status {status}").into());
        }
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
        rss = rss.max(usage.max_rss);
    }
    times.sort_by(f64::total_cmp);
    println!("{:.2} {:.2} {rss}", times[n / 2], times[n * 99 / 100]);
    Ok(())
}

/// JSON-RPC on one connection.
struct Database {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Database {
    fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Database { stream, buffer: Vec::new() })
    }

    fn send(&mut self, method: &str, params: &str) -> Result<()> {
        let message = format!(r#"{{"id":1,"method":"{method}","params":{params}}}"#);
        Ok(self.stream.write_all(message.as_bytes())?)
    }

    /// The next message that is not an echo.
    fn receive(&mut self) -> Result<String> {
        loop {
            let Some(end) = message_end(&self.buffer) else {
                let mut part = vec![0; 1 << 16];
                let n = self.stream.read(&mut part)?;
                if n == 0 {
                    return Err("the database closed the connection".into());
                }
                self.buffer.extend_from_slice(&part[..n]);
                continue;
            };
            let rest = self.buffer.split_off(end);
            let message = String::from_utf8(std::mem::replace(&mut self.buffer, rest))?;
            if message.contains(r#""method":"echo""#) {
                self.stream.write_all(br#"{"id":"echo","error":null,"result":[]}"#)?;
            } else {
                return Ok(message);
            }
        }
    }

    fn transact(&mut self, operations: &[String]) -> Result<()> {
        let params = format!(r#"["OVN_Northbound",{}]"#, operations.join(","));
        self.send("transact", &params)?;
        let answer = self.receive()?;
        if answer.contains(r#""error":""#) {
            return Err(answer.chars().take(400).collect::<String>().into());
        }
        Ok(())
    }
}

fn message_end(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => depth += 1,
            b'}' if !quoted => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

const RAW: &str = "bench-raw";

/// Ports as the controller makes them: a row, a member of a switch and of two port groups.
fn raw(address: &str, n: usize, batch: usize) -> Result<()> {
    let mut database = Database::connect(address)?;
    let mut make =
        vec![format!(r#"{{"op":"insert","table":"Logical_Switch","row":{{"name":"{RAW}"}}}}"#)];
    let mut drop = vec![format!(
        r#"{{"op":"delete","table":"Logical_Switch","where":[["name","==","{RAW}"]]}}"#
    )];
    for group in ["bench_raw_1", "bench_raw_2"] {
        make.push(format!(r#"{{"op":"insert","table":"Port_Group","row":{{"name":"{group}"}}}}"#));
        drop.push(format!(
            r#"{{"op":"delete","table":"Port_Group","where":[["name","==","{group}"]]}}"#
        ));
    }
    database.transact(&drop)?;
    database.transact(&make)?;
    let begun = Instant::now();
    for first in (0..n).step_by(batch) {
        database.transact(&ports(first..(first + batch).min(n)))?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    database.transact(&drop)?;
    println!("{:.0}", n as f64 / seconds);
    Ok(())
}

fn ports(range: std::ops::Range<usize>) -> Vec<String> {
    let mut operations = Vec::new();
    for i in range.clone() {
        let (a, b) = (i / 256, i % 256);
        operations.push(format!(
            r#"{{"op":"insert","table":"Logical_Switch_Port","uuid-name":"p{i}","row":{{"name":"{RAW}-{i}.bench","addresses":"00:00:00:fe:{a:02x}:{b:02x} 10.99.{a}.{b}","external_ids":["map",[["vendor","kube-ovn"],["ls","{RAW}"],["pod","bench/{RAW}-{i}"],["kube-ovn/id","pod:{RAW}-{i}.bench:port"]]]}}}}"#
        ));
    }
    let names: Vec<String> = range.map(|i| format!(r#"["named-uuid","p{i}"]"#)).collect();
    let set = format!(r#"["set",[{}]]"#, names.join(","));
    for (table, name) in
        [("Logical_Switch", RAW), ("Port_Group", "bench_raw_1"), ("Port_Group", "bench_raw_2")]
    {
        operations.push(format!(
            r#"{{"op":"mutate","table":"{table}","where":[["name","==","{name}"]],"mutations":[["ports","insert",{set}]]}}"#
        ));
    }
    operations
}

/// Prints seconds from the first event to the last of N ports, and the number of updates.
fn watch(address: &str, prefix: &str, n: usize, patience: Duration) -> Result<()> {
    let mut database = Database::connect(address)?;
    database.stream.set_read_timeout(Some(patience))?;
    database.send(
        "monitor",
        r#"["OVN_Northbound",null,{"Logical_Switch_Port":{"columns":["name"],"select":{"initial":false,"modify":false}}}]"#,
    )?;
    database.receive()?;
    eprintln!("watching");
    let needle = format!(r#""name":"{prefix}"#);
    let mut seen: HashSet<String> = HashSet::new();
    let (mut first, mut updates) = (None, 0);
    let end = Instant::now() + patience;
    while seen.len() < n {
        let message = database.receive()?;
        let now = Instant::now();
        let before = seen.len();
        for (at, _) in message.match_indices(&needle) {
            first.get_or_insert(now);
            // What follows "old" is a deletion: the clock runs, the port does not count.
            if message[..at].ends_with(r#""new":{"#) {
                let rest = &message[at + needle.len()..];
                seen.insert(rest.split('"').next().unwrap_or_default().to_owned());
            }
        }
        updates += usize::from(seen.len() > before);
        if now > end {
            return Err(
                format!("{} of {n} ports after {} s", seen.len(), patience.as_secs()).into()
            );
        }
    }
    let seconds = first.map_or(0.0, |at| at.elapsed().as_secs_f64());
    println!("{seconds:.3} {updates}");
    Ok(())
}

/// A connection that is answered neither with yes nor with no for this long does not get through.
const SILENCE: Duration = Duration::from_millis(300);

/// What does not get through counts from the moment when it was sent.
fn flips(server: SocketAddr, patience: Duration) -> Result<()> {
    let (end, mut last) = (Instant::now() + patience, "");
    while Instant::now() < end {
        let sent = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let state = match TcpStream::connect_timeout(&server, SILENCE) {
            Ok(_) => "open",
            Err(_) => "closed",
        };
        if state != last {
            println!("{sent:.4} {state}");
            last = state;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
