//! What all tunnels of a relay share on its thread, and nothing of any single one.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::epoll::{self, EventData, EventFlags};
use slab::Slab;

use crate::pace::Pace;
use crate::port::Limits;
use crate::sockets::{IN_FLIGHT_MAX, Pipe};
use crate::stream::Stream;
use crate::wheel::Wheel;

const LINGER_NS: i64 = 5_000_000_000;
const PIPES_KEPT: usize = 32;
const RECORDS: usize = 64 * 1024;
/// Beyond so much held by all tunnels together, slow readers cost more memory than speed is worth.
const HELD_MUCH: usize = 64 * 1024 * 1024;
/// What is then read at once.
const READ_FEW: usize = 16 * 1024;

/// What an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Orders,
    Side(Name, usize),
    Lingering(u32),
}

/// A tunnel's place, and a number that tells it from those that had the place before: events of a
/// batch may be about one that ended within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    pub key: u32,
    pub serial: u32,
}

const SERIALS: u32 = (1 << 30) - 1;
const ORDERS: u64 = u64::MAX;
const LINGERING: u64 = 2;

impl Name {
    pub fn new(key: u32, serial: u32) -> Name {
        Name { key, serial: serial & SERIALS }
    }
}

impl About {
    pub fn read(data: u64) -> About {
        match (data, data & 3) {
            (ORDERS, _) => About::Orders,
            (_, LINGERING) => About::Lingering((data >> 32) as u32),
            (_, side) => {
                let name = Name::new((data >> 32) as u32, (data >> 2) as u32);
                About::Side(name, side as usize & 1)
            }
        }
    }

    fn write(self) -> EventData {
        EventData::new_u64(match self {
            About::Orders => ORDERS,
            About::Side(name, side) => {
                u64::from(name.key) << 32 | u64::from(name.serial) << 2 | side as u64
            }
            About::Lingering(key) => u64::from(key) << 32 | LINGERING,
        })
    }
}

pub struct Context {
    pub now_ns: i64,
    /// Bytes that wait to be sent, of all tunnels.
    pub held: usize,
    /// One for all: what is received is sent on at once, and an idle tunnel holds none.
    pub buffer: Box<[u8]>,
    /// TLS records on their way into a session.
    pub scratch: Box<[u8]>,
    pub wheel: Wheel,
    /// Sockets whose tunnel is over but whose peer may still be sending. Closed at once, they would
    /// answer with RST, and that can cost the peer what it has not read yet: so they are read, and
    /// what comes is dropped, until the peer ends too.
    pub lingering: Slab<OwnedFd>,
    /// Sides whose TLS may hold bytes that epoll cannot see.
    pub again: Vec<(u32, usize)>,
    /// Sides that wait for their pace, those that waited longest first.
    pub waiting: VecDeque<(u32, usize)>,
    paces: HashMap<String, Rc<RefCell<Pace>>>,
    pipes: Vec<Pipe>,
    epoll: OwnedFd,
}

impl Context {
    pub fn new(epoll: OwnedFd, tick_ns: i64, now_ns: i64) -> Context {
        Context {
            now_ns,
            held: 0,
            buffer: vec![0; IN_FLIGHT_MAX].into_boxed_slice(),
            scratch: vec![0; RECORDS].into_boxed_slice(),
            wheel: Wheel::new(tick_ns),
            lingering: Slab::new(),
            again: Vec::new(),
            waiting: VecDeque::new(),
            paces: HashMap::new(),
            pipes: Vec::new(),
            epoll,
        }
    }

    /// How much may be read at once: all of it may have to be held.
    pub fn read_most(&self) -> usize {
        if self.held > HELD_MUCH { READ_FEW } else { IN_FLIGHT_MAX }
    }

    pub fn epoll(&self) -> &OwnedFd {
        &self.epoll
    }

    /// One that lingered may be closed.
    pub fn let_go(&mut self, key: u32) {
        self.wheel.remove(lingering_entry(key));
        self.lingering.try_remove(key as usize);
    }

    /// Whether it is watched now. It is not where the kernel has no room for more.
    pub fn watch(
        &mut self,
        fd: &OwnedFd,
        registered: bool,
        name: Name,
        side: usize,
        events: EventFlags,
    ) -> bool {
        let data = About::Side(name, side).write();
        let watched = if registered {
            epoll::modify(&self.epoll, fd, data, events)
        } else {
            epoll::add(&self.epoll, fd, data, events)
        };
        watched.is_ok()
    }

    pub fn unwatch(&mut self, fd: &OwnedFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Have it in `lingering` for a while.
    pub fn linger(&mut self, stream: Stream) {
        let fd = match stream {
            Stream::Plain(fd) => fd,
            Stream::Tls(tls) => tls.fd,
        };
        let entry = self.lingering.vacant_entry();
        let key = entry.key() as u32;
        let data = About::Lingering(key).write();
        if epoll::modify(&self.epoll, &fd, data, EventFlags::IN).is_ok() {
            self.wheel.place(lingering_entry(key), self.now_ns + LINGER_NS);
            entry.insert(fd);
        }
    }

    pub fn join_pace(&mut self, limits: &Limits) -> Option<Rc<RefCell<Pace>>> {
        let rate = limits.bytes_per_second?;
        if limits.pace_key.is_empty() {
            return Some(Rc::new(RefCell::new(Pace::new(rate, String::new(), self.now_ns))));
        }
        let pace = self.paces.entry(limits.pace_key.clone()).or_insert_with(|| {
            Rc::new(RefCell::new(Pace::new(rate, limits.pace_key.clone(), self.now_ns)))
        });
        if pace.borrow().rate != rate {
            pace.borrow_mut().change(rate, self.now_ns);
        }
        Some(Rc::clone(pace))
    }

    pub fn leave_pace(&mut self, pace: Rc<RefCell<Pace>>) {
        // This holder's and the table's own.
        if Rc::strong_count(&pace) == 2 {
            self.paces.remove(&pace.borrow().key);
        }
    }

    pub fn take_pipe(&mut self) -> Option<Pipe> {
        self.pipes.pop().or_else(|| Pipe::new().ok())
    }

    pub fn give_pipe(&mut self, pipe: Pipe) {
        if pipe.held == 0 && self.pipes.len() < PIPES_KEPT {
            self.pipes.push(pipe);
        }
    }
}

/// How the wheel knows a socket that lingers. Tunnels have the even numbers.
pub fn lingering_entry(key: u32) -> u32 {
    key << 1 | 1
}

pub fn watch_orders(epoll: &OwnedFd, bell: &OwnedFd) -> io::Result<()> {
    Ok(epoll::add(epoll, bell, About::Orders.write(), EventFlags::IN)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_read_at_once_where_much_is_held() {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let mut context = Context::new(epoll, 1, 0);
        context.held = HELD_MUCH;
        assert_eq!(context.read_most(), IN_FLIGHT_MAX);
        context.held += 1;
        assert_eq!(context.read_most(), READ_FEW);
    }
}
