//! Takes the bytes that a server sends apart, wherever they were cut.

use super::frame::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEAD, HEADERS, Head, PADDED, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::hpack::{self, Outcome};

/// Headers and trailers larger than this are refused.
const MAX_HEADERS: usize = 64 << 10;

/// Something that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// Bytes of the stream's body.
    Data(&'a [u8]),
    /// A DATA frame is whole; this many bytes of it, padding included, count against the windows.
    DataEnd {
        /// Bytes that count.
        counted: u32,
        /// Whether the stream ends with it.
        end_stream: bool,
    },
    /// Headers or trailers.
    Headers {
        /// What they say.
        outcome: Outcome,
        /// Whether the stream ends with them.
        end_stream: bool,
    },
    /// The peer's settings: the ones that concern a sender.
    Settings {
        /// The window that streams begin with.
        initial_window: Option<u32>,
        /// The largest frame it takes.
        max_frame: Option<u32>,
    },
    /// The peer wants this payload back.
    Ping([u8; 8]),
    /// The peer gives our payload back.
    Pong,
    /// More may be sent: on the connection (stream 0) or on a stream.
    Window {
        /// The stream, or 0.
        stream: u32,
        /// Bytes.
        increment: u32,
    },
    /// The stream was reset with this error code.
    Reset(u32),
    /// The connection takes no new streams; it ends with this error code and text.
    GoAway {
        /// The error code; 0 is an orderly end.
        code: u32,
        /// The last stream that the server answers.
        last_stream: u32,
        /// Words for people; may be empty.
        text: String,
    },
}

/// Why bytes are not HTTP/2 as a server sends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// The first frame of a server is its settings.
    #[error("what listens there does not speak HTTP/2 without an upgrade (it began with \"{0}\")")]
    NotHttp2(String),
    /// A frame is larger than we allowed, or than its kind can be.
    #[error("the server sent an HTTP/2 frame of kind {kind} with {length} bytes")]
    Size {
        /// Its kind.
        kind: u8,
        /// Its length.
        length: u32,
    },
    /// Headers that cannot be read.
    #[error("the server sent headers that cannot be read")]
    Headers,
}

#[derive(Debug)]
enum State {
    /// Within the head of a frame; so many bytes of it are here.
    Head { bytes: [u8; HEAD], have: u8 },
    /// Before the length of a DATA frame's padding.
    PadLength { head: Head },
    /// Within a DATA frame.
    Data { left: u32, padding: u32, head: Head },
    /// Within any other frame, which is collected.
    Other { head: Head, payload: Vec<u8> },
    /// Within a frame that concerns nobody.
    Skip { left: u32 },
}

const BETWEEN: State = State::Head { bytes: [0; HEAD], have: 0 };

/// The receiving half of a connection.
#[derive(Debug)]
pub(crate) struct Incoming {
    state: State,
    /// Headers that continue in further frames, and whether the stream ends with them.
    headers: Option<(Vec<u8>, bool)>,
    begun: bool,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { state: BETWEEN, headers: None, begun: false }
    }
}

