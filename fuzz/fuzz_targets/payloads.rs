//! Payloads are survived, rewritten in place, and headers hold what was put in.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The end of the input in the middle of a step ends the run.
    let _ = sfu::fuzzing::payloads(data);
});
