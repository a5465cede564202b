//! One run per rack.
