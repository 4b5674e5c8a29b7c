//! What the other end of a line between nodes says on it: it may lose the line, and nothing fails.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Never ends early.
    let _ = sfu::fuzzing::words(data);
});
