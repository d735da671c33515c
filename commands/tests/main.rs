//! Stories told to a session.
