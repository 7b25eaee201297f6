//! The client's bytes.

use super::request::RequestHead;
use super::{Connection, INITIAL_WINDOW, MAX_WINDOW, Phase, Stream};
use crate::frame::{self, Head, MAX_PAYLOAD};
use crate::{Event, Reason, StreamId};

/// What a client says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A header block whose fields are so many times larger than they may be ends the connection, and not only its stream:
/// no more of it is decoded.
const BOMB: usize = 4;

/// Where in the client's bytes reading stands.
#[derive(Debug)]
pub(super) enum Reading {
    /// In the preface, of which so much has come.
    Preface(usize),
    /// In a frame's head.
    Head,
    /// Before the length of a DATA frame's padding, which counts as payload, as does the padding.
    PadLength { stream: u32, left: usize, ends: bool },
    /// In the data of a frame; then padding.
    Data { stream: u32, left: usize, padding: usize, ends: bool },
    /// In a payload that is needed whole.
    Payload { head: Head, held: Vec<u8> },
    /// In bytes that mean nothing here.
    Skip(usize),
}

/// A header block that has come in part.
#[derive(Debug)]
pub(super) struct Block {
    stream: u32,
    ends: bool,
    bytes: Vec<u8>,
}

impl Block {
    /// How much has come.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl Connection {
    /// Takes in what was read, up to the next event; the rest stays in `bytes`. `None` when nothing is left. Call it
    /// again until then.
    pub fn receive<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Event<'a>> {
        loop {
            if self.phase == Phase::Broken {
                *bytes = &[];
                return None;
            }
            if let Some(stream) = self.ended.take()
                && self.streams.contains_key(&stream)
            {
                return Some(Event::Ended { stream: StreamId(stream) });
            }
            if bytes.is_empty() {
                return None;
            }
            match self.read(bytes) {
                Ok(None) => {}
                Ok(Some(event)) => return Some(event),
                Err(reason) => self.fail(reason),
            }
        }
    }

    /// Reads at least one byte.
    fn read<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Event<'a>>, Reason> {
        match &mut self.reading {
            Reading::Preface(matched) => {
                let now = take(bytes, PREFACE.len() - *matched);
                if !PREFACE[*matched..].starts_with(now) {
                    return Err(Reason::Protocol);
                }
                *matched += now.len();
                if *matched == PREFACE.len() {
                    self.reading = Reading::Head;
                }
                Ok(None)
            }
            Reading::Head => {
                let held = usize::from(self.held);
                let now = take(bytes, frame::HEAD - held);
                self.head[held..held + now.len()].copy_from_slice(now);
                self.held += now.len() as u8;
                if usize::from(self.held) < frame::HEAD {
                    return Ok(None);
                }
                self.held = 0;
                self.begin_frame(Head::parse(self.head), bytes)
            }
            Reading::PadLength { stream, left, ends } => {
                let padding = usize::from(take(bytes, 1)[0]);
                let (stream, ends) = (*stream, *ends);
                let left = (*left - 1).checked_sub(padding).ok_or(Reason::Protocol)?;
                self.reading = Reading::Data { stream, left, padding, ends };
                self.release(StreamId(stream), 1 + padding);
                if left == 0 {
                    self.end_data();
                }
                Ok(None)
            }
            Reading::Data { stream, left, .. } => {
                let data = take(bytes, *left);
                *left -= data.len();
                let (stream, is_whole) = (*stream, *left == 0);
                let is_heard = self.streams.get(&stream).is_some_and(|stream| !stream.is_remote_done);
                if is_whole {
                    self.end_data();
                }
                if is_heard {
                    return Ok(Some(Event::Data { stream: StreamId(stream), data }));
                }
                self.release_on_connection(data.len());
                Ok(None)
            }
            Reading::Payload { head, held } => {
                let head = *head;
                held.extend_from_slice(take(bytes, head.len - held.len()));
                if held.len() < head.len {
                    return Ok(None);
                }
                let payload = std::mem::take(held);
                self.reading = Reading::Head;
                self.frame(head, &payload)
            }
            Reading::Skip(left) => {
                *left -= take(bytes, *left).len();
                if *left == 0 {
                    self.reading = Reading::Head;
                }
                Ok(None)
            }
        }
    }

    /// The data of a frame has come.
    fn end_data(&mut self) {
        let Reading::Data { stream, padding, ends, .. } = self.reading else { return };
        self.reading = if padding > 0 { Reading::Skip(padding) } else { Reading::Head };
        if ends
            && let Some(found) = self.streams.get_mut(&stream)
            && !found.is_remote_done
        {
            found.is_remote_done = true;
            self.ended = Some(stream);
        }
    }

    fn begin_frame<'a>(&mut self, head: Head, bytes: &mut &'a [u8]) -> Result<Option<Event<'a>>, Reason> {
        if head.len > MAX_PAYLOAD {
            return Err(Reason::FrameSize);
        }
        if !self.has_begun && (head.kind != frame::SETTINGS || head.has(frame::ACK)) {
            return Err(Reason::Protocol);
        }
        // RFC 9113, 6.10: nothing may come between the parts of a header block.
        let continued = self.block.as_ref().map(|block| block.stream);
        if continued.is_some_and(|stream| head.kind != frame::CONTINUATION || head.stream != stream) {
            return Err(Reason::Protocol);
        }
        match head.kind {
            frame::DATA => self.begin_data(head),
            frame::HEADERS
            | frame::CONTINUATION
            | frame::RST_STREAM
            | frame::SETTINGS
            | frame::PING
            | frame::GOAWAY
            | frame::WINDOW_UPDATE => match bytes.split_at_checked(head.len) {
                Some((payload, rest)) => {
                    *bytes = rest;
                    self.reading = Reading::Head;
                    self.frame(head, payload)
                }
                None => {
                    self.reading = Reading::Payload { head, held: Vec::with_capacity(head.len) };
                    Ok(None)
                }
            },
            frame::PUSH_PROMISE => Err(Reason::Protocol),
            frame::PRIORITY if head.stream == 0 => Err(Reason::Protocol),
            frame::PRIORITY if head.len != 5 => Err(Reason::FrameSize),
            // Priorities are not followed, and kinds that are not known mean nothing (RFC 9113, 5.5).
            _ => {
                self.reading = if head.len > 0 { Reading::Skip(head.len) } else { Reading::Head };
                Ok(None)
            }
        }
    }

    fn begin_data<'a>(&mut self, head: Head) -> Result<Option<Event<'a>>, Reason> {
        let Head { stream, len, .. } = head;
        if stream == 0 || stream > self.last_stream {
            return Err(Reason::Protocol);
        }
        self.receive_window -= len as i64;
        if self.receive_window < 0 {
            return Err(Reason::FlowControl);
        }
        let (is_padded, ends) = (head.has(frame::PADDED), head.has(frame::END_STREAM));
        if is_padded && len == 0 {
            return Err(Reason::FrameSize);
        }
        self.reading = match (is_padded, len) {
            (true, left) => Reading::PadLength { stream, left, ends },
            (false, left) => Reading::Data { stream, left, padding: 0, ends },
        };
        let mut wrong = None;
        if let Some(found) = self.streams.get_mut(&stream) {
            found.receive_window -= len as i64;
            if found.is_remote_done {
                wrong = Some(Reason::StreamClosed);
            } else if found.receive_window < 0 {
                wrong = Some(Reason::FlowControl);
            }
        }
        let event = wrong.and_then(|reason| self.give_up(stream, reason));
        if len == 0 {
            self.end_data();
        }
        Ok(event)
    }

    /// A frame that has come whole.
    fn frame<'a>(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event<'a>>, Reason> {
        match head.kind {
            frame::SETTINGS => self.client_settings(head, payload),
            frame::PING => self.client_ping(head, payload),
            frame::GOAWAY if head.stream == 0 && payload.len() >= 8 => {
                // The client will begin no streams any more.
                self.phase = self.phase.max(Phase::Draining);
                Ok(None)
            }
            frame::WINDOW_UPDATE => self.client_window(head, payload),
            frame::RST_STREAM => {
                let code = payload.try_into().map_err(|_| Reason::FrameSize)?;
                self.is_known(head.stream)?;
                let reason = Reason::from_code(u32::from_be_bytes(code));
                let event = Event::Reset { stream: StreamId(head.stream), reason };
                Ok(self.streams.remove(&head.stream).map(|_| event))
            }
            frame::HEADERS => self.client_headers(head, payload),
            frame::CONTINUATION => {
                let Some(mut block) = self.block.take() else { return Err(Reason::Protocol) };
                if block.bytes.len() + payload.len() > self.settings.max_header_bytes as usize {
                    return Err(Reason::EnhanceYourCalm);
                }
                block.bytes.extend_from_slice(payload);
                if head.has(frame::END_HEADERS) {
                    return self.end_block(block.stream, block.ends, &block.bytes);
                }
                if payload.is_empty() {
                    // Endless frames that say nothing are an attack.
                    return Err(Reason::EnhanceYourCalm);
                }
                self.block = Some(block);
                Ok(None)
            }
            _ => Err(Reason::Protocol),
        }
    }

    fn client_settings<'a>(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event<'a>>, Reason> {
        if head.stream != 0 {
            return Err(Reason::Protocol);
        }
        let (entries, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() || head.has(frame::ACK) && !payload.is_empty() {
            return Err(Reason::FrameSize);
        }
        if head.has(frame::ACK) {
            return Ok(None);
        }
        let mut initial_window = self.initial_window;
        for [i0, i1, v0, v1, v2, v3] in entries {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            match u16::from_be_bytes([*i0, *i1]) {
                // SETTINGS_ENABLE_PUSH.
                2 if value > 1 => return Err(Reason::Protocol),
                // SETTINGS_INITIAL_WINDOW_SIZE, which holds for open streams, too (RFC 9113, 6.9.2).
                4 if i64::from(value) > MAX_WINDOW => return Err(Reason::FlowControl),
                4 => initial_window = value.into(),
                // SETTINGS_MAX_FRAME_SIZE; no frame is ever larger than the least that it may be.
                5 if !(16_384..=16_777_215).contains(&value) => return Err(Reason::Protocol),
                _ => {}
            }
        }
        self.is_initial_window_larger |= initial_window > self.initial_window;
        self.initial_window = initial_window;
        self.has_begun = true;
        self.control(frame::SETTINGS, frame::ACK, 0, &[]);
        Ok(None)
    }

    fn client_ping<'a>(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event<'a>>, Reason> {
        let payload: [u8; 8] = payload.try_into().map_err(|_| Reason::FrameSize)?;
        if head.stream != 0 {
            return Err(Reason::Protocol);
        }
        if head.has(frame::ACK) {
            return Ok(Some(Event::Pong(payload)));
        }
        // However often: rule P-75 forbids to call that too much.
        self.control(frame::PING, frame::ACK, 0, &payload);
        Ok(None)
    }

    fn client_window<'a>(&mut self, head: Head, payload: &[u8]) -> Result<Option<Event<'a>>, Reason> {
        let bytes = payload.try_into().map_err(|_| Reason::FrameSize)?;
        let more = i64::from(u32::from_be_bytes(bytes) & 0x7fff_ffff);
        if head.stream == 0 {
            self.send_window += more;
            return match more {
                0 => Err(Reason::Protocol),
                _ if self.send_window > MAX_WINDOW => Err(Reason::FlowControl),
                _ => Ok(None),
            };
        }
        self.is_known(head.stream)?;
        let Some(stream) = self.streams.get_mut(&head.stream) else { return Ok(None) };
        stream.credit += more;
        let window = stream.send_window(self.initial_window);
        if more == 0 {
            return Ok(self.give_up(head.stream, Reason::Protocol));
        }
        if window > MAX_WINDOW {
            return Ok(self.give_up(head.stream, Reason::FlowControl));
        }
        self.make_ready(head.stream);
        Ok(None)
    }

    fn client_headers<'a>(&mut self, head: Head, mut payload: &[u8]) -> Result<Option<Event<'a>>, Reason> {
        if head.stream.is_multiple_of(2) {
            return Err(Reason::Protocol);
        }
        if head.has(frame::PADDED) {
            let (padding, rest) = payload.split_first().ok_or(Reason::FrameSize)?;
            let len = rest.len().checked_sub(usize::from(*padding)).ok_or(Reason::Protocol)?;
            payload = &rest[..len];
        }
        if head.has(frame::HAS_PRIORITY) {
            payload = payload.get(5..).ok_or(Reason::FrameSize)?;
        }
        let ends = head.has(frame::END_STREAM);
        if head.has(frame::END_HEADERS) {
            return self.end_block(head.stream, ends, payload);
        }
        self.block = Some(Box::new(Block { stream: head.stream, ends, bytes: payload.to_vec() }));
        Ok(None)
    }

    /// A header block has come whole. It must be decoded whatever becomes of its stream: blocks build on each other.
    fn end_block<'a>(&mut self, stream: u32, ends: bool, block: &[u8]) -> Result<Option<Event<'a>>, Reason> {
        let most = self.settings.max_header_bytes as usize;
        let mut request = RequestHead::default();
        self.decoder.decode(block, |name, value| {
            request.add(name, value, most);
            // A few bytes of a block can stand for much. What goes far beyond the announced limit is meant to.
            if request.size() > BOMB * most { Err(Reason::EnhanceYourCalm) } else { Ok(()) }
        })?;
        if stream <= self.last_stream {
            return Ok(self.client_trailers(stream, ends));
        }
        self.last_stream = stream;
        if self.phase != Phase::Open {
            // Our GOAWAY told the client that this one was not heard.
            return Ok(None);
        }
        let refusal = if request.size() > most {
            Reason::EnhanceYourCalm
        } else if self.streams.len() >= self.settings.max_streams as usize {
            Reason::RefusedStream
        } else if let Some(head) = request.finish() {
            let mut opened = Stream::new(INITIAL_WINDOW);
            opened.is_remote_done = ends;
            self.ended = ends.then_some(stream);
            self.streams.insert(stream, Box::new(opened));
            return Ok(Some(Event::Request { stream: StreamId(stream), head: Box::new(head) }));
        } else {
            Reason::Protocol
        };
        self.control(frame::RST_STREAM, 0, stream, &(refusal as u32).to_be_bytes());
        Ok(None)
    }

    /// Trailers end the client's side; what they say is of no use to gRPC.
    fn client_trailers<'a>(&mut self, stream: u32, ends: bool) -> Option<Event<'a>> {
        let found = self.streams.get_mut(&stream)?;
        if found.is_remote_done {
            return self.give_up(stream, Reason::StreamClosed);
        }
        if !ends {
            return self.give_up(stream, Reason::Protocol);
        }
        found.is_remote_done = true;
        Some(Event::Ended { stream: StreamId(stream) })
    }

    /// Resets a stream on which the client broke a rule.
    fn give_up<'a>(&mut self, stream: u32, reason: Reason) -> Option<Event<'a>> {
        self.streams.remove(&stream)?;
        self.control(frame::RST_STREAM, 0, stream, &(reason as u32).to_be_bytes());
        Some(Event::Reset { stream: StreamId(stream), reason })
    }

    /// Streams that were never begun must not be spoken of (RFC 9113, 5.1).
    fn is_known(&self, stream: u32) -> Result<(), Reason> {
        if stream == 0 || stream > self.last_stream { Err(Reason::Protocol) } else { Ok(()) }
    }
}

/// Takes at most `most` bytes.
fn take<'a>(bytes: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (now, later) = bytes.split_at(most.min(bytes.len()));
    *bytes = later;
    now
}
