//! One tunnel: two sides, what each is owed, and what becomes of what they do.
//!
//! The course is that of the Python relay (`pair`, `flow`, `python`), which says the reasons at
//! length. Functions that move bytes (`moving`) only mark what they met; `proceed` draws the
//! conclusions, last of all.

mod moving;

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustix::event::epoll::EventFlags;

use crate::context::{Context, Name};
use crate::frames::Follower;
use crate::pace::Pace;
use crate::port::{ClosedBy, EndRecord, Limits, Shared};
use crate::sockets::{self, Pipe};
use crate::stream::Stream;

pub const CLIENT: usize = 0;
pub const ORIGIN: usize = 1;

const GOING_AWAY: u16 = 1001;

/// Bytes for a side that the kernel has not taken yet, and how many of them were sent already.
#[derive(Default)]
struct Queue {
    data: Vec<u8>,
    at: usize,
    /// How many bytes at the end are of a Close frame of ours.
    own: usize,
}

/// What was sent is given back in portions of at least this, or it costs more than it saves.
const GIVE_BACK_MIN: usize = 16 * 1024;

impl Queue {
    fn rest(&self) -> &[u8] {
        &self.data[self.at..]
    }

    /// So many bytes more were sent. Memory follows: it never is more than twice the rest, or
    /// GIVE_BACK_MIN beyond it; and in all no more bytes are moved up than were sent.
    fn advance(&mut self, count: usize) {
        self.at += count;
        self.own = self.own.min(self.rest().len());
        if self.at >= GIVE_BACK_MIN && self.at >= self.data.len() / 2 {
            // Anew: shrunk where it is, it would leave a hole that no other queue fits in.
            self.data = self.rest().to_vec();
            self.at = 0;
        }
    }
}

/// One socket of a tunnel: what goes *to* it is queued, what comes *from* it is followed.
pub struct Side {
    pub stream: Stream,
    pub follower: Follower,
    /// While there is anything, the other side is not read: that is all the back-pressure there is.
    queue: Option<Box<Queue>>,
    /// As the queue, and in front of it: bytes that never came into this process.
    pipe: Option<Box<Pipe>>,
    /// Bytes given to TLS and not counted as sent yet; and how many at their end are of a Close
    /// frame of ours.
    in_tls: usize,
    own_in_tls: usize,
    /// Nothing more comes from this side.
    eof: bool,
    /// By TLS: it is read no more, since the other's end could be passed on only as an end of both
    /// directions. It may still be sending.
    dismissed: bool,
    /// Nothing more can be sent to it.
    broken: bool,
    /// It was told that nothing more comes.
    fin_sent: bool,
    /// What the other side still says is dropped: our Close frame was put behind what went before,
    /// or none can be.
    sealed: bool,
    /// Our Close frame was put into its queue.
    told: bool,
    /// Waits for its pace before it is read on.
    pub paced: bool,
    /// The last that was sent to it waits for more to come.
    corked: bool,
    /// Full reads in a row.
    streak: u8,
    /// Its kind of socket cannot be read by splice.
    opaque: bool,
    events: EventFlags,
    registered: bool,
}

impl Side {
    fn new(stream: Stream) -> Side {
        Side {
            stream,
            follower: Follower::default(),
            queue: None,
            pipe: None,
            in_tls: 0,
            own_in_tls: 0,
            eof: false,
            dismissed: false,
            broken: false,
            fin_sent: false,
            sealed: false,
            told: false,
            paced: false,
            corked: false,
            streak: 0,
            opaque: false,
            events: EventFlags::empty(),
            registered: false,
        }
    }

    /// Whether something waits to be sent to it.
    fn pending(&self) -> bool {
        self.queue.is_some() || self.pipe.is_some() || self.in_tls > 0
    }

    fn held(&self) -> usize {
        let queued = self.queue.as_ref().map_or(0, |queue| queue.rest().len());
        queued + self.pipe.as_ref().map_or(0, |pipe| pipe.held) + self.in_tls
    }

    fn give_up(&mut self, shared: &Shared, at: usize) {
        self.count_in_tls(shared, at);
        self.broken = true;
        self.queue = None;
        self.pipe = None;
    }

    /// TLS will get nothing more out of what it was given: what the kernel did take of it counts.
    fn count_in_tls(&mut self, shared: &Shared, at: usize) {
        if let Stream::Tls(tls) = &self.stream {
            let taken = self.in_tls.saturating_sub(tls.untaken());
            shared.add_sent(at, taken.min(self.in_tls - self.own_in_tls));
        }
        (self.in_tls, self.own_in_tls) = (0, 0);
    }

