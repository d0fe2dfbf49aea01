//! plumb-blueprint
