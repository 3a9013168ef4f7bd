//! Set-ups that cannot work.