    /// Whether nothing more is read of it.
    fn done(&self) -> bool {
        self.eof || self.dismissed
    }

    /// At an orderly end: whether there is nothing to wait for from it.
    fn answered(&self) -> bool {
        (self.done() || self.broken || self.follower.closed || (self.sealed && !self.told))
            && (!self.pending() || self.broken)
    }
}

/// What a tunnel is told to be over by.
struct Cause {
    text: Cow<'static, str>,
    closed_by: ClosedBy,
    /// It is a mere FIN, and gives way to an end that the edge makes.
    yields: bool,
}

pub struct Tunnel {
    pub name: Name,
    pub shared: Arc<Shared>,
    token: u64,
    pub sides: [Side; 2],
    limits: Limits,
    pub pace: Option<Rc<RefCell<Pace>>>,
    started_ns: i64,
    /// When a byte last moved.
    last_ns: i64,
    cause: Option<Cause>,
    /// A peer said that it ends.
    half_closed: bool,
    /// Code and reason of an orderly end.
    close: Option<Box<(u16, String)>>,
    /// Until when that end waits.
    ending_ns: Option<i64>,
}

/// What becomes of a tunnel after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Course {
    Goes,
    Over,
}

impl Tunnel {
    pub fn new(
        name: Name,
        shared: Arc<Shared>,
        token: u64,
        streams: [Stream; 2],
        limits: Limits,
        pace: Option<Rc<RefCell<Pace>>>,
        now_ns: i64,
    ) -> Tunnel {
        Tunnel {
            name,
            shared,
            token,
            sides: streams.map(Side::new),
            limits,
            pace,
            started_ns: now_ns,
            last_ns: now_ns,
            cause: None,
            half_closed: false,
            close: None,
            ending_ns: None,
        }
    }

    /// What was read before the tunnel was there goes through it first.
    pub fn begin(
        &mut self,
        context: &mut Context,
        to_origin: &[u8],
        to_client: &[u8],
        client_eof: bool,
    ) -> Course {
        for (side, early) in [(CLIENT, to_origin), (ORIGIN, to_client)] {
            if !early.is_empty() {
                context.buffer[..early.len()].copy_from_slice(early);
                self.arrived(context, side, early.len(), false);
            }
        }
        if client_eof {
            self.finished(context, CLIENT, None);
        }
        for side in [CLIENT, ORIGIN] {
            if let Stream::Tls(tls) = &mut self.sides[side].stream {
                tls.more = true;
            }
        }
        self.proceed(context)
    }

    // --- from the event loop ---------------------------------------------------------------------

    /// A side can be read, or written, or is in error.
    pub fn on_events(&mut self, context: &mut Context, at: usize, events: EventFlags) -> Course {
        let watched = self.sides[at].events;
        if watched.is_empty() {
            return self.hung_up(context, at);
        }
        let mut ready = events;
        if events.intersects(EventFlags::ERR | EventFlags::HUP) {
            ready = watched;
        }
        if ready.contains(EventFlags::OUT) {
            if self.sides[at].pending() {
                self.last_ns = context.now_ns;
            }
            self.flush(context, at);
            self.attend(context, 1 - at);
        }
        if ready.contains(EventFlags::IN) && self.readable(at) {
            self.read(context, at);
        }
        if self.half_closed || self.ending_ns.is_some() {
            return self.proceed(context);
        }
        self.attend(context, at);
        Course::Goes
    }

    /// An error or a hang-up of a side that is neither read nor written now.
    fn hung_up(&mut self, context: &mut Context, at: usize) -> Course {
        if let Some(error) = sockets::pending_error(self.sides[at].stream.fd()) {
            self.lost(context, at, &error);
        }
        // Epoll would tell of it again and again. Whatever it sent before can still be read later.
        self.ignore(context, at);
        self.proceed(context)
    }

    /// Read a side without having been told by epoll that there is something.
    pub fn read_on(&mut self, context: &mut Context, at: usize) -> Course {
        if self.readable(at) {
            self.read(context, at);
        }
        self.proceed(context)
    }

