//! What a tunnel waits for, and how bytes come into it and leave it.
//!
//! Nothing in here ends a tunnel: what is met is noted, and `proceed` draws the conclusions.

use std::io;

use rustix::event::epoll::EventFlags;

use super::{CLIENT, ORIGIN, Queue, Tunnel, closed_cause, peer, settle};
use crate::context::Context;
use crate::frames::{HEADER_MAX, close_frame};
use crate::sockets::{self, IN_FLIGHT_MAX};
use crate::stream::{Received, Stream};

/// A payload of which at least this is still to come may bypass this process.
const SPLICE_MIN: u64 = 128 * 1024;
/// It costs more than a read where it brings less than this.
const SPLICE_FEW: usize = 16 * 1024;
/// So many full reads in a row make bulk of a stream.
const SPLICE_STREAK: u8 = 2;
/// A read of at least this is full.
const FULL_READ: usize = 64 * 1024;

impl Tunnel {
    // --- what is waited for ----------------------------------------------------------------------

    /// Whether reading it makes sense now.
    pub(super) fn readable(&self, at: usize) -> bool {
        let (side, other) = (&self.sides[at], &self.sides[1 - at]);
        !(side.done() || side.paced) && (other.sealed || !(other.pending() || other.broken))
    }

    /// Watch for what this side waits for now.
    pub(super) fn attend(&mut self, context: &mut Context, at: usize) {
        let readable = self.readable(at);
        let side = &mut self.sides[at];
        let mut events = EventFlags::empty();
        if readable {
            events |= EventFlags::IN;
        }
        let mut more = false;
        let unflushed = match &side.stream {
            Stream::Tls(tls) => {
                more = tls.more;
                tls.conn.wants_write()
            }
            Stream::Plain(_) => false,
        };
        if !side.broken && (side.pending() || unflushed) {
            events |= EventFlags::OUT;
        }
        if readable && more {
            context.again.push((self.name.key, at));
        }
        if events == side.events && (side.registered || events.is_empty()) {
            return;
        }
        let watched = context.watch(side.stream.fd(), side.registered, self.name, at, events);
        side.registered |= watched;
        side.events = events;
    }

    /// Not even its errors, until it is attended to again.
    pub(super) fn ignore(&mut self, context: &mut Context, at: usize) {
        let side = &mut self.sides[at];
        if side.registered {
            context.unwatch(side.stream.fd());
            side.registered = false;
            side.events = EventFlags::empty();
        }
    }

    /// Have errors told from the start, whatever else is waited for.
    pub fn register(&mut self, context: &mut Context) {
        for (at, side) in self.sides.iter_mut().enumerate() {
            let none = EventFlags::empty();
            side.registered = context.watch(side.stream.fd(), false, self.name, at, none);
        }
    }

    // --- in --------------------------------------------------------------------------------------

    /// Receive once and send on; where it is bulk, up to the end of what epoll told of.
    pub(super) fn read(&mut self, context: &mut Context, at: usize) {
        let most = context.read_most();
        if most == IN_FLIGHT_MAX && self.is_bulk(at) {
            // As much as a read would bring, frame by frame; then it is the others' turn.
            let until = self.shared.received(at) + IN_FLIGHT_MAX as u64;
            while self.read_bulk(context, at) && self.shared.received(at) < until {}
            self.uncork(1 - at);
        } else {
            self.receive(context, at, most, false);
        }
    }

    /// Long payloads go by splice, and what is between them, which must be seen, by itself: the
    /// rest of a frame and the next one's header.
    ///
    /// True where there may be more of it now.
    fn read_bulk(&mut self, context: &mut Context, at: usize) -> bool {
        let left = self.sides[at].follower.left_in_frame();
        if left < SPLICE_MIN {
            let size = left as usize + HEADER_MAX;
            let whole = self.receive(context, at, size, true) == size;
            if !(whole && self.is_bulk(at) && self.readable(at)) {
                return false;
            }
            if self.sides[at].follower.left_in_frame() < SPLICE_MIN {
                // Small frames: as many as there are are read at once.
                self.sides[at].streak = 0;
                return false;
            }
        }
        self.splice(context, at) && self.is_bulk(at) && self.readable(at)
    }

