//! plumb-dispatch
