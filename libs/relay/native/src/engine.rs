//! The relay's thread: one epoll for all sockets, one loop that gives each tunnel its turn.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event};
use slab::Slab;

use crate::context::{About, Context, Name, watch_orders};
use crate::port::{Clock, ClosedBy, Command, News, Port, Start, ring};
use crate::sockets;
use crate::tunnel::{Course, Tunnel, tunnel_entry};

const BATCH: usize = 256;
/// How often those that wait for their pace are looked at.
const PACE_TICK_NS: i64 = 20_000_000;
/// The cause where the relay's own code failed on a tunnel.
const RELAY_FAILED: &str = "edge_crashed";

pub struct Engine {
    port: Arc<Port>,
    tunnels: Slab<Box<Tunnel>>,
    context: Context,
    news: News,
    pace_due_ns: i64,
    serial: u32,
    stopped: bool,
}

impl Engine {
    /// Begin the thread. Raises where the kernel has no room for what it waits with.
    pub fn spawn(port: Arc<Port>, tick_ms: u32) -> io::Result<JoinHandle<()>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let tick_ns = i64::from(tick_ms) * 1_000_000;
        watch_orders(&epoll, &port.orders)?;
        std::thread::Builder::new().name("relay".into()).spawn(move || {
            // However the thread ends, the callers hear of it.
            let _last = LastWord(Arc::clone(&port));
            let context = Context::new(epoll, tick_ns, port.clock.now_ns());
            let engine = Engine {
                port,
                tunnels: Slab::new(),
                context,
                news: News::default(),
                pace_due_ns: 0,
                serial: 0,
                stopped: false,
            };
            engine.run();
        })
    }

    /// Until it is told to stop.
    fn run(mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(BATCH);
        while !self.stopped {
            let timeout = self.timeout();
            events.clear();
            match epoll::wait(self.context.epoll(), spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => panic!("epoll_wait: {errno}"),
            }
            self.context.now_ns = self.port.clock.now_ns();
            // First: what is asked for before a peer acts is done before that is seen.
            self.obey();
            for event in &events {
                match About::read(event.data.u64()) {
                    About::Orders => {}
                    About::Side(name, side) => {
                        let known = self.tunnels.get(name.key as usize);
                        if known.is_some_and(|tunnel| tunnel.name == name) {
                            let flags = event.flags;
                            self.step(name.key, |tunnel, context| {
                                tunnel.on_events(context, side, flags)
                            });
                        }
                    }
                    About::Lingering(key) => self.drop_bytes(key),
                }
            }
            self.read_again();
            self.pay_out();
            self.pass_deadlines();
            self.report();
        }
        // What is left goes with it: every end has been reported, or nobody wants to know.
    }

    /// How long to wait at most; None: until something happens.
    fn timeout(&self) -> Option<Timespec> {
        if !self.context.again.is_empty() {
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        if matches!(self.port.clock, Clock::Manual(_)) {
            return None;
        }
        let mut due = self.context.wheel.next_ns();
        if !self.context.waiting.is_empty() {
            due = Some(due.unwrap_or(i64::MAX).min(self.pace_due_ns));
        }
        due.map(|due| {
            let left = (due - self.port.clock.now_ns()).max(0);
            Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 }
        })
    }

    /// Do one thing with a tunnel. A fault of ours ends this one, and no other.
    fn step(&mut self, key: u32, act: impl FnOnce(&mut Tunnel, &mut Context) -> Course) {
        let Some(tunnel) = self.tunnels.get_mut(key as usize) else {
            return;
        };
        let context = &mut self.context;
        match catch_unwind(AssertUnwindSafe(|| act(tunnel, context))) {
            Ok(Course::Goes) => {}
            Ok(Course::Over) => self.finish(key, false),
            Err(fault) => {
                self.news.complaints.push(fault_text(&*fault));
                tunnel.fail(RELAY_FAILED);
                self.finish(key, true);
            }
        }
    }

    /// Let go of both sockets and have the end reported. `cut`: without any ceremony.
    fn finish(&mut self, key: u32, cut: bool) {
        let Some(mut tunnel) = self.tunnels.try_remove(key as usize) else {
            return;
        };
        self.context.wheel.remove(tunnel_entry(key));
        if let Some(pace) = tunnel.pace.take() {
            let waiting = tunnel.sides.iter().filter(|side| side.paced).count() as u32;
            pace.borrow_mut().waiting -= waiting;
            if waiting > 0 {
                self.context.waiting.retain(|&(waiter, _)| waiter != key);
            }
            self.context.leave_pace(pace);
        }
        self.context.again.retain(|&(again, _)| again != key);
        let (to_client, to_origin) = tunnel.shared.held();
        self.context.held -= (to_client + to_origin) as usize;
        self.news.ends.push(tunnel.conclude());
        tunnel.release(&mut self.context, cut);
    }

    fn drop_bytes(&mut self, key: u32) {
        let Some(fd) = self.context.lingering.get(key as usize) else {
            return;
        };
        let received = sockets::receive(fd, &mut self.context.buffer);
        if matches!(received, Ok(Some(0)) | Err(_)) {
            self.context.let_go(key);
        }
    }

    fn read_again(&mut self) {
        for (key, side) in std::mem::take(&mut self.context.again) {
            self.step(key, |tunnel, context| tunnel.read_on(context, side));
        }
    }

    /// Those that waited longest for their pace go first; each takes an equal share.
    fn pay_out(&mut self) {
        let manual = matches!(self.port.clock, Clock::Manual(_));
        if !manual && self.context.now_ns < self.pace_due_ns {
            return;
        }
        self.pace_due_ns = self.context.now_ns + PACE_TICK_NS;
        for _ in 0..self.context.waiting.len() {
            let Some((key, at)) = self.context.waiting.pop_front() else {
                break;
            };
            self.step(key, |tunnel, context| {
                tunnel.sides[at].paced = false;
                if let Some(pace) = &tunnel.pace {
                    pace.borrow_mut().waiting -= 1;
                }
                tunnel.read_on(context, at)
            });
        }
    }

    fn pass_deadlines(&mut self) {
        for entry in self.context.wheel.take(self.context.now_ns) {
            let key = entry >> 1;
            if entry == tunnel_entry(key) {
                self.step(key, |tunnel, context| tunnel.check(context));
            } else {
                self.context.let_go(key);
            }
        }
    }

    fn obey(&mut self) {
        for command in self.port.take_orders() {
            match command {
                Command::Start(start) => self.start(*start),
                Command::End { shared, code, reason, cause } => {
                    let key = shared.key.load(Ordering::Relaxed);
                    let found = self.tunnels.get(key as usize);
                    // Another tunnel may have the place by now.
                    if found.is_some_and(|tunnel| Arc::ptr_eq(&tunnel.shared, &shared)) {
                        self.step(key, |tunnel, context| {
                            tunnel.end(context, code, &reason, cause.into())
                        });
                    }
                }
                Command::Cut { cause } => {
                    let keys: Vec<usize> = self.tunnels.iter().map(|(key, _)| key).collect();
                    for key in keys {
                        self.tunnels[key].note(cause.clone().into(), ClosedBy::Edge, false);
                        self.finish(key as u32, true);
                    }
                }
                Command::Stop => self.stopped = true,
                #[cfg(test)]
                Command::Panic(shared) => {
                    let key = shared.key.load(Ordering::Relaxed);
                    self.step(key, |_, _| panic!("a fault"));
                }
            }
        }
    }

    fn start(&mut self, start: Start) {
        let now_ns = self.context.now_ns;
        let pace = self.context.join_pace(&start.limits);
        let entry = self.tunnels.vacant_entry();
        let key = entry.key() as u32;
        start.shared.key.store(key, Ordering::Relaxed);
        let streams = [start.client, start.origin];
        let mut unready = None;
        for stream in &streams {
            unready = unready.or(sockets::prepare(stream.fd()).err());
        }
        let (shared, token, limits) = (start.shared, start.token, start.limits);
        let name = Name::new(key, self.serial);
        self.serial = self.serial.wrapping_add(1);
        let tunnel = Tunnel::new(name, shared, token, streams, limits, pace, now_ns);
        self.context.wheel.place(tunnel_entry(key), tunnel.due_ns());
        entry.insert(Box::new(tunnel));
        self.step(key, |tunnel, context| {
            if let Some(error) = unready {
                panic!("a socket cannot be used: {error}");
            }
            tunnel.register(context);
            tunnel.begin(context, &start.to_origin, &start.to_client, start.client_eof)
        });
    }

    fn report(&mut self) {
        self.port.held.store(self.context.held, Ordering::Relaxed);
        let idle = self.tunnels.is_empty() && self.context.lingering.is_empty();
        let idle_now = idle && !self.port.idle.swap(idle, Ordering::AcqRel);
        if !idle {
            self.port.idle.store(false, Ordering::Release);
        }
        if !(self.news.ends.is_empty() && self.news.complaints.is_empty()) {
            self.port.tell(&mut self.news);
        } else if idle_now {
            ring(&self.port.bell);
        }
    }
}

