//! The byte relay outside Python: threads that move bytes between pairs of sockets, follow frames,
//! keep deadlines, and end tunnels in order. `handoff_relay.interface` says what a relay promises;
//! `handoff_relay.native` is the Python side of this one.

pub mod frames;
pub mod pace;
pub mod port;
pub mod sockets;
pub mod stream;
pub mod wheel;

mod context;
pub mod engine;
mod python;
mod python_tls;
pub mod tls;
mod tunnel;
