//! Follows WebSocket frame headers in one direction of a stream; no I/O. The rules are those of
//! `handoff_relay.frames`, which says them at length: both are held to the same tests.

/// What RFC 6455 calls a Close frame that bears no code.
pub const CLOSE_WITHOUT_CODE: u16 = 1005;
const REASON_MAX: usize = 123;
/// Bytes of a frame's header at most.
pub const HEADER_MAX: usize = 14;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTROL: u8 = 0x08;
const CLOSE: u8 = 0x8;

/// One direction. `messages`, `closed`, `close_code` and `valid` may be read at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Data messages whose last byte has passed.
    pub messages: u64,
    /// Payload bytes of the present frame still to come.
    left: u64,
    /// The start of a frame, not enough yet to read its header.
    head: [u8; HEADER_MAX],
    known: u8,
    /// The present frame is the last of a data message.
    ends_message: bool,
    /// The header and code of a Close frame have passed.
    pub closed: bool,
    /// False once the stream stopped being frames; nothing is learnt then.
    pub valid: bool,
    /// What that Close frame said; `CLOSE_WITHOUT_CODE` where it bore no code.
    pub close_code: Option<u16>,
}

impl Default for Follower {
    fn default() -> Self {
        Follower {
            messages: 0,
            left: 0,
            head: [0; HEADER_MAX],
            known: 0,
            ends_message: false,
            closed: false,
            valid: true,
            close_code: None,
        }
    }
}

/// What reading a header gave.
enum Header {
    /// Whole; this many bytes of it.
    Whole(usize),
    /// Too few bytes, which were kept.
    Partial,
    /// Nothing more is to be followed: the frame is a Close, or none.
    Last,
}

impl Follower {
    /// Between two frames, so that a frame may be put in here. Never behind a Close frame.
    pub fn at_boundary(&self) -> bool {
        self.valid && !self.closed && self.left == 0 && self.known == 0
    }

    /// Payload bytes that will come before the next header. All, where nothing is followed any more.
    pub fn left_in_frame(&self) -> u64 {
        if self.closed || !self.valid { u64::MAX } else { self.left }
    }

    /// Follow `size` bytes that nobody looked at: at most `left_in_frame` of them.
    pub fn skip(&mut self, size: u64) {
        if self.closed || !self.valid {
            return;
        }
        debug_assert!(size <= self.left);
        if size > 0 {
            self.left -= size;
            if self.left == 0 {
                self.messages += u64::from(self.ends_message);
            }
        }
    }

    /// Follow `data`, the stream's next bytes.
    pub fn feed(&mut self, data: &[u8]) {
        if self.closed || !self.valid {
            return;
        }
        let mut at = 0;
        if self.left > 0 {
            if (data.len() as u64) < self.left {
                self.left -= data.len() as u64;
                return;
            }
            at = self.left as usize;
            self.left = 0;
            self.messages += u64::from(self.ends_message);
        } else if self.known > 0 && !data.is_empty() {
            at = self.resume(data);
        }
        while at < data.len() {
            let rest = &data[at..];
            // Whole, short data frames are nearly all there is.
            if let [first, second, ..] = *rest {
                let size = usize::from(second & 0x7f);
                let whole = size + if second & MASKED != 0 { 6 } else { 2 };
                if first & CONTROL == 0 && size < 126 && whole <= rest.len() {
                    self.messages += u64::from(first & FIN != 0);
                    at += whole;
                    continue;
                }
            }
            at += match self.header(rest) {
                Header::Whole(head) => self.payload(head, rest.len()),
                Header::Partial | Header::Last => rest.len(),
            };
        }
    }

    /// Follow `data` up to the first frame boundary in it; how many bytes that was: all of them
    /// where there was no boundary.
    pub fn feed_to_boundary(&mut self, data: &[u8]) -> usize {
        let mut at = 0;
        while at < data.len() && !self.at_boundary() {
            if self.closed || !self.valid {
                return data.len();
            }
            // All of a payload at once, a header byte by byte: it may be all there is of a frame.
            let step = if self.left > 0 { self.left } else { 1 };
            let size = step.min((data.len() - at) as u64) as usize;
            self.feed(&data[at..at + size]);
            at += size;
        }
        at
    }

    /// Go on with a header whose start came before; how many bytes of `data` were followed.
    fn resume(&mut self, data: &[u8]) -> usize {
        let known = usize::from(self.known);
        let more = data.len().min(HEADER_MAX);
        let mut joined = [0; 2 * HEADER_MAX];
        joined[..known].copy_from_slice(&self.head[..known]);
        joined[known..known + more].copy_from_slice(&data[..more]);
        self.known = 0;
        match self.header(&joined[..known + more]) {
            Header::Whole(head) => self.payload(head - known, data.len()),
            Header::Partial | Header::Last => data.len(),
        }
    }