/// Says that the thread is gone, whichever way it went.
struct LastWord(Arc<Port>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Release);
        ring(&self.0.bell);
    }
}

fn fault_text(fault: &(dyn std::any::Any + Send)) -> String {
    let text = fault.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| fault.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::port::{EndRecord, Limits, Shared};
    use crate::stream::Stream;

    /// A tunnel and its two far ends.
    fn begin(port: &Port, token: u64) -> (Arc<Shared>, UnixStream, UnixStream) {
        let (client, near) = UnixStream::pair().unwrap();
        let (origin, far) = UnixStream::pair().unwrap();
        let shared = Arc::new(Shared::default());
        port.order(Command::Start(Box::new(Start {
            shared: Arc::clone(&shared),
            token,
            client: Stream::Plain(near.into()),
            origin: Stream::Plain(far.into()),
            to_origin: Vec::new(),
            to_client: Vec::new(),
            client_eof: false,
            limits: Limits {
                idle_ns: i64::MAX,
                half_closed_ns: i64::MAX,
                max_duration_ns: None,
                bytes_per_second: None,
                pace_key: String::new(),
                close_grace_ns: 1,
            },
        })));
        (shared, client, origin)
    }

    /// Ends and complaints, once there are `wanted` ends.
    fn ended(port: &Port, wanted: usize) -> (Vec<EndRecord>, Vec<String>) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut news = News::default();
        while news.ends.len() < wanted {
            assert!(Instant::now() < deadline, "no end came");
            let mut more = port.take_news();
            news.ends.append(&mut more.ends);
            news.complaints.append(&mut more.complaints);
            std::thread::yield_now();
        }
        (news.ends, news.complaints)
    }

    #[test]
    fn a_fault_of_its_own_ends_one_tunnel_and_no_other() {
        let port = Arc::new(Port::new(Clock::Monotonic).unwrap());
        let thread = Engine::spawn(Arc::clone(&port), 5).unwrap();
        let (faulty, mut gone, _) = begin(&port, 1);
        let (unharmed, mut client, mut origin) = begin(&port, 2);
        port.order(Command::Panic(faulty));
        let (ends, complaints) = ended(&port, 1);
        assert_eq!((ends[0].token, &*ends[0].cause), (1, RELAY_FAILED));
        assert_eq!(complaints, vec!["a fault".to_owned()]);
        assert_eq!(gone.read(&mut [0]).unwrap(), 0);
        client.write_all(b"unharmed").unwrap();
        let mut read = [0; 8];
        origin.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"unharmed");
        port.order(Command::Cut { cause: "drained".into() });
        let (ends, _) = ended(&port, 1);
        assert_eq!((&*ends[0].cause, ends[0].counters), ("drained", (8, 0, 8, 0)));
        assert_eq!(unharmed.counters(), (8, 0, 8, 0));
        port.order(Command::Stop);
        thread.join().unwrap();
        assert!(port.gone.load(Ordering::Acquire));
    }
}
