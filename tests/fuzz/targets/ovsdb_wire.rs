//! Bytes of a server, from the socket to the replica: no panic, and the same messages however
//! the stream is cut.

#![no_main]

use kube_ovn::ovsdb::{
    frame::{FrameError, FrameScanner},
    replica::{Replica, Scope, Update},
    schema::{Column, Table, nb},
    transaction::Outcome,
    wire::Envelope,
};
use libfuzzer_sys::fuzz_target;
use nb::{logical_switch as ls, logical_switch_port as lsp};

const MONITORED: &[(&Table, &[Column])] = &[
    (&nb::LOGICAL_SWITCH, &[ls::NAME, ls::PORTS, ls::EXTERNAL_IDS]),
    (&nb::LOGICAL_SWITCH_PORT, &[lsp::NAME, lsp::ADDRESSES, lsp::EXTERNAL_IDS, lsp::TAG, lsp::UP]),
    (&nb::BFD, &[nb::bfd::LOGICAL_PORT, nb::bfd::DST_IP, nb::bfd::MIN_TX]),
];

fn messages(stream: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, FrameError> {
    let (mut scanner, mut buffer, mut found) = (FrameScanner::default(), Vec::new(), Vec::new());
    for part in stream.chunks(piece) {
        buffer.extend_from_slice(part);
        while let Some(length) = scanner.scan(&buffer)? {
            found.push(buffer.drain(..length).collect());
        }
    }
    Ok(found)
}

fuzz_target!(|input: &[u8]| {
    let Some((first, stream)) = input.split_first() else { return };
    let whole = messages(stream, stream.len().max(1));
    assert_eq!(whole, messages(stream, usize::from(*first).max(1)));
    let mut replica = Replica::new(&nb::DATABASE, MONITORED);
    for message in whole.unwrap_or_default() {
        let Ok(envelope) = serde_json::from_slice::<Envelope>(&message) else { continue };
        if let Some(params) = envelope.params {
            for scope in [Scope::Delta, Scope::Snapshot] {
                let update = Update { scope, tables: params.to_owned().into(), transaction: None };
                let _ = replica.apply(&update);
            }
        }
        if let Some(Ok(result)) = envelope.result.map(|r| serde_json::from_str(r.get())) {
            let _ = Outcome::parse(&result, 2);
        }
    }
});