    /// A deadline of this tunnel may have come.
    pub fn check(&mut self, context: &mut Context) -> Course {
        if self.sides.iter().any(|side| side.paced) {
            // It is not the peers who are silent.
            self.last_ns = context.now_ns;
        }
        let due = self.due_ns();
        if context.now_ns < due {
            context.wheel.place(tunnel_entry(self.name.key), due);
            return Course::Goes;
        }
        if self.ending_ns.is_some() {
            return Course::Over;
        }
        let age_ns = context.now_ns - self.started_ns;
        if self.limits.max_duration_ns.is_some_and(|longest| age_ns >= longest) {
            self.end(context, GOING_AWAY, "maximum duration reached", "max_duration".into())
        } else if self.half_closed {
            self.end(context, GOING_AWAY, "the other side has closed", "".into())
        } else {
            self.end(context, GOING_AWAY, "idle for too long", "idle_timeout".into())
        }
    }

    /// The next instant at which something is to be done if no byte moves until then.
    pub fn due_ns(&self) -> i64 {
        if let Some(ending_ns) = self.ending_ns {
            return ending_ns;
        }
        let limits = &self.limits;
        let quiet = if self.half_closed { limits.half_closed_ns } else { limits.idle_ns };
        let due = self.last_ns.saturating_add(quiet);
        match limits.max_duration_ns {
            Some(longest) => due.min(self.started_ns.saturating_add(longest)),
            None => due,
        }
    }

    // --- the course ------------------------------------------------------------------------------

    /// Keep the first cause; one of the edge's own takes the place of a mere FIN.
    pub fn note(&mut self, text: Cow<'static, str>, closed_by: ClosedBy, yields: bool) {
        let open = match &self.cause {
            None => true,
            Some(cause) => cause.yields && closed_by == ClosedBy::Edge,
        };
        if open {
            self.cause = Some(Cause { text, closed_by, yields });
        }
    }

    fn half_close(&mut self, context: &mut Context) {
        if !self.half_closed {
            self.half_closed = true;
            self.last_ns = context.now_ns;
            let due = self.due_ns();
            context.wheel.advance(tunnel_entry(self.name.key), due);
        }
    }

    /// Pass ends on, see whether both sides came to theirs, and wait for what is next.
    fn proceed(&mut self, context: &mut Context) -> Course {
        for at in [CLIENT, ORIGIN] {
            if self.owed_end(at) {
                self.pass_end(context, at);
            }
        }
        if self.is_over() {
            return Course::Over;
        }
        self.attend(context, CLIENT);
        self.attend(context, ORIGIN);
        Course::Goes
    }

    /// Whether both sides have come to their end.
    fn is_over(&self) -> bool {
        if self.ending_ns.is_some() {
            return self.sides.iter().all(Side::answered);
        }
        [CLIENT, ORIGIN].into_iter().all(|at| {
            let (side, other) = (&self.sides[at], &self.sides[1 - at]);
            other.broken || (side.done() && !other.pending())
        })
    }

    /// An orderly end. Without a cause, the present one stays.
    pub fn end(
        &mut self,
        context: &mut Context,
        code: u16,
        reason: &str,
        cause: Cow<'static, str>,
    ) -> Course {
        if self.ending_ns.is_some() {
            return Course::Goes;
        }
        if !cause.is_empty() {
            self.note(cause, ClosedBy::Edge, false);
        }
        self.close = Some(Box::new((code, reason.to_owned())));
        let due = context.now_ns.saturating_add(self.limits.close_grace_ns);
        self.ending_ns = Some(due);
        context.wheel.place(tunnel_entry(self.name.key), due);
        self.seal(context, CLIENT);
        self.seal(context, ORIGIN);
        self.proceed(context)
    }

    /// A fault of ours ended it.
    pub fn fail(&mut self, cause: &'static str) {
        self.cause = Some(Cause { text: cause.into(), closed_by: ClosedBy::Edge, yields: false });
    }

    /// How it ended, for good.
    pub fn conclude(&mut self) -> EndRecord {
        for (at, side) in self.sides.iter_mut().enumerate() {
            side.count_in_tls(&self.shared, at);
        }
        let (cause, closed_by) = match &self.cause {
            Some(cause) => (cause.text.clone(), cause.closed_by),
            None => (Cow::Borrowed(""), ClosedBy::Edge),
        };
        let close_code = match closed_by {
            ClosedBy::Client => self.sides[CLIENT].follower.close_code,
            ClosedBy::Origin => self.sides[ORIGIN].follower.close_code,
            ClosedBy::Edge => {
                let told = self.sides.iter().any(|side| side.told);
                self.close.as_ref().filter(|_| told).map(|close| close.0)
            }
        };
        EndRecord {
            token: self.token,
            cause,
            closed_by,
            close_code,
            counters: self.shared.counters(),
            messages: self.shared.messages(),
        }
    }

