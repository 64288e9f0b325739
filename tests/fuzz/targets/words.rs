//! Command lines of `kubectl ko`, reports of OVN's programs, answers of DNS servers: no panic.

#![no_main]

use kube_ovn::{
    cli::{self, explain_policy, packet, probe, trace_text},
    pinger::{dns, target},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = dns::parse_answer(input, 7);
    let text = String::from_utf8_lossy(input);
    let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    let line = std::iter::once("kubectl-ko".to_owned()).chain(words.iter().cloned());
    let _ = cli::command().try_get_matches_from(line);
    let _ = cli::complete::candidates(&words);
    let _ = packet::parse_request(&words);
    for word in &words {
        let _ = (packet::parse_sender(word), probe::parse_target(word));
        let _ = explain_policy::parse_question(word, "b", word);
    }
    let _ = target::parse_port_checks(&words);
    let _ = dns::Resolver::parse(&text).candidates(words.first().map_or("", String::as_str));
    let walk = trace_text::parse_walk(&text);
    let _ = (walk.verdicts(), walk.drawn("a", "b"));
    let _ = (explain_policy::parse_met(&text), probe::parse_outcomes(&text));
});