    /// How many bytes came.
    ///
    /// bulk: a long payload that this brings the start of is sent on at once.
    fn receive(&mut self, context: &mut Context, at: usize, mut size: usize, bulk: bool) -> usize {
        let sealed = self.sides[1 - at].sealed;
        if let Some(pace) = &self.pace {
            if !sealed {
                size = size.min(pace.borrow_mut().share(context.now_ns));
                if size == 0 {
                    pace.borrow_mut().waiting += 1;
                    self.sides[at].paced = true;
                    context.waiting.push_back((self.name.key, at));
                    return 0;
                }
            }
        }
        let side = &mut self.sides[at];
        let received = match &mut side.stream {
            Stream::Plain(fd) => match sockets::receive(fd, &mut context.buffer[..size]) {
                Ok(Some(0)) => Received::End(0, None),
                Ok(Some(count)) => Received::Some(count),
                Ok(None) => Received::Blocked,
                Err(error) => Received::End(0, Some(error)),
            },
            Stream::Tls(tls) => tls.receive(&mut context.buffer[..size], &mut context.scratch[..]),
        };
        match received {
            Received::Some(count) => {
                if !bulk {
                    let full = count >= FULL_READ;
                    side.streak = if full { side.streak.saturating_add(1) } else { 0 };
                }
                self.arrived(context, at, count, bulk);
                count
            }
            Received::Blocked => 0,
            Received::End(count, error) => {
                if count > 0 {
                    self.arrived(context, at, count, false);
                }
                self.finished(context, at, error);
                count
            }
        }
    }

    /// Whether so much comes from this side that what need not be seen of it is to bypass us.
    fn is_bulk(&self, at: usize) -> bool {
        let (side, other) = (&self.sides[at], &self.sides[1 - at]);
        side.streak >= SPLICE_STREAK
            && self.pace.is_none()
            && self.ending_ns.is_none()
            && !other.sealed
            && !(side.opaque || side.stream.is_tls())
            && !other.stream.is_tls()
    }

    /// From one socket to the other inside the kernel. True where all that was asked for came, and
    /// went.
    fn splice(&mut self, context: &mut Context, at: usize) -> bool {
        let Some(mut pipe) = context.take_pipe() else {
            self.sides[at].streak = 0;
            return false;
        };
        let [client, origin] = &mut self.sides;
        let (side, other) = if at == CLIENT { (client, origin) } else { (origin, client) };
        let size = side.follower.left_in_frame().min(IN_FLIGHT_MAX as u64) as usize;
        let whole;
        let error = match pipe.fill(side.stream.fd(), size) {
            Ok(None) => {
                context.give_pipe(pipe);
                return false;
            }
            Ok(Some(0)) => {
                context.give_pipe(pipe);
                self.finished(context, at, None);
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                side.opaque = true;
                return false;
            }
            Err(error) => {
                context.give_pipe(pipe);
                self.finished(context, at, Some(error));
                return false;
            }
            Ok(Some(count)) => {
                whole = count == size;
                if count < SPLICE_FEW.min(size) {
                    side.streak = 0;
                }
                side.follower.skip(count as u64);
                self.shared.add_received(at, count);
                self.shared.set_messages(at, side.follower.messages);
                self.last_ns = context.now_ns;
                match pipe.drain(other.stream.fd()) {
                    Ok(sent) => {
                        other.corked &= sent == 0;
                        self.shared.add_sent(1 - at, sent);
                        None
                    }
                    Err(error) => Some(error),
                }
            }
        };
        if let Some(error) = error {
            self.lost(context, 1 - at, &error);
            return false;
        }
        if pipe.held > 0 {
            other.pipe = Some(Box::new(pipe));
            settle(context, other, &self.shared, 1 - at);
            self.attend(context, 1 - at);
            return false;
        }
        context.give_pipe(pipe);
        whole
    }

    /// `size` bytes from this side are in the buffer.
    pub(super) fn arrived(&mut self, context: &mut Context, at: usize, size: usize, bulk: bool) {
        self.shared.add_received(at, size);
        self.last_ns = context.now_ns;
        if self.sides[1 - at].sealed {
            self.follow(context, at, 0, size);
            return;
        }
        if let Some(pace) = &self.pace {
            pace.borrow_mut().spend(size);
        }
        if self.ending_ns.is_some() {
            self.arrived_at_the_end(context, at, size);
            return;
        }
        self.follow(context, at, 0, size);
        if self.sides[at].follower.closed {
            self.note(closed_cause(at), peer(at), false);
            self.half_close(context);
        }
        let more = bulk && self.sides[at].follower.left_in_frame() >= SPLICE_MIN;
        self.send(context, 1 - at, size, more);
    }

    fn follow(&mut self, context: &Context, at: usize, start: usize, end: usize) {
        let follower = &mut self.sides[at].follower;
        follower.feed(&context.buffer[start..end]);
        self.shared.set_messages(at, follower.messages);
    }

