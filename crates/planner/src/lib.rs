//! plumb-planner
