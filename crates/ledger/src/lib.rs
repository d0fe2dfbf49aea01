//! plumb-ledger
