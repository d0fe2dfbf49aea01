//! Machines and by what they are known, with real processes: added with ssh, installed, removed, copied; the CA replaced.

mod adding;
mod fleet;
