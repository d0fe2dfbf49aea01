//! plumb-driver
