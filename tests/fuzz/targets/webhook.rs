//! Admission requests and the objects that they are judged by: no panic, no endless questions.

#![no_main]

#[allow(dead_code)]
#[path = "../../support/objects.rs"]
mod objects;

use std::sync::LazyLock;

use kube_ovn::{
    api::Settings,
    webhook::review::{Facts, Request, Stop, review},
};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static SETTINGS: LazyLock<Settings> = LazyLock::new(objects::settings);

// Two JSON values in a row: the request, and the answer to every question.
fuzz_target!(|input: &[u8]| {
    let mut values = serde_json::Deserializer::from_slice(input).into_iter::<Value>().flatten();
    let Some(request) = values.next().as_ref().and_then(Request::parse) else { return };
    let answer = values.next().unwrap_or_default();
    let mut facts = Facts::default();
    for _ in 0..32 {
        match review(&request, &facts, &SETTINGS) {
            Err(Stop::Need(question)) => drop(facts.0.insert(question, vec![answer.clone()])),
            _ => return,
        }
    }
    panic!("asks for ever");
});
