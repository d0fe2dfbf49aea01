//! Tests through the real service.
