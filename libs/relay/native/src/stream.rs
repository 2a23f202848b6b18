//! A connected socket, plain or with TLS over it.

use std::io;
use std::io::{IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustls::server::{AcceptedAlert, Acceptor};
use rustls::{CipherSuite, Connection, Error, ServerConnection};

use crate::sockets;
use crate::tls::Serving;

/// A TLS record at its longest.
const RECORD_MAX: usize = 16_640;
/// Plaintext in a full record.
const RECORD_FULL: usize = 16_384;

/// What a call of `receive` met.
#[derive(Debug)]
pub enum Received {
    /// So many bytes, 1 or more; there may be more of them.
    Some(usize),
    Blocked,
    /// Nothing more comes: in order, or with the error. So many bytes came before.
    End(usize, Option<io::Error>),
}

pub enum Stream {
    Plain(OwnedFd),
    Tls(Box<Tls>),
}

impl Stream {
    pub fn fd(&self) -> &OwnedFd {
        match self {
            Stream::Plain(fd) => fd,
            Stream::Tls(tls) => &tls.fd,
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }
}

/// A client of which it is not known yet what it asks for.
pub struct Greeting {
    pub fd: OwnedFd,
    acceptor: Acceptor,
    serving: Arc<Serving>,
}

impl Greeting {
    pub fn new(fd: OwnedFd, serving: Arc<Serving>) -> Greeting {
        Greeting { fd, acceptor: Acceptor::default(), serving }
    }

    /// The server that its ClientHello is for; None where that has not come whole.
    pub fn read(&mut self) -> io::Result<Option<ServerConnection>> {
        loop {
            match self.acceptor.accept() {
                Ok(Some(accepted)) => {
                    let config = self.serving.for_client(&accepted.client_hello());
                    let conn = accepted.into_connection(config);
                    return conn.map(Some).map_err(|failure| self.refuse(failure));
                }
                Ok(None) => {}
                Err(failure) => return Err(self.refuse(failure)),
            }
            match self.acceptor.read_tls(&mut FdIo(&self.fd)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The peer is told why, if it still listens.
    fn refuse(&self, (error, mut alert): (Error, AcceptedAlert)) -> io::Error {
        let _ = alert.write_all(&mut FdIo(&self.fd));
        broken(error)
    }
}

fn broken(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A TLS connection over a non-blocking socket.
pub struct Tls {
    pub fd: OwnedFd,
    pub conn: Connection,
    /// Plaintext that `conn` took and whose records the kernel has not taken whole. The caller of
    /// `send` counts.
    pub unsent: usize,
    /// `conn` may hold plaintext that no epoll tells of.
    pub more: bool,
    /// Plaintext that `conn` took at last, while the kernel has not taken all of its records; and
    /// how many bytes of them it has.
    last: usize,
    last_out: usize,
}

impl Tls {
    pub fn new(fd: OwnedFd, conn: Connection) -> Tls {
        Tls { fd, conn, unsent: 0, more: false, last: 0, last_out: 0 }
    }

    /// Plaintext into `buffer`, which is not empty. `scratch` is for records; it is not kept.
    pub fn receive(&mut self, buffer: &mut [u8], scratch: &mut [u8]) -> Received {
        let mut count = 0;
        self.more = true;
        // A buffer with room for all that `scratch` and a record begun earlier can hold is filled
        // by one call of the kernel; a smaller one (a pace) must leave the rest where it is.
        let roomy = !scratch.is_empty() && buffer.len() >= scratch.len() + 2 * RECORD_MAX;
        loop {
            match self.take_plaintext(buffer, &mut count) {
                Some(Ok(())) => return Received::End(count, None),
                Some(Err(error)) => return Received::End(count, Some(error)),
                None if count == buffer.len() => return Received::Some(count),
                None => {}
            }
            if roomy && count > 0 {
                self.more = false;
                return Received::Some(count);
            }
            let fed = if roomy {
                match sockets::receive(&self.fd, scratch) {
                    Ok(Some(size)) => self.feed(&scratch[..size], buffer, &mut count),
                    Ok(None) => Ok(false),
                    Err(error) => Err(error),
                }
            } else {
                self.read_record()
            };
            match fed {
                Ok(true) => {}
                Ok(false) if count > 0 => return Received::Some(count),
                Ok(false) => {
                    self.more = false;
                    return Received::Blocked;
                }
                Err(error) => return Received::End(count, Some(error)),
            }
        }
    }

    /// Whatever plaintext there is. Some at the end of the stream.
    fn take_plaintext(&mut self, buffer: &mut [u8], count: &mut usize) -> Option<io::Result<()>> {
        while *count < buffer.len() {
            match self.conn.reader().read(&mut buffer[*count..]) {
                Ok(0) => return Some(Ok(())),
                Ok(size) => *count += size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // A FIN without close_notify: over TCP it is how many peers say that they end.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Some(Ok(())),
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    /// Decrypt `records`; at their end, which is the stream's where there are none.
    fn feed(&mut self, records: &[u8], buffer: &mut [u8], count: &mut usize) -> io::Result<bool> {
        let mut left = records;
        loop {
            self.conn.read_tls(&mut left)?;
            self.process()?;
            // Its end is met again by the caller.
            if self.take_plaintext(buffer, count).is_some() || left.is_empty() {
                return Ok(true);
            }
        }
    }

    /// One read from the socket; false where it would block.
    fn read_record(&mut self) -> io::Result<bool> {
        match self.conn.read_tls(&mut FdIo(&self.fd)) {
            Ok(_) => self.process().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn process(&mut self) -> io::Result<()> {
        match self.conn.process_new_packets() {
            Ok(_) => Ok(()),
            Err(error) => {
                // The peer is told why, if it still listens; not behind data, see `say_end`.
                if self.last == 0 {
                    let _ = self.flush();
                }
                Err(broken(error))
            }
        }
    }

    /// Give plaintext to `conn` as long as the kernel takes its records: how much was given. An
    /// error behind bytes that were given is left to the next call, so that they can be counted.
    pub fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut given = 0;
        loop {
            match self.flush() {
                Ok(true) if given < data.len() => {}
                Err(error) if given == 0 => return Err(error),
                _ => return Ok(given),
            }
            let size = self.conn.writer().write(&data[given..])?;
            given += size;
            self.last = size;
        }
    }

    /// Plaintext that was given and whose records the kernel has not taken whole: of a part of a
    /// record the peer can read nothing.
    pub fn untaken(&self) -> usize {
        self.last - in_whole_records(self.last, self.last_out, self.record_extra())
    }

    /// What a record adds to its plaintext: header, tag, and type (TLS 1.3) or nonce.
    fn record_extra(&self) -> usize {
        use CipherSuite::{
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 as ECDSA_CHACHA20,
            TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 as RSA_CHACHA20,
        };
        match self.conn.negotiated_cipher_suite().map(|suite| (suite.tls13(), suite.suite())) {
            Some((None, ECDSA_CHACHA20 | RSA_CHACHA20)) => 5 + 16,
            Some((None, _)) => 5 + 8 + 16,
            _ => 5 + 1 + 16,
        }
    }

    /// Give records to the kernel; false where it takes no more now.
    pub fn flush(&mut self) -> io::Result<bool> {
        while self.conn.wants_write() {
            match self.conn.write_tls(&mut FdIo(&self.fd)) {
                Ok(count) => self.last_out += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        (self.last, self.last_out) = (0, 0);
        Ok(true)
    }

    /// Say close_notify, as far as the kernel takes it. Not behind data that waits: that would go
    /// out with it, and be counted by nobody.
    pub fn say_end(&mut self) {
        if self.last == 0 {
            self.conn.send_close_notify();
            let _ = self.flush();
        }
    }

    /// One step of the handshake. Ok(None): done; else whether to wait until it can be written.
    pub fn shake_hands(&mut self) -> io::Result<Option<bool>> {
        loop {
            if !self.flush()? {
                return Ok(Some(true));
            }
            if !self.conn.is_handshaking() {
                return Ok(None);
            }
            match self.conn.read_tls(&mut FdIo(&self.fd)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.process()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(false)),
                Err(error) => return Err(error),
            }
        }
    }
}

/// How much of `given` plaintext is in records of which all is among the first `out` bytes.
fn in_whole_records(given: usize, out: usize, extra: usize) -> usize {
    if out >= given + given.div_ceil(RECORD_FULL) * extra {
        return given;
    }
    given.min(out / (RECORD_FULL + extra) * RECORD_FULL)
}

/// A socket as rustls wants it.
struct FdIo<'a>(&'a OwnedFd);

impl Read for FdIo<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        sockets::receive(self.0, buffer)?.ok_or(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for FdIo<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match sockets::send(self.0, data)? {
            0 if !data.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    /// Several records by one call of the kernel.
    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match sockets::send_parts(self.0, parts)? {
            0 if parts.iter().any(|part| !part.is_empty()) => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_records_count() {
        let (given, extra) = (2 * RECORD_FULL + 100, 22);
        let full = RECORD_FULL + extra;
        for (out, counted) in [
            (0, 0),
            (full - 1, 0),
            (full, RECORD_FULL),
            (2 * full + 99 + extra, 2 * RECORD_FULL),
            (2 * full + 100 + extra, given),
            // Something of the session's own came behind.
            (9 * full, given),
        ] {
            assert_eq!(in_whole_records(given, out, extra), counted, "{out}");
        }
        assert_eq!(in_whole_records(RECORD_FULL, full, extra), RECORD_FULL);
        assert_eq!(in_whole_records(0, 0, extra), 0);
    }
}
