//! Echo requests in the background, and how many of them were lost.
//!
//! They run in the pod itself and write into a file there, so that nothing but the network of pods
//! is measured: streams of kubectl may break meanwhile.

use crate::{cluster::retry, story::Story};

const FILE: &str = "/tmp/echoes";

pub struct Echoes<'a> {
    story: &'a Story,
    pod: String,
    milliseconds: u64,
}

/// What became of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    pub sent: u64,
    pub lost: u64,
    /// The longest run of lost ones.
    pub longest: u64,
    milliseconds: u64,
}

impl<'a> Echoes<'a> {
    /// One request every `milliseconds` from a pod.
    pub fn start(story: &'a Story, pod: &str, target: &str, milliseconds: u64) -> Self {
        let interval = milliseconds as f64 / 1e3;
        let script = format!(
            "ping -i {interval} -W 1 {target} >{FILE} 2>&1 </dev/null & echo $! >{FILE}.pid"
        );
        story.exec(pod, &["sh", "-c", &script]).expect("start the echo requests");
        let echoes = Echoes { story, pod: pod.to_owned(), milliseconds };
        retry(30, || match echoes.answers()? {
            0 => Err(format!("no answer of {target} to {pod} yet")),
            _ => Ok(()),
        });
        echoes
    }

    fn answers(&self) -> Result<usize, String> {
        let count = format!("grep -c seq= {FILE} || true");
        let said = self.story.exec(&self.pod, &["sh", "-c", &count])?;
        said.trim().parse().map_err(|e| format!("{said:?}: {e}"))
    }

    pub fn end(self) -> Report {
        let script = format!(
            "kill -INT $(cat {FILE}.pid); \
             for i in 1 2 3 4 5 6 7 8 9; do grep -q transmitted {FILE} && break; sleep 1; done; \
             cat {FILE}"
        );
        let said = retry(60, || self.story.exec(&self.pod, &["sh", "-c", &script]));
        Report::read(&said, self.milliseconds).expect("the report of ping")
    }

    /// Ends them and expects that none was lost.
    #[track_caller]
    pub fn all_answered(self) -> Report {
        let pod = self.pod.clone();
        let report = self.end();
        assert!(report.sent > 0 && report.lost == 0, "from {pod}: {}", report.told());
        report
    }
}

impl Report {
    fn read(said: &str, milliseconds: u64) -> Option<Report> {
        let summary = said.lines().find(|line| line.contains("packets transmitted"))?;
        let sent: u64 = summary.split_whitespace().next()?.parse().ok()?;
        let number = |line: &str| line.split("seq=").nth(1)?.split(' ').next()?.parse().ok();
        let mut answered: Vec<u64> = said.lines().filter_map(number).collect();
        answered.sort_unstable();
        answered.dedup();
        // What was lost at either end counts, too, but for the last one, which may be under way.
        let sent = match answered.last() {
            Some(last) if last + 1 == sent => sent,
            _ => sent.saturating_sub(1),
        };
        let mut longest = sent.saturating_sub(answered.last().map_or(0, |last| last + 1));
        let mut next = 0;
        for number in &answered {
            longest = longest.max(number.saturating_sub(next));
            next = number + 1;
        }
        let lost = sent.saturating_sub(answered.len() as u64);
        Some(Report { sent, lost, longest, milliseconds })
    }

    /// `12 of 3000 echoes lost (0.4 %), longest silence 0.12 s`
    pub fn told(&self) -> String {
        format!(
            "{} of {} echoes lost ({:.1} %), longest silence {:.2} s",
            self.lost,
            self.sent,
            self.lost as f64 * 100.0 / self.sent.max(1) as f64,
            self.silence()
        )
    }

    /// Seconds of the longest silence.
    pub fn silence(&self) -> f64 {
        (self.longest * self.milliseconds) as f64 / 1e3
    }

    pub fn permille(&self) -> u64 {
        self.lost * 1000 / self.sent.max(1)
    }
}

#[test]
fn losses_at_both_ends_count() {
    let report = |answered: &[u64], sent: u64| {
        let line = |seq: &u64| format!("64 bytes from 10.16.0.2: seq={seq} ttl=64 time=0.1 ms\n");
        let lines: String = answered.iter().map(line).collect();
        let said = format!("PING\n{lines}\n{sent} packets transmitted, 0 packets received\n");
        Report::read(&said, 10).map(|r| (r.lost, r.longest))
    };
    assert_eq!(report(&[0, 1, 2], 3), Some((0, 0)));
    assert_eq!(report(&[0, 1, 2], 4), Some((0, 0)), "the last one may be under way");
    assert_eq!(report(&[3, 4], 5), Some((3, 3)));
    assert_eq!(report(&[0, 1], 9), Some((6, 6)));
    assert_eq!(report(&[0, 4, 6], 7), Some((4, 3)));
    assert_eq!(report(&[], 5), Some((4, 4)));
    assert_eq!(Report::read("PING\n", 10), None);
}
