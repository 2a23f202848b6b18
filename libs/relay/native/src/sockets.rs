//! What the relay asks of a socket: options, receive, send, say the end. Non-blocking all through.

use std::io;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags};

const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 3;
/// A peer that acknowledges nothing for so long is dead: neither data, nor probes when it is idle
/// (the first probe after it goes unanswered 105 s after the last sign of life). It also ends a peer
/// that keeps its receive window shut for as long.
const USER_TIMEOUT_MS: u32 = 100_000;

/// What can be moved at once, and so what is held per direction at most.
pub const IN_FLIGHT_MAX: usize = 256 * 1024;

/// Non-blocking, and dead peers noticed. An option that cannot be set is no reason to fail: the
/// socket may be of another family, or reset meanwhile, and reading will tell.
pub fn prepare(fd: &OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(fd, true)?;
    let _ = sockopt::set_tcp_nodelay(fd, true);
    let _ = sockopt::set_socket_keepalive(fd, true);
    let _ = sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE);
    let _ = sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL);
    let _ = sockopt::set_tcp_keepcnt(fd, KEEPALIVE_PROBES);
    let _ = sockopt::set_tcp_user_timeout(fd, USER_TIMEOUT_MS);
    Ok(())
}

/// Whether the peer went silent, as against having reset the connection.
pub fn is_dead(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|number| {
        [Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::NETUNREACH]
            .iter()
            .any(|errno| errno.raw_os_error() == number)
    })
}

/// None where the call would block.
fn unless_blocked(result: rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// How many bytes came; Some(0) at the end of the stream.
pub fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    unless_blocked(rustix::net::recv(fd, buffer, RecvFlags::empty()).map(|(count, _)| count))
}

/// How many bytes the kernel took.
pub fn send(fd: &OwnedFd, data: &[u8]) -> io::Result<usize> {
    unless_blocked(rustix::net::send(fd, data, SendFlags::NOSIGNAL)).map(|n| n.unwrap_or(0))
}

/// As `send`; the kernel waits for more before it sends a packet that is not full.
pub fn send_more(fd: &OwnedFd, data: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
    unless_blocked(rustix::net::send(fd, data, flags)).map(|n| n.unwrap_or(0))
}

/// Send what waits for more.
pub fn push(fd: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(fd, true);
}

/// As `send`, from several places.
pub fn send_parts(fd: &OwnedFd, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut nothing = SendAncillaryBuffer::default();
    let sent = rustix::net::sendmsg(fd, parts, &mut nothing, SendFlags::NOSIGNAL);
    unless_blocked(sent).map(|n| n.unwrap_or(0))
}

/// Tell the peer that nothing more comes.
pub fn say_end(fd: &OwnedFd) -> io::Result<()> {
    Ok(rustix::net::shutdown(fd, Shutdown::Write)?)
}

/// The error that the kernel holds for this socket, taken from it.
pub fn pending_error(fd: &OwnedFd) -> Option<io::Error> {
    match sockopt::socket_error(fd) {
        Ok(Ok(())) | Err(_) => None,
        Ok(Err(errno)) => Some(errno.into()),
    }
}

/// Bytes on their way between two sockets that never come into this process.
#[derive(Debug)]
pub struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    pub held: usize,
}

impl Pipe {
    pub fn new() -> io::Result<Pipe> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)?;
        // The usual size will do where this user has no more.
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, IN_FLIGHT_MAX);
        Ok(Pipe { reader, writer, held: 0 })
    }

    /// Take up to `size` bytes from a socket; as `receive`. Only while nothing is held.
    pub fn fill(&mut self, fd: &OwnedFd, size: usize) -> io::Result<Option<usize>> {
        debug_assert_eq!(self.held, 0);
        let taken = unless_blocked(splice(fd, &self.writer, size))?;
        self.held = taken.unwrap_or(0);
        Ok(taken)
    }

    /// Give what is held to a socket; as `send`. An error behind bytes that were taken is left to
    /// the next call, so that they count.
    pub fn drain(&mut self, fd: &OwnedFd) -> io::Result<usize> {
        let mut given = 0;
        while self.held > 0 {
            match unless_blocked(splice(&self.reader, fd, self.held)) {
                Ok(None | Some(0)) => break,
                Ok(Some(count)) => {
                    self.held -= count;
                    given += count;
                }
                Err(error) if given == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(given)
    }
}

fn splice(from: impl AsFd, to: impl AsFd, size: usize) -> rustix::io::Result<usize> {
    rustix::pipe::splice(from, None, to, None, size, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)
}
