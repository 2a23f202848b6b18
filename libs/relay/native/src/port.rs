//! Between the threads: what callers ask of the relay's thread, and what it tells them. Nothing here
//! blocks: each side leaves its word in a list and rings the other's bell.

use std::borrow::Cow;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::EventfdFlags;

use crate::stream::Stream;

/// Who ended a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    Client,
    Origin,
    Edge,
}

impl ClosedBy {
    pub fn name(self) -> &'static str {
        match self {
            ClosedBy::Client => "client",
            ClosedBy::Origin => "origin",
            ClosedBy::Edge => "edge",
        }
    }
}

/// Bytes so far: client received and sent, origin sent and received. The relay's thread writes.
#[derive(Debug, Default)]
pub struct Shared {
    received: [AtomicU64; 2],
    sent: [AtomicU64; 2],
    messages: [AtomicU64; 2],
    held: [AtomicU32; 2],
    /// The tunnel's place with the relay's thread, once it has one.
    pub key: AtomicU32,
}

/// (client received, client sent, origin sent, origin received)
pub type Counters = (u64, u64, u64, u64);

impl Shared {
    pub fn counters(&self) -> Counters {
        // What was sent is read first: nobody may see a byte sent that was not received.
        let sent = [0, 1].map(|side: usize| self.sent[side].load(Ordering::Acquire));
        let received = [0, 1].map(|side: usize| self.received[side].load(Ordering::Acquire));
        (received[0], sent[0], sent[1], received[1])
    }

    /// Messages of the client and of the origin.
    pub fn messages(&self) -> (u64, u64) {
        (self.messages[0].load(Ordering::Relaxed), self.messages[1].load(Ordering::Relaxed))
    }

    pub fn received(&self, side: usize) -> u64 {
        self.received[side].load(Ordering::Relaxed)
    }

    pub fn add_received(&self, side: usize, size: usize) {
        add(&self.received[side], size);
    }

    pub fn add_sent(&self, side: usize, size: usize) {
        add(&self.sent[side], size);
    }

    pub fn set_messages(&self, side: usize, messages: u64) {
        self.messages[side].store(messages, Ordering::Relaxed);
    }

    /// Bytes that wait in the relay, towards the client and towards the origin.
    pub fn held(&self) -> (u32, u32) {
        (self.held[0].load(Ordering::Relaxed), self.held[1].load(Ordering::Relaxed))
    }

    /// What was held before.
    pub fn set_held(&self, side: usize, held: usize) -> usize {
        self.held[side].swap(held as u32, Ordering::Relaxed) as usize
    }
}

/// One thread writes, so no addition is lost.
fn add(counter: &AtomicU64, size: usize) {
    counter.store(counter.load(Ordering::Relaxed) + size as u64, Ordering::Release);
}

#[derive(Clone, Debug)]
pub struct Limits {
    pub idle_ns: i64,
    pub half_closed_ns: i64,
    pub max_duration_ns: Option<i64>,
    pub bytes_per_second: Option<u64>,
    pub pace_key: String,
    pub close_grace_ns: i64,
}

/// A tunnel to be begun.
pub struct Start {
    pub shared: Arc<Shared>,
    pub token: u64,
    pub client: Stream,
    pub origin: Stream,
    pub to_origin: Vec<u8>,
    pub to_client: Vec<u8>,
    pub client_eof: bool,
    pub limits: Limits,
}

pub enum Command {
    Start(Box<Start>),
    End {
        shared: Arc<Shared>,
        code: u16,
        reason: String,
        cause: String,
    },
    /// Cut every tunnel, and say in `idle` when no socket is left.
    Cut {
        cause: String,
    },
    /// Close what lingers, and end the thread.
    Stop,
    /// Fail on this tunnel, as a fault of ours would.
    #[cfg(test)]
    Panic(Arc<Shared>),
}

pub struct EndRecord {
    pub token: u64,
    pub cause: Cow<'static, str>,
    pub closed_by: ClosedBy,
    pub close_code: Option<u16>,
    pub counters: Counters,
    pub messages: (u64, u64),
}

/// What the relay's thread has to say.
#[derive(Default)]
pub struct News {
    pub ends: Vec<EndRecord>,
    pub complaints: Vec<String>,
}

/// Where the relay's thread takes its time from.
pub enum Clock {
    Monotonic,
    /// Moved by whoever made the relay.
    Manual(AtomicI64),
}

impl Clock {
    pub fn now_ns(&self) -> i64 {
        match self {
            Clock::Manual(now) => now.load(Ordering::Acquire),
            Clock::Monotonic => {
                // Time asleep counts, as it does for everything else at the edge.
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                now.tv_sec * 1_000_000_000 + now.tv_nsec
            }
        }
    }
}

pub struct Port {
    commands: Mutex<Vec<Command>>,
    /// There are orders that the thread has not begun to take.
    ordered: AtomicBool,
    news: Mutex<News>,
    pub clock: Clock,
    /// Rung for the relay's thread.
    pub orders: OwnedFd,
    /// Rung for the callers.
    pub bell: OwnedFd,
    /// Bytes that wait in the relay, of all tunnels.
    pub held: AtomicUsize,
    /// No tunnel and no socket is left.
    pub idle: AtomicBool,
    /// The thread is gone.
    pub gone: AtomicBool,
}

impl Port {
    pub fn new(clock: Clock) -> io::Result<Port> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Port {
            commands: Mutex::default(),
            ordered: AtomicBool::new(false),
            news: Mutex::default(),
            clock,
            orders: rustix::event::eventfd(0, flags)?,
            bell: rustix::event::eventfd(0, flags)?,
            held: AtomicUsize::new(0),
            idle: AtomicBool::new(true),
            gone: AtomicBool::new(false),
        })
    }

    pub fn order(&self, command: Command) {
        lock(&self.commands).push(command);
        if !self.ordered.swap(true, Ordering::SeqCst) {
            ring(&self.orders);
        }
    }

    /// An order for the next `wake`.
    pub fn leave(&self, command: Command) {
        lock(&self.commands).push(command);
    }

    /// All that was ordered; where nothing was, this costs next to nothing.
    pub fn take_orders(&self) -> Vec<Command> {
        if self.ordered.load(Ordering::Acquire) {
            // In this order, or an order that comes in between would be left without a ring.
            silence(&self.orders);
            self.ordered.store(false, Ordering::SeqCst);
            return std::mem::take(&mut *lock(&self.commands));
        }
        Vec::new()
    }

    /// Hand over what there is to say, which is emptied.
    pub fn tell(&self, news: &mut News) {
        let mut told = lock(&self.news);
        told.ends.append(&mut news.ends);
        told.complaints.append(&mut news.complaints);
        drop(told);
        ring(&self.bell);
    }

    pub fn take_news(&self) -> News {
        silence(&self.bell);
        std::mem::take(&mut *lock(&self.news))
    }

    pub fn wake(&self) {
        if !self.ordered.swap(true, Ordering::SeqCst) {
            ring(&self.orders);
        }
    }
}

/// A list stays whole whatever became of a thread that held its lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub fn ring(bell: &OwnedFd) {
    // It can only fail where it rings already.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

fn silence(bell: &OwnedFd) {
    let _ = rustix::io::read(bell, &mut [0; 8]);
}
