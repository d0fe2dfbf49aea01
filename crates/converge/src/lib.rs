//! plumb-converge