    /// Let go of both sockets. `cut`: without any ceremony.
    pub fn release(self: Box<Self>, context: &mut Context, cut: bool) {
        for mut side in self.sides {
            let mut lingers = !(cut || side.eof || side.broken || side.queue.is_some());
            if !cut && (lingers || side.stream.is_tls()) {
                if let Stream::Tls(tls) = &mut side.stream {
                    tls.say_end();
                }
                lingers &= sockets::say_end(side.stream.fd()).is_ok();
            }
            if lingers && side.registered {
                context.linger(side.stream);
            } else if side.registered {
                context.unwatch(side.stream.fd());
            }
        }
    }

    // --- ends ------------------------------------------------------------------------------------

    /// Nothing more comes from this side, in order or with the error that was met.
    fn finished(&mut self, context: &mut Context, at: usize, error: Option<io::Error>) {
        let side = &mut self.sides[at];
        side.eof = true;
        if let Some(error) = error {
            return self.lost(context, at, &error);
        }
        let tls = side.stream.is_tls();
        if tls {
            // It takes nothing more either: TLS has no half-close.
            side.give_up(&self.shared, at);
            settle(context, side, &self.shared, at);
        }
        self.note(closed_cause(at), peer(at), !tls);
        self.half_close(context);
    }

    /// The connection to this side is gone; what came from it before may still be unread.
    fn lost(&mut self, context: &mut Context, at: usize, error: &io::Error) {
        let side = &mut self.sides[at];
        side.give_up(&self.shared, at);
        settle(context, side, &self.shared, at);
        if error.kind() == io::ErrorKind::InvalidData {
            // A broken TLS layer reads no more either.
            side.eof = true;
        }
        if sockets::is_dead(error) {
            self.note("dead_peer".into(), peer(at), false);
        } else {
            let cause = if at == CLIENT { "client_reset" } else { "origin_reset" };
            self.note(cause.into(), peer(at), false);
        }
        self.half_close(context);
    }

    /// Whether it is time to tell it that nothing more comes: all that came was written, or it
    /// answered our Close frame, and need not wait for the other peer's answer.
    fn owed_end(&self, at: usize) -> bool {
        let (side, other) = (&self.sides[at], &self.sides[1 - at]);
        if side.fin_sent || side.broken || side.pending() {
            return false;
        }
        other.done() || (side.told && side.answered())
    }

    /// Tell this side that nothing more comes.
    fn pass_end(&mut self, context: &mut Context, at: usize) {
        let closed = self.sides[1 - at].follower.closed;
        let side = &mut self.sides[at];
        if side.stream.is_tls() {
            // Being told, it could answer nothing; after a Close frame it knows and will answer,
            // once: then it waits for this end.
            let answers = side.follower.valid && !side.follower.closed;
            if !(side.told || (closed && answers)) {
                side.dismissed = true;
            }
            return;
        }
        match sockets::say_end(side.stream.fd()) {
            Ok(()) => side.fin_sent = true,
            Err(error) => self.lost(context, at, &error),
        }
    }
}

/// What TLS holds is sent once the kernel has all of it; say what is held.
fn settle(context: &mut Context, side: &mut Side, shared: &Shared, at: usize) {
    if side.in_tls > 0 {
        if let Stream::Tls(tls) = &side.stream {
            if !tls.conn.wants_write() {
                shared.add_sent(at, side.in_tls - side.own_in_tls);
                (side.in_tls, side.own_in_tls) = (0, 0);
            }
        }
    }
    let held = side.held();
    context.held = context.held + held - shared.set_held(at, held);
}

/// How the wheel knows a tunnel.
pub fn tunnel_entry(key: u32) -> u32 {
    key << 1
}

fn closed_cause(at: usize) -> Cow<'static, str> {
    if at == CLIENT { "client_closed".into() } else { "origin_closed".into() }
}

fn peer(at: usize) -> ClosedBy {
    if at == CLIENT { ClosedBy::Client } else { ClosedBy::Origin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_of_a_queue_is_given_back() {
        let data: Vec<u8> = (0..200_000_u32).map(|number| number as u8).collect();
        let mut queue = Queue { data: data.clone(), at: 0, own: 7 };
        let mut sent = 0;
        while !queue.rest().is_empty() {
            assert_eq!(queue.rest(), &data[sent..]);
            let rest = queue.rest().len();
            assert!(queue.data.capacity() <= (2 * rest).max(rest + GIVE_BACK_MIN) + 1);
            let count = rest.min(1_999);
            queue.advance(count);
            sent += count;
        }
        assert_eq!((sent, queue.own), (200_000, 0));
    }
}