impl Incoming {
    /// The next event in `input`, which is shortened by what was read; `None` when it is used up.
    ///
    /// # Errors
    /// If it is not HTTP/2 as a server sends it. Nothing can be read after that.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ProtocolError> {
        loop {
            match &mut self.state {
                State::Head { bytes, have } => {
                    let wanted = HEAD - usize::from(*have);
                    let part = take(input, wanted);
                    bytes[usize::from(*have)..][..part.len()].copy_from_slice(part);
                    *have += part.len() as u8;
                    if !self.begun {
                        begins_like_settings(&bytes[..usize::from(*have)], input)?;
                    }
                    if usize::from(*have) < HEAD {
                        return Ok(None);
                    }
                    let head = Head::read(*bytes);
                    self.begun = true;
                    self.state = state_after(head)?;
                }
                State::PadLength { head } => {
                    let head = *head;
                    let Some((padding, rest)) = input.split_first() else { return Ok(None) };
                    *input = rest;
                    let padding = u32::from(*padding);
                    let left = (head.length - 1).checked_sub(padding).ok_or_else(|| too_large(head))?;
                    self.state = State::Data { left, padding, head };
                }
                State::Data { left: 0, padding, head } => {
                    let event = Event::DataEnd { counted: head.length, end_stream: head.flags & END_STREAM != 0 };
                    self.state = State::Skip { left: *padding };
                    return Ok(Some(event));
                }
                State::Data { left, .. } => {
                    let part = take(input, *left as usize);
                    if part.is_empty() {
                        return Ok(None);
                    }
                    *left -= part.len() as u32;
                    return Ok(Some(Event::Data(part)));
                }
                State::Skip { left } => {
                    let part = take(input, *left as usize);
                    *left -= part.len() as u32;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = BETWEEN;
                    if input.is_empty() {
                        return Ok(None);
                    }
                }
                State::Other { head, payload } => {
                    let part = take(input, head.length as usize - payload.len());
                    payload.extend_from_slice(part);
                    if payload.len() < head.length as usize {
                        return Ok(None);
                    }
                    let (head, payload) = (*head, std::mem::take(payload));
                    self.state = BETWEEN;
                    if let Some(event) = self.event(head, payload)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// What a collected frame means.
    fn event<'a>(&mut self, head: Head, payload: Vec<u8>) -> Result<Option<Event<'a>>, ProtocolError> {
        let number = |at: usize| -> Result<u32, ProtocolError> {
            let bytes = payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_be_bytes).ok_or_else(|| too_large(head))
        };
        Ok(match head.kind {
            SETTINGS if head.flags & ACK != 0 => None,
            SETTINGS => {
                let of = |name: u16| {
                    let pairs = payload.chunks_exact(6).rev();
                    let mut found = pairs.filter(|pair| pair[..2] == name.to_be_bytes());
                    found.next().map(|pair| u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
                };
                let initial_window = of(frame::SETTINGS_INITIAL_WINDOW_SIZE);
                Some(Event::Settings { initial_window, max_frame: of(frame::SETTINGS_MAX_FRAME_SIZE) })
            }
            PING => {
                let bytes = payload.as_slice().try_into().map_err(|_| too_large(head))?;
                Some(if head.flags & ACK == 0 { Event::Ping(bytes) } else { Event::Pong })
            }
            WINDOW_UPDATE => Some(Event::Window { stream: head.stream, increment: number(0)? & frame::LARGEST_WINDOW }),
            RST_STREAM => Some(Event::Reset(number(0)?)),
            GOAWAY => {
                let text = String::from_utf8_lossy(payload.get(8..).unwrap_or_default()).into_owned();
                Some(Event::GoAway { code: number(4)?, last_stream: number(0)? & frame::LARGEST_WINDOW, text })
            }
            HEADERS => {
                let block = header_block(head, &payload)?;
                self.headers = Some((block.to_vec(), head.flags & END_STREAM != 0));
                self.headers_if_whole(head)?
            }
            CONTINUATION => {
                let (block, _) = self.headers.as_mut().ok_or(ProtocolError::Headers)?;
                if block.len() + payload.len() > MAX_HEADERS {
                    return Err(ProtocolError::Headers);
                }
                block.extend_from_slice(&payload);
                self.headers_if_whole(head)?
            }
            _ => None,
        })
    }

    fn headers_if_whole<'a>(&mut self, head: Head) -> Result<Option<Event<'a>>, ProtocolError> {
        if head.flags & END_HEADERS == 0 {
            return Ok(None);
        }
        let (block, end_stream) = self.headers.take().ok_or(ProtocolError::Headers)?;
        let outcome = hpack::read(&block).ok_or(ProtocolError::Headers)?;
        Ok(Some(Event::Headers { outcome, end_stream }))
    }
}

/// Whether the first frame, of which `bytes` are the begin, is a settings frame; `rest` follows it.
fn begins_like_settings(bytes: &[u8], rest: &[u8]) -> Result<(), ProtocolError> {
    if bytes.get(3).is_none_or(|kind| *kind == SETTINGS) {
        return Ok(());
    }
    let shown = [bytes, &rest[..rest.len().min(24)]].concat();
    let line = String::from_utf8_lossy(&shown).lines().next().unwrap_or_default().escape_debug().to_string();
    Err(ProtocolError::NotHttp2(line))
}

fn state_after(head: Head) -> Result<State, ProtocolError> {
    if head.length > frame::DEFAULT_MAX_FRAME {
        return Err(too_large(head));
    }
    Ok(match head.kind {
        DATA if head.stream != frame::STREAM => State::Skip { left: head.length },
        DATA if head.flags & PADDED != 0 => {
            if head.length == 0 {
                return Err(too_large(head));
            }
            State::PadLength { head }
        }
        DATA => State::Data { left: head.length, padding: 0, head },
        HEADERS | CONTINUATION | RST_STREAM | SETTINGS | PING | GOAWAY | WINDOW_UPDATE => {
            State::Other { head, payload: Vec::with_capacity(head.length as usize) }
        }
        _ => State::Skip { left: head.length },
    })
}

/// The compressed headers in a HEADERS frame, without padding and priority.
fn header_block(head: Head, payload: &[u8]) -> Result<&[u8], ProtocolError> {
    let mut block = payload;
    let mut padding = 0;
    if head.flags & PADDED != 0 {
        let (first, rest) = block.split_first().ok_or(ProtocolError::Headers)?;
        (padding, block) = (usize::from(*first), rest);
    }
    if head.flags & PRIORITY != 0 {
        block = block.get(5..).ok_or(ProtocolError::Headers)?;
    }
    let end = block.len().checked_sub(padding).ok_or(ProtocolError::Headers)?;
    Ok(&block[..end])
}

fn too_large(head: Head) -> ProtocolError {
    ProtocolError::Size { kind: head.kind, length: head.length }
}

/// Takes at most `wanted` bytes from the front.
fn take<'a>(input: &mut &'a [u8], wanted: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(wanted.min(input.len()));
    *input = rest;
    part
}

#[cfg(test)]
mod tests;