    /// An orderly end was asked for, and no boundary was found yet.
    fn arrived_at_the_end(&mut self, context: &mut Context, at: usize, size: usize) {
        let boundary = self.sides[at].follower.feed_to_boundary(&context.buffer[..size]);
        if self.sides[at].follower.at_boundary() && !self.sides[1 - at].follower.closed {
            self.send(context, 1 - at, boundary, false);
            self.seal(context, 1 - at);
            self.follow(context, at, boundary, size);
        } else {
            self.follow(context, at, boundary, size);
            self.send(context, 1 - at, size, false);
            self.seal(context, 1 - at);
        }
    }

    // --- out -------------------------------------------------------------------------------------

    /// Send the first `size` bytes of the buffer; what the kernel does not take is queued.
    /// more: what follows at once belongs into the same packet.
    fn send(&mut self, context: &mut Context, at: usize, size: usize, more: bool) {
        let side = &mut self.sides[at];
        if side.broken || size == 0 {
            return;
        }
        debug_assert!(side.queue.is_none() && side.pipe.is_none());
        let data = &context.buffer[..size];
        let taken = match &mut side.stream {
            Stream::Plain(fd) => {
                side.corked = more;
                let taken =
                    if more { sockets::send_more(fd, data) } else { sockets::send(fd, data) };
                taken.inspect(|&count| self.shared.add_sent(at, count))
            }
            Stream::Tls(tls) => tls.send(data).inspect(|&count| side.in_tls += count),
        };
        match taken {
            Ok(count) => {
                if count < size {
                    let data = data[count..].to_vec();
                    side.queue = Some(Box::new(Queue { data, at: 0, own: 0 }));
                }
                settle(context, side, &self.shared, at);
                if side.pending() {
                    self.attend(context, at);
                }
            }
            Err(error) => self.lost(context, at, &error),
        }
    }

    /// The kernel keeps nothing back for what did not follow.
    fn uncork(&mut self, at: usize) {
        let side = &mut self.sides[at];
        if std::mem::take(&mut side.corked) {
            sockets::push(side.stream.fd());
        }
    }

    /// Send what waits for this side.
    pub(super) fn flush(&mut self, context: &mut Context, at: usize) {
        if self.sides[at].broken {
            return;
        }
        if let Err(error) = self.try_flush(context, at) {
            self.lost(context, at, &error);
        }
    }

    fn try_flush(&mut self, context: &mut Context, at: usize) -> io::Result<()> {
        let side = &mut self.sides[at];
        if let Some(pipe) = &mut side.pipe {
            let count = pipe.drain(side.stream.fd())?;
            self.shared.add_sent(at, count);
            if pipe.held == 0 {
                if let Some(pipe) = side.pipe.take() {
                    context.give_pipe(*pipe);
                }
            }
        }
        if side.pipe.is_none() {
            if let Some(queue) = &mut side.queue {
                let body = queue.rest().len() - queue.own;
                let count = match &mut side.stream {
                    Stream::Plain(fd) => {
                        let count = sockets::send(fd, queue.rest())?;
                        self.shared.add_sent(at, count.min(body));
                        count
                    }
                    Stream::Tls(tls) => {
                        let count = tls.send(queue.rest())?;
                        side.in_tls += count;
                        side.own_in_tls += count.saturating_sub(body);
                        count
                    }
                };
                queue.advance(count);
                if queue.rest().is_empty() {
                    side.queue = None;
                }
            } else if let Stream::Tls(tls) = &mut side.stream {
                tls.flush()?;
            }
        }
        settle(context, side, &self.shared, at);
        Ok(())
    }

    /// At an orderly end: put our Close frame behind what goes to this side, if now is the moment,
    /// or see that none can be.
    pub(super) fn seal(&mut self, context: &mut Context, at: usize) {
        let [client, origin] = &mut self.sides;
        let (side, other) = if at == CLIENT { (client, origin) } else { (origin, client) };
        let source = &other.follower;
        if side.sealed || source.closed || side.follower.closed {
            // Done before; or the peers are closing by themselves, and that goes on.
            return;
        }
        if side.broken || side.fin_sent || !source.valid {
            side.sealed = true;
        } else if source.at_boundary() {
            let Some(close) = &self.close else { return };
            let key = if at == ORIGIN { Some(mask_key()) } else { None };
            let frame = close_frame(close.0, &close.1, key);
            side.sealed = true;
            side.told = true;
            let queue = side.queue.get_or_insert_default();
            queue.own = frame.len();
            queue.data.extend_from_slice(&frame);
            self.flush(context, at);
        } else if other.done() {
            side.sealed = true;
        }
    }
}

fn mask_key() -> [u8; 4] {
    let mut key = [0; 4];
    // Without chance the frame is still a right one.
    let _ = rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty());
    key
}
