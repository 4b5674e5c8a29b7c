//! Any session descriptions: answered or refused with a reason.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The end of the input in the middle of a step ends the run.
    let _ = signaling::fuzzing::descriptions(data);
});
