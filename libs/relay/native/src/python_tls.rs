//! TLS as Python sees it: a stream that is waited on like an `ssl.SSLSocket` until a relay takes it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};
use rustix::io::Errno;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection};

use crate::sockets;
use crate::stream::{Greeting, Received, Tls};
use crate::tls::{Identity, Serving, certificate_fault, client_config};

/// What a listener's TLS is made of.
#[pyclass(frozen, module = "handoff_relay._native")]
pub struct ServerTls {
    serving: Arc<Serving>,
}

#[pymethods]
impl ServerTls {
    /// identities: (names, chain in PEM, key in PEM) each.
    #[new]
    fn new(identities: Vec<(Vec<String>, Vec<u8>, Vec<u8>)>) -> PyResult<ServerTls> {
        let identities = identities
            .into_iter()
            .map(|(names, chain_pem, key_pem)| Identity { names, chain_pem, key_pem })
            .collect();
        let serving = Serving::new(identities).map_err(PyValueError::new_err)?;
        Ok(ServerTls { serving: Arc::new(serving) })
    }

    /// Takes a connected descriptor over; the handshake has not begun.
    fn wrap(&self, fd: RawFd) -> PyResult<TlsStream> {
        let greeting = Greeting::new(unblocked(own(fd))?, Arc::clone(&self.serving));
        Ok(TlsStream::new(Stage::Greeting(Box::new(greeting))))
    }
}

/// What connections to origins are made of.
#[pyclass(frozen, module = "handoff_relay._native")]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

#[pymethods]
impl ClientTls {
    #[new]
    fn new(extra_pem: Vec<u8>) -> PyResult<ClientTls> {
        let config = client_config(&extra_pem).map_err(PyValueError::new_err)?;
        Ok(ClientTls { config: Arc::new(config) })
    }

    /// Raises ValueError for what is neither a host's name nor an address.
    fn check(&self, server_name: String) -> PyResult<()> {
        named(server_name).map(|_| ())
    }

    /// As `ServerTls.wrap`; the server must be this one, by name or address.
    fn wrap(&self, fd: RawFd, server_name: String) -> PyResult<TlsStream> {
        let fd = own(fd);
        let name = named(server_name)?;
        let conn = ClientConnection::new(Arc::clone(&self.config), name).map_err(tls_error)?;
        Ok(TlsStream::new(Stage::Tls(Box::new(Tls::new(unblocked(fd)?, conn.into())))))
    }
}

/// TLS over a non-blocking socket that it owns.
#[pyclass(frozen, module = "handoff_relay._native")]
pub struct TlsStream {
    stage: Mutex<Stage>,
}

enum Stage {
    Greeting(Box<Greeting>),
    Tls(Box<Tls>),
    /// Closed, or a relay's.
    Gone,
}

impl Stage {
    fn tls(&mut self) -> io::Result<&mut Tls> {
        match self {
            Stage::Greeting(..) => Err(Errno::NOTCONN.into()),
            Stage::Tls(tls) => Ok(tls),
            Stage::Gone => Err(Errno::BADF.into()),
        }
    }

    /// One step; as `Tls::shake_hands`.
    fn shake_hands(&mut self) -> io::Result<Option<bool>> {
        if let Stage::Greeting(greeting) = self {
            let Some(conn) = greeting.read()? else {
                return Ok(Some(false));
            };
            if let Stage::Greeting(greeting) = std::mem::replace(self, Stage::Gone) {
                *self = Stage::Tls(Box::new(Tls::new(greeting.fd, conn.into())));
            }
        }
        self.tls()?.shake_hands()
    }
}

#[pymethods]
impl TlsStream {
    fn fileno(&self) -> RawFd {
        match &*self.lock() {
            Stage::Greeting(greeting) => greeting.fd.as_raw_fd(),
            Stage::Tls(tls) => tls.fd.as_raw_fd(),
            Stage::Gone => -1,
        }
    }

    /// The name that the client asked for, once the handshake is done.
    #[getter]
    fn server_name(&self) -> Option<String> {
        match &self.lock().tls().ok()?.conn {
            Connection::Server(conn) => conn.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        }
    }

