//! Whatever happens to a subscriber's stream, no index is sealed twice.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The end of the input in the middle of a step ends the run.
    let _ = sfu::fuzzing::egress(data);
});
