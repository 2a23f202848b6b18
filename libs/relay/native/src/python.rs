//! What Python sees. Nothing is decided here.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::engine::Engine;
use crate::port::{Clock, Command, Counters, Limits, Port, Shared, Start};
use crate::python_tls::TlsStream;
use crate::stream::Stream;

const MS: i64 = 1_000_000;

/// (on_end, cause, closed_by, close_code, counters, messages)
type PyEnd = (Py<PyAny>, String, &'static str, Option<u16>, Counters, (u64, u64));

/// What is told of a tunnel's end, and the tunnel's counters.
type Open = (Py<PyAny>, Arc<Shared>);

/// A relay's thread.
#[pyclass(frozen, module = "handoff_relay._native")]
struct Core {
    /// None once it is closed.
    port: Mutex<Option<Arc<Port>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
}

#[pymethods]
impl Core {
    /// now_ns: where the clock stands that `set_now` moves; None: the system's. Begins the thread.
    #[new]
    fn new(now_ns: Option<i64>, tick_ms: u32) -> PyResult<Core> {
        let clock = now_ns.map_or(Clock::Monotonic, |now| Clock::Manual(AtomicI64::new(now)));
        let port = Arc::new(Port::new(clock)?);
        let thread = Engine::spawn(Arc::clone(&port), tick_ms)?;
        Ok(Core {
            port: Mutex::new(Some(port)),
            thread: Mutex::new(Some(thread)),
            open: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// Readable when `take_ends` or another answer has something new.
    fn fileno(&self) -> PyResult<RawFd> {
        Ok(self.port()?.bell.as_raw_fd())
    }

    /// Tunnels whose end was not taken yet.
    #[getter]
    fn open_tunnels(&self) -> usize {
        lock(&self.open).len()
    }

    /// Bytes that wait in the relay, of all tunnels.
    #[getter]
    fn held(&self) -> PyResult<usize> {
        Ok(self.port()?.held.load(Ordering::Relaxed))
    }

    /// No tunnel and no socket is left.
    #[getter]
    fn idle(&self) -> PyResult<bool> {
        Ok(self.port()?.idle.load(Ordering::Acquire))
    }

    /// The thread is gone, by a fault where it was not told to stop.
    #[getter]
    fn gone(&self) -> bool {
        self.port().is_ok_and(|port| port.gone.load(Ordering::Acquire))
    }

    /// Takes both sockets over: plain ones by their descriptors, TLS ones as they are. They are
    /// relayed from the next `wake` on.
    #[pyo3(signature = (client, origin, to_origin, to_client, client_eof, limits, pace_key, on_end))]
    #[allow(clippy::too_many_arguments)]
    fn start(
        &self,
        client: Connected<'_>,
        origin: Connected<'_>,
        to_origin: Vec<u8>,
        to_client: Vec<u8>,
        client_eof: bool,
        limits: (i64, i64, Option<i64>, Option<u64>, i64),
        pace_key: String,
        on_end: Py<PyAny>,
    ) -> PyResult<Tunnel> {
        let port = self.port()?;
        let (idle_ms, half_closed_ms, max_duration_ms, bytes_per_second, close_grace_ms) = limits;
        let (client, origin) = (client.take()?, origin.take()?);
        let shared = Arc::new(Shared::default());
        let tunnel = Tunnel { shared: Arc::clone(&shared), port: Arc::downgrade(&port) };
        let token = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(token, (on_end, Arc::clone(&shared)));
        port.idle.store(false, Ordering::Release);
        port.leave(Command::Start(Box::new(Start {
            shared,
            token,
            client,
            origin,
            to_origin,
            to_client,
            client_eof,
            limits: Limits {
                idle_ns: idle_ms.saturating_mul(MS),
                half_closed_ns: half_closed_ms.saturating_mul(MS),
                max_duration_ns: max_duration_ms.map(|ms| ms.saturating_mul(MS)),
                bytes_per_second,
                pace_key,
                close_grace_ns: close_grace_ms.saturating_mul(MS),
            },
        })));
        Ok(tunnel)
    }

    /// The thread looks at what was started.
    fn wake(&self) {
        if let Ok(port) = self.port() {
            port.wake();
        }
    }

    /// What ended since the last call, and what the relay complains of.
    fn take_news(&self) -> PyResult<(Vec<PyEnd>, Vec<String>)> {
        let news = self.port()?.take_news();
        let mut open = lock(&self.open);
        let ends = news.ends.into_iter().filter_map(|end| {
            let (callback, _) = open.remove(&end.token)?;
            let by = end.closed_by.name();
            let (counters, messages) = (end.counters, end.messages);
            Some((callback, end.cause.into_owned(), by, end.close_code, counters, messages))
        });
        Ok((ends.collect(), news.complaints))
    }

    /// All tunnels, where the thread is gone and nobody else will report them: what they relayed
    /// until then is still known.
    fn abandon(&self) -> Vec<(Py<PyAny>, Counters, (u64, u64))> {
        let left = std::mem::take(&mut *lock(&self.open));
        let known = |(on_end, shared): Open| (on_end, shared.counters(), shared.messages());
        left.into_values().map(known).collect()
    }

    /// Move the clock, where it is moved by hand.
    fn set_now(&self, now_ns: i64) -> PyResult<()> {
        let port = self.port()?;
        if let Clock::Manual(now) = &port.clock {
            now.store(now_ns, Ordering::Release);
            port.wake();
        }
        Ok(())
    }

    /// End every tunnel without ceremony. `idle` is true once their sockets are closed.
    fn cut(&self, cause: String) -> PyResult<()> {
        let port = self.port()?;
        port.idle.store(false, Ordering::Release);
        port.order(Command::Cut { cause });
        Ok(())
    }

    /// End the thread, and wait for it. All else raises afterwards.
    fn stop(&self, py: Python<'_>) {
        let port = lock(&self.port).take();
        let thread = lock(&self.thread).take();
        if let Some(port) = port {
            port.order(Command::Stop);
        }
        if let Some(thread) = thread {
            py.detach(|| {
                let _ = thread.join();
            });
        }
    }
}

impl Core {
    fn port(&self) -> PyResult<Arc<Port>> {
        let closed = || PyRuntimeError::new_err("the relay is closed");
        lock(&self.port).as_ref().map(Arc::clone).ok_or_else(closed)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // Nobody waits here: this may be the garbage collector.
        if let Some(port) = lock(&self.port).take() {
            port.order(Command::Stop);
        }
    }
}

/// A running pair; readable after its end too.
#[pyclass(frozen, module = "handoff_relay._native")]
struct Tunnel {
    shared: Arc<Shared>,
    port: Weak<Port>,
}

#[pymethods]
impl Tunnel {
    /// Bytes: client received and sent, origin sent and received.
    fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Messages of the client and of the origin.
    fn messages(&self) -> (u64, u64) {
        self.shared.messages()
    }

    /// Bytes that wait in the relay: towards the client, towards the origin.
    fn held(&self) -> (u32, u32) {
        self.shared.held()
    }

    fn end(&self, code: u16, reason: String, cause: String) {
        if let Some(port) = self.port.upgrade() {
            port.order(Command::End { shared: Arc::clone(&self.shared), code, reason, cause });
        }
    }
}

/// A socket that a relay may take.
#[derive(FromPyObject)]
enum Connected<'py> {
    Plain(RawFd),
    Tls(PyRef<'py, TlsStream>),
}

impl Connected<'_> {
    fn take(self) -> PyResult<Stream> {
        Ok(match self {
            // SAFETY: the caller detached it from its Python socket, so nobody else closes it.
            Connected::Plain(fd) => Stream::Plain(unsafe { OwnedFd::from_raw_fd(fd) }),
            Connected::Tls(stream) => Stream::Tls(stream.take()?),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frame headers of one direction, for the tests that hold both implementations together.
#[pyclass(module = "handoff_relay._native")]
struct FrameFollower(crate::frames::Follower);

#[pymethods]
impl FrameFollower {
    #[new]
    fn new() -> FrameFollower {
        FrameFollower(crate::frames::Follower::default())
    }

    #[getter]
    fn messages(&self) -> u64 {
        self.0.messages
    }

    #[getter]
    fn closed(&self) -> bool {
        self.0.closed
    }

    #[getter]
    fn close_code(&self) -> Option<u16> {
        self.0.close_code
    }

    #[getter]
    fn valid(&self) -> bool {
        self.0.valid
    }

    #[getter]
    fn at_boundary(&self) -> bool {
        self.0.at_boundary()
    }

    fn feed(&mut self, data: &[u8], start: usize, end: usize) {
        self.0.feed(&data[start..end]);
    }

    fn feed_to_boundary(&mut self, data: &[u8], start: usize, end: usize) -> usize {
        start + self.0.feed_to_boundary(&data[start..end])
    }
}

#[pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use super::{Core, FrameFollower, Tunnel};
    #[pymodule_export]
    use crate::python_tls::{ClientTls, ServerTls, TlsStream};
}
