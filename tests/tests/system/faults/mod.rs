//! What breaks while a fleet of real processes works: programs that are killed or stand still, disks that fill up, networks that
//! delay, cut and go one way only, and callers who take more than their share.
//!
//! Where a test waits for time itself, its time is that of the product: a session is given up after 45 s of silence, a connection
//! after 40 s without an answer, an assignment that could not be stored is offered again after 30 s.

mod clocks;
mod crowd;
mod disk;
mod floods;
mod kills;
mod network;
mod proxy;
mod stops;