    /// The protocol version, as `ssl.SSLSocket.version`.
    fn version(&self) -> Option<&'static str> {
        match self.lock().tls().ok()?.conn.protocol_version()? {
            rustls::ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            rustls::ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => None,
        }
    }

    fn do_handshake(&self, py: Python<'_>) -> PyResult<()> {
        // Cryptography takes milliseconds at worst; other threads of Python go on meanwhile.
        match py.detach(|| self.lock().shake_hands()) {
            Ok(None) => Ok(()),
            Ok(Some(to_write)) => Err(wait(py, to_write)),
            Err(error) => Err(io_error(error)),
        }
    }

    /// Up to `size` bytes; none at the end.
    fn recv<'py>(&self, py: Python<'py>, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let mut buffer = vec![0; size.clamp(1, sockets::IN_FLIGHT_MAX)];
        let received = self.with(|tls| {
            let received = tls.receive(&mut buffer, &mut []);
            // What the session has to say back (keys, alerts) must not wait for data of ours.
            let _ = tls.flush();
            Ok(received)
        });
        match received.map_err(io_error)? {
            Received::Some(count) | Received::End(count @ 1.., _) => {
                Ok(PyBytes::new(py, &buffer[..count]))
            }
            Received::Blocked => Err(wait(py, false)),
            Received::End(0, None) => Ok(PyBytes::new(py, b"")),
            Received::End(0, Some(error)) => Err(io_error(error)),
        }
    }

    /// How many bytes the kernel took of them. After a want, call it again with the same bytes.
    fn send(&self, py: Python<'_>, data: PyBuffer<u8>) -> PyResult<usize> {
        let data = data.to_vec(py)?;
        let sent = self.with(|tls| {
            // What a former call gave to TLS and could not send is the start of these bytes.
            let before = tls.unsent;
            let given = tls.send(&data[before.min(data.len())..])?;
            if tls.flush()? {
                tls.unsent = 0;
                return Ok(Some(before + given));
            }
            tls.unsent = before + given;
            Ok(None)
        });
        sent.map_err(io_error)?.ok_or_else(|| wait(py, true))
    }

    /// close_notify, then FIN: nothing more is sent. `how` is as for a socket, and not looked at.
    fn shutdown(&self, _how: i32) -> PyResult<()> {
        let said = match &mut *self.lock() {
            Stage::Greeting(greeting) => sockets::say_end(&greeting.fd),
            Stage::Tls(tls) => {
                tls.say_end();
                sockets::say_end(&tls.fd)
            }
            Stage::Gone => Err(Errno::BADF.into()),
        };
        said.map_err(io_error)
    }

    fn close(&self) {
        *self.lock() = Stage::Gone;
    }
}

impl TlsStream {
    fn new(stage: Stage) -> TlsStream {
        TlsStream { stage: Mutex::new(stage) }
    }

    /// For a relay, which owns it from here on.
    pub fn take(&self) -> PyResult<Box<Tls>> {
        let mut stage = self.lock();
        stage.tls().map_err(io_error)?;
        match std::mem::replace(&mut *stage, Stage::Gone) {
            Stage::Tls(tls) => Ok(tls),
            _ => unreachable!("asked above"),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Tls) -> io::Result<T>) -> io::Result<T> {
        act(self.lock().tls()?)
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named(server_name: String) -> PyResult<ServerName<'static>> {
    let text = format!("{server_name:?} is neither a host's name nor an address");
    ServerName::try_from(server_name).map_err(|_| PyValueError::new_err(text))
}

fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller detached it from its Python socket, so nobody else closes it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn unblocked(fd: OwnedFd) -> PyResult<OwnedFd> {
    rustix::io::ioctl_fionbio(&fd, true).map_err(io::Error::from)?;
    Ok(fd)
}

/// `ssl`'s own words for a call that would wait.
fn wait(py: Python<'_>, to_write: bool) -> PyErr {
    static READ: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static WRITE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let (kind, name) =
        if to_write { (&WRITE, "SSLWantWriteError") } else { (&READ, "SSLWantReadError") };
    match kind.import(py, "ssl", name) {
        Ok(kind) => PyErr::from_type(kind.clone(), ()),
        Err(error) => error,
    }
}

/// A broken TLS layer is `ssl.SSLError`, a refused certificate `handoff_relay.tls.CertificateRefused`.
fn io_error(error: io::Error) -> PyErr {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(inner) => tls_error(inner.clone()),
        None => match error.raw_os_error() {
            Some(_) => error.into(),
            None => PyOSError::new_err(error.to_string()),
        },
    }
}

fn tls_error(error: rustls::Error) -> PyErr {
    let text = error.to_string();
    Python::attach(|py| {
        let made = match certificate_fault(&error) {
            Some(fault) => py
                .import("handoff_relay.tls")
                .and_then(|tls| tls.getattr("CertificateRefused"))
                .and_then(|kind| kind.call1((fault, text))),
            None => py
                .import("ssl")
                .and_then(|ssl| ssl.getattr("SSLError"))
                .and_then(|kind| kind.call1((text,))),
        };
        made.map_or_else(|error| error, PyErr::from_value)
    })
}
