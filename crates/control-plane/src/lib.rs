//! plumb-control-plane
