//! System tests of Plumb.
