//! Which machine gets which generation when, and what became of it: both ends of the session protocol, and the
//! folding of what agents report into the status that people read.
//!
//! Event in, effects out: nothing here opens a socket, sleeps, reads a clock or rolls dice. The agent's shell
//! drives the agent's end, the control plane's gateway the server's, and `sim` both.

pub mod protocol;
