//! Where a JSON-RPC message ends in a stream of bytes (RFC 7047, section 4: messages follow each
//! other without a separator).
//!
//! Only braces count, and only outside strings; so the scan is three `memchr`s per token and
//! needs no JSON parser (0.7 GB/s). What is inside is checked by the parser afterwards.

use memchr::{memchr2, memchr3};

/// 1 GiB: more than any OVN database holds.
const LONGEST: usize = 1 << 30;

/// The stream is not JSON-RPC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("expected a JSON object, found byte {0:#04x}")]
    NotAnObject(u8),
    #[error("a message exceeds 1 GiB")]
    TooLong,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Before the first brace or between tokens.
    #[default]
    Outside,
    Text,
    /// Behind a backslash in a text.
    Escape,
}

/// Scans each byte once, however the messages are cut into reads.
#[derive(Debug, Default)]
pub struct FrameScanner {
    place: Place,
    depth: usize,
    scanned: usize,
}

impl FrameScanner {
    /// The length of the first message in `buffer`, if all of it is there. `buffer` must begin
    /// with what the call before was given, less the message that it found.
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Option<usize>, FrameError> {
        while let Some(rest) = buffer.get(self.scanned..).filter(|r| !r.is_empty()) {
            match (self.place, self.depth) {
                (Place::Outside, 0) => self.scan_gap(rest)?,
                (Place::Outside, _) => {
                    if self.scan_token(rest) {
                        return Ok(Some(std::mem::take(self).scanned));
                    }
                }
                (Place::Text, _) => self.scan_text(rest),
                (Place::Escape, _) => {
                    self.scanned += 1;
                    self.place = Place::Text;
                }
            }
        }
        if self.scanned > LONGEST { Err(FrameError::TooLong) } else { Ok(None) }
    }

    fn scan_gap(&mut self, rest: &[u8]) -> Result<(), FrameError> {
        match rest.first() {
            Some(b'{') => self.depth = 1,
            Some(b' ' | b'\t' | b'\r' | b'\n') | None => {}
            Some(other) => return Err(FrameError::NotAnObject(*other)),
        }
        self.scanned += 1;
        Ok(())
    }

    /// `true` when the message ends here.
    fn scan_token(&mut self, rest: &[u8]) -> bool {
        let Some(at) = memchr3(b'"', b'{', b'}', rest) else {
            self.scanned += rest.len();
            return false;
        };
        self.scanned += at + 1;
        match rest.get(at) {
            Some(b'"') => self.place = Place::Text,
            Some(b'{') => self.depth += 1,
            _ => self.depth -= 1,
        }
        self.depth == 0
    }

    fn scan_text(&mut self, rest: &[u8]) {
        let Some(at) = memchr2(b'"', b'\\', rest) else {
            self.scanned += rest.len();
            return;
        };
        self.scanned += at + 1;
        self.place = if rest.get(at) == Some(&b'"') { Place::Outside } else { Place::Escape };
    }
}