    /// The header took `at` of `end` bytes; how many of them belong to this frame.
    fn payload(&mut self, at: usize, end: usize) -> usize {
        let here = (end - at) as u64;
        if self.left > here {
            self.left -= here;
            return end;
        }
        let behind = at + self.left as usize;
        self.left = 0;
        self.messages += u64::from(self.ends_message);
        behind
    }

    /// Read the header at the start of `data` into `left` and `ends_message`.
    fn header(&mut self, data: &[u8]) -> Header {
        let [first, second, ..] = *data else {
            return self.keep(data);
        };
        let mut size = u64::from(second & 0x7f);
        let control = first & CONTROL != 0;
        if control && (size > 125 || first & FIN == 0) {
            self.valid = false;
            return Header::Last;
        }
        let extended = match size {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & MASKED != 0;
        let behind = 2 + extended + if masked { 4 } else { 0 };
        let closes = first & 0x0f == CLOSE;
        let code_size = if closes { size.min(2) as usize } else { 0 };
        if behind + code_size > data.len() {
            // Nothing can be believed about a length that is none, so say so at once.
            if extended == 8 && data.len() > 2 && data[2] & 0x80 != 0 {
                self.valid = false;
                return Header::Last;
            }
            return self.keep(data);
        }
        if extended > 0 {
            size = data[2..2 + extended].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
            if size >> 63 != 0 {
                self.valid = false;
                return Header::Last;
            }
        }
        if closes {
            self.closed = true;
            self.close_code = Some(code(data, behind, size, masked));
            return Header::Last;
        }
        self.left = size;
        self.ends_message = first & FIN != 0 && !control;
        Header::Whole(behind)
    }

    fn keep(&mut self, data: &[u8]) -> Header {
        self.head[..data.len()].copy_from_slice(data);
        self.known = data.len() as u8;
        Header::Partial
    }
}

fn code(data: &[u8], at: usize, size: u64, masked: bool) -> u16 {
    if size < 2 {
        return CLOSE_WITHOUT_CODE;
    }
    let (mut high, mut low) = (data[at], data[at + 1]);
    if masked {
        high ^= data[at - 4];
        low ^= data[at - 3];
    }
    u16::from_be_bytes([high, low])
}

/// Whether an endpoint may put this code into a Close frame (RFC 6455, 7.4, and IANA).
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// A Close frame; masked where a key is given, as towards a server. `reason` is cut to 123 bytes of
/// UTF-8, between characters.
pub fn close_frame(code: u16, reason: &str, mask_key: Option<[u8; 4]>) -> Vec<u8> {
    let mut cut = reason.len().min(REASON_MAX);
    while !reason.is_char_boundary(cut) {
        cut -= 1;
    }
    let mut frame = vec![FIN | CLOSE, 2 + cut as u8];
    if let Some(key) = mask_key {
        frame[1] |= MASKED;
        frame.extend_from_slice(&key);
    }
    let start = frame.len();
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(&reason.as_bytes()[..cut]);
    if let Some(key) = mask_key {
        for (at, byte) in frame[start..].iter_mut().enumerate() {
            *byte ^= key[at & 3];
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    fn follow(parts: &[&[u8]]) -> Follower {
        let mut follower = Follower::default();
        for part in parts {
            follower.feed(part);
        }
        follower
    }

    #[test]
    fn short_frames_and_their_messages() {
        let follower = follow(&[b"\x81\x03abc\x01\x01a\x80\x00\x89\x00"]);
        assert_eq!(follower.messages, 2);
        assert!(follower.at_boundary());
    }

    #[test]
    fn a_close_frame_in_single_bytes() {
        let frame = close_frame(4001, "enough", Some([1, 2, 3, 4]));
        let mut follower = Follower::default();
        for byte in &frame {
            follower.feed(std::slice::from_ref(byte));
        }
        assert_eq!(follower.close_code, Some(4001));
        assert!(follower.closed && !follower.at_boundary());
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let frame = close_frame(1000, &"é".repeat(100), None);
        assert_eq!(frame.len(), 2 + 2 + 122);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }

    #[test]
    fn what_cannot_be_a_length_ends_the_following() {
        assert!(!follow(&[b"\x82\x7f\x80"]).valid);
        assert!(!follow(&[b"\x89\x7e"]).valid);
        assert!(!follow(&[b"\x08\x00"]).valid);
    }

    /// However a stream is cut, the same is learnt from it; a boundary is found where it is.
    #[test]
    fn splits_change_nothing() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..2000 {
            let size = next() as usize % 300;
            // Small values make headers of what is otherwise noise.
            let stream: Vec<u8> = (0..size)
                .map(|_| match next() % 4 {
                    0 => 0x81,
                    1 => (next() % 8) as u8,
                    2 => 0x82,
                    _ => next() as u8,
                })
                .collect();
            let whole = follow(&[&stream]);
            let mut parts = Follower::default();
            let mut stepped = Follower::default();
            let mut at = 0;
            while at < size {
                let end = (at + 1 + next() as usize % 9).min(size);
                parts.feed(&stream[at..end]);
                let found = stepped.feed_to_boundary(&stream[at..end]);
                stepped.feed(&stream[at + found..end]);
                at = end;
            }
            let learnt = |follower: &Follower| {
                let known = follower.head[..usize::from(follower.known)].to_vec();
                let ends = follower.left > 0 && follower.ends_message;
                let code = (follower.closed, follower.close_code);
                (follower.messages, follower.left, known, ends, code, follower.valid)
            };
            assert_eq!(learnt(&whole), learnt(&parts));
            assert_eq!(learnt(&whole), learnt(&stepped));
        }
    }

    /// From the rules alone, reading the whole stream anew: messages, the code of a Close frame,
    /// whether the stream is valid, and whether it is between two frames.
    fn slowly(stream: &[u8]) -> (u64, Option<u16>, bool, bool) {
        let (mut messages, mut at) = (0, 0);
        let big = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
        while at < stream.len() {
            let partial = (messages, None, true, false);
            let Some(&second) = stream.get(at + 1) else { return partial };
            let (fin, opcode) = (stream[at] >= 0x80, stream[at] % 16);
            let mut size = u64::from(second % 128);
            if opcode >= 8 && (size > 125 || !fin) {
                return (messages, None, false, false);
            }
            let mut start = at + 2;
            if size >= 126 {
                let width = if size == 126 { 2 } else { 8 };
                if width == 8 && stream.get(start).is_some_and(|&byte| byte >= 0x80) {
                    return (messages, None, false, false);
                }
                let Some(length) = stream.get(start..start + width) else { return partial };
                size = big(length);
                start += width;
            }
            let mut key = [0; 4];
            if second >= 0x80 {
                let Some(found) = stream.get(start..start + 4) else { return partial };
                key.copy_from_slice(found);
                start += 4;
            }
            let payload = &stream[start..];
            if opcode == 8 {
                if size < 2 {
                    return if (payload.len() as u64) < size {
                        partial
                    } else {
                        (messages, Some(CLOSE_WITHOUT_CODE), true, false)
                    };
                }
                let [high, low, ..] = *payload else { return partial };
                let code = u16::from_be_bytes([high ^ key[0], low ^ key[1]]);
                return (messages, Some(code), true, false);
            }
            if (payload.len() as u64) < size {
                return partial;
            }
            messages += u64::from(fin && opcode < 8);
            at = start + size as usize;
        }
        (messages, None, true, true)
    }

    /// For HANDOFF_FUZZ_SECONDS, with streams that are nearly frames.
    #[test]
    fn a_slow_reader_learns_the_same() {
        let wanted = std::env::var("HANDOFF_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
        let over = Instant::now() + Duration::from_secs_f64(wanted.unwrap_or(0.5));
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
        let mut state = seed;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        while Instant::now() < over {
            let mut stream = Vec::new();
            for _ in 0..next() % 9 {
                let first = [0x81, 0x82, 0x01, 0x80, 0x89, 0x8a, 0x88, next() as u8];
                // A Close frame ends what is followed, so that it is rarer.
                stream.push(first[(next() % if next() % 4 == 0 { 8 } else { 6 }) as usize]);
                let size = [0, 1, 2, 5, 125, 126, 300, 70_000][(next() % 8) as usize];
                let mask = (next() % 2 * 128) as u8;
                match (next() % 4, size) {
                    (0, _) => {
                        stream.push(127 | mask);
                        stream.extend((size as u64).to_be_bytes());
                    }
                    (_, 0..=125) => stream.push(size as u8 | mask),
                    (_, 126..=65_535) => {
                        stream.push(126 | mask);
                        stream.extend((size as u16).to_be_bytes());
                    }
                    _ => stream.push(next() as u8),
                }
                let behind = size + if mask > 0 { 4 } else { 0 };
                stream.extend((0..behind).map(|_| next() as u8));
            }
            for _ in 0..next() % 3 {
                let at = next() as usize % (stream.len() + 1);
                match next() % 3 {
                    0 => stream.truncate(at),
                    1 => stream.insert(at, next() as u8),
                    _ => stream.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 0x80),
                }
            }
            let mut follower = Follower::default();
            let mut at = 0;
            while at < stream.len() {
                let most = [3, 20, 100_000][(next() % 3) as usize];
                let end = (at + 1 + next() as usize % most).min(stream.len());
                if next() % 4 == 0 {
                    at += follower.feed_to_boundary(&stream[at..end]);
                }
                follower.feed(&stream[at..end]);
                at = end;
            }
            let boundary = follower.at_boundary();
            let learnt = (follower.messages, follower.close_code, follower.valid, boundary);
            assert_eq!(learnt, slowly(&stream), "seed {seed}, {:?}", &stream);
            assert_eq!(follower.closed, follower.close_code.is_some());
        }
    }
}
