//! plumb-sim
