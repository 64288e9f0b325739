//! Message framing and endpoint syntax.

use kube_ovn::ovsdb::{
    endpoint::Endpoint,
    frame::{FrameError, FrameScanner},
};
use proptest::prelude::*;

/// Feeds `stream` in pieces that end at `cuts`; gives the messages found.
fn split(stream: &[u8], cuts: &[usize]) -> Result<Vec<Vec<u8>>, FrameError> {
    let (mut scanner, mut buffer, mut found) = (FrameScanner::default(), Vec::new(), Vec::new());
    let mut start = 0;
    for end in cuts.iter().copied().chain([stream.len()]) {
        buffer.extend_from_slice(&stream[start..end]);
        start = end;
        while let Some(length) = scanner.scan(&buffer)? {
            found.push(buffer.drain(..length).collect());
        }
    }
    Ok(found)
}

#[test]
fn several_messages_in_one_read() {
    let found = split(b"{\"id\":1}{\"id\":2}\n {\"id\":{\"a\":{}}}", &[]).unwrap();
    assert_eq!(found, [&b"{\"id\":1}"[..], b"{\"id\":2}", b"\n {\"id\":{\"a\":{}}}"]);
}

#[test]
fn a_string_with_an_escaped_quote_and_a_brace() {
    let message = br#"{"a":"x\"}","b":"\\","c":"{{{","d":"\\\"}"}"#;
    let twice = [&message[..], message].concat();
    for cut in 0..twice.len() {
        assert_eq!(split(&twice, &[cut]).unwrap(), [message, message], "cut at {cut}");
    }
}

#[test]
fn a_message_that_is_no_object_is_an_error_and_not_a_hang() {
    assert_eq!(split(b"[1]", &[]), Err(FrameError::NotAnObject(b'[')));
    assert_eq!(split(b"{}x", &[]), Err(FrameError::NotAnObject(b'x')));
    assert_eq!(split(b"\0", &[]), Err(FrameError::NotAnObject(0)));
}

#[test]
fn an_unfinished_message_waits() {
    assert_eq!(split(b"{\"a\":\"}", &[]), Ok(vec![]));
    assert_eq!(split(b"", &[]), Ok(vec![]));
}

proptest! {
    #[test]
    fn any_messages_cut_anywhere_come_out_whole(
        texts in prop::collection::vec("[a\"\\\\{}\\[\\]é\n]{0,12}", 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let messages: Vec<Vec<u8>> = texts
            .iter()
            .map(|t| serde_json::json!({"method": t, (t): [{"x": t}]}).to_string().into_bytes())
            .collect();
        let stream = messages.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(stream.len())).collect();
        cuts.sort_unstable();
        prop_assert_eq!(split(&stream, &cuts).unwrap(), messages);
    }

    #[test]
    fn any_bytes_give_the_same_result_however_they_are_cut(
        bytes in prop::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b'\\'), Just(b' '), any::<u8>()], 0..64),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(split(&bytes, &cuts), split(&bytes, &[]));
    }
}

#[test]
fn endpoints() {
    let tcp = |host: &str, port| Endpoint::Tcp { host: host.into(), port };
    for (text, wanted) in [
        ("tcp:10.0.0.1:6641", tcp("10.0.0.1", 6641)),
        ("tcp:[10.0.0.1]:6641", tcp("10.0.0.1", 6641)),
        ("tcp:[fd00::1]:6642", tcp("fd00::1", 6642)),
        ("tcp:[fd00::1]", tcp("fd00::1", 6640)),
        ("tcp:fd00::1", tcp("fd00::1", 6640)),
        ("tcp:nb.example:1", tcp("nb.example", 1)),
        ("ssl:[fd00::1]:6642", Endpoint::Ssl { host: "fd00::1".into(), port: 6642 }),
        ("unix:/run/ovn/ovnnb_db.sock", Endpoint::Unix("/run/ovn/ovnnb_db.sock".into())),
    ] {
        assert_eq!(text.parse::<Endpoint>().as_ref(), Ok(&wanted), "{text}");
        assert_eq!(wanted.to_string().parse::<Endpoint>(), Ok(wanted));
    }
    for bad in [
        "",
        "tcp:",
        "unix:",
        "udp:1.1.1.1:1",
        "tcp:1.1.1.1:0",
        "tcp:1.1.1.1:x",
        "tcp:[::1",
        "tcp:[::1]6641",
        "tcp::1",
    ] {
        assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
    }
    let list = Endpoint::parse_list("tcp:[1.1.1.1]:6641,tcp:[2.2.2.2]:6641").unwrap();
    assert_eq!(list, [tcp("1.1.1.1", 6641), tcp("2.2.2.2", 6641)]);
}
